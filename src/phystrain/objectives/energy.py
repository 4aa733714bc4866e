"""Squared error of the energy per atom."""

from typing import ClassVar, Literal

from phystrain.labels import Batch
from phystrain.objectives import Evaluator, Objective, Term
from phystrain.objectives._errors import energy_term


class Config(Objective):
    """((E - E_reference) / atoms)², (eV/atom)², summed over the structures with an energy label.

    Dividing by the number of atoms gives every structure the same say, whatever its size.
    """

    kind: Literal["energy"] = "energy"
    needs: ClassVar[frozenset[str]] = frozenset({"energy"})

    def __call__(self, batch: Batch, model: Evaluator) -> Term:
        """Sum over labelled structures; the count is their number."""
        return energy_term(batch, model, batch.graph)

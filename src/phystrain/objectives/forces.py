"""Squared error of the force components."""

from typing import ClassVar, Literal

from phystrain.labels import Batch
from phystrain.objectives import Evaluator, Objective, Term
from phystrain.objectives._errors import forces_term


class Config(Objective):
    """(F - F_reference)², (eV/Å)², summed over all labelled force components.

    Every component counts alike, so a large structure has more say than a small one.
    """

    kind: Literal["forces"] = "forces"
    needs: ClassVar[frozenset[str]] = frozenset({"forces"})

    def __call__(self, batch: Batch, model: Evaluator) -> Term:
        """Sum over labelled components; the count is their number, three for an atom."""
        return forces_term(batch, model, batch.graph)

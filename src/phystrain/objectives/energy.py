"""Squared error of the energy per atom."""

from typing import ClassVar, Literal

import torch

from phystrain.labels import Batch
from phystrain.objectives import Evaluator, Objective, Term, masked_sum


class Config(Objective):
    """((E - E_reference) / atoms)², (eV/atom)², summed over the structures with an energy label.

    Dividing by the number of atoms gives every structure the same say, whatever its size.
    """

    kind: Literal["energy"] = "energy"
    needs: ClassVar[frozenset[str]] = frozenset({"energy"})

    def __call__(self, batch: Batch, model: Evaluator) -> Term:
        """Sum over labelled structures; the count is their number."""
        reference = batch.labels.energy
        labelled = ~torch.isnan(reference)
        energy = model.predict(batch.graph, ("energy",)).energy
        assert energy is not None
        # chosen before the subtraction: a NaN that is masked afterwards still reaches the gradient
        difference = (energy - torch.where(labelled, reference, energy.detach())) / batch.graph.atoms_per_system
        return masked_sum(difference.square(), batch.labels.weight, labelled)

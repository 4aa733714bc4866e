"""Squared error of the force components."""

from typing import ClassVar, Literal

import torch

from phystrain.labels import Batch
from phystrain.objectives import Evaluator, Objective, Term, masked_sum


class Config(Objective):
    """(F - F_reference)², (eV/Å)², summed over all labelled force components.

    Every component counts alike, so a large structure has more say than a small one.
    """

    kind: Literal["forces"] = "forces"
    needs: ClassVar[frozenset[str]] = frozenset({"forces"})

    def __call__(self, batch: Batch, model: Evaluator) -> Term:
        """Sum over labelled components; the count is their number, three for an atom."""
        reference = batch.labels.forces
        labelled = ~torch.isnan(reference)
        forces = model.predict(batch.graph, ("forces",)).forces
        assert forces is not None
        # chosen before the subtraction: a NaN that is masked afterwards still reaches the gradient
        difference = forces - torch.where(labelled, reference, forces.detach())
        return masked_sum(difference.square(), batch.labels.weight[batch.graph.system], labelled)

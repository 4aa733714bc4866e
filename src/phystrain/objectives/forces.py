"""Squared error of the force components."""

from typing import Literal

import torch
from pydantic import Field

from phystrain.labels import Batch
from phystrain.objectives import Evaluator, Objective, Term, masked_sum


class Config(Objective):
    """(F - F_reference)², (eV/Å)², summed over all labelled force components.

    Every component counts alike, so a large structure has more say than a small one.

    With ``of: guide`` the forces of the stage's guide take the place of the reference, on the atoms that have no
    reference forces: those of a lower level of theory, say, beside energies of a higher one. They are no labels, and
    so such a term counts neither among what the data must hold nor in validation.
    """

    kind: Literal["forces"] = "forces"
    of: Literal["labels", "guide"] = Field(
        "labels", description="reference forces, or those of the stage's guide where there are no reference forces"
    )

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]  # the class attribute of the others
        return frozenset({"forces"} if self.of == "labels" else ())

    def __call__(self, batch: Batch, model: Evaluator) -> Term:
        """Sum over labelled components; the count is their number, three for an atom."""
        reference = batch.labels.forces
        if self.of == "guide":
            guide = batch.labels.guide
            unknown = torch.full_like(reference, torch.nan)
            reference = torch.where(torch.isnan(reference), unknown if guide is None else guide, unknown)
        labelled = ~torch.isnan(reference)
        forces = model.predict(batch.graph, ("forces",)).forces
        assert forces is not None
        # chosen before the subtraction: a NaN that is masked afterwards still reaches the gradient
        difference = forces - torch.where(labelled, reference, forces.detach())
        return masked_sum(difference.square(), batch.labels.weight[batch.graph.system], labelled)

"""Squared error of the force components."""

from typing import Literal

import torch
from pydantic import Field

from phystrain.graph import AtomGraph
from phystrain.labels import Batch
from phystrain.objectives import Evaluator, Objective, Term
from phystrain.objectives._errors import forces_term


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
    def needs(self) -> frozenset[str]:
        """Force labels, unless a guide gives them."""
        return frozenset({"forces"} if self.of == "labels" else ())

    def asks_forces_of(self, batch: Batch, model: Evaluator) -> list[AtomGraph]:  # noqa: ARG002
        """The structures themselves."""
        return [batch.graph]

    def __call__(self, batch: Batch, model: Evaluator) -> Term:
        """Sum over labelled components; the count is their number, three for an atom."""
        labels = batch.labels
        if self.of == "guide":
            unknown = torch.full_like(labels.forces, torch.nan)
            guide = unknown if labels.guide is None else labels.guide
            forces = torch.where(torch.isnan(labels.forces), guide, unknown)
            batch = batch._replace(labels=labels._replace(forces=forces))
        return forces_term(batch, model, batch.graph)

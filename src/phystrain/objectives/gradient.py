"""Gradient consistency: the forces of a direct head must be minus the gradient of the energy."""

from typing import Literal

import torch
from pydantic import Field

from phystrain.graph import AtomGraph
from phystrain.labels import Batch
from phystrain.objectives import Evaluator, Term, masked_sum
from phystrain.objectives._anchor import guide_of, of_model
from phystrain.objectives._taylor import Consistency


class Config(Consistency):
    """(dE/dr + F)², (eV/Å)², summed over components: what is left of PITC as the displacement goes to zero.

    For potentials with a direct force head, whose energy is otherwise learnt from one label a structure. PITC compares
    energy and forces along one random direction for a pass; here all directions are compared at once, for a gradient
    of the pass that there is (with ``part``, of one of its own). No displaced copy, no neglected order, no displacement
    to choose. The limit of arXiv 2408.05215, PITC loss, with ``centre: false``: centred displacements do not see a net
    force of the head, which is asked to vanish here.

    Attributes:
        anchor: F: ``model``: the forces of the head, which are then told by the energy, too; ``label``: the
            reference's, other atoms do not count; ``auto``: the reference's where there are, else the head's;
            ``guide``: forces from outside the network, other atoms do not count.
        detach: no gradient through F; the head then changes only as far as energy and head share features.
    """

    kind: Literal["gradient"] = "gradient"
    anchor: Literal["model", "label", "auto", "guide"] = Field(
        default="model", description="forces to compare with; auto takes labels where there are, else the head's"
    )

    @property
    def needs(self) -> frozenset[str]:
        """Forces, if they are the anchor."""
        return frozenset({"forces"}) if self.anchor == "label" else frozenset()

    @property
    def asks(self) -> frozenset[str]:
        """The gradient beside the forces."""
        return frozenset({"gradient"})

    def asks_forces_of(self, batch: Batch, model: Evaluator) -> list[AtomGraph]:  # noqa: ARG002
        """The structures themselves."""
        return [batch.graph]

    def __call__(self, batch: Batch, model: Evaluator) -> Term:
        """Sum over components; the count is their number, three for an atom whose force is known."""
        labels = batch.labels
        gradient = model.gradient(batch.graph)  # first: a part of a batch then has its forces from the same pass
        given = guide_of(batch) if self.anchor == "guide" else labels.forces
        if self.anchor == "model":
            given = torch.full_like(given, torch.nan)
        known = ~torch.isnan(given)
        forces = torch.nan_to_num(given)
        if self.anchor in ("auto", "model"):
            own = of_model(model, batch.graph).forces()
            forces = torch.where(known, given, own.detach() if self.detach else own)
            known = torch.ones_like(known)
        return masked_sum((gradient + forces).square(), labels.weight[batch.graph.system], known)

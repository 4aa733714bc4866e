"""What the weak losses share: energy and forces must agree along a step.

All ask the same of a pair of structures, a start and an end: that the energy at the end is the energy at the start
minus the work of the forces on the way. They differ in where they start, and in what they compare.

Source: Takamoto, Zaverkin, Niepert, ICML 2025, arXiv:2408.05215.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from phystrain.graph import AtomGraph
from phystrain.labels import Batch
from phystrain.objectives import Evaluator, Objective, Term, Weight, masked_sum
from phystrain.objectives._anchor import NEEDS, Anchor, Point
from phystrain.objectives._displacement import Displacing, displaced


class Consistency(Objective):
    """Base of losses that ask a potential to agree with itself.

    Attributes:
        weight: ``auto`` by default: at a weight of one a residual of an meV/atom, squared, is nothing beside the labels
            and changes nothing (docs/decisions.md).
        detach: no gradient through the weak label, only through what is compared with it.
    """

    weight: Weight = Field(
        default="auto", description="factor of the mean in the loss; auto holds it at a share of those with labels"
    )
    detach: bool = Field(default=False, description="no gradient through the weak label")

    @property
    def validated(self) -> bool:
        """No: on held-out structures it says nothing that their labels do not say better."""
        return False


class Residual(Consistency):
    """Base of losses made of one residual for each structure, an energy.

    Attributes:
        per_atom: divide the residual by the number of atoms; false: total energy, as published.
        norm: ``squared``: (eV/atom)²; ``absolute``: eV/atom, less moved by structures with large residuals.
    """

    per_atom: bool = Field(default=True, description="residual per atom; false: of the total energy, as published")
    norm: Literal["squared", "absolute"] = Field(default="squared", description="what is summed over structures")


class WeakObjective(Residual, Displacing):
    """Base of the weak losses of a Taylor step. Energies are compared within each structure.

    Attributes:
        k: share of the forces at the end of the step, 0 to 1/2. The residual is of second order in the displacement
            for k < 1/2 and of third for k = 1/2. Below 1/2 it contains the curvature of the energy itself, which the
            loss then drives to zero.
        anchor: where energy and forces of the undisplaced structure come from (:func:`._anchor.of_anchor`).
    """

    k: float = Field(default=0.5, ge=0, le=0.5, description="share of the forces at the end of the step")
    anchor: Anchor = Field(default="model", description="source of energy and forces of the undisplaced structure")

    @property
    def needs(self) -> frozenset[str]:
        """Labels that the anchor consists of."""
        return NEEDS[self.anchor]


def forces_asked_of(
    batch: Batch, model: Evaluator, settings: WeakObjective, copies: int, *, start: bool
) -> list[AtomGraph]:
    """Structures whose forces a Taylor step asks for: copies, and the undisplaced ones where the potential is asked.

    None where the weak label is detached: forces that nothing is differentiated through are cheaper apart.
    """
    if settings.detach or not settings.is_random:
        return []
    undisplaced = [batch.graph] * (start and settings.anchor in ("model", "auto"))
    return undisplaced + [displaced(batch, model, settings, draw) for draw in range(copies)] * (settings.k > 0)


def extrapolation(start: Point, end: Point, k: float) -> Float[Tensor, " systems"]:
    """Energy at the end of a step from energy and forces: E(start) - <step, (1 - k) F(start) + k F(end)>.

    Args:
        start: the structures before the step.
        end: the same structures after it; its energies are not used.
        k: share of the forces at the end; if zero they are not evaluated.

    Returns:
        (systems,) eV, float64.

    Source: arXiv:2408.05215, the Taylor expansion; k = 1/2 is the trapezoidal rule for the work.
    """
    forces = start.forces()
    if k > 0:
        forces = (1 - k) * forces + k * end.forces()
    return start.energy() - work(start, end, forces)


def work(start: Point, end: Point, forces: Float[Tensor, "atoms 3"]) -> Float[Tensor, " systems"]:
    """<step, forces>, eV, summed over the atoms of each structure.

    In float64: the terms that cancel are far larger than what they leave.
    """
    step = end.graph.positions.detach().to(torch.float64) - start.graph.positions.detach().to(torch.float64)
    return start.graph.sum_per_system((step * forces).sum(dim=1))


def residual_term(
    batch: Batch,
    settings: Residual,
    reached: Float[Tensor, " systems"],
    label: Float[Tensor, " systems"],
    counted: Bool[Tensor, " systems"],
) -> Term:
    """Squared or absolute residual, summed over structures.

    Args:
        batch: gives the weight of each structure.
        settings: ``per_atom``, ``norm``, ``detach``.
        reached: (systems,) eV, what is compared.
        label: (systems,) eV, the weak label; constant if ``detach``.
        counted: (systems,) which structures count.

    Returns:
        The sum and the number of structures.
    """
    residual = reached - (label.detach() if settings.detach else label)
    if settings.per_atom:
        residual = residual / batch.graph.atoms_per_system
    value = residual.square() if settings.norm == "squared" else residual.abs()
    return masked_sum(value, batch.labels.weight, counted)

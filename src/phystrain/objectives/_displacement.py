"""What the weak losses share: random displacements and the consistency of energy and forces along a step.

Both losses ask the same of a pair of structures, a start and an end: that the energy at the end is the energy at the
start minus the work of the forces on the way. They differ in where they start.

Source: Takamoto, Zaverkin, Niepert, ICML 2025, arXiv:2408.05215.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from phystrain.graph import AtomGraph
from phystrain.labels import Batch
from phystrain.noise import index_in_system, uniform
from phystrain.objectives import Evaluator, Objective, Term, masked_sum

_STREAM = 0x64697370  # keeps these numbers apart from others that are drawn from the same key


class WeakObjective(Objective):
    """Base of the weak losses: squared residual of a step, in (eV/atom)², summed over all structures.

    No label enters, so structures without labels count too. Energies are compared within each structure.

    Attributes:
        displacement: Å, size of the random displacements, delta below.
        distribution: ``uniform``: every Cartesian component is uniform on [-delta, delta], so that an atom moves
            delta in the root mean square and sqrt(3) delta at most; ``fixed``: every atom moves by exactly delta
            (before centring) in a random direction.
        centre: take the mean displacement out of every structure; a lone atom then stays where it is.
        cap: in each structure delta is made smaller where it must be, so that no atom moves by more than this times
            the shortest distance in that structure, periodic images included (before centring).
        k: share of the forces at the end of the step, 0 to 1/2. The residual is of second order in the displacement
            for k < 1/2 and of third for k = 1/2. Below 1/2 it contains the curvature of the energy itself, which the
            loss then drives to zero.
        per_atom: divide the residual by the number of atoms; false: total energy, as published.
        detach: no gradient through the weak label, only through the energy at the end of the step.
    """

    displacement: float = Field(default=0.05, gt=0)
    distribution: Literal["uniform", "fixed"] = "uniform"
    centre: bool = True
    cap: float = Field(default=0.3, gt=0, lt=0.5)
    k: float = Field(default=0.5, ge=0, le=0.5)
    per_atom: bool = True
    detach: bool = False

    @property
    def stretch(self) -> float:
        """Largest displacement of an atom, before centring, over delta."""
        return math.sqrt(3) if self.distribution == "uniform" else 1.0

    @property
    def reach(self) -> float:
        """Å, largest displacement of an atom before centring, which changes no distance."""
        return self.stretch * self.displacement


def displacements(
    graph: AtomGraph, key: Int[Tensor, " systems"], settings: WeakObjective, draw: int
) -> Float[Tensor, "atoms 3"]:
    """Random displacements that depend on each structure and its key alone.

    Args:
        graph: the structures.
        key: (systems,) random stream of each structure.
        settings: size and distribution.
        draw: number of the draw; other numbers give independent displacements.

    Returns:
        (atoms, 3) Å, without gradient, in the type of the positions.
    """
    system = graph.system
    atom = index_in_system(system, graph.atoms_per_system)
    component = torch.arange(3, device=system.device)
    numbers = 2 * uniform(key[system, None], _STREAM, draw, atom[:, None], component) - 1  # (atoms, 3) on [-1, 1)
    if settings.distribution == "fixed":
        numbers = _directions(numbers)
    moves = numbers * _amplitudes(graph, settings)[system, None]
    if settings.centre:
        moves = moves - (graph.sum_per_system(moves) / graph.atoms_per_system[:, None])[system]
    return moves.to(graph.positions.dtype)


def _directions(numbers: Float[Tensor, "atoms 3"]) -> Float[Tensor, "atoms 3"]:
    """Unit vectors spread evenly over the sphere, from two numbers on [-1, 1): height and angle."""
    height, angle = numbers[:, 0], math.pi * numbers[:, 1]
    radius = torch.sqrt(1 - height.square())
    return torch.stack([radius * torch.cos(angle), radius * torch.sin(angle), height], dim=1)


def _amplitudes(graph: AtomGraph, settings: WeakObjective) -> Float[Tensor, " systems"]:
    """(systems,) Å: delta, or less where the shortest distance of the structure demands it."""
    distances = graph.distances.detach().to(torch.float64)
    shortest = distances.new_full((graph.n_systems,), torch.inf)
    shortest = shortest.scatter_reduce(0, graph.system[graph.edges[0]], distances, "amin")
    return (settings.cap / settings.stretch * shortest).clamp(max=settings.displacement)


def displaced(batch: Batch, model: Evaluator, settings: WeakObjective, draw: int) -> AtomGraph:
    """The displaced copy of a batch, the same object for all objectives that displace alike.

    So that a pass through it is made once. The displacement is the difference of the two sets of positions, which
    is what the structures have after rounding.

    Args:
        batch: structures and keys.
        model: keeps the copy.
        settings: size and distribution; objectives share a copy if these are equal.
        draw: as in :func:`displacements`.
    """
    name = ("displaced", batch.graph, settings.displacement, settings.distribution, settings.centre, settings.cap, draw)
    return model.shared(name, lambda: batch.graph.displaced(displacements(batch.graph, batch.key, settings, draw)))


def weak_label(model: Evaluator, start: AtomGraph, end: AtomGraph, k: float) -> Float[Tensor, " systems"]:
    """Energy at the end of a step from energy and forces: E(start) - <step, (1 - k) F(start) + k F(end)>.

    Args:
        model: energies and forces.
        start: the structures before the step.
        end: the same structures after it.
        k: share of the forces at the end; if zero they are not evaluated.

    Returns:
        (systems,) eV, float64.

    Source: arXiv:2408.05215, the Taylor expansion; k = 1/2 is the trapezoidal rule for the work.
    """
    first = model.predict(start, ("energy", "forces"))
    assert first.energy is not None
    assert first.forces is not None
    forces = first.forces
    if k > 0:
        last = model.predict(end, ("forces",)).forces
        assert last is not None
        forces = (1 - k) * forces + k * last
    # float64: the terms that cancel are far larger than what they leave
    step = end.positions.detach().to(torch.float64) - start.positions.detach().to(torch.float64)
    return first.energy - start.sum_per_system((step * forces).sum(dim=1))


def step_term(batch: Batch, model: Evaluator, settings: WeakObjective, start: AtomGraph, end: AtomGraph) -> Term:
    """Squared residual of the step from ``start`` to ``end``, summed over structures.

    Args:
        batch: gives the weight of each structure.
        model: energies and forces.
        settings: ``k``, ``per_atom``, ``detach``.
        start: the structures before the step.
        end: the same structures after it.

    Returns:
        The sum, (eV/atom)² or eV², and the number of structures.
    """
    energy = model.predict(end, ("energy",)).energy
    assert energy is not None
    label = weak_label(model, start, end, settings.k)
    residual = energy - (label.detach() if settings.detach else label)
    if settings.per_atom:
        residual = residual / batch.graph.atoms_per_system
    return masked_sum(residual.square(), batch.labels.weight, torch.ones_like(residual, dtype=torch.bool))

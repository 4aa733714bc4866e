"""Displaced copies of structures: how far, in which direction, which atoms. Shared by all that displaces.

Random numbers are a function of the structure's key, so that a displacement depends on nothing else in the batch.

Source: Takamoto, Zaverkin, Niepert, ICML 2025, arXiv:2408.05215, for all but ``fixed`` and the limits.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from phystrain.graph import AtomGraph
from phystrain.labels import Batch
from phystrain.noise import index_in_system, normal, uniform
from phystrain.objectives import Evaluator, Objective
from phystrain.objectives._adversarial import against_energy_and_forces, against_forces

_STREAM = 0x64697370  # keeps these numbers apart from others that are drawn from the same key
_MASK = 0x6D61736B

_STRETCH = {
    "uniform": math.sqrt(3),
    "fixed": 1.0,
    "structure": 3.0,
    "adversarial_force": 1.0,
    "adversarial_gradient": 3.0,
}
"""Largest displacement of an atom, before centring, over delta. A vector that is normalised over a whole structure
may be all in one atom; it is then shortened to this, which random ones of a thousand atoms hardly ever are."""

_OVER_STRUCTURE = ("structure", "adversarial_gradient")
"""Distributions that are normalised over a whole structure."""


class Displacing(Objective):
    """Base of objectives that look at displaced copies.

    Attributes:
        displacement: Å, delta: what an atom moves in the root mean square (before centring).
        distribution: ``uniform``: every Cartesian component is uniform on [-delta, delta], so that an atom moves
            sqrt(3) delta at most. ``fixed``: every atom moves by exactly delta in a random direction. ``structure``:
            delta sqrt(n) g / ||g|| with a normal g and the norm over the n atoms of the structure.
            ``adversarial_gradient``: the same with g the gradient, with respect to positions, of the squared error of
            the potential. ``adversarial_force``: every atom moves by delta against the error of its force. Without
            the labels these need, or where the error vanishes, structures and atoms move at random, like
            ``structure`` and ``fixed``. Only the first displacement of a structure is adversarial.
        adversary: error that ``adversarial_gradient`` climbs: that of the energy per atom, that of the forces (mean
            over components; a second derivative more), or their sum in eV and Å.
        fraction: share of the atoms that move; each is chosen at random on its own.
        centre: take the mean displacement out of every structure; a lone atom then stays where it is.
        cap: in each structure delta is made smaller where it must be, so that no atom can move by more than this
            times the shortest distance in that structure, periodic images included (before centring).
    """

    displacement: float = Field(default=0.05, gt=0, description="size of the displacements, Å")
    distribution: Literal["uniform", "fixed", "structure", "adversarial_gradient", "adversarial_force"] = Field(
        default="uniform", description="how displacements are spread; adversarial ones use labels"
    )
    adversary: Literal["energy", "forces", "both"] = Field(
        default="both", description="error whose gradient is followed by distribution: adversarial_gradient"
    )
    fraction: float = Field(default=1.0, gt=0, le=1, description="share of the atoms that move")
    centre: bool = Field(default=True, description="take out the mean displacement of a structure")
    cap: float = Field(
        default=0.3, gt=0, lt=0.5, description="largest displacement over the shortest distance of the structure"
    )

    @property
    def stretch(self) -> float:
        """Largest displacement of an atom, before centring, over delta."""
        return _STRETCH[self.distribution]

    @property
    def reach(self) -> float:
        """Å, largest displacement of an atom before centring, which changes no distance."""
        return self.stretch * self.displacement

    @property
    def is_random(self) -> bool:
        """Whether displacements are made without a look at what the potential predicts."""
        return not self.distribution.startswith("adversarial")

    @property
    def uses(self) -> frozenset[str]:
        """Labels that adversarial displacements follow."""
        if self.distribution == "adversarial_force":
            return frozenset({"forces"})
        if self.distribution == "adversarial_gradient" and self.adversary != "both":
            return frozenset({self.adversary})
        return frozenset()


def displaced(batch: Batch, model: Evaluator, settings: Displacing, draw: int, sign: int = 1) -> AtomGraph:
    """The displaced copy of a batch, the same object for all objectives that displace alike.

    So that a pass through it is made once. The displacement is the difference of the two sets of positions, which
    is what the structures have after rounding.

    Args:
        batch: structures, labels (for adversarial displacements) and keys.
        model: keeps the copy.
        settings: size and distribution; objectives share a copy if these are equal.
        draw: as in :func:`displacements`; only draw 0 is adversarial.
        sign: -1 for the copy on the other side.
    """
    fields = tuple(getattr(settings, name) for name in Displacing.model_fields if name not in Objective.model_fields)

    def make() -> AtomGraph:
        moves = displacements(batch.graph, batch.key, settings, draw, _lean(batch, model, settings, draw))
        return batch.graph.displaced(sign * moves)

    return model.shared(("displaced", batch.graph, fields, draw, sign), make)


def _lean(batch: Batch, model: Evaluator, settings: Displacing, draw: int) -> Float[Tensor, "atoms 3"] | None:
    """Directions that are not random."""
    if draw > 0:
        return None
    if settings.distribution == "adversarial_force":
        return against_forces(batch, model)
    if settings.distribution == "adversarial_gradient":
        return against_energy_and_forces(batch, model, settings.adversary)
    return None


def displacements(
    graph: AtomGraph,
    key: Int[Tensor, " systems"],
    settings: Displacing,
    draw: int,
    lean: Float[Tensor, "atoms 3"] | None = None,
) -> Float[Tensor, "atoms 3"]:
    """Displacements that depend on each structure and its key alone.

    Args:
        graph: the structures.
        key: (systems,) random stream of each structure.
        settings: size and distribution.
        draw: number of the draw; other numbers give independent displacements.
        lean: (atoms, 3) directions to take instead of random ones, of any length; zero where there is none.

    Returns:
        (atoms, 3) Å, without gradient, in the type of the positions.
    """
    system = graph.system
    atom = index_in_system(system, graph.atoms_per_system)
    streams = (key[system, None], _STREAM, draw, atom[:, None], torch.arange(3, device=system.device))
    moving = torch.ones_like(streams[3], dtype=torch.bool)  # (atoms, 1)
    if settings.fraction < 1:
        moving = uniform(key[system, None], _MASK, draw, atom[:, None]) < settings.fraction
    if settings.distribution in _OVER_STRUCTURE:
        numbers = _over_structure(graph, normal(*streams), moving, lean)
    else:
        numbers = 2 * uniform(*streams) - 1  # (atoms, 3) on [-1, 1)
        if settings.distribution != "uniform":
            numbers = _over_atom(_directions(numbers), lean)
        numbers = torch.where(moving, numbers, torch.zeros_like(numbers))
    moves = numbers * _amplitudes(graph, settings)[system, None]
    if settings.centre:
        moves = moves - (graph.sum_per_system(moves) / graph.atoms_per_system[:, None])[system]
    return moves.to(graph.positions.dtype)


def _directions(numbers: Float[Tensor, "atoms 3"]) -> Float[Tensor, "atoms 3"]:
    """Unit vectors spread evenly over the sphere, from two numbers on [-1, 1): height and angle."""
    height, angle = numbers[:, 0], math.pi * numbers[:, 1]
    radius = torch.sqrt(1 - height.square())
    return torch.stack([radius * torch.cos(angle), radius * torch.sin(angle), height], dim=1)


def _over_atom(directions: Float[Tensor, "atoms 3"], lean: Float[Tensor, "atoms 3"] | None) -> Float[Tensor, "atoms 3"]:
    """The random unit vectors, or those along ``lean`` where it is not zero."""
    if lean is None:
        return directions
    length = torch.linalg.vector_norm(lean, dim=1, keepdim=True)
    return torch.where(length > 0, lean / torch.where(length > 0, length, 1), directions)


def _over_structure(
    graph: AtomGraph,
    numbers: Float[Tensor, "atoms 3"],
    moving: Tensor,
    lean: Float[Tensor, "atoms 3"] | None,
) -> Float[Tensor, "atoms 3"]:
    """Vectors whose root mean square over the moving atoms of each structure is one, cut to the largest allowed."""
    system, chosen = graph.system, moving.to(numbers.dtype)
    if lean is not None:
        along = graph.sum_per_system((lean * chosen).square().sum(dim=1)) > 0
        numbers = torch.where(along[system, None], lean, numbers)
    numbers = numbers * chosen
    lengths = torch.linalg.vector_norm(numbers, dim=1)
    largest = lengths.new_zeros(graph.n_systems).scatter_reduce(0, system, lengths, "amax")
    mean = torch.sqrt(graph.sum_per_system(lengths.square()) / graph.sum_per_system(chosen[:, 0]).clamp(min=1))
    unit = torch.maximum(mean, largest / _STRETCH["structure"])
    return numbers / torch.where(unit > 0, unit, 1)[system, None]


def _amplitudes(graph: AtomGraph, settings: Displacing) -> Float[Tensor, " systems"]:
    """(systems,) Å: delta, or less where the shortest distance of the structure demands it."""
    distances = graph.distances.detach().to(torch.float64)
    shortest = distances.new_full((graph.n_systems,), torch.inf)
    shortest = shortest.scatter_reduce(0, graph.system[graph.edges[0]], distances, "amin")
    stretch = torch.full_like(shortest, settings.stretch)
    if settings.distribution in _OVER_STRUCTURE:  # few atoms cannot be that uneven
        stretch = torch.minimum(stretch, torch.sqrt(graph.atoms_per_system.to(stretch.dtype)))
    return (settings.cap / stretch * shortest).clamp(max=settings.displacement)

"""Two atoms alone at short distances, which no data hold: the least and the most that they may repel one another."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from phystrain.fitting._parameters import Pair
from phystrain.graph import AtomGraph
from phystrain.layers.pair import REPULSIVE, covalent_distance
from phystrain.layers.zbl import EXPONENT, LENGTH, screened_force

WALL_FROM, WALL_TO, WALL_POINTS = 0.3, REPULSIVE, 12
"""Where two atoms must repel, as fractions of the sum of their covalent radii."""

WALL_MARGIN, WALL_WEIGHT = 0.1, 10.0
"""The least force of a wall in units of the force scale, and the weight of what it lacks, squared."""

CEILING, CEILING_POINTS, CEILING_WEIGHT = 2.0, 6, 0.05
"""Two atoms nearer than half-way to the shortest distance of the data must not repel harder than so many times their
screened nuclei do (:mod:`phystrain.layers.zbl`); the weight of the squared logarithm of what is more. Densities that
grow exponentially explode where the data end: on a lithium manganese oxide without peroxide the held-out peroxide had
forces of thousands of eV/Å."""


def walls_of(
    shortest: Mapping[Pair, float], cutoff: float, force_scale: float
) -> tuple[AtomGraph, Float[Tensor, "atoms 3"], Float[Tensor, "atoms 3"], Float[Tensor, "atoms 3"]]:
    """What a fit holds two atoms of every pair to.

    Args:
        shortest: Å by pair of the data.
        cutoff: Å, of the neighbour lists.
        force_scale: eV/Å, a usual force.

    Returns:
        The atoms; limits (eV/Å) of the forces on them; factors of what is beyond, zero except for the force on the
        second atom along x; kinds of limit, 1 for a least force and -1 for a greatest one.
    """
    pairs = sorted(shortest)
    walls = dimers(pairs, np.linspace(WALL_FROM, WALL_TO, WALL_POINTS), cutoff)
    least = torch.full((walls.n_systems,), WALL_MARGIN * force_scale, dtype=torch.float64)
    covalent = np.array([covalent_distance(*pair) for pair in pairs])
    low, found = WALL_TO * covalent, np.array([shortest[pair] for pair in pairs])
    # half-way to the data only: near them a pair may repel as it likes, for embedding pulls the other way
    grid = np.linspace(low, np.maximum((low + found) / 2, low), CEILING_POINTS, axis=1)
    ceilings = dimers(pairs, grid / covalent[:, None], cutoff)
    most = (CEILING * nuclear_force(ceilings)).clamp(min=force_scale)
    graph = AtomGraph.concatenate([walls, ceilings])
    limit, scale, kind = (torch.zeros(graph.n_atoms, 3, dtype=torch.float64) for _ in range(3))
    limit[1::2, 0] = torch.cat([least, most])
    kind[1::2, 0] = torch.cat([torch.ones_like(least), -torch.ones_like(most)])
    scale[1::2, 0] = torch.cat(
        [
            torch.full_like(least, (WALL_WEIGHT / len(least)) ** 0.5 / force_scale),
            torch.full_like(most, (CEILING_WEIGHT / len(most)) ** 0.5),
        ]
    )
    return graph, limit, scale, kind


def nuclear_force(graph: AtomGraph) -> Float[Tensor, " systems"]:
    """(systems,) eV/Å, with which the screened nuclei of two atoms each repel; ``graph`` of :func:`dimers`."""
    numbers = graph.species.reshape(-1, 2).to(torch.float64)
    distance = graph.positions[1::2, 0]
    return screened_force(distance, numbers.prod(dim=1), LENGTH / (numbers**EXPONENT).sum(dim=1))


def dimers(pairs: list[tuple[int, int]], fractions: npt.NDArray[np.float64], cutoff: float) -> AtomGraph:
    """Two atoms in vacuum along x for every pair and every distance, those of a pair one after the other.

    Args:
        pairs: atomic numbers.
        fractions: (distances,) of the sum of covalent radii, or (pairs, distances).
        cutoff: Å, of the neighbour list.
    """
    covalent = np.array([covalent_distance(*pair) for pair in pairs])
    distance = (np.broadcast_to(fractions, (len(pairs), fractions.shape[-1])) * covalent[:, None]).ravel()
    n = len(distance)
    positions = np.zeros((2 * n, 3))
    positions[1::2, 0] = distance
    near = np.flatnonzero(distance < cutoff)
    ends = np.stack([2 * near, 2 * near + 1])
    edges = np.concatenate([ends, ends[::-1]], axis=1)
    return AtomGraph(
        positions=torch.from_numpy(positions),
        species=torch.from_numpy(np.repeat(np.array(pairs, dtype=np.int64), fractions.shape[-1], axis=0).ravel()),
        system=torch.arange(n).repeat_interleave(2),
        cell=torch.zeros(n, 3, 3, dtype=torch.float64),
        pbc=torch.zeros(n, 3, dtype=torch.bool),
        edges=torch.from_numpy(edges),
        shifts=torch.zeros(edges.shape[1], 3, dtype=torch.float64),
        cutoff=cutoff,
    )

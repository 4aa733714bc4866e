"""The universal screened repulsion of nuclei, for short distances that no training set holds.

Source: Ziegler, Biersack, Littmark, The Stopping and Range of Ions in Matter, Pergamon 1985.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from phystrain.layers.pair import SpeciesPairs, covalent_distance, smooth_cutoff
from phystrain.statistics import Statistics, pair_name
from phystrain.units import COULOMB

AMPLITUDES = (0.18175, 0.50986, 0.28022, 0.02817)
DECAYS = (3.19980, 0.94229, 0.40290, 0.20162)
LENGTH = 0.46850  # Å
EXPONENT = 0.23


def screened_repulsion(
    distance: Float[Tensor, " edges"], charges: Float[Tensor, " edges"], length: Float[Tensor, " edges"]
) -> Float[Tensor, " edges"]:
    """(edges,) eV, Coulomb repulsion of two nuclei screened by their electrons.

    Args:
        distance: (edges,) Å.
        charges: (edges,) product of the atomic numbers.
        length: (edges,) Å, screening length 0.4685 / (Z1^0.23 + Z2^0.23).
    """
    reduced = distance / length
    screening = torch.zeros_like(reduced)
    for amplitude, decay in zip(AMPLITUDES, DECAYS, strict=True):
        screening = screening + amplitude * torch.exp(-decay * reduced)
    return COULOMB * charges / distance * screening


def screened_force(
    distance: Float[Tensor, " edges"], charges: Float[Tensor, " edges"], length: Float[Tensor, " edges"]
) -> Float[Tensor, " edges"]:
    """(edges,) eV/Å, minus the derivative of :func:`screened_repulsion`, positive; arguments as there."""
    reduced = distance / length
    total = torch.zeros_like(reduced)
    for amplitude, decay in zip(AMPLITUDES, DECAYS, strict=True):
        total = total + amplitude * torch.exp(-decay * reduced) * (1 / distance + decay / length)
    return COULOMB * charges / distance * total


def wall_radius(first: int, second: int, statistics: Statistics, fraction: float, unseen_fraction: float) -> float:
    """Å, where the repulsion of a pair must have ended so as to leave its bonds alone.

    Args:
        first, second: atomic numbers.
        statistics: of the data.
        fraction: of the shortest distance that occurs, or of the sum of covalent radii if that is shorter (a pair
            that never meets in the data has a shortest distance that says nothing about its repulsion).
        unseen_fraction: of the sum of covalent radii, for a pair that does not occur.
    """
    covalent = covalent_distance(first, second)
    shortest = statistics.shortest.get(pair_name(first, second))
    return unseen_fraction * covalent if shortest is None else fraction * min(shortest, covalent)


class RepulsiveWall(nn.Module):
    """Screened nuclear repulsion by pair, switched off between two radii by a quintic (twice differentiable).

    Args:
        kinds: the pairs.
        outer: Å by pair, beyond which it is zero.
        inner_fraction: of ``outer``, below which it is whole.
    """

    charges: Float[Tensor, " pairs"]
    length: Float[Tensor, " pairs"]
    inner: Float[Tensor, " pairs"]
    outer: Float[Tensor, " pairs"]

    def __init__(self, kinds: SpeciesPairs, outer: Sequence[float], inner_fraction: float) -> None:
        super().__init__()
        numbers = torch.tensor(kinds.pairs, dtype=torch.float64)
        ends = torch.tensor(outer, dtype=torch.float64)
        tables = {
            "charges": numbers.prod(dim=1),
            "length": LENGTH / (numbers**EXPONENT).sum(dim=1),
            "inner": inner_fraction * ends,
            "outer": ends,
        }
        for name, values in tables.items():
            self.register_buffer(name, values.to(torch.get_default_dtype()))
        self.reach = max(outer)

    def forward(self, distance: Float[Tensor, " edges"], pair: Int[Tensor, " edges"]) -> Float[Tensor, " edges"]:
        """(edges,) eV of pairs at ``distance`` (Å); ``pair`` indexes the tables."""
        near, distance_near, pair_near = self._near(distance, pair)
        energy = screened_repulsion(distance_near, self.charges[pair_near], self.length[pair_near])
        energy = energy * smooth_cutoff(distance_near, self.inner[pair_near], self.outer[pair_near])
        return torch.zeros_like(distance).index_add(0, near, energy)

    def softened(self, distance: Float[Tensor, " edges"], pair: Int[Tensor, " edges"]) -> Float[Tensor, " edges"]:
        """(edges,) Å: ``distance`` where the wall is zero, constant where it is whole, smooth between.

        A function of this distance does not vary where the wall is whole, whatever its parameters: there the force
        along a pair is that of the nuclei, and no fit can turn it into an attraction. The derivative with respect to
        ``distance`` is the quintic smoothstep, its integral u^6 - 3 u^5 + 5/2 u^4.
        """
        near, distance_near, pair_near = self._near(distance, pair)
        inner, outer = self.inner[pair_near], self.outer[pair_near]
        u = ((distance_near - inner) / (outer - inner)).clamp(min=0)
        soft = (inner + outer) / 2 + (outer - inner) * u**4 * (u * (u - 3) + 2.5)
        return distance.index_copy(0, near, soft)

    def _near(self, distance: Tensor, pair: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Which pairs the wall concerns (hardly any, in most structures), their distances and pair indices."""
        near = torch.nonzero(distance.detach() < self.outer[pair]).squeeze(1)
        return near, distance.index_select(0, near), pair[near]


BELOW_BONDS, BELOW_UNSEEN, WHOLE_BELOW = 0.75, 0.6, 0.5
"""Of a wall that comes with another potential: see :func:`wall_radius` and ``inner_fraction``."""


def wall_below_bonds(kinds: SpeciesPairs, statistics: Statistics) -> RepulsiveWall:
    """The wall that comes with potentials whose own repulsion is finite; it ends before distances in the data begin."""
    outer = [wall_radius(*pair, statistics, BELOW_BONDS, BELOW_UNSEEN) for pair in kinds.pairs]
    return RepulsiveWall(kinds, outer, WHOLE_BELOW)

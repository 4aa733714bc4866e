"""Repulsion below the distances of the data, and nothing else: the prior for those who have no good one.

A classical potential that is wrong by most of the forces teaches a network more about itself than about the data. This
one is zero wherever atoms have been seen, so there is nothing to unlearn, and repels any two atoms that come nearer:

    E(r) = height ((s - r) / (s - c))^3   for r < s,    c = 0.6 of the sum of covalent radii,

with s a little below the pair's shortest distance in the data (or at it, where that is shorter than a bond): twice
continuously differentiable, and ``height`` at the distance at which a simulation has gone wrong. It knows no chemistry:
it keeps dynamics out of where nothing is known.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from phystrain.layers.pair import REPULSIVE, PairPotential, covalent_distance
from phystrain.potentials import PotentialConfig
from phystrain.statistics import Statistics, pair_name

CONTACT = 0.6
"""Of the sum of covalent radii: the distance at which the wall is ``height`` high."""

ROOM = 1.05
"""Of the distance below which two atoms must repel: there the wall has begun if data do not come nearer."""

NARROWEST = 0.2
"""Of where the wall begins: it is ``height`` high so much further in at least, also where data hold closer contacts."""


class Config(PotentialConfig):
    """Repulsion below the shortest distances of the data."""

    kind: Literal["wall"] = "wall"
    height: float = Field(10.0, gt=0, description="eV, at 0.6 of the sum of covalent radii")
    fraction: float = Field(0.95, gt=0, le=1, description="The wall begins at this part of a pair's shortest distance.")
    unseen_fraction: float = Field(
        0.8, gt=0, le=1, description="The same for pairs that do not occur, of the sum of their covalent radii."
    )
    widest: float = Field(
        1.5, gt=0, description="It begins no further out than at this multiple of the sum of covalent radii."
    )

    def build(self, statistics: Statistics) -> "Wall":
        return Wall(self, statistics)


class Wall(PairPotential):
    """See the module.

    Args:
        config: settings.
        statistics: elements and shortest distances.
    """

    start: Tensor
    width: Tensor

    def __init__(self, config: Config, statistics: Statistics) -> None:
        super().__init__(statistics.species, 0.0)
        self.height = config.height
        start, width = [], []
        for pair in self.kinds.pairs:
            covalent = covalent_distance(*pair)
            shortest = statistics.shortest.get(pair_name(*pair))
            if shortest is None:
                begin = config.unseen_fraction * covalent
            else:  # any two atoms must repel below REPULSIVE, with data down to there or not
                begin = max(config.fraction * shortest, min(shortest, ROOM * REPULSIVE * covalent))
            begin = min(begin, config.widest * covalent)
            start.append(begin)
            width.append(max(begin - CONTACT * covalent, NARROWEST * begin))
        dtype = torch.get_default_dtype()
        self.register_buffer("start", torch.tensor(start, dtype=dtype))
        self.register_buffer("width", torch.tensor(width, dtype=dtype))
        self.cutoff = max(start)

    def pair_energies(self, distance: Float[Tensor, " edges"], pair: Int[Tensor, " edges"]) -> Float[Tensor, " edges"]:
        depth = ((self.start[pair] - distance) / self.width[pair]).clamp(min=0)
        energies: Tensor = self.height * depth**3
        return energies

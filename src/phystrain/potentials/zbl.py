"""Universal screened repulsion of nuclei (Ziegler, Biersack, Littmark 1985): a prior for short distances.

Nothing is fitted. Each pair's repulsion ends smoothly before the bonding distances of the data begin, so that it can be
added to any potential.
"""

from typing import Literal

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from phystrain.layers.pair import PairPotential
from phystrain.layers.zbl import RepulsiveWall, wall_radius
from phystrain.potentials import PotentialConfig
from phystrain.statistics import Statistics


class Config(PotentialConfig):
    """Screened nuclear repulsion, whole at the shortest distances and zero at bonding distances."""

    kind: Literal["zbl"] = "zbl"
    fraction: float = Field(
        0.75, gt=0, le=1, description="The repulsion ends at this fraction of a pair's shortest distance in the data."
    )
    unseen_fraction: float = Field(
        0.6, gt=0, le=1, description="The same for pairs that do not occur, of the sum of their covalent radii."
    )
    inner_fraction: float = Field(0.5, gt=0, lt=1, description="It is whole below this fraction of where it ends.")

    def build(self, statistics: Statistics) -> "ZBL":
        return ZBL(self, statistics)


class ZBL(PairPotential):
    """See the module.

    Args:
        config: settings.
        statistics: elements and shortest distances.
    """

    def __init__(self, config: Config, statistics: Statistics) -> None:
        super().__init__(statistics.species, 0.0)
        outer = [wall_radius(*pair, statistics, config.fraction, config.unseen_fraction) for pair in self.kinds.pairs]
        self.wall = RepulsiveWall(self.kinds, outer, config.inner_fraction)
        self.cutoff = self.wall.reach

    def pair_energies(self, distance: Float[Tensor, " edges"], pair: Int[Tensor, " edges"]) -> Float[Tensor, " edges"]:
        energies: Tensor = self.wall(distance, pair)
        return energies

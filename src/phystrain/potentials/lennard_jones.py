"""Lennard-Jones' potential, two parameters for each pair of elements.

Source: Lennard-Jones 1931, doi:10.1088/0959-5309/43/5/301; the cut-off is the twice differentiable quintic.
"""

from typing import ClassVar, Literal

from jaxtyping import Float, Int
from pydantic import Field, PositiveFloat
from torch import Tensor

from phystrain.layers.pair import PairPotential, bond_lengths, positive, positive_parameter, smooth_cutoff
from phystrain.potentials import PotentialConfig
from phystrain.statistics import Statistics


class Config(PotentialConfig):
    """Pair potential 4 epsilon [(sigma/r)¹² - (sigma/r)⁶]; both are fitted and stay positive."""

    kind: Literal["lennard_jones"] = "lennard_jones"
    cutoff: float = Field(6.0, gt=0, description="Å")
    inner_fraction: float = Field(0.66, gt=0, lt=1, description="The cut-off acts from this fraction of its radius.")
    depth: float = Field(0.1, gt=0, description="eV, epsilon at the start, of all pairs.")
    minimum: dict[str, PositiveFloat] = Field(
        {},
        description="Å by pair such as O-Si, place of the minimum (1.122 sigma) at the start; "
        "else the bond length in the data.",
    )

    def build(self, statistics: Statistics) -> "LennardJones":
        return LennardJones(self, statistics)


class LennardJones(PairPotential):
    """See the module.

    Args:
        config: settings.
        statistics: elements and distances of the data, for the starting values.
    """

    linear: ClassVar[tuple[str, ...]] = ("raw_depth",)
    mixing: ClassVar[dict[str, Literal["arithmetic", "geometric"]]] = {
        "raw_depth": "geometric",
        "raw_sigma": "arithmetic",
    }

    def __init__(self, config: Config, statistics: Statistics) -> None:
        super().__init__(statistics.species, config.cutoff)
        minimum = self.kinds.complete(bond_lengths(self.kinds.pairs, statistics), config.minimum)
        self.raw_depth = positive_parameter([config.depth] * len(minimum))
        self.raw_sigma = positive_parameter([distance / 2 ** (1 / 6) for distance in minimum])
        self.inner = config.inner_fraction * config.cutoff

    def pair_energies(self, distance: Float[Tensor, " edges"], pair: Int[Tensor, " edges"]) -> Float[Tensor, " edges"]:
        depth, sigma = positive(self.raw_depth)[pair], positive(self.raw_sigma)[pair]
        sixth = (sigma / distance) ** 6
        return 4 * depth * (sixth * sixth - sixth) * smooth_cutoff(distance, self.inner, self.cutoff)

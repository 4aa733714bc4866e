"""Morse's potential, a well with three parameters for each pair of elements.

Source: Morse 1929, doi:10.1103/PhysRev.34.57; the cut-off is the twice differentiable quintic.
"""

from typing import ClassVar, Literal

from jaxtyping import Float, Int
from pydantic import Field, PositiveFloat
from torch import Tensor

from phystrain.layers.pair import (
    PairPotential,
    bond_lengths,
    morse_energies,
    positive,
    positive_parameter,
    smooth_cutoff,
)
from phystrain.potentials import PotentialConfig
from phystrain.statistics import Statistics


class Config(PotentialConfig):
    """Pair potential D (1 - exp(-alpha (r - rm)))² - D; everything is fitted and stays positive."""

    kind: Literal["morse"] = "morse"
    cutoff: float = Field(6.0, gt=0, description="Å")
    inner_fraction: float = Field(0.66, gt=0, lt=1, description="The cut-off acts from this fraction of its radius.")
    depth: float = Field(1.0, gt=0, description="eV, D at the start, of all pairs.")
    decay: float = Field(1.5, gt=0, description="1/Å, alpha at the start, of all pairs.")
    minimum: dict[str, PositiveFloat] = Field(
        {}, description="Å by pair such as O-Si, rm at the start; else the bond length in the data."
    )

    def build(self, statistics: Statistics) -> "Morse":
        return Morse(self, statistics)


class Morse(PairPotential):
    """See the module.

    Args:
        config: settings.
        statistics: elements and distances of the data, for the starting values.
    """

    linear: ClassVar[tuple[str, ...]] = ("raw_depth",)
    mixing: ClassVar[dict[str, Literal["arithmetic", "geometric"]]] = {
        "raw_depth": "geometric",
        "raw_decay": "arithmetic",
        "raw_minimum": "arithmetic",
    }

    def __init__(self, config: Config, statistics: Statistics) -> None:
        super().__init__(statistics.species, config.cutoff)
        n_pairs = len(self.kinds.pairs)
        minimum = self.kinds.complete(bond_lengths(self.kinds.pairs, statistics), config.minimum)
        self.raw_depth = positive_parameter([config.depth] * n_pairs)
        self.raw_decay = positive_parameter([config.decay] * n_pairs)
        self.raw_minimum = positive_parameter(minimum)
        self.inner = config.inner_fraction * config.cutoff

    def pair_energies(self, distance: Float[Tensor, " edges"], pair: Int[Tensor, " edges"]) -> Float[Tensor, " edges"]:
        depth, decay, minimum = (positive(raw)[pair] for raw in (self.raw_depth, self.raw_decay, self.raw_minimum))
        energies = morse_energies(distance, depth, decay, minimum)
        return energies * smooth_cutoff(distance, self.inner, self.cutoff)

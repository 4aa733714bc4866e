"""What all networks share: common settings, presets, the energy unit, and trimming of over-long neighbour lists."""

import functools
import logging
import math
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from phystrain.graph import AtomGraph
from phystrain.layers.cutoffs import Envelope
from phystrain.layers.radial import RadialBasis
from phystrain.potentials import PotentialConfig
from phystrain.statistics import Statistics

log = logging.getLogger(__name__)

TRIM_RATIO = 1.01
"""A neighbour list that reaches further than this many cut-offs is shortened: cheaper than carrying the zeros."""


FAR = 15.0
"""Å, beyond the cut-off of every preset, of which the longest is 12."""


_DENSE = 0.06
"""Atoms in 1 Å³ of a solid, as of silicon (0.05) or iron (0.085)."""


class NetworkConfig(PotentialConfig):
    """Settings that networks have in common.

    A preset replaces defaults; fields that are given beside it win.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    preset: str = Field("", description="name of a published set of sizes that replaces the defaults")
    channels: int = Field(64, ge=2, description="features of an atom")
    layers: int = Field(2, ge=1, description="rounds of messages")
    cutoff: float = Field(5.0, gt=0, description="Å, radius of the neighbourhood")
    envelope: Envelope = Field(
        "polynomial",
        description="decay of a message at the cut-off: twice (polynomial) or once (cosine) differentiable",
    )
    radial_basis: RadialBasis = Field("bessel", description="functions of the distance that filters are made from")
    radial_count: int = Field(20, ge=2, description="number of these functions")

    @property
    def trains_reference(self) -> bool:
        return False

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not values.get("preset"):
            return values
        if values["preset"] not in cls.presets:
            raise ValueError(f"unknown preset {values['preset']!r}; choose from {', '.join(cls.presets) or 'none'}")
        return {**cls.presets[values["preset"]], **values}

    @model_validator(mode="after")
    def _say_what_a_far_cutoff_costs(self) -> "NetworkConfig":
        if self.cutoff > FAR:
            warn_of_reach(self.kind, self.cutoff)
        return self


class EnergyUnit(nn.Module):
    """From the numbers of a network, of order one, to eV: ``scale * x + shift``.

    The scale is that of the forces over 1 Å, because forces decide how steep the energy must be; the shift is the
    mean energy of an atom after the references. Both are stored with the weights, so weights keep their meaning.

    Args:
        statistics: of the training data.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, statistics: Statistics) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(statistics.force_rms, dtype=torch.get_default_dtype()))
        self.register_buffer("shift", torch.tensor(statistics.energy_mean, dtype=torch.get_default_dtype()))

    def forward(self, numbers: Float[Tensor, " atoms"]) -> Float[Tensor, " atoms"]:
        """(atoms,) eV."""
        return self.scale * numbers + self.shift


@functools.cache
def warn_of_truncation(kind: str) -> None:
    """Say once what a limit to the number of neighbours does.

    Args:
        kind: of the network.
    """
    log.warning(
        "%s: with max_neighbours energies jump where neighbours change places, and are not conserved in dynamics", kind
    )


@functools.cache
def warn_of_reach(kind: str, cutoff: float) -> None:
    """Say once what a very long cut-off costs; small molecules may bear it, so it is not refused.

    Args:
        kind: of the network.
        cutoff: Å.
    """
    neighbours = 4 / 3 * math.pi * cutoff**3 * _DENSE
    log.warning(
        "%s: with a cut-off of %g Å an atom of a solid has about %s neighbours, and time and memory grow with them; "
        "4 to 6 Å are usual",
        kind,
        cutoff,
        f"{neighbours:,.0f}",
    )


def trimmed(graph: AtomGraph, cutoff: float) -> AtomGraph:
    """``graph`` without most of the edges that a network with this cut-off (Å) gives weight zero."""
    return graph.within(cutoff) if graph.cutoff > TRIM_RATIO * cutoff else graph

"""Radial bases: a distance as a vector of smooth functions of it. Finite at every distance, with all derivatives."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

RadialBasis = Literal["bessel", "gaussian"]
"""Names of the bases, for settings."""

SHORTEST = 1e-3
"""Å. The Bessel functions are constant below: their derivatives divide by powers of the distance."""


FAR = 50.0
"""Exponent from which a Gaussian is constant, 2e-22. Below 1e-38 numbers are subnormal in single precision, and each
product with one takes a hundred times longer: SchNet's training step took twice the time."""


class Gaussian(nn.Module):
    """``exp(-(r - r_k)^2 / (2 d^2))``, centres ``r_k`` evenly spaced from 0 to the cut-off, by ``d`` as a rule.

    Schütt et al. 2017, arXiv:1706.08566, section 4.2.

    Args:
        count: number of functions.
        cutoff: Å.
        broader: ``d`` over the spacing.
    """

    orders: Tensor

    def __init__(self, count: int, cutoff: float, broader: float = 1.0) -> None:
        super().__init__()
        self.broader = broader
        self.register_buffer("orders", torch.arange(count, dtype=torch.get_default_dtype()), persistent=False)
        self.width = cutoff / (count - 1)

    def forward(self, distances: Float[Tensor, " edges"]) -> Float[Tensor, "edges basis"]:
        exponent = 0.5 / self.broader**2 * (distances[:, None] / self.width - self.orders) ** 2
        return torch.exp(-exponent.clamp(max=FAR))


class Bessel(nn.Module):
    """``sin(n pi r / cutoff) / r`` for ``n = 1 ... count``.

    Gasteiger, Groß, Günnemann 2020, arXiv:2003.03123, equation 7, without the constant factor, as in
    Schütt, Unke, Gastegger 2021, arXiv:2102.03150.

    Args:
        count: number of functions.
        cutoff: Å.
    """

    orders: Tensor

    def __init__(self, count: int, cutoff: float) -> None:
        super().__init__()
        self.register_buffer("orders", torch.arange(1, count + 1, dtype=torch.get_default_dtype()), persistent=False)
        self.frequency = math.pi / cutoff

    def forward(self, distances: Float[Tensor, " edges"]) -> Float[Tensor, "edges basis"]:
        r = distances.clamp(min=SHORTEST)[:, None]
        return torch.sin(self.orders * (self.frequency * r)) / r


def radial_basis(kind: RadialBasis, count: int, cutoff: float) -> nn.Module:
    """The basis of that name; a module from (edges,) Å to (edges, count)."""
    return Bessel(count, cutoff) if kind == "bessel" else Gaussian(count, cutoff)

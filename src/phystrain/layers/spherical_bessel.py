"""Radial bases made of spherical Bessel functions, zero at and beyond the cut-off."""

import math
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import spherical_jn
from torch import Tensor, nn

from phystrain.layers.radial import SHORTEST

_TERMS = 14
"""Of the power series; enough for double precision where it is used."""


class SmoothBessel(nn.Module):
    """Orthonormal functions whose value, first and second derivative vanish at the cut-off, where they end.

    Sums of neighbouring spherical Bessel functions of degree zero, made orthogonal one after the other: Kocer, Mason,
    Erturk 2019, arXiv:1907.02374.

    Args:
        count: number of functions. The first of many are the same as the first of few.
        cutoff: Å.
    """

    orders: Tensor
    mixing: Tensor

    def __init__(self, count: int, cutoff: float) -> None:
        super().__init__()
        self.count = count
        self.cutoff = cutoff
        self.register_buffer("orders", torch.arange(1, count + 2, dtype=torch.float64), persistent=False)
        # double precision until cast along with the rest: what vanishes at the cut-off are differences
        self.register_buffer("mixing", torch.from_numpy(_mixing(count, cutoff)), persistent=False)

    def forward(self, distances: Float[Tensor, " edges"]) -> Float[Tensor, "edges basis"]:
        """(edges, count) at (edges,) Å; constant below a distance that does not occur."""
        r = distances.clamp(min=SHORTEST, max=self.cutoff)[:, None]
        waves = torch.sin(self.orders.to(r.dtype) * (math.pi / self.cutoff * r)) / r
        values = waves @ self.mixing.to(r.dtype)
        return torch.where(distances[:, None] < self.cutoff, values, torch.zeros_like(values))


def _mixing(count: int, cutoff: float) -> NDArray[np.float64]:
    """(count + 1, count) weights of sin(k pi r / cutoff) / r, k from 1, in each function."""
    n = np.arange(count)
    raw = np.zeros((count + 1, count))
    scale = (-1.0) ** n * math.sqrt(2 / cutoff) / np.sqrt((n + 1) ** 2 + (n + 2) ** 2)
    raw[n, n] = scale * (n + 2)
    raw[n + 1, n] = scale * (n + 1)
    e = n**2 * (n + 2) ** 2 / (4 * (n + 1) ** 4 + 1)
    mixed = raw.copy()
    d = 1.0
    for k in range(1, count):
        before, d = d, 1 - e[k] / d
        mixed[:, k] = (raw[:, k] + math.sqrt(e[k] / before) * mixed[:, k - 1]) / math.sqrt(d)
    return mixed


class SphericalBessel(nn.Module):
    """``j_l(z_ln r / cutoff)`` for l = 0 ... degrees - 1 and the first roots z_ln, normalised on the sphere.

    They vanish at the cut-off, their derivatives do not. Gasteiger, Groß, Günnemann 2020, arXiv:2003.03123, equation 6.

    Args:
        count: number of roots of each degree.
        degrees: number of degrees.
        cutoff: Å.
    """

    roots: Tensor
    scale: Tensor

    def __init__(self, count: int, degrees: int, cutoff: float) -> None:
        super().__init__()
        self.count = count * degrees
        self.cutoff = cutoff
        roots = _roots(count, degrees)
        peak = np.stack([np.abs(spherical_jn(degree + 1, roots[degree])) for degree in range(degrees)])
        self.register_buffer("roots", torch.from_numpy(roots), persistent=False)
        self.register_buffer("scale", torch.from_numpy(math.sqrt(2 / cutoff**3) / peak), persistent=False)

    def forward(self, distances: Float[Tensor, " edges"]) -> Float[Tensor, "edges basis"]:
        """(edges, degrees * count) at (edges,) Å, those of one degree side by side."""
        r = distances.clamp(min=SHORTEST, max=self.cutoff)[:, None] / self.cutoff
        roots, scale = self.roots.to(r.dtype), self.scale.to(r.dtype)
        values = torch.cat([scale[degree] * _j(degree, r * roots[degree]) for degree in range(len(roots))], dim=1)
        return torch.where(distances[:, None] < self.cutoff, values, torch.zeros_like(values))


def _roots(count: int, degrees: int) -> NDArray[np.float64]:
    """(degrees, count) roots of the spherical Bessel functions; those of a degree lie between those of the last."""
    rows = [np.pi * np.arange(1, count + degrees + 1)]
    for degree in range(1, degrees):
        function = partial(spherical_jn, degree)
        rows.append(np.array([brentq(function, *ends) for ends in pairwise(rows[-1])]))
    return np.stack([row[:count] for row in rows])


def _j(degree: int, x: Float[Tensor, "edges roots"]) -> Float[Tensor, "edges roots"]:
    """Spherical Bessel function: by recurrence, or its power series where that would lose digits."""
    turn = degree + 1.0
    far = x.clamp(min=turn)
    sine, cosine = torch.sin(far), torch.cos(far)
    lower, upper = cosine / far, sine / far  # of degree -1 and 0
    for k in range(degree):
        lower, upper = upper, (2 * k + 1) / far * upper - lower
    near = x.clamp(max=turn)
    square = near * near / 2
    term = near**degree / math.prod(range(1, 2 * degree + 2, 2))
    series = term
    for k in range(1, _TERMS):
        term = -term * square / (k * (2 * degree + 2 * k + 1))
        series = series + term
    return torch.where(x < turn, series, upper)

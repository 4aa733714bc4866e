"""Envelopes: factors that take the influence of a neighbour to zero at the cut-off.

Both are 1 at zero distance and exactly zero at and beyond the cut-off, so that edges longer than the cut-off have
no effect on a network whose every message carries the envelope.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Envelope = Literal["polynomial", "cosine"]
"""Names of the envelopes, for settings."""


def polynomial(distances: Float[Tensor, " edges"], cutoff: float, power: int = 6) -> Float[Tensor, " edges"]:
    """Polynomial whose value, first and second derivative vanish at the cut-off (twice continuously differentiable).

    ``1 - (p + 1)(p + 2)/2 x^p + p(p + 2) x^(p + 1) - p(p + 1)/2 x^(p + 2)`` with ``x = r / cutoff``
    (Gasteiger, Groß, Günnemann 2020, arXiv:2003.03123, equation 8). ``p = 3`` is the quintic smoothstep.

    Args:
        distances: (edges,) Å.
        cutoff: Å.
        power: ``p``; the larger, the later the decay begins.
    """
    x = (distances / cutoff).clamp(max=1.0)
    p = power
    return 1.0 + x**p * (x * (p * (p + 2) - 0.5 * p * (p + 1) * x) - 0.5 * (p + 1) * (p + 2))


def cosine(distances: Float[Tensor, " edges"], cutoff: float) -> Float[Tensor, " edges"]:
    """``(cos(pi r / cutoff) + 1) / 2``: once continuously differentiable (Behler 2011, doi:10.1063/1.3553717).

    Args:
        distances: (edges,) Å.
        cutoff: Å.
    """
    x = (distances / cutoff).clamp(max=1.0)
    return 0.5 * (torch.cos(math.pi * x) + 1.0)


def envelope(kind: Envelope, distances: Float[Tensor, " edges"], cutoff: float) -> Float[Tensor, " edges"]:
    """The envelope of that name at (edges,) distances in Å."""
    return polynomial(distances, cutoff) if kind == "polynomial" else cosine(distances, cutoff)

"""Spherical-harmonic coefficients in the frame of each edge, where convolutions are cheap.

Coefficients of an atom are ordered by degree: ``l = 0 ... lmax``, in each ``m = -l ... l`` (real harmonics, the polar
axis is y, negative orders are sines; degree one is x, y, z: the convention of e3nn). In the frame of an edge, whose
polar axis points to the neighbour, orders beyond ``mmax`` are dropped and the rest is ordered by order (Passaro,
Zitnick 2023, arXiv:2302.03655, section 4): first ``m = 0`` with all degrees, then the cosines and the sines of
``m = 1``, and so on. A linear map that treats cosine and sine of an order as the real and the imaginary part of a
number commutes with turns about the edge, so that it does not matter which frame about the edge is chosen.

The published networks draw that frame at random and take no derivative of it. Here it is a function of the direction:
the shortest rotation from the polar axis, or from its opposite for edges that point below the equator. Matrices are
then polynomials of ``cos`` of the half polar angle, and of ``t = tan(theta / 2) exp(i phi)`` with ``|t| <= 1``: all
derivatives exist, no pole among them, and the change of frame at the equator is invisible by the argument above.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from phystrain.layers.fixed import FixedTables

Parts = list[Float[Tensor, "edges _ _ _"]]
"""By order m: (edges, 1, lmax + 1, channels), then (edges, 2, lmax + 1 - m, channels) with cosines, sines."""


def order_rows(lmax: int, mmax: int) -> list[tuple[int, int]]:
    """Degree and order of each coefficient in the frame of an edge; cosines have positive orders."""
    rows = [(degree, 0) for degree in range(lmax + 1)]
    for m in range(1, mmax + 1):
        rows += [(degree, sign * m) for sign in (1, -1) for degree in range(m, lmax + 1)]
    return rows


def split_orders(rows: Float[Tensor, "edges rows channels"], lmax: int, mmax: int) -> Parts:
    """Coefficients in the frames of the edges, taken apart by order."""
    edges, _, channels = rows.shape
    counts = [1 + lmax, *(2 * (lmax + 1 - m) for m in range(1, mmax + 1))]
    parts = rows.split(counts, dim=1)
    return [part.reshape(edges, min(m, 1) + 1, lmax + 1 - m, channels) for m, part in enumerate(parts)]


def join_orders(parts: Parts) -> Float[Tensor, "edges rows channels"]:
    """The inverse of :func:`split_orders`."""
    return torch.cat([part.flatten(1, 2) for part in parts], dim=1)


def _half_angle_terms(degree: int, m: int, n: int) -> list[tuple[int, float]]:
    """Wigner's ``d_mn`` as ``sum c_k p^(l - k) q^k tan^|m - n|`` with p, q = cos², sin² of half the angle.

    Args:
        degree: l.
        m, n: orders; ``m >= n``, or the sign of the odd powers is to be seen to by the caller.
    """
    factorial = math.factorial
    norm = math.sqrt(factorial(degree + m) * factorial(degree - m) * factorial(degree + n) * factorial(degree - n))
    terms = []
    for s in range(max(0, n - m), min(degree + n, degree - m) + 1):
        below = factorial(degree + n - s) * factorial(s) * factorial(m - n + s) * factorial(degree - m - s)
        terms.append(((m - n + 2 * s - abs(m - n)) // 2, (-1) ** (m - n + s) * norm / below))
    return terms


def _elevated(terms: list[tuple[int, float]], degree: int, top: int) -> Float[Tensor, " powers"]:
    """Coefficients of ``p^(top - k) q^k``, k = 0 ... top, of a polynomial homogeneous of ``degree``, as p + q = 1."""
    found = torch.zeros(top + 1, dtype=torch.float64)
    for k, value in terms:
        for j in range(top - degree + 1):
            found[k + j] += value * math.comb(top - degree, j)
    return found


class EdgeFrames(FixedTables):
    """Rotation matrices of real spherical harmonics from the axes of space to the frames of edges.

    Args:
        lmax: highest degree.
        mmax: highest order that is kept in the frame of an edge.
    """

    near: Tensor
    far: Tensor
    near_power: Tensor
    far_power: Tensor
    flip: Tensor

    def __init__(self, lmax: int, mmax: int) -> None:
        super().__init__()
        self.lmax, self.highest = lmax, lmax + mmax
        rows = order_rows(lmax, mmax)
        shape = (len(rows), (lmax + 1) ** 2)
        polynomials = torch.zeros(2, lmax + 1, *shape, dtype=torch.float64)
        powers = torch.zeros(2, 2 * self.highest + 1, *shape, dtype=torch.float64)
        for row, (degree, m) in enumerate(rows):
            for n in range(-degree, degree + 1):
                column = degree * degree + degree + n
                for part, (terms, power) in enumerate(self._element(degree, n, m)):
                    polynomials[part, :, row, column] = _elevated(terms, degree, lmax)
                    powers[part, power, row, column] = 1.0
        for name, table in (("near", polynomials[0]), ("far", polynomials[1])):
            self.register_buffer(name, table.flatten(1), persistent=False)
            self.register_buffer(f"{name}_power", powers[int(name == "far")].flatten(1), persistent=False)
        signs = [
            (-1.0) ** (degree + n) * (-1 if n < 0 else 1)
            for degree in range(lmax + 1)
            for n in range(-degree, degree + 1)
        ]
        self.register_buffer("flip", torch.tensor(signs, dtype=torch.float64), persistent=False)

    def _element(self, degree: int, n: int, m: int) -> list[tuple[list[tuple[int, float]], int]]:
        """Entry of the rotation that takes the polar axis to the edge: two polynomials, each with its power of t.

        With ``A = (-1)^(a + b) d_ab`` and ``B = (-1)^a d_a(-b)`` for ``a = |n|``, ``b = |m|``, cosine to cosine is
        ``A cos (a - b) phi + B cos (a + b) phi``, and so on; an order zero counts half of each, by root two.

        Returns:
            terms and the place of the power: 0 ... for real parts, from ``highest`` + 1 for imaginary parts.
        """
        a, b = abs(n), abs(m)
        sine_out, sine_in = n < 0, m < 0
        scale = math.sqrt(0.5) ** ((a == 0) + (b == 0))
        signs = (1.0, -1.0 if sine_out and sine_in else 1.0)
        if sine_out != sine_in:
            difference = float((a > b) - (a < b))
            signs = (difference if sine_out else -difference, 1.0)
        both = (
            (_half_angle_terms(degree, a, b), (-1) ** (a + b) * signs[0], abs(a - b)),
            (_half_angle_terms(degree, a, -b), (-1) ** a * signs[1], a + b),
        )
        found = []
        for terms, sign, power in both:
            imaginary = sine_out != sine_in and power > 0
            place = self.highest + power if imaginary else power
            kept = 0.0 if sine_out != sine_in and power == 0 else sign * scale
            found.append(([(k, kept * value) for k, value in terms], place))
        return found

    def forward(self, directions: Float[Tensor, "edges 3"]) -> Float[Tensor, "edges rows coefficients"]:
        """Matrices that take coefficients of atoms to the frames of the edges; their transposes take them back.

        Args:
            directions: unit vectors from centre to neighbour.
        """
        x, y, z = directions.unbind(1)
        below = y < 0
        # half a turn about z takes edges below the equator above it
        x, y = torch.where(below, -x, x), torch.where(below, -y, y)
        p, q = 0.5 * (1 + y), 0.5 * (1 - y)
        decays = torch.stack(
            [a * b for a, b in zip(_powers(p, self.lmax)[::-1], _powers(q, self.lmax), strict=True)], 1
        )
        real, imaginary = [torch.ones_like(x)], [torch.zeros_like(x)]
        first_real, first_imaginary = z / (1 + y), x / (1 + y)
        for _ in range(self.highest):
            a, b = real[-1], imaginary[-1]
            real.append(a * first_real - b * first_imaginary)
            imaginary.append(a * first_imaginary + b * first_real)
        turns = torch.stack(real + imaginary[1:], 1)
        near, far = (decays @ table.to(x.dtype) for table in (self.near, self.far))
        near_turn, far_turn = (turns @ table.to(x.dtype) for table in (self.near_power, self.far_power))
        matrix = (near * near_turn + far * far_turn).unflatten(1, (-1, len(self.flip)))
        flip = self.flip.to(x.dtype)
        return matrix * torch.where(below[:, None, None], flip, torch.ones_like(flip))


def _powers(x: Tensor, highest: int) -> Sequence[Tensor]:
    found = [torch.ones_like(x)]
    for _ in range(highest):
        found.append(found[-1] * x)
    return found

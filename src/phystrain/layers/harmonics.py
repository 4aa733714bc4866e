"""Real spherical harmonics of directions, as polynomials of their components: smooth for every direction."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def spherical_harmonics(units: Float[Tensor, "edges 3"], degrees: int) -> Float[Tensor, "edges components"]:
    """(edges, degrees²) harmonics of degree 0 ... degrees - 1, for each degree l those of order -l ... l.

    Racah's normalisation: over the orders of a degree, the products at two directions sum up to the Legendre
    polynomial of the cosine between them (addition theorem). So a sum over pairs of neighbours of Legendre
    polynomials is a product of two sums over neighbours.

    Args:
        units: (edges, 3) vectors of length 1.
        degrees: how many; 3 gives degrees 0, 1 and 2.
    """
    x, y, z = units.unbind(1)
    one = torch.ones_like(z)
    across = [(one, torch.zeros_like(z))]  # real and imaginary part of (x + iy)^m
    for _ in range(1, degrees):
        real, imaginary = across[-1]
        across.append((x * real - y * imaginary, x * imaginary + y * real))
    along = _legendre_derivatives(z, degrees)
    columns = []
    for degree in range(degrees):
        factors = [
            math.sqrt((2 if m else 1) * math.factorial(degree - m) / math.factorial(degree + m))
            for m in range(degree + 1)
        ]
        columns += [factors[m] * along[degree][m] * across[m][1] for m in range(degree, 0, -1)]
        columns += [factors[m] * along[degree][m] * across[m][0] for m in range(degree + 1)]
    return torch.stack(columns, dim=1)


def _legendre_derivatives(z: Float[Tensor, " edges"], degrees: int) -> list[list[Float[Tensor, " edges"]]]:
    """The m-th derivative of the Legendre polynomial of degree l at ``z``, by [l][m] for m up to l."""
    table: list[list[Tensor]] = []
    for degree in range(degrees):
        row = []
        for m in range(degree + 1):
            if m == degree:
                row.append(torch.full_like(z, math.prod(range(1, 2 * m, 2))))
            elif m == degree - 1:
                row.append((2 * m + 1) * z * table[degree - 1][m])
            else:
                higher, lower = table[degree - 1][m], table[degree - 2][m]
                row.append(((2 * degree - 1) * z * higher - (degree + m - 1) * lower) / (degree - m))
        table.append(row)
    return table

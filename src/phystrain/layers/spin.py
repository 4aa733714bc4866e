"""Spin convolution: what surrounds one end of an edge, seen along the edge, whatever the turn about it.

Shuaibi et al. 2021, arXiv:2106.09575, section 3.1: messages that arrive at an atom are functions on a sphere around it,
the pole of which is the direction of an edge; a filter turns about the pole, and its responses are averaged over all
turns. Here the sphere is expanded in harmonics of degree l and order m about the pole. A turn by an angle a changes
the phase of order m by m a, so averages over all turns are sums over m, and no frame about the edge is needed: order 0
is a number, order 1 a vector and order 2 a traceless tensor in the plane across the edge, which are written in the
coordinates of space. They are the function at the pole, its gradient and its second derivatives along the sphere.
"""

import math
from collections import defaultdict
from itertools import combinations_with_replacement

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from phystrain.layers.scatter import sum_over_edges

Polynomial = dict[tuple[int, int, int], float]
"""Coefficients by the powers of x, y and z."""

HIGHEST_ORDER = 2
"""Orders up to which harmonics about a pole are written in the coordinates of space."""

_X: Polynomial = {(1, 0, 0): 1.0}
_Y: Polynomial = {(0, 1, 0): 1.0}
_Z: Polynomial = {(0, 0, 1): 1.0}
_SYMMETRIC = tuple(combinations_with_replacement(range(3), 2))
"""Components of a symmetric tensor."""


def _times(first: Polynomial, second: Polynomial, factor: float = 1.0) -> Polynomial:
    product: Polynomial = defaultdict(float)
    for (a, b, c), one in first.items():
        for (d, e, f), other in second.items():
            product[a + d, b + e, c + f] += factor * one * other
    return product


def _plus(*terms: Polynomial) -> Polynomial:
    total: Polynomial = defaultdict(float)
    for term in terms:
        for powers, value in term.items():
            total[powers] += value
    return total


def _derivative(polynomial: Polynomial, axis: int) -> Polynomial:
    lowered: Polynomial = {}
    for powers, value in polynomial.items():
        if powers[axis]:
            less = list(powers)
            less[axis] -= 1
            lowered[less[0], less[1], less[2]] = value * powers[axis]
    return lowered


def harmonics(degree: int) -> list[list[Polynomial]]:
    """Real solid harmonics by degree, 2 l + 1 of each, as homogeneous polynomials.

    Squares of those of one degree add up to 2 l + 1 on the unit sphere.
    """
    square = _plus(_times(_X, _X), _times(_Y, _Y), _times(_Z, _Z))
    cosine: list[Polynomial] = [{(0, 0, 0): 1.0}]
    sine: list[Polynomial] = [{}]
    for _ in range(degree):
        cosine.append(_plus(_times(_X, cosine[-1]), _times(_Y, sine[-1], -1.0)))
        sine.append(_plus(_times(_X, sine[-1]), _times(_Y, cosine[-2])))
    found: list[list[Polynomial]] = [[] for _ in range(degree + 1)]
    for m in range(degree + 1):
        # Legendre's functions over sin^m, by their recurrence in the degree
        before: Polynomial = {}
        current: Polynomial = {(0, 0, 0): float(math.prod(range(1, 2 * m, 2)))}
        for l in range(m, degree + 1):  # noqa: E741
            norm = math.sqrt((2 * l + 1) * (2 if m else 1) * math.factorial(l - m) / math.factorial(l + m))
            found[l] += [_times(current, part[m], norm) for part in ((cosine, sine) if m else (cosine,))]
            following = _times(_Z, current, (2 * l + 1) / (l - m + 1))
            following = _plus(following, _times(square, before, -(l + m) / (l - m + 1)))
            before, current = current, following
    return found


class PolarFrame(nn.Module):
    """Harmonics of directions, and the map that gives their coefficients about another direction as the pole.

    Args:
        degree: largest degree l.
        order: largest order m about the pole, at most :data:`HIGHEST_ORDER`.

    Attributes:
        sizes: number of components about the pole, by degree and then by order.
    """

    def __init__(self, degree: int, order: int) -> None:
        super().__init__()
        assert order <= HIGHEST_ORDER, "orders above two are not written in the coordinates of space"
        self.degree = degree
        self.sizes = [[1, 3, 6][: min(l, order) + 1] for l in range(degree + 1)]  # noqa: E741
        for l, basis in enumerate(harmonics(degree)):  # noqa: E741
            self._keep(f"value{l}", l, basis)
            if l >= 1 and order >= 1:
                self._keep(f"slope{l}", l - 1, [_derivative(one, axis) for one in basis for axis in range(3)])
            if l >= 2 and order >= 2:
                pairs = [_derivative(_derivative(one, i), j) for one in basis for i, j in _SYMMETRIC]
                self._keep(f"bend{l}", l - 2, pairs)
        # monomials of each degree from those of the degree below
        for l in range(1, degree + 1):  # noqa: E741
            lower, axes = _descent(l)
            self.register_buffer(f"lower{l}", lower, persistent=False)
            self.register_buffer(f"axis{l}", axes, persistent=False)

    def _keep(self, name: str, degree: int, polynomials: list[Polynomial]) -> None:
        """Store polynomials of one degree as the columns of a matrix over the monomials of that degree."""
        place = {powers: row for row, powers in enumerate(_monomials(degree))}
        matrix = torch.zeros(len(place), len(polynomials), dtype=torch.float64)
        for column, polynomial in enumerate(polynomials):
            for powers, value in polynomial.items():
                matrix[place[powers], column] = value
        self.register_buffer(name, matrix.to(torch.get_default_dtype()), persistent=False)

    def _monomials_of(self, directions: Float[Tensor, "edges 3"]) -> list[Tensor]:
        found = [torch.ones_like(directions[:, :1])]
        for l in range(1, self.degree + 1):  # noqa: E741
            lower, axes = self.get_buffer(f"lower{l}"), self.get_buffer(f"axis{l}")
            found.append(found[-1].index_select(1, lower) * directions.index_select(1, axes))
        return found

    def forward(self, directions: Float[Tensor, "edges 3"]) -> tuple[Float[Tensor, "edges harmonics"], list[Tensor]]:
        """Harmonics of the directions, and for each degree the map to components about them.

        Args:
            directions: (edges, 3) unit vectors.

        Returns:
            (edges, (degree + 1)²), and for each degree l (edges, 2 l + 1, components): one column of order 0, three of
            order 1, six of order 2. The squares of the columns of an order add up to those of cosine and sine.
        """
        monomials = self._monomials_of(directions)
        values, maps = [], []
        for l in range(self.degree + 1):  # noqa: E741
            value = monomials[l] @ self.get_buffer(f"value{l}")
            columns = [value[:, :, None] / math.sqrt(2 * l + 1)]
            if len(self.sizes[l]) > 1:
                slope = (monomials[l - 1] @ self.get_buffer(f"slope{l}")).unflatten(1, (2 * l + 1, 3))
                across = slope - l * value[:, :, None] * directions[:, None]  # Euler: u . grad Y = l Y
                columns.append(across * math.sqrt(2 / (l * (l + 1) * (2 * l + 1))))
            if len(self.sizes[l]) > 2:
                bend = (monomials[l - 2] @ self.get_buffer(f"bend{l}")).unflatten(1, (2 * l + 1, 6))
                factor = math.sqrt(4 / ((l - 1) * l * (l + 1) * (l + 2) * (2 * l + 1)))
                columns.append(_across(bend, slope, value, directions, l) * factor)
            values.append(value)
            maps.append(torch.cat(columns, dim=2))
        return torch.cat(values, dim=1), maps


def _across(bend: Tensor, slope: Tensor, value: Tensor, directions: Tensor, degree: int) -> Tensor:
    """Second derivatives in the plane across the directions, their trace taken away: (edges, 2 l + 1, 6).

    With P = 1 - u u, H the second derivatives and Euler's H u = (l - 1) grad Y, u H u = l (l - 1) Y. The trace of P H P
    is -l (l - 1) Y because that of H is zero. Off-diagonal components are multiplied by sqrt(2) to give squares right.
    """
    first = torch.tensor([i for i, _ in _SYMMETRIC], device=directions.device)
    second = torch.tensor([j for _, j in _SYMMETRIC], device=directions.device)
    same = (first == second).to(directions)
    u_first, u_second = directions.index_select(1, first)[:, None], directions.index_select(1, second)[:, None]
    mixed = u_first * slope.index_select(2, second) + u_second * slope.index_select(2, first)
    twice = (degree * (degree - 1)) * value[:, :, None]
    tangent = bend - (degree - 1) * mixed + twice * (u_first * u_second)
    flat = tangent + twice / 2 * (same - u_first * u_second)
    return flat * (same + math.sqrt(2) * (1 - same))


def _monomials(degree: int) -> list[tuple[int, int, int]]:
    return [(a, b, degree - a - b) for a in range(degree, -1, -1) for b in range(degree - a, -1, -1)]


def _descent(degree: int) -> tuple[Tensor, Tensor]:
    """For each monomial of this degree: one of the degree below, and the coordinate that makes the one of the other."""
    place = {powers: row for row, powers in enumerate(_monomials(degree - 1))}
    lower, axes = [], []
    for powers in _monomials(degree):
        axis = next(k for k in range(3) if powers[k])
        less = list(powers)
        less[axis] -= 1
        lower.append(place[less[0], less[1], less[2]])
        axes.append(axis)
    return torch.tensor(lower), torch.tensor(axes)


def mean_silu(middle: Float[Tensor, "edges hidden"], variance: Float[Tensor, "edges hidden"]) -> Tensor:
    """(edges, hidden) mean of SiLU over values of this mean and variance, to second order in their spread."""
    s = torch.sigmoid(middle)
    return middle * s + 0.5 * variance * (s * (1 - s) * (2 + middle * (1 - 2 * s)))


class SpinConvolution(nn.Module):
    """Messages around atoms to features of edges (figure 2 and section 3.1 of the paper).

    Args:
        channels: features of a message.
        hidden: features that come out.
        degree, order: of the harmonics.
        groups: of the normalisation that follows.
        epsilon: added to the variance that the normalisation divides by.
    """

    def __init__(self, channels: int, hidden: int, *, degree: int, order: int, groups: int, epsilon: float) -> None:
        super().__init__()
        self.filters = nn.ModuleList(
            nn.Linear(channels * (degree + 1 - m), hidden, bias=m == 0) for m in range(min(order, degree) + 1)
        )
        self.norm = nn.GroupNorm(groups, hidden, eps=epsilon)

    def forward(
        self,
        messages: Float[Tensor, "edges channels"],
        values: Float[Tensor, "edges harmonics"],
        maps: list[Tensor],
        at: Int[Tensor, " edges"],
        centre: Int[Tensor, " edges"],
        n_atoms: int,
    ) -> Float[Tensor, "edges hidden"]:
        """Features of each edge.

        Args:
            messages: what arrives at ``centre`` along each edge, envelope included.
            values, maps: of the directions of the edges (:class:`PolarFrame`).
            at: the atom around which each edge looks, its own direction the pole.
            centre: the atom at which each message arrives.
            n_atoms: number of atoms.
        """
        sphere = sum_over_edges(messages[:, :, None] * values[:, None], centre, n_atoms)
        seen = sphere.index_select(0, at).split([part.shape[1] for part in maps], dim=2)
        turned = [one @ part for one, part in zip(seen, maps, strict=True)]
        middle: Tensor | None = None
        variance: Tensor | None = None
        start = 0
        for m, linear in enumerate(self.filters):
            width = (1, 3, 6)[m]
            parts = [one[:, :, start : start + width] for one in turned[m:]]
            response = linear(torch.cat(parts, dim=1).transpose(1, 2))
            if m == 0:
                middle = response.squeeze(1)
            else:
                power = 0.5 * response.square().sum(dim=1)  # the mean of cos² over all turns is a half
                variance = power if variance is None else variance + power
            start += width
        assert middle is not None
        pooled = nn.functional.silu(middle) if variance is None else mean_silu(middle, variance)
        normed: Tensor = self.norm(pooled)
        return normed

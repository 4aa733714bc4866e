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
from collections.abc import Callable
from itertools import combinations_with_replacement
from typing import Any

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

    """

    def __init__(self, degree: int, order: int) -> None:
        super().__init__()
        assert order <= HIGHEST_ORDER, "orders above two are not written in the coordinates of space"
        self.degree = degree
        self.order = min(order, degree)
        for l, basis in enumerate(harmonics(degree)):  # noqa: E741
            self._keep(f"value{l}", l, basis)
            if l >= 1 and order >= 1:
                self._keep(f"slope{l}", l - 1, [_derivative(one, axis) for axis in range(3) for one in basis])
            if l >= 2 and order >= 2:
                pairs = [_derivative(_derivative(one, i), j) for i, j in _SYMMETRIC for one in basis]
                self._keep(f"bend{l}", l - 2, pairs)
            if l:  # monomials of each degree from those of the degree below
                lower, axes = _descent(l)
                self.register_buffer(f"lower{l}", lower, persistent=False)
                self.register_buffer(f"axis{l}", axes, persistent=False)

    @staticmethod
    def sizes(degree: int, order: int) -> list[tuple[int, int]]:
        """Components and degrees of each order.

        The map's rows are order by order, in an order component by component, in a component by degree.
        """
        return [((1, 3, 6)[m], degree + 1 - m) for m in range(min(order, degree) + 1)]

    def _keep(self, name: str, degree: int, polynomials: list[Polynomial]) -> None:
        """Store polynomials of one degree as the columns of a matrix over the monomials of that degree."""
        place = {powers: row for row, powers in enumerate(_monomials(degree))}
        matrix = torch.zeros(len(place), len(polynomials), dtype=torch.float64)
        for column, polynomial in enumerate(polynomials):
            for powers, value in polynomial.items():
                matrix[place[powers], column] = value
        self.register_buffer(name, matrix, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Follow to another device, but keep the constants in float64: a cast there and back would round them."""
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)

    def _polynomials(self, name: str, monomials: Tensor) -> Tensor:
        return monomials @ self.get_buffer(name).to(monomials)

    def forward(
        self, directions: Float[Tensor, "edges 3"]
    ) -> tuple[Float[Tensor, "edges harmonics"], Float[Tensor, "edges rows harmonics"]]:
        """Harmonics of the directions, and the map to components about them.

        Args:
            directions: (edges, 3) unit vectors.

        Returns:
            (edges, (degree + 1)²) and (edges, rows, (degree + 1)²), its rows as :meth:`sizes` tells. The squares of
            the components of an order add up to those of cosine and sine in any frame.
        """
        monomials = torch.ones_like(directions[:, :1])
        before = [monomials]
        values: list[Tensor] = []
        blocks: list[list[Tensor]] = [[] for _ in range(self.order + 1)]
        for l in range(self.degree + 1):  # noqa: E741
            if l:
                lower, axes = self.get_buffer(f"lower{l}"), self.get_buffer(f"axis{l}")
                before.append(before[-1].index_select(1, lower) * directions.index_select(1, axes))
            value = self._polynomials(f"value{l}", before[l])
            values.append(value)
            blocks[0].append(value[:, None] / math.sqrt(2 * l + 1))
            if l >= 1 and len(blocks) > 1:
                slope = self._polynomials(f"slope{l}", before[l - 1]).unflatten(1, (3, 2 * l + 1))
                across = slope - l * value[:, None] * directions[:, :, None]  # Euler: u . grad Y = l Y
                blocks[1].append(across * math.sqrt(2 / (l * (l + 1) * (2 * l + 1))))
            if l >= 2 and len(blocks) > 2:
                bend = self._polynomials(f"bend{l}", before[l - 2]).unflatten(1, (6, 2 * l + 1))
                factor = math.sqrt(4 / ((l - 1) * l * (l + 1) * (l + 2) * (2 * l + 1)))
                blocks[2].append(_across(bend, slope, value, directions, l) * factor)
        # one matrix for all degrees: its zeros cost less than products of many small ones
        rows = [self._spread(block, m) for m, block in enumerate(blocks)]
        return torch.cat(values, dim=1), torch.cat(rows, dim=1)

    def _spread(self, block: list[Tensor], order: int) -> Tensor:
        """(edges, components x degrees, harmonics) of (edges, components, 2 l + 1) for each degree from ``order``."""
        total = (self.degree + 1) ** 2
        padded = [nn.functional.pad(part, (l * l, total - (l + 1) ** 2)) for l, part in enumerate(block, start=order)]  # noqa: E741
        return torch.stack(padded, dim=2).flatten(1, 2)


def _across(bend: Tensor, slope: Tensor, value: Tensor, directions: Tensor, degree: int) -> Tensor:
    """Second derivatives in the plane across the directions, their trace taken away: (edges, 6, 2 l + 1).

    With P = 1 - u u, H the second derivatives and Euler's H u = (l - 1) grad Y, u H u = l (l - 1) Y. The trace of P H P
    is -l (l - 1) Y because that of H is zero. Off-diagonal components are multiplied by sqrt(2) to give squares right.
    """
    first = torch.tensor([i for i, _ in _SYMMETRIC], device=directions.device)
    second = torch.tensor([j for _, j in _SYMMETRIC], device=directions.device)
    same = (first == second).to(directions)[:, None]
    u_first, u_second = (directions.index_select(1, one)[:, :, None] for one in (first, second))
    mixed = u_first * slope.index_select(1, second) + u_second * slope.index_select(1, first)
    twice = (degree * (degree - 1)) * value[:, None]
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
        sizes: components and degrees of each order (:meth:`PolarFrame.sizes`).
        groups: of the normalisation that follows.
        epsilon: added to the variance that the normalisation divides by.
    """

    def __init__(
        self, channels: int, hidden: int, *, sizes: list[tuple[int, int]], groups: int, epsilon: float
    ) -> None:
        super().__init__()
        self.sizes = sizes
        linears = [nn.Linear(channels * degrees, hidden, bias=order == 0) for order, (_, degrees) in enumerate(sizes)]
        for linear in linears:
            nn.init.normal_(linear.weight, std=1 / math.sqrt(linear.in_features))
        self.filters = nn.ModuleList(linears)
        self.norm = nn.GroupNorm(groups, hidden, eps=epsilon)

    def forward(
        self,
        messages: Float[Tensor, "edges channels"],
        values: Float[Tensor, "edges harmonics"],
        maps: Float[Tensor, "edges rows harmonics"],
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
        sphere = sum_over_edges(values[:, :, None] * messages[:, None], centre, n_atoms)
        seen = maps @ sphere.index_select(0, at)
        orders = seen.split([components * degrees for components, degrees in self.sizes], dim=1)
        responses = [
            linear(part.unflatten(1, size).flatten(2))
            for linear, part, size in zip(self.filters, orders, self.sizes, strict=True)
        ]
        middle = responses[0].squeeze(1)
        if len(responses) == 1:
            pooled = nn.functional.silu(middle)
        else:  # the mean of cos² over all turns is a half
            variance = 0.5 * torch.stack([part.square().sum(dim=1) for part in responses[1:]]).sum(dim=0)
            pooled = mean_silu(middle, variance)
        normed: Tensor = self.norm(pooled)
        return normed

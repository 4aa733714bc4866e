"""Sums over edges of products, without the large intermediate tensors that automatic differentiation would keep.

Every message of a network is a product of factors: some belong to the edge (a filter, a direction), one to the
neighbour (its features). Summed over the edges of each atom and paired with a cotangent ``g`` of the centres, it is

    S = sum over edges e, x, c of  p_1[e, x, c] p_2[e, x, c] ... h[neighbour(e), x, c] g[centre(e), x, c],

which is linear in each factor. So the message is the partial derivative of S with respect to ``g``, its derivatives
are the other partial derivatives of S with one factor replaced by a cotangent, and so on without end: one formula is
the operation and all its derivatives. It is evaluated in blocks of edges that fit into the cache.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = 2**17
"""Numbers in the largest tensor of a block on a CPU: half a megabyte in single precision."""


def sum_over_edges(
    edges: Int[Tensor, "2 edges"],
    of_edges: Sequence[Float[Tensor, "edges _ _"]],
    of_neighbours: Float[Tensor, "atoms _ _"],
) -> Float[Tensor, "atoms components channels"]:
    """Sum over the edges of each atom the product of edge factors and the neighbour's factor.

    All factors are (edges or atoms, components, channels), where components and channels may be 1 and broadcast.
    Differentiable any number of times.

    Args:
        edges: centre, neighbour.
        of_edges: factors of the edges.
        of_neighbours: factor of the atoms, taken at the neighbour.

    Returns:
        (atoms, components, channels), zero for an atom without edges.
    """
    factors = [*of_edges, of_neighbours]
    components, channels = (max(factor.shape[axis] for factor in factors) for axis in (1, 2))
    shape = torch.Size((len(of_neighbours), components, channels))
    if torch.compiler.is_compiling():  # the compiler fuses and differentiates by itself
        return _partial(edges, len(factors), shape, factors)
    return _Partial.apply(edges, len(factors), shape, *factors)


class _Partial(torch.autograd.Function):
    """Partial derivative of S with respect to one of its factors, as a function of all others."""

    @staticmethod
    def forward(edges: Tensor, slot: int, shape: torch.Size, *others: Tensor) -> Tensor:
        return _partial(edges, slot, shape, others)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        edges, ctx.slot, _, *others = inputs
        ctx.save_for_backward(edges, *others)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        edges, *factors = ctx.saved_tensors
        factors.insert(ctx.slot, cotangents[0])
        slots = [slot for slot in range(len(factors)) if slot != ctx.slot]
        gradients = (
            _Partial.apply(edges, slot, factors[slot].shape, *factors[:slot], *factors[slot + 1 :]) if needed else None
            for slot, needed in zip(slots, ctx.needs_input_grad[3:], strict=True)
        )
        return None, None, None, *gradients


def _partial(edges: Tensor, slot: int, shape: torch.Size, others: Sequence[Tensor]) -> Tensor:
    """Partial derivative of S with respect to factor number ``slot``, of that shape; ``others`` without it."""
    places: list[Tensor | None] = [None] * (len(others) - 1) + [edges[1], edges[0]]
    place = places.pop(slot)
    width = max(factor.shape[1] for factor in others) * max(factor.shape[2] for factor in others)
    n_edges = edges.shape[1]
    block = max(1, BLOCK // width) if edges.device.type == "cpu" and not torch.compiler.is_compiling() else n_edges
    blocks = [slice(start, start + block) for start in range(0, n_edges, max(1, block))]
    result = others[0].new_zeros(shape) if place is not None else others[0].new_empty(shape)
    for rows in blocks:
        local = [
            factor[rows] if at is None else factor.index_select(0, at[rows])
            for factor, at in zip(others, places, strict=True)
        ]
        values = _contract(local, shape)
        if place is None:
            result[rows] = values
        else:
            result.index_add_(0, place[rows], values)
    return result


def _contract(factors: Sequence[Tensor], shape: torch.Size) -> Tensor:
    """Product of the factors, summed over the axes that are 1 in ``shape``; the small ones are multiplied first."""
    narrow = [factor for factor in factors if factor.shape[1] == 1]
    wide = [factor for factor in factors if factor.shape[1] > 1]
    parts = [reduce(torch.mul, narrow)] if narrow else []
    if wide:
        product = reduce(torch.mul, wide)
        parts.append(product.sum(dim=1, keepdim=True) if shape[1] == 1 else product)
    product = reduce(torch.mul, parts)
    return product.sum(dim=2, keepdim=True) if shape[2] == 1 and product.shape[2] > 1 else product

"""Sums of filtered messages whose derivatives of every order are sums of the same kind.

Left to autograd, a message of vectors or tensors is stored on every edge with all its components, several times over
when a loss of forces is differentiated. Here nothing with both edges and components is ever kept: components are taken
one by one, in pieces that stay in the processor's cache.
"""

from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from phystrain.layers.scatter import sum_over_edges

Features = Float[Tensor, "components atoms channels"]
Filters = Float[Tensor, "edges degrees channels"]
Gradients = tuple[Tensor | None, Tensor | None, None, None, None]


def filtered_sums(
    features: Features, filters: Filters, edges: Int[Tensor, "2 edges"], degrees: tuple[int, ...]
) -> Features:
    """(components, atoms, channels) sums of the neighbours' features times filters.

    Args:
        features: of the atoms, component by component.
        filters: factors of the channels of each edge, for each degree.
        edges: centre, neighbour.
        degrees: of each component: which filter it meets.
    """
    centre, neighbour = edges
    if torch.compiler.is_compiling():  # which fuses the steps by itself
        factors = filters[:, list(degrees)]
        messages = features.transpose(0, 1).index_select(0, neighbour) * factors
        return sum_over_edges(messages, centre, features.shape[1]).transpose(0, 1)
    return cast(Tensor, _Sums.apply(features, filters, neighbour, centre, degrees))


class _OfEdges(torch.autograd.Function):
    """What keeps its four tensors and its degrees for the derivative."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs[:4])
        ctx.degrees = inputs[4]


class _Sums(_OfEdges):
    """Over edges that lead to the same atom: features where the edge comes from, times its filter."""

    @staticmethod
    def forward(features: Tensor, filters: Tensor, source: Tensor, target: Tensor, degrees: tuple[int, ...]) -> Tensor:
        sums = features.new_zeros(features.shape)
        for component, degree in enumerate(degrees):
            message = features[component].index_select(0, source).mul_(filters[:, degree])
            sums[component].index_add_(0, target, message)
        return sums

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        features, filters, source, target = ctx.saved_tensors
        (g,) = gradients
        of_features = of_filters = None
        if ctx.needs_input_grad[0]:
            of_features = _Sums.apply(g, filters, target, source, ctx.degrees)
        if ctx.needs_input_grad[1]:
            of_filters = _Products.apply(features, g, source, target, ctx.degrees)
        return of_features, of_filters, None, None, None


class _Products(_OfEdges):
    """Of features at the two ends of an edge, summed over the components of a degree."""

    @staticmethod
    def forward(first: Tensor, second: Tensor, start: Tensor, end: Tensor, degrees: tuple[int, ...]) -> Tensor:
        products = first.new_zeros(len(start), max(degrees) + 1, first.shape[2])
        for component, degree in enumerate(degrees):
            ends = first[component].index_select(0, start), second[component].index_select(0, end)
            products[:, degree].addcmul_(*ends)
        return products

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        first, second, start, end = ctx.saved_tensors
        (g,) = gradients
        of_first = of_second = None
        if ctx.needs_input_grad[0]:
            of_first = _Sums.apply(second, g, end, start, ctx.degrees)
        if ctx.needs_input_grad[1]:
            of_second = _Sums.apply(first, g, start, end, ctx.degrees)
        return of_first, of_second, None, None, None


def directed_sums(
    values: Float[Tensor, "edges channels"],
    directions: Float[Tensor, "edges components"],
    centre: Int[Tensor, " edges"],
    n_atoms: int,
) -> Features:
    """(components, atoms, channels) sums over the edges of each atom of values times directions.

    Args:
        values: of the edges.
        directions: of the edges: their vectors, or other components.
        centre: atom that each edge belongs to.
        n_atoms: how many there are.
    """
    if torch.compiler.is_compiling():
        return sum_over_edges(values[:, None] * directions[:, :, None], centre, n_atoms).transpose(0, 1)
    return cast(Tensor, _Outer.apply(values, directions, centre, n_atoms))


class _Outer(torch.autograd.Function):
    """Values times directions, summed over the edges of an atom."""

    @staticmethod
    def forward(values: Tensor, directions: Tensor, centre: Tensor, n_atoms: int) -> Tensor:
        sums = values.new_zeros(directions.shape[1], n_atoms, values.shape[1])
        for component, direction in zip(sums, directions.T, strict=True):
            component.index_add_(0, centre, values * direction[:, None])
        return sums

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs[:3])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        values, directions, centre = ctx.saved_tensors
        (g,) = gradients
        return _Along.apply(g, directions, centre), _Overlap.apply(g, values, centre), None, None


class _Along(torch.autograd.Function):
    """Features of an edge's atom along the edge's direction: (edges, channels)."""

    @staticmethod
    def forward(features: Tensor, directions: Tensor, centre: Tensor) -> Tensor:
        values = features.new_zeros(len(centre), features.shape[2])
        for component, direction in zip(features, directions.T, strict=True):
            values.addcmul_(component.index_select(0, centre), direction[:, None])
        return values

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        features, directions, centre = ctx.saved_tensors
        (g,) = gradients
        return _Outer.apply(g, directions, centre, features.shape[1]), _Overlap.apply(features, g, centre), None


class _Overlap(torch.autograd.Function):
    """Products of the features of an edge's atom with values, summed over channels: (edges, components)."""

    @staticmethod
    def forward(features: Tensor, values: Tensor, centre: Tensor) -> Tensor:
        return torch.stack([(part.index_select(0, centre).mul_(values)).sum(dim=1) for part in features], dim=1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        features, values, centre = ctx.saved_tensors
        (g,) = gradients
        return _Outer.apply(values, g, centre, features.shape[1]), _Along.apply(features, g, centre), None

"""Pairs without a direction: what depends on the distance alone is the same for both edges of a pair."""

import torch
from jaxtyping import Int
from torch import Tensor

from phystrain.graph import AtomGraph


def undirected(graph: AtomGraph) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " edges"]] | None:
    """One edge of each pair, and the pair of each edge.

    Two edges are one pair if they join the same atoms and the same periodic images in opposite directions; equal
    distances are not enough, because forces would act along the wrong one.

    Returns:
        ``None`` while the network is compiled, and for a graph that is not an :class:`AtomGraph` but a part of one
        (see :mod:`phystrain.compiled`): both know edges by their vectors only.
    """
    if torch.compiler.is_compiling() or type(graph) is not AtomGraph or not graph.edges.shape[1]:
        return None
    centre, neighbour = graph.edges
    shifts = graph.shifts.detach().round().to(torch.int64)
    reach = shifts.abs().max()
    base = 2 * reach + 1
    image = ((shifts[:, 0] + reach) * base + shifts[:, 1] + reach) * base + shifts[:, 2] + reach
    images = base**3
    forth = (centre * graph.n_atoms + neighbour) * images + image
    back = (neighbour * graph.n_atoms + centre) * images + (images - 1 - image)
    names, pair = torch.unique(torch.minimum(forth, back), return_inverse=True)
    numbers = torch.arange(len(pair), device=pair.device)
    first = torch.full_like(names, len(pair)).scatter_reduce(0, pair, numbers, "amin")
    return first, pair

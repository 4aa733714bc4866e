"""The nearest neighbours of each atom, for architectures that limit their number."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def among_nearest(
    centre: Int[Tensor, " edges"], distances: Float[Tensor, " edges"], count: int
) -> Bool[Tensor, " edges"]:
    """(edges,) whether the neighbour is one of the ``count`` nearest of its centre.

    Energies jump where two neighbours change places in this order. Of equally distant ones, those that come first in
    the list are taken, so the result depends on the order of atoms there.

    Args:
        centre: (edges,) atom of each edge.
        distances: (edges,) Å.
        count: at least one.
    """
    by_distance = torch.argsort(distances.detach(), stable=True)
    order = by_distance[torch.argsort(centre[by_distance], stable=True)]
    grouped = centre[order]
    place = torch.arange(len(order), device=order.device)
    rank = place - torch.searchsorted(grouped, grouped)  # the first edge of a centre has rank zero
    return torch.empty_like(rank, dtype=torch.bool).index_copy(0, order, rank < count)

"""Triplets: a centre and two of its neighbours, for energies that depend on angles."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Triplets(NamedTuple):
    """Unordered pairs of edges with the same centre, each once.

    Attributes:
        first, second: (triplets,) positions in the list of edges.
    """

    first: Int[Tensor, " triplets"]
    second: Int[Tensor, " triplets"]


def triplets(centre: Int[Tensor, " edges"], n_atoms: int) -> Triplets:
    """All pairs of edges that share their centre.

    n edges at an atom make n (n - 1) / 2 triplets: 6 for 4 neighbours, 66 for 12, 1540 for 56. Time and memory follow
    that number (16 bytes a triplet here, some 200 with the energies that are made of it and their derivatives), so
    drop the edges beyond a short cut-off before.

    Args:
        centre: (edges,) atom of each edge, in any order; both directions of a pair listed, as in a graph.
        n_atoms: number of atoms.
    """
    order = torch.argsort(centre, stable=True)
    grouped = centre.index_select(0, order)
    counts = torch.zeros(n_atoms, dtype=torch.int64, device=centre.device).index_add(0, centre, torch.ones_like(centre))
    start = torch.cumsum(counts, 0) - counts  # first edge of each atom
    place = torch.arange(len(centre), device=centre.device)
    earlier = place - start.index_select(0, grouped)  # each edge makes a triplet with every earlier one of its atom
    second = torch.repeat_interleave(place, earlier)
    run = torch.cumsum(earlier, 0) - earlier  # first triplet of each edge
    rank = torch.arange(len(second), device=centre.device) - run.index_select(0, second)
    first = start.index_select(0, grouped.index_select(0, second)) + rank
    return Triplets(order.index_select(0, first), order.index_select(0, second))


def cosines(
    vectors: Float[Tensor, "edges 3"], distances: Float[Tensor, " edges"], found: Triplets
) -> Float[Tensor, " triplets"]:
    """(triplets,) cosine of the angle at the centre; smooth everywhere, also for three atoms on a line.

    Args:
        vectors: (edges, 3) Å, from the centre.
        distances: (edges,) Å, their lengths.
        found: the triplets.
    """
    units = vectors / distances[:, None]
    return (units.index_select(0, found.first) * units.index_select(0, found.second)).sum(dim=1)

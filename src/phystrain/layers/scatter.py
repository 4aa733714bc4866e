"""Sums over the edges of each atom."""

from jaxtyping import Float, Int
from torch import Tensor


def sum_over_edges(
    values: Float[Tensor, "edges *features"], centre: Int[Tensor, " edges"], n_atoms: int
) -> Float[Tensor, "atoms *features"]:
    """(atoms, ...) sum of (edges, ...) over the edges whose centre is the atom; zero for an atom without edges."""
    return values.new_zeros(n_atoms, *values.shape[1:]).index_add(0, centre, values)

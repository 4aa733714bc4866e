"""A linear layer of both atoms of an edge and of the edge itself."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def edge_linear(
    layer: nn.Linear,
    atoms: Float[Tensor, "atoms channels"],
    edges: Float[Tensor, "edges features"],
    centre: Int[Tensor, " edges"],
    neighbour: Int[Tensor, " edges"],
) -> Float[Tensor, "edges outputs"]:
    """(edges, outputs): ``layer`` of the features of centre, neighbour and edge side by side.

    Atoms are fewer than edges: their part of the product is made before it is copied.

    Args:
        layer: of as many inputs as these have together.
        atoms: features of the atoms.
        edges: features of the edges.
        centre, neighbour: atoms of each edge.
    """
    channels = atoms.shape[1]
    of_centre, of_neighbour, of_edge = layer.weight.split([channels, channels, edges.shape[1]], dim=1)
    first = nn.functional.linear(atoms, of_centre, layer.bias).index_select(0, centre)
    second = nn.functional.linear(atoms, of_neighbour).index_select(0, neighbour)
    return torch.addmm(first + second, edges, of_edge.T)

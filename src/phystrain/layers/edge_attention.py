"""Weights of the neighbours of each atom that add up to at most one."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def smooth_leaky_relu(x: Float[Tensor, "*shape"], slope: float = 0.2) -> Float[Tensor, "*shape"]:
    """A leaky ReLU whose bend is a sigmoid (Liao et al. 2023, arXiv:2306.12059)."""
    return x * (0.5 * (1 + slope) + 0.5 * (1 - slope) * torch.tanh(0.5 * x))


def edge_softmax(
    logits: Float[Tensor, "edges heads"],
    decay: Float[Tensor, "edges 1"],
    centre: Int[Tensor, " edges"],
    n_atoms: int,
    *,
    sink: bool,
) -> Float[Tensor, "edges heads"]:
    """``decay exp(a) / (1 + sum decay exp(a))``, the sum over the edges of the same centre.

    The decay takes a neighbour out of numerator and sum at the cut-off. The one in the sum, a neighbour that is not
    there and says nothing, makes weights of the last neighbour go to zero too: without it they would add up to one
    whatever the decay, until they jump.

    Args:
        logits: by attention head.
        decay: the envelope.
        centre: atom of each edge.
        n_atoms: number of atoms.
        sink: whether there is the one in the sum.
    """
    place = centre[:, None].expand_as(logits)
    start = logits.new_full((n_atoms, logits.shape[1]), 0.0 if sink else torch.finfo(logits.dtype).min)
    largest = start.scatter_reduce(0, place, logits.detach(), "amax")  # any number does; this one cannot overflow
    weights = decay * torch.exp(logits - largest.index_select(0, centre))
    total = torch.zeros_like(largest).index_add(0, centre, weights)
    # an atom all of whose edges are longer than the cut-off has nothing to divide
    total = total + torch.exp(-largest) if sink else torch.where(total == 0, torch.ones_like(total), total)
    return weights / total.index_select(0, centre)

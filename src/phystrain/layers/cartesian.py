"""Tensors of rank two as their irreducible components: a scalar, an antisymmetric and a symmetric traceless tensor.

A 3 x 3 tensor has nine components in an orthonormal basis: the first belongs to the scalar (degree 0), the next three
to the antisymmetric part (degree 1), the last five to the symmetric traceless part (degree 2). Squared Frobenius norms
are sums of squares, and what acts on the degrees separately needs no decomposition.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

DEGREES = (0, 1, 1, 1, 2, 2, 2, 2, 2)
"""Degree of each component."""

# Six times the squares of the basis tensors' entries, with their signs: these integers are exact in every precision,
# while irrational numbers that were kept in single precision would spoil equivariance in double precision.
_SIXTHS = (
    (2, 0, 0, 0, 2, 0, 0, 0, 2),
    (0, 0, 0, 0, 0, -3, 0, 3, 0),
    (0, 0, 3, 0, 0, 0, -3, 0, 0),
    (0, -3, 0, 3, 0, 0, 0, 0, 0),
    (0, 3, 0, 3, 0, 0, 0, 0, 0),
    (0, 0, 0, 0, 0, 3, 0, 3, 0),
    (0, 0, 3, 0, 0, 0, 3, 0, 0),
    (3, 0, 0, 0, -3, 0, 0, 0, 0),
    (-1, 0, 0, 0, -1, 0, 0, 0, 4),
)

Components = Float[Tensor, "9 atoms channels"]
Matrices = Float[Tensor, "3 3 atoms channels"]


class CartesianBasis(nn.Module):
    """From vectors and 3 x 3 tensors to irreducible components and back. It has no parameters."""

    sixths: Tensor
    degrees: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sixths", torch.tensor(_SIXTHS, dtype=torch.get_default_dtype()), persistent=False)
        self.register_buffer("degrees", torch.tensor(DEGREES), persistent=False)

    def tensors(self) -> Float[Tensor, "9 9"]:
        """(component, entry) entries of the basis tensors, row by row; an orthogonal matrix."""
        return torch.sign(self.sixths) * torch.sqrt(torch.abs(self.sixths) / 6.0)

    def of_directions(self, directions: Float[Tensor, "edges 3"]) -> Float[Tensor, "edges 9"]:
        """(edges, 9) components of identity, cross-product tensor and traceless square of unit vectors, together."""
        square = (directions[:, :, None] * directions[:, None]).flatten(1)
        scalar = torch.full_like(directions[:, :1], math.sqrt(3.0))
        return torch.cat([scalar, math.sqrt(2.0) * directions, square @ self.tensors()[4:].T], dim=1)

    def per_component(self, values: Float[Tensor, "3 *shape"]) -> Float[Tensor, "9 *shape"]:
        """One value per component from one value per degree."""
        return values.index_select(0, self.degrees)

    def compose(self, components: Components) -> Matrices:
        """3 x 3 tensors from their components."""
        return (self.tensors().T @ components.flatten(1)).view(3, 3, *components.shape[1:])

    def decompose(self, matrices: Matrices) -> Components:
        """Components of 3 x 3 tensors."""
        return (self.tensors() @ matrices.flatten(2).flatten(0, 1)).view(9, *matrices.shape[2:])


class DegreeLinear(nn.Module):
    """Mixes channels, with one matrix for each degree.

    Args:
        channels: in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(channels)  # that of torch.nn.Linear
        self.weight = nn.Parameter(torch.empty(3, channels, channels).uniform_(-bound, bound))

    def forward(self, components: Components, basis: CartesianBasis) -> Components:
        """(9, atoms, channels) components of mixed channels."""
        return torch.bmm(components, basis.per_component(self.weight).transpose(1, 2))


def product(first: Matrices, second: Matrices) -> Matrices:
    """Matrix product of 3 x 3 tensors, channel by channel."""
    return (first[:, :, None] * second[None]).sum(dim=1)


def squared_norm(components: Components) -> Float[Tensor, "atoms channels"]:
    """(atoms, channels) squared Frobenius norms."""
    return (components * components).sum(dim=0)

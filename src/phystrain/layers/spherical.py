"""Blocks for coefficients of real spherical harmonics on atoms, (atoms, (lmax + 1)², channels), degree by degree."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

Coefficients = Float[Tensor, "atoms _ _"]


def degrees_of(lmax: int) -> Int[Tensor, " coefficients"]:
    """Degree of each coefficient."""
    return torch.tensor([degree for degree in range(lmax + 1) for _ in range(2 * degree + 1)])


class DegreeLinear(nn.Module):
    """A linear map of the channels for each degree, with a bias of degree zero.

    Args:
        lmax: highest degree.
        inputs, outputs: channels.
    """

    degree: Tensor

    def __init__(self, lmax: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("degree", degrees_of(lmax), persistent=False)
        self.weight = nn.Parameter(torch.empty(lmax + 1, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.uniform_(self.weight, -math.sqrt(3 / inputs), math.sqrt(3 / inputs))  # keeps variances

    def forward(self, x: Float[Tensor, "atoms coefficients _"]) -> Float[Tensor, "atoms coefficients _"]:
        weight = self.weight.index_select(0, self.degree)
        product = torch.bmm(x.transpose(0, 1), weight).transpose(0, 1)
        return torch.cat([product[:, :1] + self.bias, product[:, 1:]], dim=1)


class DegreeNorm(nn.Module):
    """Layer norm of the scalars; all higher degrees divided by one root mean square of them.

    Liao, Wood, Das, Smidt 2023, arXiv:2306.12059, section 4.3: each degree counts the same.

    Args:
        lmax: highest degree.
        channels: of the features.
        epsilon: added to variance and mean square.
    """

    def __init__(self, lmax: int, channels: int, epsilon: float) -> None:
        super().__init__()
        self.lmax, self.epsilon = lmax, epsilon
        self.scalars = nn.LayerNorm(channels, eps=epsilon)
        self.weight = nn.Parameter(torch.ones(lmax, channels)) if lmax else None

    def forward(self, x: Coefficients) -> Coefficients:
        scalars = self.scalars(x[:, :1])
        if self.weight is None:
            return scalars
        degrees = [x[:, degree**2 : (degree + 1) ** 2] for degree in range(1, self.lmax + 1)]
        squares = sum(part.square().mean(dim=(1, 2), keepdim=True) for part in degrees)
        assert isinstance(squares, Tensor)
        scale = torch.rsqrt(squares / self.lmax + self.epsilon)
        return torch.cat([scalars] + [part * (scale * w) for part, w in zip(degrees, self.weight, strict=True)], dim=1)


class GatedFeedForward(nn.Module):
    """Two linear maps of each degree with a gate between: exactly equivariant.

    Args:
        lmax: highest degree that is wanted; of higher ones in the input nothing is used.
        inputs, hidden, outputs: channels.
    """

    def __init__(self, lmax: int, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.lmax, self.hidden = lmax, hidden
        self.first = DegreeLinear(lmax, inputs, hidden)
        self.gates = nn.Linear(inputs, lmax * hidden) if lmax else None
        self.second = DegreeLinear(lmax, hidden, outputs)
        if self.gates is not None:
            nn.init.zeros_(self.gates.bias)

    @property
    def last(self) -> DegreeLinear:
        """The map that the result comes from."""
        return self.second

    def forward(self, x: Coefficients) -> Coefficients:
        x = x[:, : (self.lmax + 1) ** 2]
        hidden = self.first(x)
        scalars = nn.functional.silu(hidden[:, :1])
        if self.gates is None:
            return self.second(scalars)
        gates = torch.sigmoid(self.gates(x[:, 0])).unflatten(1, (self.lmax, self.hidden))
        gates = gates.index_select(1, self.first.degree[1:] - 1)
        return self.second(torch.cat([scalars, hidden[:, 1:] * gates], dim=1))

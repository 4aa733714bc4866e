"""Two perceptrons of the same shape, one of which gates the other."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from phystrain.layers.activations import gated_silu, silu


class GatedNetwork(nn.Module):
    """``value(x) * gate(x)``; activations are SiLU, the last one of the gate is the logistic function.

    Chen and Ong 2022, arXiv:2202.02450, equation 5.

    Args:
        sizes: of the input, and of what each layer gives.
        bias: whether the layers have a constant.
        activate: whether the last layer of the value has an activation, too.
    """

    def __init__(self, sizes: Sequence[int], *, bias: bool = True, activate: bool = True) -> None:
        super().__init__()
        self.activate = activate
        self.value = nn.ModuleList([nn.Linear(*pair, bias=bias) for pair in pairwise(sizes)])
        self.gate = nn.ModuleList([nn.Linear(*pair, bias=bias) for pair in pairwise(sizes)])

    def forward(self, x: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        return self.after_first(self.value[0](x), self.gate[0](x))

    def after_first(
        self, value: Float[Tensor, "rows hidden"], gate: Float[Tensor, "rows hidden"]
    ) -> Float[Tensor, "rows outputs"]:
        """What follows the first layers, given what they return."""
        for of_value, of_gate in zip(self.value[1:], self.gate[1:], strict=True):
            value, gate = of_value(silu(value)), of_gate(silu(gate))
        return gated_silu(value, gate) if self.activate else value * torch.sigmoid(gate)

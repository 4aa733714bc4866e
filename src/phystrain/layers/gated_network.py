"""Two perceptrons of the same shape, one of which gates the other."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu


class GatedNetwork(nn.Module):
    """``value(x) * gate(x)``; activations are SiLU, the last one of the gate is the logistic function.

    Chen and Ong 2022, arXiv:2202.02450, equation 5.

    Args:
        sizes: of the input, and of what each layer gives.
        bias: whether the layers have a constant.
        activate: whether the last layer of the value has an activation, too.

    Attributes:
        first: first layers of both, value first.
    """

    def __init__(self, sizes: Sequence[int], *, bias: bool = True, activate: bool = True) -> None:
        super().__init__()
        self.activate = activate
        self.first = nn.Linear(sizes[0], 2 * sizes[1], bias=bias)
        self.value = nn.ModuleList([nn.Linear(*pair, bias=bias) for pair in pairwise(sizes[1:])])
        self.gate = nn.ModuleList([nn.Linear(*pair, bias=bias) for pair in pairwise(sizes[1:])])

    def forward(self, x: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        return self.after_first(self.first(x))

    def after_first(self, both: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows outputs"]:
        """What follows the first layers, given their sums (value beside gate) before the activation."""
        value, gate = (silu(both) if self.value else both).chunk(2, dim=1)
        for number, (of_value, of_gate) in enumerate(zip(self.value, self.gate, strict=True), start=1):
            value, gate = of_value(value), of_gate(gate)
            if number < len(self.value):
                value, gate = silu(value), silu(gate)
        return (silu(value) if self.activate else value) * torch.sigmoid(gate)

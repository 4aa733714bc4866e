"""Two perceptrons of the same shape, one of which gates the other.

The derivatives of their last step are written out: PyTorch makes some thirty passes over memory of the second ones,
which training on forces needs for every edge. Third and higher derivatives come from autograd.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from phystrain.layers.activations import SiLU


class GatedNetwork(nn.Module):
    """``value(x) * gate(x)``; activations are SiLU, the last one of the gate is the logistic function.

    Chen and Ong 2022, arXiv:2202.02450.

    Args:
        sizes: of the input, and of what each layer gives.
        bias: whether the layers have a constant.
        activate: whether the last layer of the value has an activation, too.
    """

    def __init__(self, sizes: Sequence[int], *, bias: bool = True, activate: bool = True) -> None:
        super().__init__()
        self.activate = activate
        self.silu = SiLU()
        self.value = nn.ModuleList([nn.Linear(*pair, bias=bias) for pair in pairwise(sizes)])
        self.gate = nn.ModuleList([nn.Linear(*pair, bias=bias) for pair in pairwise(sizes)])

    def forward(self, x: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        return self.after_first(self.value[0](x), self.gate[0](x))

    def after_first(
        self, value: Float[Tensor, "rows hidden"], gate: Float[Tensor, "rows hidden"]
    ) -> Float[Tensor, "rows outputs"]:
        """What follows the first layers, given what they return."""
        for of_value, of_gate in zip(self.value[1:], self.gate[1:], strict=True):
            value, gate = of_value(self.silu(value)), of_gate(self.silu(gate))
        return gated_silu(value, gate) if self.activate else value * torch.sigmoid(gate)


def gated_silu(value: Float[Tensor, "*shape"], gate: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``silu(value) * sigmoid(gate)``."""
    if torch.compiler.is_compiling():  # which fuses the plain expression by itself
        return torch.nn.functional.silu(value) * torch.sigmoid(gate)
    product: Tensor = _GatedSiLU.apply(value, gate)[0]
    return product


def _silu_slope(grad: Tensor, x: Tensor) -> Tensor:
    """``grad`` times the derivative of SiLU, s (1 + x (1 - s)) with s the logistic function of x."""
    if torch.is_grad_enabled():  # the kernel has no derivative of its own
        s = torch.sigmoid(x)
        return grad * s * (1.0 + x * (1.0 - s))
    slope: Tensor = torch.ops.aten.silu_backward(grad, x)
    return slope


def _silu_curvature(grad: Tensor, x: Tensor) -> Tensor:
    """``grad`` times the second derivative of SiLU, s (1 - s) (2 + x - 2 x s)."""
    s = torch.sigmoid(x)
    return _logistic_slope((2.0 + x).addcmul_(x, s, value=-2.0).mul_(grad), s)


def _logistic_slope(grad: Tensor, s: Tensor) -> Tensor:
    """``grad`` times the derivative of the logistic function, whose value is ``s``."""
    if torch.is_grad_enabled():
        return grad * s * (1.0 - s)
    slope: Tensor = torch.ops.aten.sigmoid_backward(grad, s)
    return slope


class _GatedSiLU(torch.autograd.Function):
    """The product, and both factors, which the derivatives need."""

    @staticmethod
    def forward(value: Tensor, gate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, s = torch.nn.functional.silu(value), torch.sigmoid(gate)
        return y * s, y, s

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, *output[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        if grads[0] is None:
            return None, None
        slopes: tuple[Tensor, Tensor] = _GatedSiLUSlope.apply(grads[0], *ctx.saved_tensors)
        return slopes


class _GatedSiLUSlope(torch.autograd.Function):
    """Derivatives of the product by value and gate; what it is given of both factors only saves work."""

    @staticmethod
    def forward(grad: Tensor, value: Tensor, gate: Tensor, y: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG004
        return _silu_slope(grad * s, value), _logistic_slope(grad * y, s)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *seconds: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        grad, value, gate, y, s = ctx.saved_tensors
        if torch.is_grad_enabled():  # the factors as functions of what they were made from
            y, s = torch.nn.functional.silu(value), torch.sigmoid(gate)
        by_value, by_gate = _silu_slope(seconds[0], value), _logistic_slope(seconds[1], s)
        cross = by_gate * grad
        curved = cross * y
        return (
            (by_value * s).addcmul_(by_gate, y),
            _silu_curvature((seconds[0] * grad).mul_(s), value).add_(_silu_slope(cross, value)),
            _logistic_slope(by_value * grad, s).add_(curved).addcmul_(curved, s, value=-2.0),
            None,
            None,
        )

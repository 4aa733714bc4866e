"""Activation functions whose second derivatives are cheap: training on forces needs them for every edge."""

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn


class SiLU(nn.Module):
    """``x / (1 + exp(-x))``, the same as ``torch.nn.SiLU``.

    Where torch makes a chain of products of the derivative and differentiates each, this has the second derivative
    written out: half as many passes over the features in a training step.
    """

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        if torch.compiler.is_compiling():  # which fuses the chain by itself
            return nn.functional.silu(x)
        return cast(Tensor, _SiLU.apply(x))


class _SiLU(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return nn.functional.silu(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return cast(Tensor, _Backward.apply(gradients[0], x))


class _Backward(torch.autograd.Function):
    """``g f'(x)``."""

    @staticmethod
    def forward(g: Tensor, x: Tensor) -> Tensor:
        return cast(Tensor, torch.ops.aten.silu_backward(g, x))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        g, x = ctx.saved_tensors
        (h,) = gradients
        s = torch.sigmoid(x)
        # f'' = s (1 - s) (2 + x (1 - 2 s))
        second = (torch.addcmul(x, x, s, value=-2.0) + 2.0) * torch.addcmul(s, s, s, value=-1.0)
        return cast(Tensor, _Backward.apply(h, x)), second * (g * h)

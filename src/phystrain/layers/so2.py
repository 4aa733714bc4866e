"""Linear maps of coefficients in the frame of an edge that commute with turns about the edge."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from phystrain.layers.edge_frames import Parts


class SO2Linear(nn.Module):
    """Mixes degrees and channels of each order; cosines and sines alike, or as real and imaginary part.

    Liao, Wood, Das, Smidt 2023, arXiv:2306.12059, section 3 and appendix A.3. Outputs of order zero have a bias.

    Args:
        lmax, mmax: degrees and orders of the input.
        inputs, outputs: channels.
        degrees: first and last degree of the output.
        extra: further outputs of order zero.
        chiral: weights have an imaginary part too. It couples cosines to sines, which a reflection through the edge
            tells apart: turns commute with the map then, reflections do not.
    """

    def __init__(
        self, lmax: int, mmax: int, inputs: int, outputs: int, *, degrees: tuple[int, int], extra: int, chiral: bool
    ) -> None:
        super().__init__()
        self.extra, self.outputs, self.chiral = extra, outputs, chiral
        first, last = degrees
        self.counts = [last + 1 - max(first, m) for m in range(min(mmax, last) + 1)]
        self.zero = nn.Linear((lmax + 1) * inputs, self.counts[0] * outputs + extra)
        self.orders = nn.ModuleList(
            [
                nn.Linear((lmax + 1 - m) * inputs, (1 + chiral) * count * outputs, bias=False)
                for m, count in enumerate(self.counts)
                if m > 0
            ]
        )
        nn.init.zeros_(self.zero.bias)
        if chiral:
            with torch.no_grad():
                for linear in self.orders:
                    linear.weight.mul_(math.sqrt(0.5))  # type: ignore[operator]

    def forward(
        self, parts: Parts, weights: list[Float[Tensor, "edges _"]] | None = None
    ) -> tuple[Float[Tensor, "edges _"], Parts]:
        """The extra outputs, and coefficients by order.

        Args:
            parts: coefficients by order.
            weights: a factor of each degree and channel of each order, (edges, degrees * channels) by order.
        """
        flat = [part.flatten(2) for part in parts]
        if weights is not None:
            flat = [part * weight[:, None] for part, weight in zip(flat, weights, strict=True)]
        zero = self.zero(flat[0].squeeze(1))
        extra, zero = zero[:, : self.extra], zero[:, self.extra :]
        found = [zero.unflatten(1, (1, self.counts[0], self.outputs))]
        for m, linear in enumerate(self.orders, start=1):
            product = linear(flat[m])
            if self.chiral:
                real, imaginary = product.chunk(2, dim=2)
                product = real + times_i(imaginary)
            found.append(product.unflatten(2, (self.counts[m], self.outputs)))
        return extra, found


def times_i(numbers: Float[Tensor, "edges 2 _"]) -> Float[Tensor, "edges 2 _"]:
    """Complex numbers, as real and imaginary part, times the imaginary unit."""
    return torch.stack([-numbers[:, 1], numbers[:, 0]], dim=1)


def gated_orders(parts: Parts, gates: Float[Tensor, "edges _"]) -> Parts:
    """Activation that is exactly equivariant: SiLU of degree zero, the other degrees times a sigmoid of a scalar.

    Args:
        parts: coefficients by order.
        gates: (edges, lmax * channels) scalars, by degree from one.
    """
    zero, channels = parts[0], parts[0].shape[3]
    scalars = nn.functional.silu(zero[:, :, :1])
    if zero.shape[2] == 1:
        return [scalars]
    factors = torch.sigmoid(gates).unflatten(1, (1, -1, channels))
    found = [torch.cat([scalars, zero[:, :, 1:] * factors], dim=2)]
    return found + [part * factors[:, :, m - 1 :] for m, part in enumerate(parts[1:], start=1)]

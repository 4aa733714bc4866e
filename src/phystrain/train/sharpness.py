"""Sharpness-aware minimisation: the gradient where the loss is worst nearby.

Sources: SAM, Foret et al. 2021 (arXiv 2010.01412), eq. 2; the adaptive form, Kwon et al. 2021 (arXiv 2102.11600),
eq. 7, in which the neighbourhood scales with the weights.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from phystrain.config import Sharpness


@contextmanager
def worst_nearby(parameters: Iterable[Tensor], settings: Sharpness) -> Iterator[None]:
    """Inside, the parameters stand where their gradients say that the loss is largest; outside, where they stood.

    With gradient g, weights w and radius r the move is r g / |g|, or r w² g / | |w| g | in the adaptive form. All
    processes hold the same averaged gradient, so they make the same move.

    Args:
        parameters: with their gradients; those without are left alone.
        settings: radius and form.
    """
    pairs = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
    moved = [parameter for parameter, _ in pairs]
    with torch.no_grad():
        scale = [parameter.abs() if settings.adaptive else torch.ones_like(parameter) for parameter in moved]
        weighted = [size * gradient for size, (_, gradient) in zip(scale, pairs, strict=True)]
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part) for part in weighted]))
        before = [parameter.detach().clone() for parameter in moved]
        for parameter, size, part in zip(moved, scale, weighted, strict=True):
            parameter.add_(settings.radius * size * part / (norm + 1e-12))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(moved, before, strict=True):
                parameter.copy_(value)

"""Constant tables that keep double precision."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class FixedTables(nn.Module):
    """Module whose buffers are constants made from sizes: always in double precision, never stored.

    A network is made in single precision and may be turned to double later; constants rounded in between would spoil
    symmetries that hold exactly. Cast them where they are used.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Follow ``.to``, ``.float`` and the like to another device, but never to another precision."""
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)

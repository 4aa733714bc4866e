"""Functions given by their values at points, as piecewise cubic polynomials that torch can differentiate.

Each curve is linear outside its points, with the slope it has at the end.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from scipy.interpolate import CubicHermiteSpline, CubicSpline
from torch import Tensor, nn

from phystrain.errors import UserError

Array = npt.NDArray[np.float64]


def not_a_knot(x: Array, y: Array) -> CubicHermiteSpline:
    """Twice continuously differentiable cubic spline, thrice at the points next to the ends. ASE reads tables so."""
    spline = CubicSpline(x, y, bc_type="not-a-knot")
    return CubicHermiteSpline(x, y, spline(x, 1))


def clamped(x: Array, y: Array, first: float, last: float) -> CubicHermiteSpline:
    """Twice continuously differentiable cubic spline with given slopes at the ends."""
    spline = CubicSpline(x, y, bc_type=((1, first), (1, last)))
    return CubicHermiteSpline(x, y, spline(x, 1))


def five_point(x: Array, y: Array) -> CubicHermiteSpline:
    """Cubic polynomials whose slopes at the points are differences over five points; once continuously differentiable.

    LAMMPS reads EAM tables so: differences of fourth order, of second order at the points next to the ends, and of
    first order at the ends.

    Args:
        x: (points,) evenly spaced.
        y: (points,) values.
    """
    slopes = np.empty_like(y)
    slopes[2:-2] = ((y[:-4] - y[4:]) + 8 * (y[3:-1] - y[1:-3])) / 12
    slopes[1], slopes[-2] = (y[2] - y[0]) / 2, (y[-1] - y[-3]) / 2
    slopes[0], slopes[-1] = y[1] - y[0], y[-1] - y[-2]
    return CubicHermiteSpline(x, y, slopes * (len(x) - 1) / (x[-1] - x[0]))


class CubicTable(nn.Module):
    """Several curves, each on points of its own, evaluated at once.

    Tables keep double precision whatever the precision of the rest. They are buffers, so that a saved model holds
    them; a table that is made from sizes alone is empty until weights are loaded, and refuses to be used before.

    Args:
        points: number of points of each curve.
        uniform: whether the points of each curve are evenly spaced, which makes finding a place faster.

    Attributes:
        origin: (rows,) where the argument of each polynomial begins. A curve of n points has n + 1 rows: one before
            the first point, one after each point.
        coefficients: (rows, 4) of each polynomial, constant first.
    """

    origin: Float[Tensor, " rows"]
    coefficients: Float[Tensor, "rows 4"]
    first_row: Int[Tensor, " curves"]
    last_row: Int[Tensor, " curves"]
    keys: Float[Tensor, " rows"]
    span: Float[Tensor, "2"]

    def __init__(self, points: Sequence[int], *, uniform: bool) -> None:
        super().__init__()
        self.uniform = uniform
        self.filled = False
        ends = torch.tensor([n + 1 for n in points], dtype=torch.int64).cumsum(0)
        starts = torch.cat([ends.new_zeros(1), ends[:-1]])
        rows = int(ends[-1])
        self.register_buffer("first_row", starts, persistent=False)
        self.register_buffer("last_row", ends - 1, persistent=False)
        self.register_buffer("origin", torch.zeros(rows, dtype=torch.float64))
        self.register_buffer("coefficients", torch.zeros(rows, 4, dtype=torch.float64))
        if not uniform:
            self.register_buffer("keys", torch.zeros(rows, dtype=torch.float64))
            self.register_buffer("span", torch.zeros(2, dtype=torch.float64))
        self.register_load_state_dict_post_hook(_mark_filled)

    def fill(self, curves: Sequence[CubicHermiteSpline]) -> None:
        """Put in the curves, as many and with as many points as was said."""
        origins, coefficients = [], []
        for curve in curves:
            x = curve.x
            inner = curve.c[::-1].T
            before = [curve(x[0]), curve(x[0], 1), 0.0, 0.0]
            after = [curve(x[-1]), curve(x[-1], 1), 0.0, 0.0]
            origins += [x[:1], x]
            coefficients += [[before], inner, [after]]
        self.origin.copy_(torch.from_numpy(np.concatenate(origins)))
        self.coefficients.copy_(torch.from_numpy(np.concatenate(coefficients)))
        if not self.uniform:
            self._lay_side_by_side(curves)
        self.filled = True

    def _lay_side_by_side(self, curves: Sequence[CubicHermiteSpline]) -> None:
        """Give each curve a stretch of one axis for itself, so that one search finds the places on all of them."""
        low = min(curve.x[0] for curve in curves)
        width = max(curve.x[-1] for curve in curves) - low + 2.0
        keys = [
            np.concatenate([[number * width - 0.5], curve.x - low + number * width])
            for number, curve in enumerate(curves)
        ]
        self.keys.copy_(torch.from_numpy(np.concatenate(keys)))
        self.span.copy_(torch.tensor([low, width]))

    def forward(
        self, argument: Float[Tensor, " arguments"], curve: Int[Tensor, " arguments"]
    ) -> Float[Tensor, " arguments"]:
        """(arguments,) value of ``curve`` at ``argument``, in the precision of the argument.

        Raises:
            UserError: nothing was put in.
        """
        if not self.filled:
            raise UserError(
                "the file of the table that this potential was made from is gone or was changed.\n"
                "Put it back, or use a model file, which holds the table."
            )
        x = argument.to(torch.float64)
        row = self._row(x.detach(), curve)
        t = x - self.origin.index_select(0, row)
        c0, c1, c2, c3 = self.coefficients.index_select(0, row).unbind(1)
        return (c0 + t * (c1 + t * (c2 + t * c3))).to(argument.dtype)

    def end(self) -> Float[Tensor, " curves"]:
        """(curves,) last point of each curve."""
        return self.origin.index_select(0, self.last_row)

    def _row(self, x: Tensor, curve: Tensor) -> Tensor:
        first, last = self.first_row, self.last_row
        if self.uniform:
            low, n_steps = self.origin[first], last - first - 1
            inverse = n_steps / (self.origin[last] - low)
            place = torch.floor((x - low[curve]) * inverse[curve]) + 1
            return first[curve] + torch.minimum(place.clamp(min=0), (last - first)[curve]).to(torch.int64)
        low, width = self.span
        place = torch.minimum((x - low).clamp(min=-0.25), width - 1.25)  # of this curve's stretch, not the next one's
        return torch.searchsorted(self.keys, place + width * curve, right=True) - 1

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Follow ``.to``, ``.float`` and the like to another device, but never to another precision."""
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)


def _mark_filled(table: nn.Module, keys: Any) -> None:  # noqa: ARG001
    table.filled = True  # type: ignore[assignment]

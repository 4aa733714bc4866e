"""Functions on the sphere as values on a grid, where any non-linearity can act point by point.

Only the part up to the highest degree is kept of the result, by a quadrature that is exact for polynomials but not for
what a non-linearity makes of them: equivariance holds as far as the grid resolves it.
"""

import math
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import silu

from phystrain.errors import UserError
from phystrain.layers.edge_frames import Parts, join_orders, order_rows, split_orders
from phystrain.layers.fixed import FixedTables

_MEND = "pip install 'phystrain[networks]' (beside MACE, which pins e3nn 0.4.4: activation: gate needs none)"


def e3nn_o3():  # type: ignore[no-untyped-def]  # noqa: ANN201
    """The module ``e3nn.o3``, imported when it is needed.

    Raises:
        UserError: e3nn is missing or older than 0.5.
    """
    try:
        import e3nn
        from e3nn import o3
    except Exception as error:  # old releases fail with more than ImportError on a recent torch
        raise UserError(f"activation: grid needs e3nn 0.5 or later; install it: {_MEND}") from error
    if tuple(int(part) for part in e3nn.__version__.split(".")[:2]) < (0, 5):
        raise UserError(f"activation: grid needs e3nn 0.5 or later, not {e3nn.__version__}; install it: {_MEND}")
    return o3


class SphereGrid(FixedTables):
    """Matrices from coefficients to values on a grid of latitudes and longitudes, and back.

    Args:
        lmax: highest degree.
        mmax: highest order; below ``lmax``, coefficients are ordered by order (see :func:`order_rows`), else by degree.
        resolution: latitudes and longitudes, even; published numbers, which are as few as can be, if ``None``.
        normalization: ``integral`` or ``component``, as in e3nn.
        rescaled: degrees that have lost orders are enlarged, by the root of the part that is left (Equiformer v2).
        by_order: order of the coefficients.
    """

    to_grid: Tensor
    from_grid: Tensor

    def __init__(
        self,
        lmax: int,
        mmax: int,
        resolution: int | None,
        *,
        normalization: str,
        rescaled: bool = False,
        by_order: bool = False,
    ) -> None:
        super().__init__()
        self.lmax, self.mmax = lmax, mmax
        longitudes = 2 * (mmax + 1) + 1 if mmax == lmax else 2 * mmax + 1
        size = (resolution, resolution) if resolution else (2 * (lmax + 1), longitudes)
        e3nn_o3()  # here, to complain before what was made earlier is looked up
        to_grid, from_grid = _transforms(lmax, size, normalization)
        by_degree = [
            (degree, m) for degree in range(lmax + 1) for m in range(-min(degree, mmax), min(degree, mmax) + 1)
        ]
        rows = order_rows(lmax, mmax) if by_order else by_degree
        places = [degree * degree + degree + m for degree, m in rows]
        scale = torch.ones(len(rows), dtype=torch.float64)
        if rescaled:
            scale = torch.tensor([lost_orders(degree, mmax) for degree, _ in rows], dtype=torch.float64)
        self.register_buffer("to_grid", to_grid[:, places] * scale, persistent=False)
        self.register_buffer("from_grid", (from_grid[:, places] * scale).T.contiguous(), persistent=False)

    def values(self, coefficients: Float[Tensor, "_ coefficients channels"]) -> Float[Tensor, "_ points channels"]:
        """(..., points, channels) on the grid."""
        return torch.matmul(self.to_grid.to(coefficients.dtype), coefficients)

    def coefficients(self, values: Float[Tensor, "_ points channels"]) -> Float[Tensor, "_ coefficients channels"]:
        """(..., coefficients, channels) of values on the grid."""
        return torch.matmul(self.from_grid.to(values.dtype), values)


@cache
def _transforms(lmax: int, size: tuple[int, int], normalization: str) -> tuple[Tensor, Tensor]:
    """(points, coefficients) matrices to the grid and, transposed, from it; made once for all layers."""
    o3 = e3nn_o3()
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # its argument of that name does not reach everything
    try:
        there = o3.ToS2Grid(lmax, size, normalization=normalization)
        back = o3.FromS2Grid(size, lmax, normalization=normalization)
    finally:
        torch.set_default_dtype(usual)
    to_grid = torch.einsum("mbi,am->bai", there.shb, there.sha).flatten(0, 1)
    from_grid = torch.einsum("am,mbi->bai", back.sha, back.shb).flatten(0, 1)
    return to_grid, from_grid


def lost_orders(degree: int, mmax: int) -> float:
    """Root of the number of orders of a degree over the number of those that are kept."""
    return math.sqrt((2 * degree + 1) / (2 * min(degree, mmax) + 1))


def activated_on_grid(parts: Parts, grid: SphereGrid, scalars: Float[Tensor, "edges channels"] | None = None) -> Parts:
    """SiLU on a grid in the frame of each edge.

    Args:
        parts: coefficients by order.
        grid: made with ``by_order``.
        scalars: if given, degree zero of the result is SiLU of these (Liao et al. 2023, section 4.2, separable).
    """
    values = silu(grid.values(join_orders(parts)))
    found = split_orders(grid.coefficients(values), grid.lmax, grid.mmax)
    if scalars is not None:
        found[0] = torch.cat([silu(scalars)[:, None, None], found[0][:, :, 1:]], dim=2)
    return found

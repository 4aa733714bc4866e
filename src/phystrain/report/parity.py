"""Prediction against reference, one panel for every quantity and variant."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from phystrain.reliability import Curve, Result
from phystrain.report.comparison import Variant
from phystrain.report.drawing import INK, Array, Drawing, axis_label, floats, look, render


def is_parity(label: str) -> bool:
    """Whether a curve is a cloud of predictions against references, and not a line."""
    return label.endswith("parity")


def parity_drawings(variants: Sequence[Variant]) -> Iterator[Drawing]:
    """The panels of a quantity are alike in scale, unless one of them says otherwise."""
    found: dict[str, list[tuple[int, Curve, str]]] = {}
    for index, variant in enumerate(variants):
        for result in variant.results:
            for label, curve in result.curves.items():
                if is_parity(label):
                    found.setdefault(label, []).append((index, curve, _error_note(label, result)))
    for label, panels in found.items():
        # Limits come from the reference: one wild prediction must not hide the others, and is counted instead.
        common = _range(np.concatenate([floats(curve.x) for _, curve, _ in panels]), pad=0.15)
        for index, curve, note in panels:
            x, y = floats(curve.x), floats(curve.y)
            ends, outside = common, _outside(y, common)
            if outside > len(y) / 2 and np.isfinite(y).any():
                middle = np.nanquantile(y, [0.05, 0.95])
                ends = _range(np.concatenate([x, middle]), pad=0.15)
                outside = _outside(y, ends)
                note += "\naxes differ"  # noqa: PLW2901
            text = note + f"\n{outside} of {len(y)} points outside" * bool(outside)
            title = f"{label.removesuffix(' parity').capitalize()}: {variants[index].name}"
            paint = partial(_paint, curve=curve, x=x, y=y, index=index, ends=ends, note=text)
            yield render("parity", title, f"{title}, predicted against reference. {text}", paint, [])


def _paint(axes: Any, *, curve: Curve, x: Array, y: Array, index: int, ends: tuple[float, float], note: str) -> None:
    axes.plot(ends, ends, color=INK, linewidth=0.8)
    size, alpha = (10, 0.6) if len(x) < 500 else (4, 0.35)
    axes.scatter(x, y, s=size, alpha=alpha, color=look(index)["color"], linewidths=0, rasterized=True)
    axes.set(xlim=ends, ylim=ends, aspect="equal", xlabel=axis_label(curve.x_label), ylabel=axis_label(curve.y_label))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if np.nanmedian(y - x) > 0:  # points above the diagonal: the corner below it is free
        place, alignment = (0.96, 0.04), {"va": "bottom", "ha": "right"}
    else:
        place, alignment = (0.04, 0.96), {"va": "top", "ha": "left"}
    axes.text(*place, note, transform=axes.transAxes, fontsize=8, **alignment)


def _outside(values: Array, ends: tuple[float, float]) -> int:
    """How many values cannot be seen, those that are not finite included."""
    return int((~((values >= ends[0]) & (values <= ends[1]))).sum())


def _error_note(label: str, result: Result) -> str:
    """``MAE 12 meV/atom``, from the figures of the test: the cloud may be a part of the data."""
    start = f"{label.removesuffix(' parity')} MAE, "
    for name, value in result.figures.items():
        if name.startswith(start) and isinstance(value, int | float):
            return f"MAE {value:.3g} {name.removeprefix(start)}"
    return ""


def _range(values: Array, pad: float) -> tuple[float, float]:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = pad * (high - low) or max(abs(low) * 1e-3, 1e-3)
    return low - margin, high + margin

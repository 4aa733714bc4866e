"""Drawings of a comparison: survival, dimers and other curves, parity, learning curves.

Every drawing is one panel, so that a page can place them side by side on a desk and below one another on a phone. Only
``Figure`` objects are used: nothing is left behind in pyplot, and no display is needed.
"""

import csv
import io
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from phystrain.reliability import Curve, Result
from phystrain.report.comparison import Variant

Array = npt.NDArray[np.float64]

INK = "#1f2328"
"""Colour of text and axes; replaced by the page's text colour where the page is dark."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#7f7f7f")
"""Told apart by colour-blind readers (after Okabe and Ito), and legible on white and on black."""

LINES = ("-", "--", "-.", ":")

STYLE = {
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#8c959f",
    "grid.alpha": 0.25,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "svg.hashsalt": "phystrain",
    "svg.fonttype": "path",
    "text.parse_math": False,  # a dollar in a name is a dollar
}


@dataclass(frozen=True)
class Drawing:
    """One panel.

    Attributes:
        section: what it belongs to: kind of a test, ``parity`` or ``learning``.
        title: for the caption.
        description: for those who cannot see it.
        svg: vector picture on a transparent ground, text in :data:`INK`.
        png: picture on white.
    """

    section: str
    title: str
    description: str
    svg: bytes
    png: bytes

    @property
    def file_name(self) -> str:
        """Name of the PNG file, safe on every file system."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{self.section}-{self.title}").strip("-.").lower() + ".png"


def draw_all(variants: Sequence[Variant]) -> list[Drawing]:
    """Every drawing there is material for, in the order of the page."""
    with mpl.rc_context(STYLE):
        return [*_curve_drawings(variants), *_parity_drawings(variants), *_learning_drawings(variants)]


def _curve_drawings(variants: Sequence[Variant]) -> Iterator[Drawing]:
    """One panel for every label of every test, all variants in it."""
    panels: dict[tuple[str, str], list[tuple[int, Curve]]] = {}
    titles: dict[str, str] = {}
    for index, variant in enumerate(variants):
        for result in variant.results:
            titles.setdefault(result.test, result.title)
            for label, curve in result.curves.items():
                if _is_parity(label):
                    continue
                panels.setdefault((result.test, label), []).append((index, curve))
    for (test, label), curves in sorted(panels.items(), key=lambda item: _rank(item[0][0])):
        names = [(index, variants[index].name) for index, _ in curves]
        first = curves[0][1]
        description = f"{titles[test]}, {label}: {first.y_label} against {first.x_label} for {_join(names)}"
        yield render(test, label, description, partial(_paint_curves, curves=curves, test=test), names)


def _paint_curves(axes: Any, *, curves: Sequence[tuple[int, Curve]], test: str) -> None:
    for index, curve in curves:
        axes.plot(_floats(curve.x), _floats(curve.y), **look(index))
    axes.set(xlabel=_label(curves[0][1].x_label), ylabel=_label(curves[0][1].y_label))
    _limit(axes, test, [_floats(curve.y) for _, curve in curves])


def _parity_drawings(variants: Sequence[Variant]) -> Iterator[Drawing]:
    """Prediction against reference, one panel for every quantity and variant, alike in scale."""
    found: dict[str, list[tuple[int, Curve, str]]] = {}
    for index, variant in enumerate(variants):
        for result in variant.results:
            for label, curve in result.curves.items():
                if _is_parity(label):
                    found.setdefault(label, []).append((index, curve, _error_note(label, result)))
    for label, panels in found.items():
        # Limits come from the reference: one wild prediction must not hide the others, and is counted instead.
        common = _range(np.concatenate([_floats(curve.x) for _, curve, _ in panels]), pad=0.15)
        for index, curve, note in panels:
            x, y = _floats(curve.x), _floats(curve.y)
            ends, outside = common, _outside(y, common)
            if outside > len(y) / 2 and np.isfinite(y).any():
                middle = np.nanquantile(y, [0.05, 0.95])
                ends = _range(np.concatenate([x, middle]), pad=0.15)
                outside = _outside(y, ends)
                note += "\naxes differ"  # noqa: PLW2901
            text = note + f"\n{outside} of {len(y)} points outside" * bool(outside)
            title = f"{label.removesuffix(' parity').capitalize()}: {variants[index].name}"
            paint = partial(_paint_parity, curve=curve, x=x, y=y, index=index, ends=ends, note=text)
            yield render("parity", title, f"{title}, predicted against reference. {text}", paint, [])


def _paint_parity(
    axes: Any, *, curve: Curve, x: Array, y: Array, index: int, ends: tuple[float, float], note: str
) -> None:
    axes.plot(ends, ends, color=INK, linewidth=0.8)
    size, alpha = (10, 0.6) if len(x) < 500 else (4, 0.35)
    axes.scatter(x, y, s=size, alpha=alpha, color=look(index)["color"], linewidths=0, rasterized=True)
    axes.set(xlim=ends, ylim=ends, aspect="equal", xlabel=_label(curve.x_label), ylabel=_label(curve.y_label))
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


def _is_parity(label: str) -> bool:
    """Whether a curve is a cloud of predictions against references, and not a line."""
    return label.endswith("parity")


def _error_note(label: str, result: Result) -> str:
    """``MAE 12 meV/atom``, from the figures of the test: the cloud may be a part of the data."""
    start = f"{label.removesuffix(' parity')} MAE, "
    for name, value in result.figures.items():
        if name.startswith(start) and isinstance(value, int | float):
            return f"MAE {value:.3g} {name.removeprefix(start)}"
    return ""


def _learning_drawings(variants: Sequence[Variant]) -> Iterator[Drawing]:
    """Loss and validation errors against training time; stages before the last are pale."""
    histories = {i: read_history(v.history) for i, v in enumerate(variants) if v.history is not None}
    columns = dict.fromkeys(name for history in histories.values() for stage in history for name in stage)
    wanted = [name for name in columns if name == "loss" or (name.startswith("valid_") and not name.endswith("_rmse"))]
    for column in wanted:
        present = [(i, variants[i].name) for i, h in histories.items() if any(column in stage for stage in h)]
        title = _LEARNING.get(column, (column.replace("_", " "), ""))[0]
        paint = partial(_paint_learning, histories=histories, column=column)
        yield render("learning", title, f"{title} against training time for {_join(present)}", paint, present)


def _paint_learning(axes: Any, *, histories: dict[int, list[dict[str, Array]]], column: str) -> None:
    for index, history in histories.items():
        for number, stage in enumerate(history):
            if column in stage:
                alpha = 1.0 if number == len(history) - 1 else 0.35
                marker = "o" if len(stage[column]) == 1 else ""
                axes.plot(stage["elapsed"], stage[column], alpha=alpha, marker=marker, markersize=3, **look(index))
    values = np.concatenate([stage[column] for h in histories.values() for stage in h if column in stage])
    if np.nanmin(values) > 0:
        axes.set_yscale("log")
        if np.nanmax(values) < 50 * np.nanmin(values):  # powers of ten alone would be too few ticks
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="Training time (s)", ylabel=_LEARNING.get(column, ("", column.replace("_", " ")))[1])


_LEARNING = {
    "loss": ("Training loss", "Loss"),
    "valid_loss": ("Validation loss", "Loss"),
    "valid_energy_mae": ("Validation energy error", "MAE (meV/atom)"),
    "valid_forces_mae": ("Validation force error", "MAE (meV/Å)"),
    "valid_stress_mae": ("Validation stress error", "MAE (meV/Å³)"),
}
"""Title and vertical axis by column of ``metrics.csv``; other columns go by their own name."""


def read_history(path: Path) -> list[dict[str, Array]]:
    """Columns of every stage of a ``metrics.csv``, with ``elapsed``: seconds since the first stage began.

    A missing or empty file gives no stage. What is not a number becomes not-a-number.
    """
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    stages: list[dict[str, Array]] = []
    start = 0.0
    for name in dict.fromkeys(row.get("stage") for row in rows):
        own = [row for row in rows if row.get("stage") == name]
        columns = {
            key: np.array([_number(row.get(key)) for row in own]) for key in own[0] if key not in ("stage", None)
        }
        columns = {key: values for key, values in columns.items() if np.isfinite(values).any()}
        time = columns.get("seconds", columns.get("step", np.arange(len(own), dtype=np.float64)))
        columns["elapsed"] = time if start and np.nanmin(time) >= start else time + start
        start = float(np.nanmax(columns["elapsed"]))
        stages.append(columns)
    return stages


def render(
    section: str, title: str, description: str, paint: Callable[[Any], None], names: Sequence[tuple[int, str]]
) -> Drawing:
    """Paint one panel and keep it as SVG and PNG.

    Args:
        section, title, description: of the drawing.
        paint: draws on the axes it is given.
        names: number and name of each variant in the legend; none for no legend.
    """
    figure = Figure(figsize=(3.8, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    paint(axes)
    axes.set_title(_short(title, 44), loc="left")
    if names:
        handles = [Line2D([], [], **look(index)) for index, _ in names]
        labels = [_short(name, 44) for _, name in names]
        columns = 3 if sum(map(len, labels)) < 30 else 2 if max(map(len, labels)) < 16 else 1
        figure.legend(handles, labels, loc="outside lower left", ncols=min(columns, len(names)), fontsize=8)
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", transparent=True, dpi=150, metadata={"Date": None, "Creator": None})
    figure.savefig(png, format="png", facecolor="white", dpi=150, metadata={"Software": None})
    return Drawing(section, title, description, svg.getvalue(), png.getvalue())


def look(index: int) -> dict[str, Any]:
    """Colour and line of a variant, the same in every drawing."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": LINES[index % len(LINES)]}


def _limit(axes: Any, test: str, curves: Sequence[Array]) -> None:
    """Axis limits that show what matters."""
    if test == "survival":
        axes.set_ylim(-0.03, 1.05)
        return
    values = np.concatenate(curves)
    values = values[np.isfinite(values)]
    if len(values) < 10:
        return
    lowest, highest = values.min(), values.max()
    if test == "dimers":  # no bond is deeper than 12 eV, while walls and holes run to thousands
        bottom = max(lowest, -15.0)
        top = min(highest, max(2.0, -1.5 * bottom))
    else:
        low, high = np.quantile(values, [0.1, 0.9])
        spread = max(high - low, 1e-12)
        bottom, top = max(lowest, low - 3 * spread), min(highest, high + 3 * spread)
    pad = 0.05 * (top - bottom)
    if pad > 0 and (bottom > lowest or top < highest):
        axes.set_ylim(bottom - pad, top + pad)


def _range(values: Array, pad: float) -> tuple[float, float]:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = pad * (high - low) or max(abs(low) * 1e-3, 1e-3)
    return low - margin, high + margin


def _floats(values: Sequence[float | None]) -> Array:
    """Numbers for drawing; what is missing or not finite is a gap."""
    array = np.array([math.nan if value is None else value for value in values], dtype=np.float64)
    return np.where(np.isfinite(array), array, np.nan)


def _number(text: str | None) -> float:
    try:
        value = float(text or "nan")
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _label(text: str) -> str:
    """``distance, Å`` as it stands on an axis: ``Distance (Å)``."""
    name, comma, unit = text.rpartition(", ")
    name = f"{name} ({unit})" if comma else text
    return textwrap.fill(name[:1].upper() + name[1:], 34)


def _join(names: Sequence[tuple[int, str]]) -> str:
    return ", ".join(name for _, name in names)


def _short(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


def _rank(test: str) -> tuple[int, str]:
    """Tests of dynamics first, then dimers, then the others."""
    order = ("survival", "dimers")
    return (order.index(test) if test in order else len(order), test if test not in order else "")

"""One panel of a report: how it looks, and how it becomes a picture.

Every drawing is one panel, so that a page can place them side by side on a desk and below one another on a phone. Only
``Figure`` objects are used: nothing is left behind in pyplot, and no display is needed.
"""

import io
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

Array = npt.NDArray[np.float64]

INK = "#1f2328"
"""Colour of text and axes; replaced by the page's text colour where the page is dark."""

ALARM = "#d6009a"
"""Of what went wrong; seen on white, on black and beside the red of oxygen."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#d163fb", "#6b5c65", "#ae4006", "#9f05f5")
"""Any two are told apart by colour-blind readers, and each is seen on white and on the page's black.

The first three are those of Okabe and Ito; the others were searched for: every pair is at least 0.085 apart in OKLab,
also as people with protanopia, deuteranopia or tritanopia see it, and the contrast with both grounds is at least 3.
"""

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
        section: what it belongs to: kind of a test, ``parity``, ``learning``, ``failing`` or ``teacher``.
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


def render(
    section: str,
    title: str,
    description: str,
    paint: Callable[[Any], None],
    names: Sequence[tuple[int, str]],
    extra: Iterable[tuple[Any, str]] = (),
) -> Drawing:
    """Paint one panel and keep it as SVG and PNG.

    Args:
        section, title, description: of the drawing.
        paint: draws on the axes it is given.
        names: number and name of each variant in the legend; none for no legend.
        extra: further entries of the legend: an artist and its text.
    """
    figure = Figure(figsize=(3.8, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    paint(axes)
    axes.set_title(short(title, 44), loc="left")
    others = list(extra)
    if names or others:
        handles = [Line2D([], [], **look(index)) for index, _ in names] + [artist for artist, _ in others]
        labels = [short(name, 44) for name in [*(name for _, name in names), *(text for _, text in others)]]
        columns = 3 if sum(map(len, labels)) < 30 else 2 if max(map(len, labels)) < 16 else 1
        figure.legend(handles, labels, loc="outside lower left", ncols=min(columns, len(labels)), fontsize=8)
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", transparent=True, dpi=150, metadata={"Date": None, "Creator": None})
    figure.set_layout_engine("none")  # laid out already, and that takes as long as drawing
    figure.savefig(png, format="png", facecolor="white", dpi=150, metadata={"Software": None})
    return Drawing(section, title, description, _slim(svg.getvalue()), png.getvalue())


def _slim(svg: bytes) -> bytes:
    """Outlines to a hundredth of a point and without line breaks: a third smaller, and no eye sees it."""
    svg = re.sub(rb"<!--.*?-->|<metadata>.*?</metadata>", b"", svg, flags=re.DOTALL)
    svg = re.sub(rb' d="[^"]*"', lambda path: re.sub(rb"(\.\d\d)\d+", rb"\1", path[0]).replace(b"\n", b""), svg)
    return re.sub(rb"\n\s*", b" ", svg)


def look(index: int) -> dict[str, Any]:
    """Colour and line of a variant, the same in every drawing."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": LINES[index % len(LINES)]}


def floats(values: Sequence[float | None]) -> Array:
    """Numbers for drawing; what is missing or not finite is a gap."""
    array = np.array([math.nan if value is None else value for value in values], dtype=np.float64)
    return np.where(np.isfinite(array), array, np.nan)


def axis_label(text: str) -> str:
    """``distance, Å`` as it stands on an axis: ``Distance (Å)``."""
    name, comma, unit = text.rpartition(", ")
    name = f"{name} ({unit})" if comma else text
    symbol = not name[1:2].isalpha()  # g(r) stays as it is
    return textwrap.fill(name if symbol else name[:1].upper() + name[1:], 34)


def short(text: str, length: int) -> str:
    """In one line of at most ``length`` characters."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


def listed(names: Iterable[tuple[int, str]]) -> str:
    """Names of numbered variants, with commas."""
    return ", ".join(name for _, name in names)

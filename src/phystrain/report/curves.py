"""The curves of every test, drawn alike: one panel for every label, the variants in their colours.

Tests are known by name only where they are put in order; what a curve is, its label and its axes tell:

* a label that goes on from another one (``O-Si, labelled frames`` beside ``O-Si``) is drawn in the panel of that one:
  as a band if it says lower and upper, or else as a line in the colour of the text;
* labels that differ only in a number at their end (``branch 1``, ``branch 2``) share a panel, unless over time;
* a fraction is drawn from 0 to 1, and an error that runs over decades on a logarithmic axis;
* an energy against the distance of two elements has the distances that the data hold beneath it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from phystrain.reliability import Curve
from phystrain.report.comparison import Variant
from phystrain.report.covered import Covered, in_all
from phystrain.report.drawing import INK, Array, Drawing, axis_label, floats, listed, look, render
from phystrain.report.parity import is_parity

MOST = 9
"""Panels of one test: three rows on a desk. The numbers of all are in the tables."""

DEEPEST = -15.0
"""eV; no bond is deeper than 12, while holes run to thousands."""

DECADES = 2.0
"""Orders of magnitude from which on an axis of errors, or of what is spaced by a factor, is logarithmic."""

_ORDER = ("survival", "heating", "rdf")
_LAST = ("dimers", "drift", "compression")
_BOUND = re.compile(r"\b(lower|low|upper|high)\b", re.IGNORECASE)
_ERROR = re.compile(r"error|differ|deviat|residual", re.IGNORECASE)
_BOND = re.compile(r"(distance|length of the bond).*Å$")
_OTHER: dict[str, Any] = {"color": INK, "linestyle": (0, (1, 1)), "linewidth": 1.2}
_PAIR = re.compile(r"[A-Z][a-z]?-[A-Z][a-z]?(?![\w-])")


@dataclass
class Panel:
    """What stands in one panel.

    Attributes:
        test, title, label: kind and title of the test, label of the curve.
        lines: number of the variant and its curve; several for a variant where labels share the panel.
        bands: by number of the variant: curves below and above, either may be missing.
        others: what goes on from the label, and by number of the variant its curve.
    """

    test: str
    title: str
    label: str
    lines: list[tuple[int, Curve]] = field(default_factory=list)
    bands: dict[int, dict[str, Curve]] = field(default_factory=dict)
    others: dict[str, list[tuple[int, Curve]]] = field(default_factory=dict)

    @property
    def banded(self) -> bool:
        """Whether it has a band."""
        return bool(self.bands) or any(curve.low for _, curve in self.lines)


def curve_drawings(variants: Sequence[Variant]) -> Iterator[Drawing]:
    """At most :data:`MOST` panels of each test, those that a sentence names first."""
    data = in_all([variant.covered for variant in variants])
    for panels in panels_of(variants).values():
        for panel in panels[:MOST]:
            names = [(index, variants[index].name) for index in dict.fromkeys(index for index, _ in panel.lines)]
            first = panel.lines[0][1]
            parts = [f"{panel.title}, {panel.label}: {first.y_label} against {first.x_label} for {listed(names)}"]
            parts += [f"beside it {other}" for other in panel.others]
            extra: list[tuple[Any, str]] = [(Line2D([], [], **_OTHER), other) for other in panel.others]
            held = _held(panel, data)
            if held is not None:
                parts.append(held.words)
                extra.append((Patch(color=INK, alpha=0.2, linewidth=0), "in the data"))
            if panel.banded:
                parts.append("with bands of uncertainty")
            paint = partial(_paint, panel=panel, held=held)
            yield render(panel.test, panel.label, "; ".join(parts), paint, names, extra)


def left_out(variants: Sequence[Variant]) -> dict[str, int]:
    """Panels by test that :func:`curve_drawings` leaves out."""
    return {test: len(panels) - MOST for test, panels in panels_of(variants).items() if len(panels) > MOST}


def with_bands(variants: Sequence[Variant]) -> set[str]:
    """Tests of which a panel has a band."""
    return {test for test, panels in panels_of(variants).items() if any(panel.banded for panel in panels)}


def panels_of(variants: Sequence[Variant]) -> dict[str, list[Panel]]:
    """All panels by kind of test, in the order of the page."""
    found: dict[str, dict[str, list[tuple[int, Curve]]]] = {}
    titles: dict[str, str] = {}
    sentences: dict[str, str] = {}
    for index, variant in enumerate(variants):
        for result in variant.results:
            titles.setdefault(result.test, result.title)
            sentences[result.test] = f"{sentences.get(result.test, '')} {result.sentence}"
            for label, curve in result.curves.items():
                if not is_parity(label) and curve.x:
                    found.setdefault(result.test, {}).setdefault(label, []).append((index, curve))
    tests = sorted(found, key=_rank)
    return {test: _panels(test, titles[test], found[test], sentences[test]) for test in tests}


def _panels(test: str, title: str, curves: Mapping[str, list[tuple[int, Curve]]], sentences: str) -> list[Panel]:
    panels: dict[str, Panel] = {}
    later = []
    for label, lines in curves.items():
        base = _base(label, lines[0][1], curves)
        if base is None:
            panels[label] = Panel(test, title, label, lines)
        else:
            later.append((base, label, lines))
    for base, label, lines in later:
        panel, rest = panels[base], label[len(base) :].strip(" ,:;()")
        if (bound := _BOUND.search(rest)) is not None:
            side = "low" if bound[1].lower().startswith("low") else "high"
            for index, curve in lines:
                panel.bands.setdefault(index, {})[side] = curve
        else:
            panel.others[rest] = lines
    named = _together(list(panels.values()))
    if len(named) > MOST:  # the order of the test otherwise
        named.sort(key=lambda panel: re.search(rf"\b{re.escape(panel.label)}(?!\w)", sentences) is None)
    return named


def _together(panels: list[Panel]) -> list[Panel]:
    """Panels of which the labels differ in a number only become one, as the branches of a dispersion."""
    groups: dict[Any, list[Panel]] = {}
    for panel in panels:
        first, stem = panel.lines[0][1], re.sub(r" \d+$", "", panel.label)
        alone = stem == panel.label or first.x_label.startswith("time") or panel.bands or panel.others
        key = panel.label if alone else (stem, first.x_label, first.y_label, tuple(first.x))
        groups.setdefault(key, []).append(panel)
    found = []
    for group in groups.values():
        one = group[0]
        if len(group) > 1:
            last = group[-1].label.rsplit(" ", 1)[1]
            lines = [line for panel in group for line in panel.lines]
            one = Panel(one.test, one.title, f"{one.label} to {last}", sorted(lines, key=lambda line: line[0]))
        found.append(one)
    return found


def _base(label: str, curve: Curve, curves: Mapping[str, list[tuple[int, Curve]]]) -> str | None:
    """The shortest label of the same axes that this one goes on from."""
    for other in sorted(curves, key=len):
        rest = label.removeprefix(other)
        if not rest or rest == label:
            continue
        goes_on = rest[0] in ",:;(" or rest.startswith(" (") or (rest[0] == " " and _BOUND.search(rest))
        beside = curves[other][0][1]
        if goes_on and (beside.x_label, beside.y_label) == (curve.x_label, curve.y_label):
            return other
    return None


def _paint(axes: Any, *, panel: Panel, held: "Held | None" = None) -> None:
    first = panel.lines[0][1]
    for index, curve in panel.lines:
        marker = {"marker": "o", "markersize": 3.5} if len(curve.x) < 9 and not _is_fraction(curve) else {}
        axes.plot(floats(curve.x), floats(curve.y), **look(index), **marker)
        if curve.low:
            axes.fill_between(floats(curve.x), floats(curve.low), floats(curve.high), **_band(index))
    for index, sides in panel.bands.items():
        _paint_band(axes, index, sides)
    for lines in panel.others.values():
        alike = all(curve == lines[0][1] for _, curve in lines)
        for index, curve in lines[:1] if alike else lines:
            style = _OTHER if alike else _OTHER | {"color": look(index)["color"], "alpha": 0.7}
            axes.plot(floats(curve.x), floats(curve.y), **style)
    axes.set(xlabel=axis_label(first.x_label), ylabel=axis_label(first.y_label))
    every = [curve for _, curve in panel.lines] + [curve for lines in panel.others.values() for _, curve in lines]
    geometric = _geometric(floats(first.x))
    _limit(axes, first, [floats(curve.y) for curve in every], geometric=geometric)
    if geometric:
        _logarithmic(axes, "x")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))  # long numbers would run into one another
    if held is not None:
        _shade(axes, held)


def _paint_band(axes: Any, index: int, sides: Mapping[str, Curve]) -> None:
    """Between two curves; one alone is a thin line."""
    if len(sides) == 2 and len(sides["low"].x) == len(sides["high"].x):
        x = floats(sides["low"].x)
        axes.fill_between(x, floats(sides["low"].y), floats(sides["high"].y), **_band(index))
        return
    for curve in sides.values():
        axes.plot(floats(curve.x), floats(curve.y), color=look(index)["color"], linewidth=0.7, alpha=0.7)


def _band(index: int) -> dict[str, Any]:
    return {"color": look(index)["color"], "alpha": 0.15, "linewidth": 0}


@dataclass(frozen=True)
class Held:
    """Distances (Å) in the data, for the panel of a pair of elements.

    Attributes:
        shortest: that occurs.
        counts, width: of the bins from 0 on; none if only the shortest is known.
        words: for the description.
    """

    shortest: float
    counts: Array
    width: float
    words: str


def _held(panel: Panel, data: Covered) -> Held | None:
    """What the data hold of this pair; ``None`` where that is not known or the panel is about something else."""
    first, pair = panel.lines[0][1], _PAIR.match(panel.label)
    of_pair = _alone(first) or (_BOND.match(first.x_label) and first.y_label.startswith("energy"))
    if pair is None or not of_pair:
        return None
    name = "-".join(sorted(pair[0].split("-")))
    if name not in data.shortest:
        return None
    shortest = data.shortest[name]
    counts = np.array(data.counts.get(name, []), dtype=np.float64)
    return Held(shortest, counts, data.width, f"grey: the distances in the data, from {shortest:.2f} Å")


def _shade(axes: Any, held: Held) -> None:
    """Grey from the shortest distance on, and how many there are of each in the lowest quarter."""
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    axes.axvspan(min(held.shortest, right), right, color=INK, alpha=0.06, linewidth=0, zorder=0)
    axes.axvline(held.shortest, color=INK, linewidth=0.8, linestyle=":")
    if held.counts.any():
        edges = held.width * np.arange(len(held.counts) + 1)
        inside = edges[:-1] < right
        height = 0.25 * (top - bottom) * held.counts / held.counts[inside].max(initial=1.0)
        axes.stairs(bottom + height, edges, baseline=bottom, fill=True, color=INK, alpha=0.2, linewidth=0, zorder=0)
    axes.set(xlim=(left, right), ylim=(bottom, top))


def _is_fraction(curve: Curve) -> bool:
    return curve.y_label.startswith("fraction")


def _alone(curve: Curve) -> bool:
    """Whether this is an energy against a distance in Å, as of two atoms alone."""
    return curve.x_label.startswith("distance") and curve.x_label.endswith("Å") and curve.y_label.startswith("energy")


def _geometric(x: Array) -> bool:
    """Whether the points are spaced by a factor, over a decade or more."""
    if len(x) < 4 or not np.all(x > 0) or x.max() < 10 * x.min():
        return False
    steps = np.diff(np.log(x))
    return bool(np.allclose(steps, steps.mean(), rtol=0.05))


def _logarithmic(axes: Any, which: str) -> None:
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # no powers: mathematics is off
    axis.set_minor_formatter(NullFormatter())


def _limit(axes: Any, first: Curve, curves: Sequence[Array], *, geometric: bool) -> None:
    """Axis limits that show what matters."""
    if _is_fraction(first):
        axes.set_ylim(-0.03, 1.05)
        return
    values = np.concatenate(curves)
    values = values[np.isfinite(values)]
    if len(values) < 10:
        return
    lowest, highest = values.min(), values.max()
    if _alone(first):
        bottom = max(lowest, DEEPEST)
        top = min(highest, max(2.0, -1.5 * bottom))
    elif lowest > 0 and (geometric or _ERROR.search(first.y_label)) and highest > 10**DECADES * lowest:
        _logarithmic(axes, "y")
        return
    else:
        low, high = np.quantile(values, [0.1, 0.9])
        spread = max(high - low, 1e-12)
        bottom, top = max(lowest, low - 3 * spread), min(highest, high + 3 * spread)
    pad = 0.05 * (top - bottom)
    if pad > 0 and (bottom > lowest or top < highest):
        axes.set_ylim(bottom - pad, top + pad)


def _rank(test: str) -> tuple[int, str]:
    """Dynamics first, then what else there is by name, then pairs of atoms, drift and compression."""
    if test in _ORDER:
        return _ORDER.index(test), ""
    return (len(_ORDER) + 1 + _LAST.index(test), "") if test in _LAST else (len(_ORDER), test)

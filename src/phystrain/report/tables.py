"""The numbers of a comparison as CSV, for those who draw their own figures."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from phystrain.files import write_text
from phystrain.reliability import Curve
from phystrain.report.comparison import Variant

TESTS = "tests.csv"
FIGURES = "figures.csv"
CURVES = "curves.csv"


def write_tables(variants: Sequence[Variant], folder: Path) -> list[Path]:
    """Write ``tests.csv``, ``figures.csv`` and ``curves.csv``, each whole or not at all.

    Args:
        variants: with their results.
        folder: made if need be.

    Returns:
        The files.
    """
    tables: dict[str, list[tuple[object, ...]]] = {
        TESTS: [
            ("variant", "test", "title", "passed", "grade", "applies", "kelvin", "threshold", "sentence", "conditions"),
            *((v.name, r.test, r.title, r.passed, r.grade, r.applies, r.kelvin, r.threshold, r.sentence,
               "; ".join(r.conditions)) for v in variants for r in v.results),
        ],
        FIGURES: [
            ("variant", "test", "figure", "value"),
            *((v.name, r.test, name, value) for v in variants for r in v.results for name, value in r.figures.items()),
        ],
        CURVES: [
            ("variant", "test", "curve", "x_label", "y_label", "x", "y", "low", "high"),
            *((v.name, r.test, label, curve.x_label, curve.y_label, *row)
              for v in variants for r in v.results for label, curve in r.curves.items() for row in _points(curve)),
        ],
    }  # fmt: skip
    for name, rows in tables.items():
        write_text(folder / name, _csv(rows))
    return [folder / name for name in tables]


def _points(curve: Curve) -> Iterator[tuple[float | None, ...]]:
    """x, y, and the ends of the band where there is one."""
    bands = [side or [None] * len(curve.x) for side in (curve.low, curve.high)]
    return zip(curve.x, curve.y, *bands, strict=True)


def _csv(rows: Iterable[Sequence[object]]) -> str:
    """Missing values are empty cells."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()

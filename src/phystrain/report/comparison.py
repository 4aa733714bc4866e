"""What a report is made from, and the headline figures that page and terminal share."""

import io
import math
import platform
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import ase
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from phystrain import __version__
from phystrain.reliability import Result
from phystrain.report.covered import Covered, load_covered
from phystrain.verdict.grade import Verdict

Value = float | int | str | None


@dataclass(frozen=True)
class Variant:
    """One potential of a comparison.

    Attributes:
        name: for tables and legends; at best one or two words.
        description: one sentence on how it was trained.
        results: what the reliability tests found.
        history: ``metrics.csv`` of its training, if there is one.
        verdict: what the results say together; ``None`` where none is given.
        failing: extended-XYZ file of the frames at which dynamics was stopped; it need not exist.
        covered: distances in its training data, if they are known.
    """

    name: str
    description: str = ""
    results: Sequence[Result] = ()
    history: Path | None = None
    verdict: Verdict | None = None
    failing: Path | None = None
    covered: Covered | None = None


def with_material(variant: Variant, folder: Path) -> Variant:
    """With what a run or audit folder holds beside the results: failing frames, and the distances of the data."""
    return replace(variant, failing=folder / "failed.xyz", covered=load_covered(folder))


def program_versions() -> dict[str, str]:
    """Versions of the programs that a result depends on, and the machine."""
    return {
        "phystrain": __version__,
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "NumPy": np.__version__,
        "ASE": ase.__version__,
        "platform": platform.platform(),
    }


@dataclass(frozen=True)
class Comparison:
    """Variants side by side, the one to compare with first.

    Attributes:
        title: of the page.
        intro: what was done, in a paragraph or two (plain text, paragraphs apart by an empty line).
        variants: one or more.
        run_file: text of the run file.
        data_hash: of the data that everything was trained and tested on.
        versions: of the programs, by name.
    """

    title: str
    variants: Sequence[Variant]
    intro: str = ""
    run_file: str = ""
    data_hash: str = ""
    versions: dict[str, str] = field(default_factory=program_versions)


class Entry(NamedTuple):
    """A figure of the headline table: ``value`` to rank by, ``text`` to show."""

    value: float
    text: str


class Column(NamedTuple):
    """A column of the headline table.

    Attributes:
        title: heading.
        unit: of the figures.
        praise: what the variant with the best figure has.
        smallest: whether the smallest figure is best.
        find: the figure of a variant, ``None`` if it was not measured.
    """

    title: str
    unit: str
    praise: str
    smallest: bool
    find: Callable[[Variant], Entry | None]

    @property
    def heading(self) -> str:
        return f"{self.title} ({self.unit})"


def _figures(variant: Variant, test: str) -> dict[str, Value]:
    """All figures of a test; none if it was not run."""
    return next((result.figures for result in variant.results if result.test == test), {})


def _error(variant: Variant, name: str) -> Entry | None:
    value = _figures(variant, "errors").get(name)
    return Entry(float(value), number(float(value))) if isinstance(value, int | float) else None


def _survived(variant: Variant) -> Entry | None:
    """Percentage of all runs, over all temperatures."""
    value = _figures(variant, "survival").get("survived")
    return Entry(100 * float(value), f"{100 * value:.0f}") if isinstance(value, int | float) else None


def _median_survival(variant: Variant) -> Entry | None:
    """Median time at the highest temperature; longer than the runs where half of them or more survived."""
    figures = _figures(variant, "survival")
    found = [(float(match[1]), name) for name in figures if (match := _MEDIAN.fullmatch(name))]
    if not found:
        return None
    value, length = figures[max(found)[1]], figures.get("length, ps")
    if isinstance(value, int | float):
        return Entry(float(value), number(float(value)))
    return Entry(math.inf, f"> {number(length)}" if length is not None else "all of it")


_MEDIAN = re.compile(r"median survival at ([0-9.e+]+) K, ps")

COLUMNS = (
    Column("Energy MAE", "meV/atom", "smallest energy error", True, partial(_error, name="energy MAE, meV/atom")),
    Column("Force MAE", "meV/Å", "smallest force error", True, partial(_error, name="forces MAE, meV/Å")),
    Column("Runs survived", "%", "most surviving runs in hot dynamics", False, _survived),
    Column("Median survival when hottest", "ps", "longest median survival when hottest", False, _median_survival),
)


ALIKE = 0.05
"""Errors that differ by less than this fraction are not ranked in words: another seed would turn them round."""


class Row(NamedTuple):
    """A row of the headline table.

    Attributes:
        name: of the variant.
        entries: one per column of :data:`COLUMNS`.
        passed, judged: how many tests it passed, and how many gave a verdict.
    """

    name: str
    entries: tuple[Entry | None, ...]
    passed: int
    judged: int


def headline(variants: Sequence[Variant]) -> list[Row]:
    """The figures that matter most, one row per variant."""
    rows = []
    for variant in variants:
        verdicts = [result.passed for result in variant.results if result.passed is not None]
        entries = tuple(column.find(variant) for column in COLUMNS)
        rows.append(Row(variant.name, entries, sum(verdicts), len(verdicts)))
    return rows


def columns_in_use(rows: Sequence[Row]) -> list[int]:
    """Numbers of the columns in which at least one variant has a figure."""
    return [index for index in range(len(COLUMNS)) if any(row.entries[index] for row in rows)]


def best(rows: Sequence[Row], index: int) -> set[int]:
    """Rows with the best figure of a column; none where there is nothing to compare."""
    known = {
        position: entry.value
        for position, row in enumerate(rows)
        if (entry := row.entries[index]) is not None and not math.isnan(entry.value)
    }
    if len(known) < 2 or len(set(known.values())) == 1:
        return set()
    target = (min if COLUMNS[index].smallest else max)(known.values())
    winners = {position for position, value in known.items() if value == target or _same(value, target)}
    return winners if len(winners) < len(known) else set()


def _same(first: float, second: float) -> bool:
    """Whether two figures look the same in the table."""
    return math.isfinite(first) and math.isclose(first, second, rel_tol=2e-3)


def number(value: Value) -> str:
    """A figure for people: four digits, no trailing zeros."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str | int):
        return str(value)
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    return f"{value:.4g}".replace("-", "−")


def comparison_table(variants: Sequence[Variant], width: int | None = None) -> str:
    """The headline table as text for the terminal.

    Args:
        variants: to compare.
        width: characters; that of the terminal if not given.
    """
    rows = headline(variants)
    used = columns_in_use(rows)
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("Variant", overflow="fold")
    for index in used:
        table.add_column(COLUMNS[index].heading, justify="right")
    table.add_column("Tests passed", justify="right")
    graded = any(variant.verdict for variant in variants)
    if graded:
        table.add_column("Verdict")
    winners = {index: best(rows, index) for index in used}
    for position, row in enumerate(rows):
        cells = [text_of(row, index) + (" *" if position in winners[index] else "") for index in used]
        verdict = variants[position].verdict
        last = [verdict.short if verdict else "–"] if graded else []
        table.add_row(Text(row.name), *cells, f"{row.passed} of {row.judged}", *last)  # Text: names are not markup
    out = io.StringIO()
    Console(file=out, width=width or shutil.get_terminal_size().columns, color_system=None).print(table)
    text = "\n".join(line.rstrip() for line in out.getvalue().splitlines())
    return text + ("\n* best of the column\n" if any(winners.values()) else "\n")


def text_of(row: Row, index: int) -> str:
    """What the table shows."""
    entry = row.entries[index]
    return "–" if entry is None else entry.text


def summary(variants: Sequence[Variant]) -> list[str]:
    """The comparison in a few sentences; the first variant is the one to compare with."""
    rows = headline(variants)
    sentences = [_compare(rows, index) for index in columns_in_use(rows)] if len(rows) > 1 else []
    for variant, row in zip(variants, rows, strict=True):
        if row.judged:
            failed = [result.title for result in variant.results if result.passed is False]
            tail = f"; it fails: {', '.join(failed)}." if failed else "."
            sentences.append(f"{row.name} passes {row.passed} of {row.judged} judged tests{tail}")
    return [sentence for sentence in sentences if sentence]


def _compare(rows: Sequence[Row], index: int) -> str:
    """One sentence on one column; empty where only one variant has the figure."""
    column, winners = COLUMNS[index], best(rows, index)
    known = [row for row in rows if row.entries[index] is not None]
    if not winners:
        return (
            f"{column.title}: {text_of(known[0], index)} {column.unit} for all that have it." if len(known) > 1 else ""
        )
    values = [entry.value for row in known if (entry := row.entries[index]) is not None]
    if column.smallest and max(values) <= (1 + ALIKE) * min(values):
        spread = f"{number(min(values))} to {number(max(values))} {column.unit}"
        return f"{column.title}: {spread}, alike to {100 * ALIKE:.0f} %."
    others = [row for position, row in enumerate(rows) if position not in winners and row in known]
    against = rows[0] if rows[0] in others else others[0]
    verb = "has" if len(winners) == 1 else "have"
    winner = rows[min(winners)]
    return (
        f"{_listing([rows[position].name for position in sorted(winners)])} {verb} the {column.praise}: "
        f"{text_of(winner, index)} {column.unit}, against {text_of(against, index)} {column.unit} for {against.name}."
    )


def _listing(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else ""

"""One HTML page that says whether the potentials can be trusted. It opens without a network and runs no code."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from phystrain.files import write_bytes, write_text
from phystrain.reliability import Result
from phystrain.report.comparison import (
    COLUMNS,
    Comparison,
    Value,
    Variant,
    best,
    columns_in_use,
    headline,
    number,
    summary,
    text_of,
)
from phystrain.report.plots import COLOURS, INK, Drawing, draw_all

_SECTIONS = {
    "survival": (
        "Does it survive molecular dynamics?",
        "The fraction of runs that are still physical after a given time.",
    ),
    "dimers": (
        "Two atoms alone",
        "Energy of a pair of atoms against their distance. A sound potential repels at short distance and has no hole.",
    ),
    "parity": (
        "Predicted against reference",
        "Test structures, which no variant was trained on. Panels of a quantity have the same axes unless marked.",
    ),
    "teacher": (
        "The classical potential",
        "Energy of two atoms with its parts, and the density (dashed). Grey: how often the data hold a distance; left "
        "of the dotted line there are none, and the curve is what the bounds of the fit make of it.",
    ),
    "learning": ("Learning curves", "Stages before the last (teacher, pretraining) are drawn pale."),
}


class Cell(NamedTuple):
    """A cell of a table: text, and how the page marks it (``best``, ``pass``, ``fail``, ``words``)."""

    text: str
    mark: str = ""


class Section(NamedTuple):
    """A heading with drawings."""

    title: str
    note: str
    drawings: list[Drawing]


class Detail(NamedTuple):
    """What one test found for all variants.

    Attributes:
        title, threshold: of the test.
        verdicts: one per variant: name, verdict, sentence.
        figures: rows of name and one cell per variant.
    """

    title: str
    threshold: str
    verdicts: list[tuple[str, Cell, str]]
    figures: list[tuple[str, list[Cell]]]


def page(comparison: Comparison, drawings: Sequence[Drawing] | None = None) -> str:
    """The report as one self-contained HTML document.

    Args:
        comparison: what to show.
        drawings: if they have been drawn already.
    """
    drawings = draw_all(comparison.variants) if drawings is None else drawings
    environment = Environment(
        loader=PackageLoader("phystrain", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["picture"] = _picture
    return environment.get_template("page.html").render(
        comparison=comparison,
        paragraphs=[part.strip() for part in comparison.intro.split("\n\n") if part.strip()],
        sentences=summary(comparison.variants),
        table=_table(comparison.variants),
        sections=_sections(comparison.variants, drawings),
        details=_details(comparison.variants),
        colours=[COLOURS[index % len(COLOURS)] for index in range(len(comparison.variants))],
    )


def write_report(comparison: Comparison, folder: Path | str, others: Sequence[Drawing] = ()) -> Path:
    """Write ``report.html`` and the drawings as ``plots/*.png``.

    Args:
        comparison: what to show.
        folder: the run folder; made if need be.
        others: drawings beside those of the comparison.

    Returns:
        The path of the page.
    """
    folder = Path(folder)
    drawings = [*draw_all(comparison.variants), *others]
    taken: dict[str, int] = {}
    for drawing in drawings:
        name = drawing.file_name
        taken[name] = taken.get(name, 0) + 1
        if taken[name] > 1:
            name = name.removesuffix(".png") + f"-{taken[name]}.png"
        write_bytes(folder / "plots" / name, drawing.png)
    write_text(folder / "report.html", page(comparison, drawings))
    return folder / "report.html"


def _picture(drawing: Drawing) -> str:
    """The drawing as a data address; its ink follows the colour scheme of the reader."""
    text = drawing.svg.decode("utf-8")
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    style = "<style>svg{color:#1f2328}@media(prefers-color-scheme:dark){svg{color:#d7dde3}}</style>"
    end = text.index(">") + 1
    return "data:image/svg+xml;base64," + base64.b64encode((text[:end] + style + text[end:]).encode()).decode("ascii")


def _table(variants: Sequence[Variant]) -> dict[str, Any]:
    rows = headline(variants)
    used = columns_in_use(rows)
    winners = {index: best(rows, index) for index in used}
    body = []
    for position, (row, variant) in enumerate(zip(rows, variants, strict=True)):
        cells = [Cell(text_of(row, index), "best" if position in winners[index] else "") for index in used]
        verdict = Cell(
            f"{row.passed} of {row.judged}", ("pass" if row.passed == row.judged else "fail") if row.judged else ""
        )
        body.append((row.name, variant.description, [*cells, verdict]))
    return {"head": [*(COLUMNS[index].heading for index in used), "Tests passed"], "body": body}


def _sections(variants: Sequence[Variant], drawings: Sequence[Drawing]) -> list[Section]:
    titles = {result.test: result.title for variant in variants for result in variant.results}
    grouped: dict[str, list[Drawing]] = {}
    for drawing in drawings:
        grouped.setdefault(drawing.section, []).append(drawing)
    return [Section(*_SECTIONS.get(name, (titles.get(name, name), "")), found) for name, found in grouped.items()]


def _details(variants: Sequence[Variant]) -> list[Detail]:
    """Every test with every figure, in the order in which the tests appear."""
    details = []
    for test in dict.fromkeys(result.test for variant in variants for result in variant.results):
        found: list[Result | None] = [next((r for r in v.results if r.test == test), None) for v in variants]
        results = [result for result in found if result is not None]
        names = dict.fromkeys(name for result in results for name in result.figures)
        details.append(
            Detail(
                title=results[0].title,
                threshold=next((result.threshold for result in results if result.threshold), ""),
                verdicts=[
                    (variant.name, _verdict(result), "" if result is None else result.sentence)
                    for variant, result in zip(variants, found, strict=True)
                ],
                figures=[
                    (name.replace("_", " "), [_cell(None if r is None else r.figures.get(name)) for r in found])
                    for name in names
                ],
            )
        )
    return details


def _cell(value: Value) -> Cell:
    return Cell(number(value), "words" if isinstance(value, str) and len(value) > 20 else "")


def _verdict(result: Result | None) -> Cell:
    if result is None:
        return Cell("not run")
    if result.passed is None:
        return Cell("not judged")
    return Cell("passed", "pass") if result.passed else Cell("failed", "fail")

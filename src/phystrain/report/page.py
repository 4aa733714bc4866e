"""One HTML page that says whether the potentials can be trusted.

It opens without a network. It runs no code, but for the viewer of failing frames where there is one
(:mod:`phystrain.report.viewer`), and that when the reader asks for it.
"""

import base64
import re
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
from phystrain.report.curves import left_out, with_bands
from phystrain.report.drawing import COLOURS, INK, Drawing
from phystrain.report.failing import Failing, failing_frames
from phystrain.report.plots import draw_all
from phystrain.report.tables import write_tables
from phystrain.report.viewer import HOW_TO, START, viewer

_SECTIONS = {
    "survival": (
        "Does it survive molecular dynamics?",
        "The fraction of runs that are still physical after a given time.",
    ),
    "heating": ("Heating until it fails", ""),
    "dimers": (
        "Two atoms alone",
        "Energy of a pair of atoms against their distance. A sound potential repels at short distance and has no hole. "
        "Grey: the distances in the training data; left of the dotted line there are none.",
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
    "failing": ("Where it failed", ""),
}

_LAST = ("parity", "teacher", "learning", "failing")
"""Sections after those of the tests."""

_SIGNS = {"safe": "✓", "limited": "!", "unsafe": "✗"}


class Cell(NamedTuple):
    """A cell of a table: text, and how the page marks it (``best``, ``pass``, ``fail``, ``words``)."""

    text: str
    mark: str = ""


class Card(NamedTuple):
    """The verdict on a variant.

    Attributes:
        name: of the variant.
        grade: ``safe``, ``limited`` or ``unsafe``; empty if nothing was judged.
        word, sign: for the grade.
        sentence: of the verdict.
        kelvin: up to which temperature, in words; empty if that is not known or nothing is safe.
        conditions: those that the sentence does not name.
        reasons: why it is no better.
        untested: what was not tested.
    """

    name: str
    grade: str
    word: str
    sign: str
    sentence: str
    kelvin: str
    conditions: Sequence[str]
    reasons: Sequence[str]
    untested: Sequence[str]


class Section(NamedTuple):
    """A heading with drawings.

    Attributes:
        anchor: to link to.
        title, note: heading and what stands below it.
        test: anchor of the test among the details; empty if it is about none.
        captions: whether the descriptions of the drawings are shown.
        drawings: one or more.
    """

    anchor: str
    title: str
    note: str
    test: str
    captions: bool
    drawings: list[Drawing]


class Finding(NamedTuple):
    """What a test found for one variant; empty strings where there is nothing to say."""

    name: str
    verdict: Cell
    sentence: str = ""
    grade: str = ""
    condition: str = ""


class Detail(NamedTuple):
    """What one test found for all variants.

    Attributes:
        anchor: to link to.
        title, threshold: of the test.
        findings: one per variant.
        figures: rows of name and one cell per variant.
    """

    anchor: str
    title: str
    threshold: str
    findings: list[Finding]
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
    frames = failing_frames(comparison.variants)
    return environment.get_template("page.html").render(
        comparison=comparison,
        paragraphs=[part.strip() for part in comparison.intro.split("\n\n") if part.strip()],
        cards=_cards(comparison.variants),
        sentences=summary(comparison.variants),
        table=_table(comparison.variants),
        sections=_sections(comparison.variants, drawings, frames),
        details=_details(comparison.variants),
        colours=[COLOURS[index % len(COLOURS)] for index in range(len(comparison.variants))],
        viewer=viewer(frames),
        start=START,
        how_to=HOW_TO,
    )


def write_report(comparison: Comparison, folder: Path | str, others: Sequence[Drawing] = ()) -> Path:
    """Write ``report.html``, the drawings as ``plots/*.png`` and the numbers as ``tables/*.csv``.

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
    write_tables(comparison.variants, folder / "tables")
    write_text(folder / "report.html", page(comparison, drawings))
    return folder / "report.html"


def _picture(drawing: Drawing) -> str:
    """The drawing as a data address; its ink follows the colour scheme of the reader."""
    text = drawing.svg.decode("utf-8")
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    style = "<style>svg{color:#1f2328}@media(prefers-color-scheme:dark){svg{color:#d7dde3}}</style>"
    end = text.index(">") + 1
    return "data:image/svg+xml;base64," + base64.b64encode((text[:end] + style + text[end:]).encode()).decode("ascii")


def _cards(variants: Sequence[Variant]) -> list[Card]:
    """The verdicts there are."""
    cards = []
    for variant in variants:
        verdict = variant.verdict
        if verdict is None:
            continue
        grade = verdict.grade or ""
        cards.append(
            Card(
                name=variant.name,
                grade=grade,
                word=grade.capitalize() or "Not graded",
                sign=_SIGNS.get(grade, "?"),
                sentence=verdict.sentence,
                kelvin=f"Safe up to {number(verdict.kelvin)} K" if verdict.kelvin else "",
                conditions=[clause for clause in verdict.conditions if clause not in verdict.sentence],
                reasons=verdict.reasons,
                untested=verdict.untested,
            )
        )
    return cards


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
    # a unit is not to be broken at its stroke: U+2060 forbids it
    head = [*(COLUMNS[index].heading.replace("/", "/\u2060") for index in used), "Tests passed"]
    return {"head": head, "body": body}


def _sections(variants: Sequence[Variant], drawings: Sequence[Drawing], frames: Sequence[Failing]) -> list[Section]:
    titles = {result.test: result.title for variant in variants for result in variant.results}
    more, banded = left_out(variants), with_bands(variants)
    grouped: dict[str, list[Drawing]] = {}
    for drawing in drawings:
        grouped.setdefault(drawing.section, []).append(drawing)
    sections = []
    for name in sorted(grouped, key=lambda name: _LAST.index(name) if name in _LAST else -1):
        title, note = _SECTIONS.get(name, (titles.get(name, name), ""))
        if name == "failing":
            note = (
                f"{len(grouped[name])} of {len(frames)} frames that stopped dynamics, in failed.xyz of the run: "
                "of each variant the earliest of every kind. They are the next structures to label."
            )
        if name in banded:
            note = f"{note} Bands are intervals of confidence.".strip()
        if name in more:
            note = f"{note} {more[name]} more curves are in tables/curves.csv.".strip()
        test = _anchor(name) if name in titles else ""
        sections.append(Section(f"on-{_anchor(name)}", title, note, test, name == "failing", grouped[name]))
    return sections


def _details(variants: Sequence[Variant]) -> list[Detail]:
    """Every test with every figure, in the order in which the tests appear."""
    details = []
    for test in dict.fromkeys(result.test for variant in variants for result in variant.results):
        found: list[Result | None] = [next((r for r in v.results if r.test == test), None) for v in variants]
        results = [result for result in found if result is not None]
        names = dict.fromkeys(name for result in results for name in result.figures)
        details.append(
            Detail(
                anchor=_anchor(test),
                title=results[0].title,
                threshold=next((result.threshold for result in results if result.threshold), ""),
                findings=[_finding(variant.name, result) for variant, result in zip(variants, found, strict=True)],
                figures=[
                    (name.replace("_", " "), [_cell(None if r is None else r.figures.get(name)) for r in found])
                    for name in names
                ],
            )
        )
    return details


def _finding(name: str, result: Result | None) -> Finding:
    if result is None:
        return Finding(name, Cell("not run"))
    if not result.applies:
        verdict = Cell("does not apply")
    elif result.passed is None:
        verdict = Cell("not judged")
    else:
        verdict = Cell("passed", "pass") if result.passed else Cell("failed", "fail")
    condition = f": {'; '.join(result.conditions)}." if result.conditions else "."
    return Finding(name, verdict, result.sentence, result.grade or "", condition)


def _anchor(name: str) -> str:
    """Safe as an identifier."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _cell(value: Value) -> Cell:
    return Cell(number(value), "words" if isinstance(value, str) and len(value) > 20 else "")

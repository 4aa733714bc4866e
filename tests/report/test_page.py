"""The report: complete, self-contained, and safe to open whatever the names in it say."""

import csv
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from ase.build import bulk
from matplotlib.figure import Figure

from phystrain.augment import relabel
from phystrain.augment.rattle import Config as Rattle
from phystrain.data.structures import Structures
from phystrain.potentials import build
from phystrain.reliability import Curve, Result, Subject
from phystrain.reliability.dimers import Config as Dimers
from phystrain.reliability.errors import Config as Errors
from phystrain.reliability.survival import Config as Survival
from phystrain.report import curves, plots
from phystrain.report.comparison import Comparison, Variant, comparison_table, headline, number, summary
from phystrain.report.learning import read_history
from phystrain.report.page import page, write_report
from phystrain.report.plots import draw_all
from phystrain.statistics import Statistics

EVIL = "<script>alert(1)</script> & $\\frac$ [bold]x[/bold]"


def _errors(scale: float) -> Result:
    generator = np.random.default_rng(0)
    reference = generator.normal(size=300)
    return Result(
        test="errors",
        title="Errors on held-out structures",
        figures={"structures": 100, "energy MAE, meV/atom": 4.0 * scale, "forces MAE, meV/Å": 80.0 * scale},
        sentence="RMSE on 100 structures.",
        curves={
            "forces parity": Curve(
                x=reference.tolist(),
                y=(reference + scale * generator.normal(size=300) * 0.1).tolist(),
                x_label="reference force component, eV/Å",
                y_label="predicted force component, eV/Å",
            )
        },
    )


def _survival(fraction: float, median: float | None) -> Result:
    figures: dict[str, float | int | str | None] = {"length, ps": 10.0, "survived": fraction}
    curves = {}
    for kelvin in (300, 600, 1200):
        figures |= {f"survived at {kelvin} K": fraction, f"median survival at {kelvin} K, ps": None}
        curves[f"{kelvin} K"] = Curve(
            x=[0, 4, 4, 10],
            y=[1, 1, fraction, fraction],
            x_label="time, ps",
            y_label="fraction of runs surviving",
        )
    figures["median survival at 1200 K, ps"] = median
    return Result(
        test="survival", title="Survival in hot dynamics", figures=figures, passed=fraction == 1, curves=curves,
        threshold="at least 100 % of the runs survive 10 ps", sentence="Runs lost.",
    )  # fmt: skip


def _dimers(hole: float, passed: bool) -> Result:
    r = np.linspace(0.6, 5, 60)
    energy: list[float | None] = (4 * ((1.5 / r) ** 12 - (1.5 / r) ** 6) - hole * (r < 0.8)).tolist()
    energy[0] = None
    curves = {p: Curve(x=r.tolist(), y=energy, x_label="distance, Å", y_label="energy, eV") for p in ("O-Si", "O-O")}
    return Result(test="dimers", title="Pair curves", figures={"faulty pairs": 1}, passed=passed, curves=curves)


def _history(path: Path) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["stage", "step", "seconds", "loss", "valid_loss", "valid_forces_mae"])
        writer.writeheader()
        for stage in ("pretrain", "finetune"):
            for step in range(1, 6):
                row = {
                    "stage": stage,
                    "step": step,
                    "seconds": 2 * step,
                    "loss": 1 / step,
                    "valid_forces_mae": 90 / step,
                }
                writer.writerow(row | ({"valid_loss": 3 / step} if stage == "finetune" else {}))
    return path


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    history = _history(tmp_path_factory.mktemp("run") / "metrics.csv")
    unknown = Result(test="brand_new", title="A test of tomorrow", figures={"oddness, furlong": 7.25}, passed=True)
    return Comparison(
        title="Silica with 50 labels",
        intro="First paragraph.\n\nSecond paragraph.",
        variants=[
            Variant(
                "labels only", "energies and forces", [_errors(2), _survival(0.25, 4.5), _dimers(9e9, False)], history
            ),
            Variant("weak", "PITC and PISC", [_errors(1.5), _survival(0.75, None), _dimers(0, True)], history),
            Variant(EVIL, EVIL, [_errors(1), _survival(1.0, None), _dimers(0, True), unknown], None),
        ],
        run_file=f"potential: {{kind: painn}}\n# {EVIL}\n",
        data_hash="abc123",
    )


@pytest.fixture(scope="module")
def text(comparison: Comparison) -> str:
    return page(comparison)


class _Reader(HTMLParser):
    """Collects tags and text, and checks that what is opened is closed."""

    void = frozenset({"meta", "img", "br", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._open = "", []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_page_is_whole_and_refers_to_nothing_outside(text: str):
    reader = _Reader(text)
    anchors = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(set(anchors)) == len(anchors)
    for tag, attributes in reader.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name == "href":
                assert value.startswith("#")
                assert value[1:] in anchors
            if name in ("src", "srcset"):
                assert value.startswith("data:image/svg+xml;base64,")
    assert "url(" not in text
    assert "@import" not in text
    policy = next(
        a["content"] for t, a in reader.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'")


def test_page_shows_everything(text: str):
    reader = _Reader(text)
    pictures = [attributes for tag, attributes in reader.tags if tag == "img"]
    # 3 temperatures, 2 pairs, 3 parity panels, 3 learning curves
    assert len(pictures) == 3 + 2 + 3 + 3
    assert all(picture["alt"] for picture in pictures)
    for words in (
        *("Silica with 50 labels", "Second paragraph.", "A test of tomorrow", "oddness, furlong", "7.25", "abc123"),
        *("kind: painn", "PyTorch", "at least 100 % of the runs survive 10 ps"),
    ):
        assert words in reader.text


def test_names_are_escaped(text: str):
    assert "<script" not in text
    assert _Reader(text).text.count("<script>alert(1)</script> & $\\frac$") >= 5


def test_report_folder(comparison: Comparison, text: str, tmp_path: Path):
    found = write_report(comparison, tmp_path / "run")
    assert found == tmp_path / "run" / "report.html"
    pictures = sorted((tmp_path / "run" / "plots").iterdir())
    assert len(pictures) == 11
    assert {file.name for file in (tmp_path / "run" / "tables").iterdir()} == {"curves.csv", "figures.csv", "tests.csv"}
    for picture in pictures:
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert re.fullmatch(r"[a-z0-9._-]+", picture.name)
    assert tmp_path / "run" / "plots" / "survival-1200-k.png" in pictures
    assert found.read_text() == text, "the same results give the same page"


def test_headline_and_table(comparison: Comparison):
    rows = headline(comparison.variants)
    assert [entry.text for entry in rows[0].entries] == ["8", "160", "25", "4.5"]
    assert [entry.text for entry in rows[1].entries] == ["6", "120", "75", "> 10"]
    assert [(row.passed, row.judged) for row in rows] == [(0, 2), (1, 2), (3, 3)]
    table = comparison_table(comparison.variants, width=200)
    lines = table.splitlines()
    best = next(line for line in lines if "<script>" in line)
    assert "[bold]x[/bold]" in best
    assert re.search(r"4 \*.*80 \*.*100 \*.*> 10 \*.*3 of 3", best)
    assert all(len(line) <= 50 for line in comparison_table(comparison.variants, width=50).splitlines())


def test_summary_in_words(comparison: Comparison):
    sentences = summary(comparison.variants)
    assert f"{EVIL} has the smallest force error: 80 meV/Å, against 160 meV/Å for labels only." in sentences
    assert (
        f"weak and {EVIL} have the longest median survival when hottest: > 10 ps, against 4.5 ps for labels only."
        in sentences
    )
    assert "labels only passes 0 of 2 judged tests; it fails: Survival in hot dynamics, Pair curves." in sentences
    alone = summary(comparison.variants[:1])
    assert alone == ["labels only passes 0 of 2 judged tests; it fails: Survival in hot dynamics, Pair curves."]


def test_equal_and_missing_figures():
    same = [Variant("a", results=[_errors(1)]), Variant("b", results=[_errors(1)]), Variant("c")]
    assert "Force MAE: 80 meV/Å for all that have it." in summary(same)
    assert "*" not in comparison_table(same, width=100)
    broken = _errors(1)
    broken.figures["energy MAE, meV/atom"] = float("nan")
    worse = [Variant("a", results=[broken]), Variant("b", results=[_errors(2)])]
    assert not any("smallest energy error" in sentence for sentence in summary(worse)), "nothing finite to compare with"
    assert "not a number" in page(Comparison("t", worse))


def test_page_of_nothing():
    reader = _Reader(page(Comparison("Nothing yet", [Variant("a")])))
    assert "0 of 0" in reader.text
    assert not [tag for tag, _ in reader.tags if tag == "img"]


def test_drawing_leaves_matplotlib_as_it_was():
    before = dict(mpl.rcParams)
    draw_all([Variant("a", results=[_survival(1.0, None)])])
    assert dict(mpl.rcParams) == before
    assert "matplotlib.pyplot" not in vars(plots).values()


def test_unphysical_wall_does_not_hide_the_wells(comparison: Comparison):
    figure = Figure()
    axes = figure.add_subplot()
    panel = next(panel for panel in curves.panels_of(comparison.variants)["dimers"] if panel.label == "O-Si")
    curves._paint(axes, panel=panel)
    low, high = axes.get_ylim()
    assert -20 < low < -4
    assert 1 < high < 40


def test_history_runs_on_over_stages(tmp_path: Path):
    first, second = read_history(_history(tmp_path / "metrics.csv"))
    assert first["elapsed"].tolist() == [2, 4, 6, 8, 10]
    assert second["elapsed"].tolist() == [12, 14, 16, 18, 20]
    assert "valid_loss" in second
    assert "valid_loss" not in first
    assert read_history(tmp_path / "missing.csv") == []
    (tmp_path / "empty.csv").write_text("stage,step,loss\n")
    assert read_history(tmp_path / "empty.csv") == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((None, "–"), (3, "3"), ("a-b", "a-b"), (-0.123456, "−0.1235"), (1e-9, "1e−09"), (12345.6, "1.235e+04")),
        *((float("inf"), "∞"), (float("nan"), "not a number")),
    ],
)
def test_numbers_for_people(value: object, text: str):
    assert number(value) == text


def test_headline_finds_the_figures_of_the_real_tests(tmp_path: Path):
    copper = bulk("Cu", cubic=True).repeat(2)
    statistics = Statistics.bare((29,))
    potential = build({"kind": "morse"}, statistics).double()
    test = relabel(Rattle(copies=3)(Structures.from_ase([copper]), 0), potential, use_cache=False)
    subject = Subject("morse", potential, statistics, test=test, start=test.select([0]), temperatures=(300.0, 600.0))
    results = [Errors()(subject), Dimers()(subject), Survival(replicas=1, picoseconds=0.005)(subject)]
    variants = [Variant("morse", results=results)]
    (row,) = headline(variants)
    assert all(entry is not None for entry in row.entries), "a reliability test has renamed a figure of the headline"
    drawings = draw_all(variants)
    assert {"survival", "dimers", "parity"} == {drawing.section for drawing in drawings}
    assert all("MAE" in drawing.description for drawing in drawings if drawing.section == "parity")

"""Failing frames: the right contact, the right choice, the tables, and the viewer where it is installed."""

import base64
import csv
import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from phystrain.errors import UserError
from phystrain.reliability import Curve, Result
from phystrain.report import viewer as viewer_module
from phystrain.report.comparison import Comparison, Variant
from phystrain.report.failing import DRAWN, _surroundings, _view, chosen, failing_drawings, failing_frames, find_contact
from phystrain.report.page import page, write_report
from phystrain.report.tables import write_tables


def _frame(reason: str, time: float = 0.5, separation: float = 1.0) -> Atoms:
    """An O atom beside the wall of the cell and a Si atom behind it; a further O at 1.6 Å from the Si."""
    atoms = Atoms("OSiO", [(0.2, 3, 3), (0.2 - separation, 3, 3), (0.2 - separation, 4.6, 3)], cell=[6] * 3, pbc=True)
    atoms.wrap()
    atoms.info |= {"failure": reason, "time_ps": time, "temperature_K": 900}
    return atoms


def _variant(folder: Path, frames: list[Atoms], name: str = "a") -> Variant:
    write(folder / f"{name}.xyz", frames, format="extxyz")
    return Variant(name, failing=folder / f"{name}.xyz")


@pytest.mark.parametrize(
    ("reason", "pair", "distance"),
    [
        ("O-Si contact of 1.00 Å at 0.500 ps", {0, 1}, 1.0),
        ("O-Si bond changed from 1.10 to 1.60 Å at 0.500 ps", {1, 2}, 1.6),
        ("temperature of 20,000 K (limit 10,900 K) at 0.5 ps", {0, 1}, 1.0),
        ("something that nobody foresaw", {0, 1}, 1.0),
    ],
)
def test_contact_is_found_across_the_cell(reason: str, pair: set[int], distance: float):
    contact = find_contact(_frame(reason), reason)
    assert contact is not None
    assert {contact.first, contact.second} == pair
    assert contact.distance == pytest.approx(distance)


def test_no_contact_where_none_is_close():
    assert find_contact(_frame("too hot", separation=1.7), "too hot") is None
    assert find_contact(Atoms("H"), "alone") is None


def test_a_frame_beyond_the_cell_is_drawn_about_its_contact(tmp_path: Path):
    atoms = _frame("O-Si contact of 1.00 Å at 0.5 ps")
    atoms.positions[1] += [12, -18, 0]  # never wrapped in a long run
    (frame,) = failing_frames([_variant(tmp_path, [atoms])])
    numbers, places, marked = _surroundings(frame)
    assert marked is not None
    assert sorted(numbers[list(marked)]) == [8, 14]
    assert np.linalg.norm(places[marked[0]] - places[marked[1]]) == pytest.approx(1.0)
    rotation = _view(places, marked, frame.contact)
    assert np.allclose(rotation @ rotation.T, np.eye(3))
    assert np.linalg.det(rotation) == pytest.approx(1)
    turned = (places[marked[1]] - places[marked[0]]) @ rotation.T
    assert np.abs(turned[0]) == pytest.approx(1.0)


def test_the_earliest_of_every_kind_is_drawn(tmp_path: Path):
    later = [_frame(f"O-Si contact of 1.00 Å at {time} ps", time) for time in (0.9, 0.3, 0.4, 0.5)]
    hot = _frame("temperature of 9,000 K (limit 8,000 K)", 2.0)
    lost = _frame("O-Si contact of 1.00 Å at 0.1 ps", 0.1)
    lost.positions[:] = np.nan
    variants = [_variant(tmp_path, [*later, hot, lost]), Variant("none"), _variant(tmp_path, [hot], "b")]
    frames = failing_frames(variants)
    assert [(frame.index, frame.atoms.info["time_ps"]) for frame in frames] == [
        *((0, 0.3), (0, 0.4), (0, 0.5), (0, 0.9), (0, 2.0), (2, 2.0)),
    ]
    picked = [(frame.index, frame.atoms.info["time_ps"]) for frame in chosen(frames)]
    assert picked == [(0, 0.3), (0, 2.0), (0, 0.4), (2, 2.0)]
    drawings = list(failing_drawings(variants))
    assert len(drawings) == DRAWN + 1
    assert drawings[0].title == "a: O-Si 1.00 Å"
    assert drawings[0].description == "a, O2Si: O-Si contact of 1.00 Å at 0.3 ps, at 900 K"


def test_missing_and_damaged_frames(tmp_path: Path):
    assert failing_frames([Variant("a", failing=tmp_path / "missing.xyz")]) == []
    (tmp_path / "damaged.xyz").write_text("3\nProperties=species:S:1:pos:R:3\nO 0 0 0\n")
    with pytest.raises(UserError, match=r"damaged\.xyz cannot be read"):
        failing_frames([Variant("a", failing=tmp_path / "damaged.xyz")])


def test_tables_hold_every_number(tmp_path: Path):
    curve = Curve(x=[0, 1], y=[0.1 + 0.2, None], x_label="time, ps", y_label="energy, eV")
    result = Result(
        test="drift", title="Drift", figures={"slope, eV/ps": 1 / 3, "note": "a, b", "none": None}, passed=False,
        curves={"run 1": curve}, grade="limited", conditions=["below 900 K", "dry"], kelvin=900,
        sentence='It "drifts".',
    )  # fmt: skip
    tests, figures, curves = (
        list(csv.DictReader(path.open(newline="", encoding="utf-8")))
        for path in write_tables([Variant("one, two", results=[result])], tmp_path / "tables")
    )
    assert tests[0]["variant"] == "one, two"
    assert (tests[0]["passed"], tests[0]["grade"], tests[0]["kelvin"]) == ("False", "limited", "900.0")
    assert (tests[0]["sentence"], tests[0]["conditions"]) == ('It "drifts".', "below 900 K; dry")
    assert [(row["figure"], row["value"]) for row in figures] == [
        *(("slope, eV/ps", repr(1 / 3)), ("note", "a, b"), ("none", "")),
    ]
    assert [(row["x"], row["y"]) for row in curves] == [("0.0", repr(0.1 + 0.2)), ("1.0", "")]


def test_page_says_how_to_get_the_viewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("phystrain.report.page.viewer", lambda frames: None)
    text = page(Comparison("t", [_variant(tmp_path, [_frame("O-Si contact of 1.00 Å")])]))
    assert "pip install &#39;phystrain[report]&#39;" in text
    assert "<script" not in text
    assert "script-src" not in text


def test_viewer_is_in_the_page_and_only_it_may_run(tmp_path: Path):
    pytest.importorskip("chemiscope", reason="the optional viewer: pip install 'phystrain[report]'")
    evil = "</script><script>alert(1)</script>"
    frames = [_frame(f"O-Si contact of 1.00 Å {evil}"), _frame("too hot", separation=1.7)]
    variant = _variant(tmp_path, frames)
    found = viewer_module.viewer(failing_frames([variant]))
    assert found is not None
    assert found.shown == 2
    data = json.loads(found.data)
    assert [structure["size"] for structure in data["structures"]] == [3, 3]
    assert data["properties"]["failure"]["values"][0].endswith(evil)
    script = gzip.decompress(base64.b64decode(found.code))
    allowed = base64.b64encode(hashlib.sha256(script).digest()).decode()
    assert f"'sha256-{allowed}'" in found.policy
    assert "chemiscope developers" in found.licence
    size = (write_report(Comparison("t", [variant]), tmp_path / "run")).stat().st_size
    assert size < 2_000_000
    text = (tmp_path / "run" / "report.html").read_text()
    assert text.count("<script") == 3
    assert "unsafe" not in found.policy
    assert evil not in text


def test_viewer_takes_no_more_than_the_page_can_bear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("chemiscope", reason="the optional viewer: pip install 'phystrain[report]'")
    variant = _variant(tmp_path, [_frame("too hot", time) for time in (1, 2, 3, 4)])
    monkeypatch.setattr(viewer_module, "MOST_ATOMS", 7)
    found = viewer_module.viewer(failing_frames([variant]))
    assert found is not None
    assert found.shown == 2
    assert viewer_module.viewer([]) is None

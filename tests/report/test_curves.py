"""Panels of any test: what goes together, what is shaded, what is left out."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from matplotlib.figure import Figure

from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.reliability import Curve, Result
from phystrain.report import curves
from phystrain.report.comparison import Variant, with_material
from phystrain.report.covered import Covered, covered, in_all, load_covered, store_covered
from phystrain.report.curves import MOST, curve_drawings, left_out, panels_of, with_bands
from phystrain.report.drawing import ALARM, COLOURS
from phystrain.statistics import Statistics


def _curve(y: list[float | None], x_label: str = "time, ps", y_label: str = "oddness, furlong") -> Curve:
    return Curve(x=np.arange(1.0, len(y) + 1).tolist(), y=y, x_label=x_label, y_label=y_label)


def _variant(found: dict[str, Curve], name: str = "a", test: str = "novel", sentence: str = "") -> Variant:
    return Variant(name, results=[Result(test=test, title="A novel test", curves=found, sentence=sentence)])


def _axes(variants: list[Variant], test: str = "novel", number: int = 0, held: curves.Held | None = None):
    axes = Figure().add_subplot()
    curves._paint(axes, panel=panels_of(variants)[test][number], held=held)
    return axes


@pytest.mark.parametrize("below", ["300 K, lower", "300 K lower 95 %", "300 K (low)", "300 K: lower bound"])
def test_bounds_are_a_band_of_their_line(below: str):
    above = below.replace("lower", "upper").replace("low", "high")
    label = "fraction of runs surviving"
    lines = {"300 K": [1.0, 0.5], below: [0.9, 0.2], above: [1.0, 0.8], "3000 K": [1.0, 0.0]}
    variants = [_variant({name: _curve(y, y_label=label) for name, y in lines.items()})]
    panels = panels_of(variants)["novel"]
    assert [panel.label for panel in panels] == ["300 K", "3000 K"]
    assert {side: curve.y for side, curve in panels[0].bands[0].items()} == {"low": [0.9, 0.2], "high": [1.0, 0.8]}
    assert with_bands(variants) == {"novel"}
    axes = _axes(variants)
    assert len(axes.collections) == 1
    assert axes.get_ylim() == (-0.03, 1.05)
    assert not _axes(variants, number=1).collections


def test_a_curve_may_bring_its_band():
    class Banded(Curve):
        low: tuple[float, ...] = ()
        high: tuple[float, ...] = ()

    curve = Banded(x=[0, 1], y=[1, 0.5], low=(0.9, 0.2), high=(1, 0.8), x_label="time, ps", y_label="fraction")
    variants = [_variant({"300 K": curve}), _variant({"300 K": _curve([1.0, 0.4])}, "b")]
    object.__setattr__(variants[0].results[0], "curves", {"300 K": curve})  # validation would make a Curve of it
    assert with_bands(variants) == {"novel"}
    (band,) = _axes(variants).collections
    assert band.get_paths()[0].vertices[:, 1].min() == 0.2


def test_branches_share_a_panel_and_runs_over_time_do_not():
    branches = {f"branch {number}": _curve([1.0 * number, 2.0], "wave vector") for number in (1, 2, 3)}
    runs = {f"run {number}": _curve([1.0, 2.0]) for number in (1, 2)}
    variants = [_variant(branches | runs, name) for name in ("a", "b")]
    panels = panels_of(variants)["novel"]
    assert [panel.label for panel in panels] == ["branch 1 to 3", "run 1", "run 2"]
    assert [index for index, _ in panels[0].lines] == [0, 0, 0, 1, 1, 1]
    assert next(curve_drawings(variants)).description.endswith("for a, b")


def test_a_reference_stands_in_the_panel_it_belongs_to():
    g = "g(r)"
    ours, reference = _curve([0, 2.0, 1], "distance, Å", g), _curve([0, 1.5, 1], "distance, Å", g)
    angle = _curve([1.0, 2.0], "angle, degrees", "density")
    variants = [
        _variant({"O-Si": ours, "O-Si, labelled frames": reference, "O-Si-O": angle}, name) for name in ("a", "b")
    ]
    first, second = panels_of(variants)["novel"]
    assert (first.label, second.label) == ("O-Si", "O-Si-O")
    assert list(first.others) == ["labelled frames"]
    assert len(_axes(variants).lines) == 3, "the reference is the same for both and drawn once"
    (drawing, _) = curve_drawings(variants)
    assert "beside it labelled frames" in drawing.description


def test_the_distances_of_the_data_are_beneath_energies_of_pairs():
    distance, energy = np.linspace(0.5, 5, 60), np.linspace(5, 0, 60)
    pair = Curve(x=distance.tolist(), y=energy.tolist(), x_label="distance, Å", y_label="energy, eV")
    variants = [_variant({"Si-O": pair, "O-O": pair})]
    counts = [0] * 32 + [5] * 68
    data = Covered(shortest={"O-Si": 1.62}, counts={"O-Si": counts})
    panels = panels_of(variants)["novel"]
    held = curves._held(panels[0], data)
    assert held is not None
    assert held.shortest == 1.62
    assert curves._held(panels[1], data) is None, "nothing is known of O-O"
    axes = _axes(variants, held=held)
    dotted = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert [line.get_xdata()[0] for line in dotted] == [1.62]
    left, right = axes.get_xlim()
    assert left < 0.6
    assert right < 6
    stretched = _curve([1.0, 2.0], "length of the bond, Å", "energy above the structure as it is, eV")
    assert curves._held(panels_of([_variant({"O-Si in O20Si10 (1)": stretched})])["novel"][0], data) is not None
    other = [_variant({"O-Si": _curve([1.0, 2.0], "distance, Å", "g(r)")})]
    assert curves._held(panels_of(other)["novel"][0], data) is None, "g(r) shows the distances itself"


def test_no_more_panels_than_a_reader_can_take():
    many = {f"structure {number}": _curve([1.0, 2.0, 3.0]) for number in range(MOST + 3)}
    variants = [_variant(many, sentence="The worst is structure 11.")]
    assert left_out(variants) == {"novel": 3}
    titles = [drawing.title for drawing in curve_drawings(variants)]
    assert len(titles) == MOST
    assert titles[:3] == ["structure 11", "structure 0", "structure 1"]
    assert left_out([_variant(dict(itertools.islice(many.items(), MOST)))]) == {}


def test_axes_follow_the_numbers():
    decades = [10.0**-n for n in range(12)]
    error = "error of the forces, eV/Å"
    assert _axes([_variant({"error": _curve(decades, y_label=error)})]).get_yscale() == "log"
    assert _axes([_variant({"error": _curve([1.0, 2.0] * 6, y_label=error)})]).get_yscale() == "linear"
    tail = _axes([_variant({"O-O": _curve(decades, y_label="g(r)")})])
    assert tail.get_yscale() == "linear", "the tail of a distribution says nothing"
    assert tail.get_ylabel() == "g(r)"
    steps = Curve(x=[1e-4, 1e-3, 1e-2, 1e-1], y=[1, 2, 3, 4], x_label="step, Å", y_label="error, %")
    axes = _axes([_variant({"steps": steps})])
    assert axes.get_xscale() == "log"
    assert axes.xaxis.get_major_formatter()(1e-3, 0) == "0.001", "mathematics is off, so no powers"
    assert axes.lines[0].get_marker() == "o", "few points are seen as points"
    hole = _curve([1.0] * 30 + [-1e6], "time, ps", "energy, eV")
    assert _axes([_variant({"hole": hole})]).get_ylim()[0] > -100


def test_curves_with_nothing_in_them_do_no_harm():
    nothing = [_variant({"none": _curve([]), "gaps": _curve([None, None, None])})]
    assert [panel.label for panel in panels_of(nothing)["novel"]] == ["gaps"]
    assert len(list(curve_drawings(nothing))) == 1


def test_order_of_the_page():
    line = {"x": _curve([1.0, 2.0])}
    tests = ("compression", "dimers", "zebra", "drift", "rdf", "heating", "angles", "survival")
    results = [Result(test=test, title=test, curves=line) for test in tests]
    assert list(panels_of([Variant("a", results=results)])) == [
        *("survival", "heating", "rdf", "angles", "zebra", "dimers", "drift", "compression"),
    ]


def test_what_the_data_cover():
    copper = Structures.from_ase([bulk("Cu", cubic=True).repeat(2)] * 3)
    found = covered(Statistics(species=(29,), shortest={"29-29": 2.5527}), copper)
    assert found.shortest == {"Cu-Cu": 2.5527}
    assert [number for number, count in enumerate(found.counts["Cu-Cu"]) if count] == [51, 72, 88]
    assert Covered.model_validate_json(found.model_dump_json()) == found
    assert covered(Statistics.bare((29,))) == Covered()


def test_what_a_folder_holds_beside_the_results(tmp_path: Path):
    found = Covered(shortest={"O-O": 2.0}, counts={"O-O": [0, 1]})
    assert with_material(Variant("a"), tmp_path).covered is None
    store_covered(tmp_path, found)
    variant = with_material(Variant("a"), tmp_path)
    assert variant.covered == found
    assert variant.failing == tmp_path / "failed.xyz"
    (tmp_path / "covered.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        load_covered(tmp_path)


def test_data_of_several_variants():
    one, other = Covered(shortest={"O-O": 2.0}, counts={"O-O": [1]}), Covered(shortest={"O-O": 1.8, "H-O": 0.9})
    assert in_all([one, None, other]) == Covered(shortest={"O-O": 1.8, "H-O": 0.9})
    assert in_all([one, None, one]) == one
    assert in_all([]) == Covered()


_BLINDNESS = {  # Machado, Oliveira, Fernandes 2009, doi:10.1109/TVCG.2009.113, severity 1
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


@pytest.mark.parametrize("eyes", _BLINDNESS)
def test_colours_are_told_apart(eyes: str):
    seen = [_oklab(np.clip(np.array(_BLINDNESS[eyes]) @ _linear(colour), 0, 1)) for colour in COLOURS]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 0.085


@pytest.mark.parametrize("ground", ["#ffffff", "#0d1117"])
def test_colours_are_seen_on_both_grounds(ground: str):
    for colour in (*COLOURS, ALARM):
        low, high = sorted(float(_linear(each) @ [0.2126, 0.7152, 0.0722]) for each in (colour, ground))
        assert (high + 0.05) / (low + 0.05) >= 3, "as the Web Content Accessibility Guidelines ask of graphics"


def _linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _oklab(linear: np.ndarray) -> np.ndarray:
    """Ottosson 2020, https://bottosson.github.io/posts/oklab."""
    cones = np.cbrt(
        np.array([
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ])
        @ linear
    )  # fmt: skip
    return np.array([
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]) @ cones  # fmt: skip

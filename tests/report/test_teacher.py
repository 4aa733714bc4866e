"""Pictures and tables of classical potentials."""

import csv

import numpy as np
import pytest
import torch

from phystrain import datasets
from phystrain.data.read import read
from phystrain.data.statistics import compute, reference_energies
from phystrain.potentials import build
from phystrain.report.parameters import parameter_rows, write_parameters
from phystrain.report.teacher import draw_teacher, pair_curves


@pytest.fixture(scope="module")
def frames():
    return read(datasets.path("silica")).structures.select(np.arange(3))


@pytest.fixture(scope="module")
def statistics(frames):
    return compute(frames, 5.0, reference_energies(frames))


def wrapped(settings, statistics):
    terms = {"reference": {"kind": "reference_energy", "trainable": True}, "model": settings}
    return build({"kind": "sum", "terms": terms}, statistics)


def test_a_picture_for_every_pair_of_elements(frames, statistics):
    drawings = draw_teacher(wrapped({"kind": "eam"}, statistics), frames)
    assert [drawing.title for drawing in drawings] == ["O-O", "O-Si", "Si-Si"]
    shortest = statistics.shortest["8-14"]
    assert f"{shortest:.2f} Å" in drawings[1].description
    assert all(drawing.svg.startswith(b"<?xml") and drawing.png.startswith(b"\x89PNG") for drawing in drawings)


def test_networks_have_none(frames, statistics):
    network = wrapped({"kind": "painn", "channels": 8, "layers": 1, "cutoff": 4.0}, statistics)
    assert draw_teacher(network, frames) == []


def test_the_parts_add_up(statistics):
    eam = build({"kind": "eam"}, statistics)
    distance = np.linspace(1.0, 5.9, 50)
    curves = pair_curves([("eam", eam)], distance, 8, 14)
    np.testing.assert_allclose(curves["pair energy"] + curves["embedding"], curves["total"], atol=1e-5)
    assert (np.diff(curves["density"]) <= 0).all()
    morse = build({"kind": "morse"}, statistics)
    both = pair_curves([("eam", eam), ("morse", morse)], distance, 8, 14)
    np.testing.assert_allclose(both["eam"] + both["morse"], both["total"], atol=1e-5)


def test_the_table_holds_values_and_not_what_is_stored(statistics, tmp_path):
    potential = wrapped({"kind": "morse", "depth": 0.7}, statistics)
    write_parameters(potential, tmp_path / "parameters.csv")
    rows = list(csv.DictReader((tmp_path / "parameters.csv").open()))
    depths = {row["belongs"]: float(row["value"]) for row in rows if row["parameter"] == "depth"}
    assert depths == pytest.approx(dict.fromkeys(["O-O", "O-Si", "Si-Si"], 0.7), rel=1e-5)


def test_angles_have_their_names_and_cosines(statistics):
    potential = build({"kind": "stillinger_weber", "cosines": {"O-Si-O": -0.3}}, statistics)
    found = {row.belongs: row.value for row in parameter_rows(potential) if row.parameter == "cosine"}
    assert found["O-Si-O"] == pytest.approx(-0.3, abs=1e-6)
    assert all(-1 < value < 1 for value in found.values())


def test_born_mayer_is_drawn_with_its_parts(statistics):
    ions = build({"kind": "born_mayer"}, statistics)
    curves = pair_curves([("ions", ions)], np.linspace(1.0, 5.9, 50), 8, 14)
    assert {"repulsion", "coulomb", "dispersion"} <= set(curves)
    total = sum(curve for name, curve in curves.items() if name != "total")
    np.testing.assert_allclose(total, curves["total"], atol=1e-4)


def test_every_parameter_of_an_eam_is_in_the_table(statistics):
    eam = build({"kind": "eam", "exponentials": 4}, statistics)
    rows = list(parameter_rows(eam))
    assert len(rows) == sum(parameter.numel() for parameter in eam.parameters())
    curvature = [row for row in rows if row.parameter == "curvature"]
    assert [row.belongs for row in curvature] == ["O", "Si"]
    assert all(np.isfinite(row.value) and row.value > 0 for row in rows)
    assert torch.get_default_dtype() == torch.float32

"""Augmented structures in a file: the same whatever the pieces, whole or not at all, told in figures."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from matplotlib.image import imread

from phystrain import augmented
from phystrain.augment import load_teacher, relabel
from phystrain.augment.rattle import Config as Rattle
from phystrain.augmented import augment_file, parse
from phystrain.data.graphs import GraphStore
from phystrain.data.read import read
from phystrain.data.structures import Structures
from phystrain.data.write import write
from phystrain.errors import UserError
from phystrain.report.distances import LARGEST, Distances

LJ = "ase.calculators.lj:LennardJones"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    frames = []
    for number in range(8):
        frame = bulk("SiO", "zincblende", a=4.4 + 0.05 * number, cubic=True) if number % 2 else molecule("H2O")
        frame.rattle(0.05, seed=number)
        frames.append(frame)
    path = tmp_path / "start.xyz"
    write(Structures.from_ase(frames), path)
    return path


def test_the_file_does_not_depend_on_the_pieces(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kinds = parse(["pull_perturb", "dimers", "rattle"], ["pull_perturb.rounds=3", "dimers.points=4"])
    contents, found = [], []
    for size in (1, 20, 10_000):
        monkeypatch.setattr(augmented, "PIECE", size)
        said: list[str] = []
        found.append(augment_file(data, tmp_path / f"{size}.xyz.gz", teacher=LJ, settings=kinds, say=said.append))
        contents.append((tmp_path / f"{size}.xyz.gz").read_bytes())
        assert f"wrote {found[-1].written} structures" in said[-1]
        assert imread(tmp_path / f"{size}.distances.png").std() > 0
    assert contents[0] == contents[1] == contents[2]
    assert found[0].made == {"pull_perturb": 24, "dimers": 3 + 6 * 4, "rattle": 40}
    labelled = read(tmp_path / "1.xyz.gz").structures
    assert len(labelled) == found[0].written == 24 + 27 + 40
    again = relabel(labelled, LJ, use_cache=False)
    assert labelled.energy == pytest.approx(again.energy)
    assert labelled.forces == pytest.approx(again.forces)


def test_duplicates_are_left_out_across_pieces(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    structures = read(data).structures
    write(structures.select([0, 1, 0, 1, 2]), tmp_path / "twice.xyz")
    monkeypatch.setattr(augmented, "PIECE", 1)
    said: list[str] = []
    settings = {"kind": "pull_perturb", "rounds": 3}
    result = augment_file(tmp_path / "twice.xyz", tmp_path / "out.xyz", teacher=LJ, settings=settings, say=said.append)
    assert result.duplicates == 2, "the undisturbed rounds of the copies"
    assert result.written == 15 - 2
    assert "2 duplicates left out" in said
    rounds = read(tmp_path / "out.xyz").structures.info["round"]
    assert list(rounds).count("2") == 3, "the undisturbed round of each structure is there once"


def test_an_interrupted_run_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(augmented, "PIECE", 1)
    output = tmp_path / "out.xyz"
    output.write_text("precious")
    original, calls = augmented.label, []

    def broken(*arguments, **options):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(augmented, "label", broken)
    with pytest.raises(KeyboardInterrupt):
        augment_file(data, output, teacher=LJ, settings={"kind": "rattle"})
    assert output.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.glob("*out*")) == ["out.xyz"]
    said: list[str] = []
    result = augment_file(data, output, teacher=LJ, settings={"kind": "rattle"}, say=said.append)
    assert result.written == 40
    assert result.computed == 40 - 3 * 5, "three pieces were in the cache"
    assert any("structures per second" in line for line in said)
    augment_file(data, output, teacher=LJ, settings={"kind": "rattle"}, say=said.append)
    assert "all labels were in the cache" in said


def test_energies_meet_those_of_the_data(data: Path, tmp_path: Path):
    structures = read(data).structures
    own = relabel(structures, LJ, use_cache=False)
    counts = np.array([(structures.species[structures.system == n] == 14).sum() for n in range(8)])
    shifted = own.energy - 300.0 * structures.sizes - 50.0 * counts
    write(structures.with_labels(energy=shifted), tmp_path / "labelled.xyz")
    settings = {"kind": "rattle", "copies": 1}
    differences = []
    for aligned in (True, False):
        out = tmp_path / f"{aligned}.xyz"
        augment_file(tmp_path / "labelled.xyz", out, teacher=LJ, settings=settings, aligned=aligned)
        made = read(out).structures
        plain = relabel(made, LJ, use_cache=False)
        differences.append(made.energy - plain.energy)
        assert made.forces == pytest.approx(plain.forces)
    assert differences[0] == pytest.approx(-300.0 * structures.sizes - 50.0 * counts, abs=1e-6)
    assert np.abs(differences[1]).max() < 1e-9


def test_a_teacher_that_fails_on_some_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(augmented, "PIECE", 1)
    frames = [bulk("Cu", cubic=True), bulk("Mo", cubic=True), bulk("Al", cubic=True)]  # EMT knows no molybdenum
    write(Structures.from_ase(frames), tmp_path / "metals.xyz")
    said: list[str] = []
    emt = "ase.calculators.emt:EMT"
    result = augment_file(
        tmp_path / "metals.xyz", tmp_path / "out.xyz", teacher=emt, settings={"kind": "rattle"}, say=said.append
    )
    assert (result.written, result.failed) == (10, 5)
    assert any("5 structures could not be labelled" in line and "Mo" in line for line in said)
    assert len(ase.io.read(tmp_path / "out.xyz", ":")) == 10
    write(Structures.from_ase(frames[1:2]), tmp_path / "mo.xyz")
    with pytest.raises(UserError, match="labelled none"):
        augment_file(tmp_path / "mo.xyz", tmp_path / "none.xyz", teacher=emt, settings={"kind": "rattle"})
    assert not (tmp_path / "none.xyz").exists()


def test_dynamics_need_a_potential(data: Path, tmp_path: Path):
    with pytest.raises(UserError, match="give a potential"):
        augment_file(data, tmp_path / "out.xyz", teacher=LJ, settings={"kind": "hot_md"})


def test_settings_as_people_write_them():
    assert parse(["rattle"], ["amplitude=0.1", "copies=2"]) == [{"kind": "rattle", "amplitude": 0.1, "copies": 2}]
    several = parse(["rattle", "hot_md"], ["hot_md.temperatures=[300, 600]", "rattle.copies=1"])
    assert several == [{"kind": "rattle", "copies": 1}, {"kind": "hot_md", "temperatures": [300, 600]}]
    for kinds, setting, message in (
        (["rattle"], "amplitude", "write name=value"),
        (["rattle", "strain"], "copies=1", "of which kind"),
        (["rattle", "strain"], "ratle.copies=1", "did you mean 'rattle'"),
    ):
        with pytest.raises(UserError, match=message):
            parse(kinds, [setting])


def test_histogram_counts_every_pair_once(data: Path):
    structures = read(data).structures
    made = Rattle(copies=1)(structures, 0)
    whole, pieces = Distances(structures.elements), Distances(structures.elements)
    whole.add(GraphStore(made, LARGEST + 1))
    for number in range(len(made)):
        pieces.add(GraphStore(made.select([number]), LARGEST))
    assert np.array_equal(whole.counts, pieces.counts)
    water = Distances((1, 8))
    water.add(GraphStore(Structures.from_ase([molecule("H2O")]), LARGEST))
    totals = {pair: water.density(row).sum() * 0.05 for row, pair in enumerate(water.pairs)}
    assert totals == pytest.approx({(1, 1): 1.0, (1, 8): 2.0, (8, 8): 0.0})


def test_labels_of_a_potential_are_quick(data: Path, tmp_path: Path, lennard_jones):
    """A bound that only a loop over atoms or a graph built twice would break, not a benchmark."""
    import time

    made = Rattle(copies=100)(read(data).structures, 0)
    relabel(made.select(np.arange(50)), lennard_jones, use_cache=False)
    began = time.perf_counter()
    relabel(made, load_teacher(lennard_jones), use_cache=False)
    assert len(made) / (time.perf_counter() - began) > 170

"""Labels by teachers: right, kept, renewed when they must be, and failures told."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from torch import nn

from phystrain.augment import _relabel
from phystrain.augment._relabel import CalculatorTeacher, PotentialTeacher, align, default_cache, load_teacher, relabel
from phystrain.augment._teachers import _within_budget
from phystrain.data.structures import Structures
from phystrain.derive import evaluate
from phystrain.errors import UserError
from phystrain.graph import AtomGraph


class Springs(nn.Module):
    """A smooth pair potential that counts its passes; atoms of element ``broken`` have no energy."""

    def __init__(self, strength: float = 0.7, broken: int = 0) -> None:
        super().__init__()
        self.cutoff = 4.0
        self.broken = broken
        self.strength = nn.Parameter(torch.tensor(strength, dtype=torch.float64))
        self._passes: list[int] = []

    def atomic_energies(self, graph: AtomGraph) -> torch.Tensor:
        self._passes.append(graph.edges.shape[1])
        near = graph.distances < self.cutoff
        pair = torch.where(near, self.strength * (1 - graph.distances / self.cutoff) ** 3, 0.0)
        energy = graph.positions.new_zeros(graph.n_atoms).index_add(0, graph.edges[0], pair)
        return torch.where(graph.species == self.broken, torch.nan, 1.0) * energy


class Fragile(LennardJones):
    """Lennard-Jones that fails for one structure, gives nonsense for another, and counts."""

    calls = 0
    interrupt_at = 10**9

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        type(self).calls += 1
        if type(self).calls > type(self).interrupt_at:
            raise KeyboardInterrupt
        if len(atoms) == 2:
            raise RuntimeError("SCF did not converge")
        super().calculate(atoms, properties, system_changes)
        if len(atoms) == 3:
            self.results["energy"] = np.nan
            self.results["free_energy"] = np.nan


@pytest.fixture(autouse=True)
def _fresh():
    Fragile.calls, Fragile.interrupt_at = 0, 10**9


def _mixed() -> Structures:
    frames = [
        molecule("CH3CH2OH"),
        bulk("Cu", cubic=True),
        molecule("H2O"),
        Atoms("Cu"),
        bulk("CuO", "rocksalt", a=4.2),
    ]
    for number, frame in enumerate(frames):
        frame.rattle(0.05, seed=number)
        frame.info["origin"] = f"n{number}"
    return Structures.from_ase(frames, info=("origin",))


def _same(left: Structures, right: Structures) -> bool:
    return all(
        np.array_equal(getattr(left, n), getattr(right, n), equal_nan=True) for n in ("energy", "forces", "stress")
    )


@pytest.mark.parametrize("batch_edges", [1, 60, 10**6])
def test_labels_of_a_potential_equal_those_of_singles(batch_edges: int, tmp_path: Path):
    structures, potential = _mixed(), Springs()
    labelled = relabel(structures, potential, batch_edges=batch_edges, cache=tmp_path)
    assert list(labelled.info["origin"]) == list(structures.info["origin"])
    for index, frame in enumerate(structures.frames()):
        single = evaluate(potential, AtomGraph.from_ase(frame, 4.0), ("energy", "forces", "stress"))
        part = slice(labelled.offsets[index], labelled.offsets[index + 1])
        assert labelled.energy[index] == pytest.approx(single.energy.item(), abs=1e-12)
        assert labelled.forces[part] == pytest.approx(single.forces.numpy(), abs=1e-12)
        assert labelled.stress[index] == pytest.approx(single.stress[0].numpy(), abs=1e-12, nan_ok=True)
    assert list(np.isfinite(labelled.stress[:, 0, 0])) == [False, True, False, False, True]


def test_several_threads_give_the_labels_of_one_in_order(lennard_jones: nn.Module):
    frames = [bulk("Ar", "fcc", a=5.0 + 0.003 * number, cubic=True) for number in range(300)]
    structures, threads = Structures.from_ase(frames), torch.get_num_threads()
    try:
        found = []
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(relabel(structures, lennard_jones, use_cache=False, batch_edges=5_000))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert _same(*found)
    assert len(np.unique(found[0].energy)) == 300


def test_a_failing_thread_is_heard(lennard_jones: nn.Module, monkeypatch: pytest.MonkeyPatch):
    structures = Structures.from_ase([bulk("Ar", "fcc", a=5.3)] * 300)
    monkeypatch.setattr(lennard_jones, "atomic_energies", None)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(TypeError):
            relabel(structures, lennard_jones, use_cache=False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_edge_budget():
    counts = np.array([5, 5, 20, 0, 3, 3, 3])
    batches = [list(batch) for batch in _within_budget(counts, 10)]
    assert batches == [[0, 1], [2], [3, 4, 5, 6]]


def test_cache_hit_makes_no_pass_and_gives_the_same_labels(tmp_path: Path):
    structures, potential = _mixed(), Springs()
    first = relabel(structures, potential, cache=tmp_path)
    passes = len(potential._passes)
    assert passes > 0
    assert _same(first, relabel(structures, potential, cache=tmp_path))
    assert len(potential._passes) == passes
    relabel(structures, potential, cache=tmp_path, use_cache=False)
    assert len(potential._passes) == 2 * passes


@pytest.mark.parametrize("change", ["weights", "setting", "geometry", "species", "want"])
def test_whatever_labels_depend_on_makes_new_ones(change: str, tmp_path: Path):
    structures, potential = _mixed(), Springs()
    relabel(structures, potential, cache=tmp_path)
    want: tuple[str, ...] = ("energy", "forces", "stress")
    if change == "weights":
        with torch.no_grad():
            potential.strength += 1e-9
    elif change == "setting":
        potential.cutoff = 3.5
    elif change == "geometry":
        structures.positions[0, 0] += 1e-9
    elif change == "species":
        structures.species[0] = 7
    else:
        want = ("energy",)
    passes = len(potential._passes)
    labelled = relabel(structures, potential, cache=tmp_path, want=want)
    assert len(potential._passes) > passes
    assert np.isfinite(labelled.forces).any() == (change != "want")


def test_old_labels_and_training_mode_do_not_matter(tmp_path: Path):
    structures, potential = _mixed(), Springs()
    first = relabel(structures, potential, cache=tmp_path)
    passes = len(potential._passes)
    potential.eval()
    assert _same(first, relabel(first, potential, cache=tmp_path))
    assert len(potential._passes) == passes
    potential.train()
    relabel(structures, potential, use_cache=False)
    assert potential.training


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_damaged_cache_is_computed_again(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    structures, potential = _mixed(), Springs()
    first = relabel(structures, potential, cache=tmp_path)
    (entry,) = tmp_path.iterdir()
    content = bytearray(entry.read_bytes())
    content[-100] ^= 1
    entry.write_bytes({"truncated": content[:-50], "flipped": bytes(content), "empty": b""}[damage])
    passes = len(potential._passes)
    assert _same(first, relabel(structures, potential, cache=tmp_path))
    assert len(potential._passes) > passes
    assert "damaged" in caplog.text
    passes = len(potential._passes)
    relabel(structures, potential, cache=tmp_path)
    assert len(potential._passes) == passes, "the entry is whole again"


def test_unwritable_cache_costs_no_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    blocked = tmp_path / "file"
    blocked.write_text("")
    labelled = relabel(_mixed(), Springs(), cache=blocked)
    assert np.isfinite(labelled.energy).all()
    assert "not kept" in caplog.text


def test_failed_structures_of_a_potential_are_dropped_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    structures = _mixed()
    for again in (False, True):  # the second time from the cache
        caplog.clear()
        labelled = relabel(structures, Springs(broken=29), cache=tmp_path)
        assert list(labelled.info["origin"]) == ["n0", "n2"]
        assert "3 of 5" in caplog.text, again
    with pytest.raises(UserError, match="labelled none of the 1"):
        relabel(structures.select([1]), Springs(broken=29), cache=tmp_path)


@pytest.mark.parametrize("path", ["ase.calculators.lj:LennardJones", "ase.calculators.emt:EMT"])
def test_labels_of_a_calculator_equal_those_of_ase(path: str, tmp_path: Path):
    frames = [bulk("Cu", cubic=True), molecule("H2O"), bulk("Al")]
    for number, frame in enumerate(frames):
        frame.rattle(0.05, seed=number)
    arguments = {"rc": 4.0} if "lj" in path else {}
    labelled = relabel(Structures.from_ase(frames), {"calculator": path, **arguments}, cache=tmp_path, progress=False)
    for index, frame in enumerate(frames):
        frame.calc = LennardJones(rc=4.0) if arguments else EMT()
        found = labelled.to_ase(index)
        assert found.get_potential_energy() == pytest.approx(frame.get_potential_energy(), abs=1e-12)
        assert found.get_forces() == pytest.approx(frame.get_forces(), abs=1e-12)
        if frame.pbc.all():
            assert found.get_stress() == pytest.approx(frame.get_stress(), abs=1e-12)
    assert list(labelled.labelled("stress")) == [True, False, True]


def test_failed_calculations_are_dropped_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    frames = [molecule("CH3CH2OH"), molecule("CO"), molecule("H2O"), molecule("CH4")]
    structures = Structures.from_ase(frames)
    teacher = _fragile()
    labelled = relabel(structures, teacher, cache=tmp_path)
    assert list(labelled.sizes) == [9, 5]
    assert np.isfinite(labelled.energy).all()
    assert "SCF did not converge" in caplog.text
    assert "2 of 4" in caplog.text
    calls = Fragile.calls
    caplog.clear()
    assert _same(labelled, relabel(structures, teacher, cache=tmp_path))
    assert Fragile.calls == calls
    assert "2 of 4" in caplog.text


def _fragile() -> CalculatorTeacher:
    return CalculatorTeacher(f"{__name__}:Fragile")


def test_hopeless_teacher_stops_early(tmp_path: Path):
    structures = Structures.from_ase([molecule("CO")] * 100)
    with pytest.raises(UserError, match=r"none of the 20 .*SCF did not converge"):
        relabel(structures, _fragile(), cache=tmp_path)
    assert Fragile.calls == 20
    assert not list(tmp_path.iterdir()), "failures alone are not kept"


def test_interrupted_labelling_goes_on(tmp_path: Path):
    frames = [molecule("CH4") for _ in range(10)]
    for number, frame in enumerate(frames):
        frame.rattle(0.05, seed=number)
    structures = Structures.from_ase(frames)
    Fragile.interrupt_at = 6
    with pytest.raises(KeyboardInterrupt):
        relabel(structures, _fragile(), cache=tmp_path)
    Fragile.calls, Fragile.interrupt_at = 0, 10**9
    labelled = relabel(structures, _fragile(), cache=tmp_path)
    assert Fragile.calls == 4, "six were done before"
    assert _same(labelled, relabel(structures, _fragile(), use_cache=False))


def test_partial_labels_are_written_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_relabel, "_SAVE_EVERY", 0.0)
    written = []
    original = _relabel._write
    monkeypatch.setattr(
        _relabel, "_write", lambda path, work: (written.append(work.state.copy()), original(path, work))
    )
    relabel(Structures.from_ase([molecule("CH4")] * 3), _fragile(), cache=tmp_path)
    assert [int((state == 1).sum()) for state in written] == [1, 2, 3, 3]


def test_calculator_without_stress_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = "ase.calculators.tip3p:TIP3P"
    water = molecule("H2O")
    water.set_cell([12, 12, 12])
    water.pbc = True
    water = water[[0, 1, 2]]
    labelled = relabel(Structures.from_ase([water]), {"calculator": path, "rc": 4.0}, cache=tmp_path, progress=False)
    assert not labelled.labelled("stress").any()
    assert labelled.labelled("energy").all()
    assert "no stress" in caplog.text


def test_identity_of_a_calculator(tmp_path: Path):
    lj = "ase.calculators.lj:LennardJones"
    assert CalculatorTeacher(lj, {"rc": 4.0}).identity() == CalculatorTeacher(lj, {"rc": 4.0}).identity()
    assert CalculatorTeacher(lj, {"rc": 4.0}).identity() != CalculatorTeacher(lj, {"rc": 5.0}).identity()
    model = tmp_path / "model"
    model.write_text("one")
    before = CalculatorTeacher(lj, {"model": str(model)}).identity()
    model.write_text("two")
    assert CalculatorTeacher(lj, {"model": str(model)}).identity() != before


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no_such_package_here:Thing", "cannot import no_such_package_here"),
        ("ase.calculators.lj:LenardJones", "no 'LenardJones'"),
        ("nowhere/model.safetensors", "no such model"),
        ({"calculator": "not a path"}, "import path"),
        ({"calculator": "ase.calculators.lj:LennardJones", "arguments": {"rc": 3.0}}, "and other arguments"),
        ({"rc": 3.0}, "is written"),
    ],
)
def test_wrong_teachers_are_told(spec: object, message: str):
    with pytest.raises(UserError, match=message):
        load_teacher(spec)


def test_wrong_arguments_and_labels_are_told():
    structures = Structures.from_ase([molecule("CH4")])
    wrong = {"calculator": f"{__name__}:needs_an_argument"}
    with pytest.raises(UserError, match="does not start"):
        relabel(structures, wrong, use_cache=False)
    with pytest.raises(UserError, match="unknown label 'charge'"):
        relabel(structures, Springs(), want=("charge",), use_cache=False)


def needs_an_argument(argument: str) -> LennardJones:
    return LennardJones()


def test_teachers_by_name():
    assert isinstance(load_teacher("ase.calculators.lj:LennardJones"), CalculatorTeacher)
    assert isinstance(load_teacher(Springs()), PotentialTeacher)


def test_default_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "phystrain" / "labels"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", os.sep + "home-of-nobody")
    assert default_cache() == Path(os.sep + "home-of-nobody/.cache/phystrain/labels")


def _with_energy(frames: list[Atoms], energies: np.ndarray) -> Structures:
    return Structures.from_ase(frames).with_labels(energy=energies)


def test_align_recovers_offsets_per_element():
    frames = [molecule(name) for name in ("H2O", "CH4", "CO", "CH3CH2OH", "CO2")]
    offsets = {1: -13.6, 6: -1030.0, 8: -2040.0}
    shift = np.array([sum(offsets[z] for z in frame.numbers) for frame in frames])
    teacher = np.random.default_rng(0).normal(size=5)
    reference = _with_energy(frames, teacher + shift)
    labelled = _with_energy([molecule("H2O"), molecule("C6H6")], np.array([1.0, 2.0]))
    aligned = align(labelled, reference, teacher)
    assert aligned.energy == pytest.approx([1.0 + 2 * -13.6 - 2040.0, 2.0 + 6 * -1030.0 + 6 * -13.6], abs=1e-8)


def test_align_with_one_composition(caplog: pytest.LogCaptureFixture):
    frames = [molecule("H2O")] * 3
    reference = _with_energy(frames, np.array([-100.0, -100.2, np.nan]))
    aligned = align(_with_energy(frames[:1], np.array([5.0])), reference, np.array([5.0, 4.8, 5.0]))
    assert aligned.energy == pytest.approx([-100.0])
    assert not caplog.text
    with caplog.at_level(logging.WARNING):
        align(_with_energy([molecule("H2")], np.zeros(1)), reference, np.array([5.0, 4.8, 5.0]))
    assert "not determined" in caplog.text
    with pytest.raises(UserError, match="holds C"):
        align(_with_energy([molecule("CH4")], np.zeros(1)), reference, np.array([5.0, 4.8, 5.0]))
    with pytest.raises(UserError, match="no structure"):
        align(reference, reference, np.full(3, np.nan))

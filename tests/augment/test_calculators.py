"""Calculators of ASE as teachers: several processes, and the teachers that have names."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones

from phystrain.augment import _calculators, _recipes
from phystrain.augment._calculators import CalculatorTeacher
from phystrain.augment._relabel import alignment, label, load_teacher, relabel
from phystrain.data.structures import Structures
from phystrain.errors import UserError

CALCULATOR = '''
import os
from ase.calculators.lj import LennardJones

class Moody(LennardJones):
    """Fails for four atoms, ends its process for three, prints, and needs one thread."""
    def calculate(self, atoms=None, properties=None, system_changes=()):
        print("noise")
        if len(atoms) == 4:
            raise RuntimeError("did not converge")
        if len(atoms) == 3:
            os._exit(3)
        super().calculate(atoms, properties, system_changes)
        self.results["energy"] = self.results["free_energy"] = float(os.environ["OMP_NUM_THREADS"]) + len(atoms)

def home_only(home):
    if os.getpid() != home:
        raise RuntimeError("not here")
    return LennardJones()
'''


@pytest.fixture
def moody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "moody_calculator.py").write_text(CALCULATOR)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(_calculators, "LONG", 0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    return "moody_calculator:Moody"


def _molecules(count: int) -> Structures:
    frames = [molecule("CH4") for _ in range(count)]
    for number, frame in enumerate(frames):
        frame.rattle(0.1, seed=number)
    return Structures.from_ase(frames)


def test_several_processes_give_the_labels_of_one_in_order(monkeypatch: pytest.MonkeyPatch):
    frames = [*_molecules(8).frames(), bulk("Cu", cubic=True), bulk("Al")]
    structures = Structures.from_ase(frames)
    spec = {"calculator": "ase.calculators.lj:LennardJones", "rc": 4.0}
    one = relabel(structures, {**spec, "processes": 1}, use_cache=False)
    monkeypatch.setattr(_calculators, "LONG", 0.0)
    started = []
    pool = _calculators.Pool
    monkeypatch.setattr(_calculators, "Pool", lambda *a: (started.append(a[-1]), pool(*a))[1])
    two = relabel(structures, {**spec, "processes": 2}, use_cache=False)
    assert started == [2]
    for name in ("energy", "forces", "stress"):
        assert np.array_equal(getattr(one, name), getattr(two, name), equal_nan=True)
    frames[0].calc = LennardJones(rc=4.0)
    assert two.energy[0] == pytest.approx(frames[0].get_potential_energy())


def test_processes_are_no_part_of_the_identity():
    spec = "ase.calculators.lj:LennardJones"
    assert load_teacher(spec, 2).identity() == load_teacher(spec, 1).identity() == load_teacher(spec).identity()


def test_few_quick_structures_need_no_processes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_calculators, "Pool", None)
    relabel(_molecules(5), "ase.calculators.lj:LennardJones", use_cache=False)


def test_failures_and_crashes_cost_their_structure_only(moody: str, capfd: pytest.CaptureFixture):
    frames = [molecule(name) for name in ("CH4", "CH3OH", "H2O", "NH3", "CH3OH", "CO2")]
    found = list(CalculatorTeacher(moody, {}, 2).label(Structures.from_ase(frames), frozenset({"energy"}), 0))
    assert [int(one.indices[0]) for one in found] == [0, 1, 2, 3, 4, 5]
    # two are labelled here, with the seven threads of this process; the rest elsewhere, with one
    assert [one.energy[0] for one in found] == pytest.approx([12, 13, np.nan, np.nan, 7, np.nan], nan_ok=True)
    assert "exit code 3" in found[2].error
    assert "did not converge" in found[3].error
    assert not found[4].error
    assert capfd.readouterr().out.count("noise") == 2


def test_a_calculator_that_starts_here_only_is_told(moody: str):
    teacher = {"calculator": "moody_calculator:home_only", "home": os.getpid(), "processes": 2}
    with pytest.raises(UserError, match=r"not here.*processes: 1"):
        relabel(_molecules(6), teacher, use_cache=False)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are counted as Linux does it")
def test_stopping_early_leaves_no_process_behind(moody: str):
    before = _children()
    answers = CalculatorTeacher(moody, {}, 2).label(_molecules(50), frozenset({"energy"}), 0)
    for _ in range(4):
        next(answers)
    assert _children() > before
    answers.close()
    assert _children() == before


def _children() -> int:
    """How many processes this one has started that still run, or have not been waited for."""
    return len(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())


@pytest.mark.parametrize("processes", [0, -1, "two"])
def test_wrong_numbers_of_processes(processes):
    with pytest.raises(UserError, match="at least 1"):
        load_teacher({"calculator": "ase.calculators.lj:LennardJones", "processes": processes})


# ---- teachers with names


def test_a_script_without_guard_can_use_processes(tmp_path: Path):
    script = tmp_path / "plain.py"
    script.write_text(
        "from ase.build import molecule\n"
        "from phystrain.augment import _calculators, relabel\n"
        "from phystrain.data.structures import Structures\n"
        "print('begin')\n"
        "_calculators.LONG = 0.0\n"
        "made = relabel(Structures.from_ase([molecule('CH4')] * 6), "
        "{'calculator': 'ase.calculators.lj:LennardJones', 'processes': 2}, use_cache=False)\n"
        "print(len(made))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.split() == ["begin", "6"]


def test_missing_packages_and_near_names(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tblite", None)
    with pytest.raises(UserError, match=r"pip install 'phystrain\[qm\]'"):
        load_teacher("gfn2-xtb")
    with pytest.raises(UserError, match="did you mean 'gfn2-xtb'"):
        load_teacher("GFN2xtb")
    for recipe in _recipes.RECIPES.values():
        assert recipe.purpose


def _central(teacher: str, frames: list[Atoms], step: float) -> float:
    energy = relabel(Structures.from_ase(frames), teacher, use_cache=False).energy
    return float(energy[0] - energy[1]) / (2 * step)


def _displaced(frame: Atoms, step: float) -> list[Atoms]:
    moved = [frame.copy(), frame.copy()]
    moved[0].positions[1, 2] += step
    moved[1].positions[1, 2] -= step
    return moved


def _strained(frame: Atoms, step: float, i: int, j: int) -> list[Atoms]:
    made = []
    for sign in (1, -1):
        strain = np.zeros((3, 3))
        strain[i, j] = strain[j, i] = sign * step / (1 if i == j else 2)
        one = frame.copy()
        one.set_cell(frame.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        made.append(one)
    return made


@pytest.mark.parametrize("teacher", ["gfn2-xtb", "gfn1-xtb"])
def test_xtb_forces_are_the_gradient(teacher: str):
    pytest.importorskip("tblite")
    frame = molecule("H2O")
    frame.rattle(0.05, seed=1)
    labelled = relabel(Structures.from_ase([frame]), teacher, use_cache=False)
    assert labelled.energy[0] == pytest.approx(-5.07 * 27.2114, rel=0.15), "eV, not hartree"
    assert -_central(teacher, _displaced(frame, 1e-3), 1e-3) == pytest.approx(labelled.forces[1, 2], abs=1e-4)


def test_xtb_stress_is_the_derivative_by_strain(caplog: pytest.LogCaptureFixture):
    pytest.importorskip("tblite")
    frame = bulk("MgO", "rocksalt", a=4.2)
    frame.rattle(0.05, seed=1)
    frame.set_cell(frame.cell.array @ (np.eye(3) + 0.02 * np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]])), True)
    labelled = relabel(Structures.from_ase([frame]), "gfn1-xtb", use_cache=False)
    for i, j in ((0, 0), (0, 1)):
        slope = _central("gfn1-xtb", _strained(frame, 1e-4, i, j), 1e-4) / frame.get_volume()
        assert slope == pytest.approx(labelled.stress[0, i, j], abs=1e-5)
    assert "no k-points" in caplog.text


def test_teachers_refuse_what_they_are_not_for():
    pytest.importorskip("tblite")
    structures = Structures.from_ase([molecule("H2O"), bulk("Si")])
    with pytest.raises(UserError, match=r"1 of 2 structures are periodic.*gfn1-xtb"):
        relabel(structures, "gfn2-xtb", use_cache=False)


def test_xtb_is_aligned_to_labels_so_that_dimers_bind_alike():
    """Labels are the teacher's own, counted from elsewhere; compositions leave one offset open."""
    pytest.importorskip("tblite")
    teacher = load_teacher("gfn2-xtb", 1)
    frames = [molecule("H2O") for _ in range(4)]
    for number, frame in enumerate(frames):
        frame.rattle(0.05, seed=number)
    own = label(Structures.from_ase(frames), teacher, use_cache=False).structures
    reference = own.with_labels(energy=own.energy - 2000.0)
    shift = alignment(reference, teacher, use_cache=False)
    assert shift(own).energy == pytest.approx(reference.energy, abs=1e-8)
    pair, alone = Atoms("OH", positions=[[0, 0, 0], [0, 0, 0.97]]), [Atoms("O"), Atoms("H")]
    found = shift(label(Structures.from_ase([pair, *alone]), teacher, use_cache=False).structures).energy
    plain = label(Structures.from_ase([pair, *alone]), teacher, use_cache=False).structures.energy
    assert found[0] - found[1] - found[2] == pytest.approx(plain[0] - plain[1] - plain[2], abs=1e-8)
    # energies of the atoms are those that a fit to the reference gives: in the ratio of the composition
    assert found[2] / found[1] == pytest.approx(2.0)


@pytest.mark.slow
def test_chgnet(caplog: pytest.LogCaptureFixture):
    pytest.importorskip("chgnet")
    frame = bulk("MgO", "rocksalt", a=4.2)
    frame.rattle(0.05, seed=1)
    labelled = relabel(Structures.from_ase([frame]), "chgnet", use_cache=False)
    assert -_central("chgnet", _displaced(frame, 5e-3), 5e-3) == pytest.approx(labelled.forces[1, 2], abs=5e-3)
    slope = _central("chgnet", _strained(frame, 1e-3, 0, 0), 1e-3) / frame.get_volume()
    assert slope == pytest.approx(labelled.stress[0, 0, 0], abs=2e-3)
    with caplog.at_level(logging.WARNING), pytest.raises(UserError, match="not periodic"):
        relabel(Structures.from_ase([molecule("H2O")]), "chgnet", use_cache=False)

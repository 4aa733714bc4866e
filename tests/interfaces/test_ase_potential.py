"""Calculators of ASE as potentials: the same figures as our own, and failures that are counted."""

import copy

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from phystrain.data.graphs import GraphStore
from phystrain.data.statistics import compute, reference_energies
from phystrain.data.structures import Structures
from phystrain.derive import cutoff_known, evaluate, gives_stress
from phystrain.errors import UserError
from phystrain.interfaces.ase_potential import AsePotential, load_calculator
from phystrain.reliability import Subject
from phystrain.reliability._suite import CALLS, FAILED, audit

SPRING = LennardJones(sigma=3.4, epsilon=0.0103, rc=6.0)
"""A calculator that is ready, for an import path that names one."""


class Fragile(Calculator):
    """A spring of pairs that gives up where they are closer than 1 Å, and has no stress."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        between = self.atoms.positions[1] - self.atoms.positions[0]
        distance = np.linalg.norm(between)
        if distance < 1.0:
            raise RuntimeError("self-consistency was not reached")
        pull = 5.0 * (distance - 1.5) * between / distance
        self.results = {"energy": 2.5 * (distance - 1.5) ** 2, "forces": np.array([pull, -pull])}


class Energies(Fragile):
    """The same without forces."""

    implemented_properties = ("energy",)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        del self.results["forces"]


def graph_of(frames, cutoff):
    return GraphStore(Structures.from_ase(frames), cutoff).graph(range(len(frames)), torch.float64)


@pytest.fixture
def argon_frames():
    crystal = bulk("Ar", "fcc", a=5.3, cubic=True) * (2, 2, 2)
    frames = [crystal.copy() for _ in range(3)]
    for number, frame in enumerate(frames):
        frame.rattle(0.1, seed=number)
        frame.set_cell(frame.cell * (1 + 0.01 * number), scale_atoms=True)
    return frames


def test_energies_forces_and_stresses_are_the_calculators(argon_frames):
    settings = {"sigma": 3.4, "epsilon": 0.0103, "rc": 6.5, "smooth": True}
    potential = AsePotential(lambda: LennardJones(**settings), "lj", cutoff=6.5)
    frames = [*argon_frames, Atoms("Ar2", [[0, 0, 0], [0, 0, 3.6]])]
    found = evaluate(potential, graph_of(frames, 6.5), ("energy", "forces", "stress"))
    assert found.energy.dtype == found.forces.dtype == torch.float64
    for index, frame in enumerate(frames):
        frame.calc = LennardJones(**settings)
        atoms = slice(32 * index, 32 * index + len(frame))
        assert float(found.energy[index]) == pytest.approx(frame.get_potential_energy(), abs=1e-12)
        np.testing.assert_allclose(found.forces[atoms], frame.get_forces(), atol=1e-12)
        if frame.pbc.all():
            np.testing.assert_allclose(found.stress[index], frame.get_stress(voigt=False), atol=1e-12)
    assert torch.isnan(found.stress[3]).all()
    assert potential.take_failures() == (4, 0, "")


def test_a_calculator_has_the_figures_of_the_same_potential_of_ours(lennard_jones, argon_frames, monkeypatch):
    """Lennard-Jones by ASE and by autograd: every static test, in every figure."""

    def pair_energy(r):
        squares, outer, inner = r.square(), 6.5**2, 4.5**2
        switch = (outer - squares) ** 2 * (outer + 2 * squares - 3 * inner) / (outer - inner) ** 3
        sixth = (3.4 / r) ** 6
        return 4 * 0.0103 * (sixth * sixth - sixth) * torch.where(squares > inner, switch, 1.0)

    monkeypatch.setattr(lennard_jones, "pair_energy", pair_energy)
    settings = {"sigma": 3.4, "epsilon": 0.0103, "rc": 6.5, "ro": 4.5, "smooth": True}
    structures = Structures.from_ase(argon_frames)
    statistics = compute(structures, lennard_jones.cutoff, reference_energies(structures))
    outsider = AsePotential(lambda: LennardJones(**settings), "lj", cutoff=lennard_jones.cutoff)
    assert outsider.cutoff == lennard_jones.cutoff
    static = {
        "dimers": {"points": 50},
        "derivatives": {"structures": 1},
        "compression": {"structures": 1, "points": 10},
    }
    found = []
    for potential in (lennard_jones, outsider):
        subject = Subject("lj", potential, statistics, start=structures, temperatures=(40.0,))
        found.append(audit(subject, static, progress=False))
    for ours, theirs in zip(*found, strict=True):
        counted = dict(theirs.figures)
        assert counted.pop(CALLS) > 0
        assert counted.pop(FAILED) == 0
        assert (theirs.test, theirs.passed) == (ours.test, ours.passed)
        assert set(counted) == set(ours.figures)
        for name, value in ours.figures.items():
            assert counted[name] == pytest.approx(value, abs=1e-6), f"{ours.test}: {name}"


def test_a_calculation_that_fails_is_not_a_number_and_is_counted():
    potential = AsePotential(Fragile, "fragile")
    pairs = [Atoms("H2", [[0, 0, 0], [0, 0, r]]) for r in (0.8, 1.6, 0.9, 1.4)]
    found = evaluate(potential, graph_of(pairs, potential.cutoff), ("energy", "forces"))
    assert torch.isfinite(found.energy).tolist() == [False, True, False, True]
    assert torch.isnan(found.forces[:2]).all()
    assert torch.isfinite(found.forces[2:4]).all()
    assert potential.take_failures() == (4, 2, "RuntimeError: self-consistency was not reached")
    assert potential.take_failures().calls == 0
    shares = potential.atomic_energies(graph_of(pairs[1:2], potential.cutoff))
    assert float(shares.sum()) == pytest.approx(float(found.energy[1]))


def test_failures_stand_in_the_result_and_not_in_a_traceback():
    subject = Subject("fragile", AsePotential(Fragile, "fragile"), _hydrogen(), temperatures=(300.0,))
    (result,) = audit(subject, {"dimers": {"points": 20}}, progress=False)
    assert result.passed is False
    assert 0 < result.figures[FAILED] < result.figures[CALLS] == 21  # with that of a lone atom
    assert result.figures["first failure"] == "RuntimeError: self-consistency was not reached"
    assert "self-consistency was not reached" in result.sentence


def test_a_run_that_fails_ends_alone():
    start = Structures.from_ase([Atoms("H2", [[0, 0, 0], [0, 0, r]]) for r in (1.5, 1.02)])
    subject = Subject("fragile", AsePotential(Fragile, "fragile"), _hydrogen(), start=start, temperatures=(1.0,))
    settings = {"replicas": 2, "picoseconds": 0.02, "multiples": [1.0], "timestep": 0.5}
    start.positions[3, 2] = 0.9
    (result,) = audit(subject, {"survival": settings}, progress=False)
    assert result.figures["survived"] == 0.5
    assert "1 x non-finite" in result.figures["failures at 1 K"]


def _hydrogen():
    structures = Structures.from_ase([Atoms("H2", [[0, 0, 0], [0, 0, 1.5]])])
    return compute(structures, 6.0, reference_energies(structures))


def test_a_calculator_without_stress_is_asked_for_none(argon_frames):
    class Without(LennardJones):
        implemented_properties = ("energy", "forces")

    potential = AsePotential(lambda: Without(sigma=3.4, epsilon=0.0103, rc=6.5, smooth=True), "lj")
    assert not gives_stress(potential)
    found = evaluate(potential, graph_of(argon_frames, 6.0), ("energy", "forces", "stress"))
    assert torch.isfinite(found.forces).all()
    assert torch.isnan(found.stress).all()
    structures = Structures.from_ase(argon_frames)
    statistics = compute(structures, 6.0, reference_energies(structures))
    (result,) = audit(Subject("lj", potential, statistics, start=structures), {"derivatives": {}}, progress=False)
    assert result.passed
    assert result.sentence.startswith("Forces are")


def test_what_is_known_of_the_cutoff():
    assert cutoff_known(AsePotential(Fragile, "x", cutoff=4.0))
    assert not cutoff_known(AsePotential(Fragile, "x"))
    potential = AsePotential(Fragile, "x")
    assert copy.deepcopy(potential) is potential
    with pytest.raises(ValueError, match="cannot be differentiated"):
        evaluate(potential, graph_of([molecule("H2")], 6.0), create_graph=True)


def test_molecules_are_put_in_a_cell_where_need_be():
    class Crystals(LennardJones):
        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            assert atoms.pbc.all(), "no cell"
            super().calculate(atoms, properties, system_changes)

    pair = Atoms("Ar2", [[0, 0, 0], [0, 0, 3.6]])
    free = evaluate(AsePotential(lambda: LennardJones(rc=6.0, sigma=3.4), "lj"), graph_of([pair], 6.0))
    boxed = evaluate(AsePotential(lambda: Crystals(rc=6.0, sigma=3.4), "lj", boxed=True), graph_of([pair], 6.0))
    assert float(boxed.energy) == pytest.approx(float(free.energy), abs=1e-12)
    torch.testing.assert_close(boxed.forces, free.forces)
    refused = AsePotential(lambda: Crystals(rc=6.0, sigma=3.4), "lj")
    with pytest.raises(UserError, match=r"not periodic.*no cell"):
        refused.require(Structures.from_ase([pair]))


def test_elements_and_forces_are_asked_for_beforehand():
    known = AsePotential(EMT, "emt")
    known.require(Structures.from_ase([bulk("Cu", cubic=True), bulk("Al", cubic=True)]))
    assert known.take_failures().failed == 0
    with pytest.raises(UserError, match=r"(?s)emt has no energy and forces of Fe2 \(periodic\).*elements"):
        known.require(Structures.from_ase([bulk("Cu", cubic=True), bulk("Fe", cubic=True)]))
    with pytest.raises(UserError, match="no energy and forces of H2"):
        AsePotential(Energies, "energies").require(
            Structures.from_ase([molecule("H2", positions=[[0, 0, 0], [0, 0, 1.5]])])
        )


def test_loading(monkeypatch, tmp_path):
    found = load_calculator("ase.calculators.lj:LennardJones", {"rc": 5.0}, cutoff=5.0)
    assert found.cutoff == 5.0
    assert load_calculator(f"{__name__}:SPRING").name.endswith("SPRING")
    (tmp_path / "of_the_user.py").write_text("from ase.calculators.emt import EMT\n\ndef make():\n    return EMT()\n")
    monkeypatch.chdir(tmp_path)
    assert load_calculator("of_the_user:make").cutoff_known is False
    for spec, words in {
        "gfn2-xbt": "did you mean 'gfn2-xtb'",
        "mace": "no calculator of ASE",
        "nosuch.module:Thing": "Install the package",
        "ase.calculators.lj:LennardJone": "check the spelling",
        "os:getcwd": "makes no calculator",
    }.items():
        with pytest.raises(UserError, match=words):
            load_calculator(spec)
    with pytest.raises(UserError, match="greater than 0"):
        load_calculator("ase.calculators.emt:EMT", cutoff=-1.0)
    with pytest.raises(UserError, match="does not start"):
        load_calculator("ase.calculators.lj:LennardJones", {"rc": "far", "nosuch": 1, "directory": 3})

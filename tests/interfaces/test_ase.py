"""The ASE calculator: derivatives, relaxation, refusals."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from phystrain.derive import evaluate
from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.interfaces.ase import PhystrainCalculator
from phystrain.potentials import build
from phystrain.saving import save_model
from phystrain.statistics import Statistics
from phystrain.units import full_to_voigt


@pytest.fixture
def strained(argon: Atoms) -> Atoms:
    deformation = np.eye(3) + np.array([[0.02, 0.01, 0], [0, -0.01, 0.02], [0.01, 0, 0.03]])
    argon.set_cell(argon.cell.array @ deformation, scale_atoms=True)
    argon.rattle(0.1, seed=0)
    return argon


def test_results_are_those_of_the_graph(lennard_jones, strained):
    strained.calc = PhystrainCalculator(lennard_jones)
    expected = evaluate(lennard_jones, AtomGraph.from_ase(strained, 6.5), ("energy", "forces", "stress"))
    assert strained.get_potential_energy() == pytest.approx(float(expected.energy[0]), abs=1e-10)
    assert strained.get_potential_energy(force_consistent=True) == strained.get_potential_energy()
    np.testing.assert_allclose(strained.get_forces(), expected.forces.numpy(), atol=1e-12)
    np.testing.assert_allclose(strained.get_stress(), full_to_voigt(expected.stress[0].numpy()), atol=1e-12)


def test_derivatives_against_differences_of_the_energy(lennard_jones, strained):
    strained.calc = PhystrainCalculator(lennard_jones)
    forces, stress = strained.get_forces(), strained.get_stress()
    h = 1e-4
    for atom, axis in ((0, 0), (7, 1), (31, 2)):
        energies = []
        for sign in (1, -1):
            strained.positions[atom, axis] += sign * h
            energies.append(strained.get_potential_energy())
            strained.positions[atom, axis] -= sign * h
        assert forces[atom, axis] == pytest.approx((energies[1] - energies[0]) / (2 * h), abs=1e-7)
    cell = strained.cell.array.copy()
    for voigt, (row, column) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[row, column] += sign * h / 2
            strain[column, row] += sign * h / 2
            deformed = strained.copy()
            deformed.set_cell(cell @ strain, scale_atoms=True)
            deformed.calc = strained.calc
            energies.append(deformed.get_potential_energy())
        slope = (energies[0] - energies[1]) / (2 * h) / strained.get_volume()
        assert stress[voigt] == pytest.approx(slope, abs=1e-8)


def test_relaxes_a_crystal_with_its_cell(lennard_jones):
    atoms = bulk("Ar", "fcc", a=5.0, cubic=True) * (2, 2, 2)
    atoms.rattle(0.05, seed=3)
    atoms.calc = PhystrainCalculator(lennard_jones)
    before = atoms.get_stress()
    assert (before[:3] < 0).all()  # compressed: ASE's sign
    assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-4, steps=200)
    assert np.abs(atoms.get_stress()).max() < 1e-5
    lengths = atoms.cell.lengths() / 2
    energies = []
    for a in lengths.mean() + np.array([-0.01, 0, 0.01]):
        ideal = bulk("Ar", "fcc", a=a, cubic=True) * (2, 2, 2)
        ideal.calc = atoms.calc
        energies.append(ideal.get_potential_energy())
    assert energies[1] < min(energies[0], energies[2])
    assert atoms.get_potential_energy() == pytest.approx(energies[1], abs=1e-5)


def test_list_is_kept_while_atoms_move_little(lennard_jones, argon):
    calculator = PhystrainCalculator(lennard_jones, skin=0.5)
    argon.calc = calculator
    argon.get_forces()
    kept = calculator._list
    argon.positions[3] += 0.1
    argon.get_forces()
    assert calculator._list is kept
    assert kept.rebuilds == 1
    argon.positions[3] += 0.3
    found = argon.get_forces()
    assert kept.rebuilds == 2
    np.testing.assert_allclose(found, PhystrainCalculator(lennard_jones).get_forces(argon), atol=1e-12)
    argon.set_cell(argon.cell * 1.01, scale_atoms=True)
    found = argon.get_potential_energy()
    assert found == pytest.approx(PhystrainCalculator(lennard_jones).get_potential_energy(argon), abs=1e-12)


def test_unknown_element_is_named(lennard_jones):
    calculator = PhystrainCalculator(lennard_jones, species=(10, 18))
    with pytest.raises(UserError, match=r"never shown Kr.*knows Ne, Ar"):
        calculator.get_potential_energy(Atoms("ArKr", positions=[[0, 0, 0], [0, 0, 4]]))


def test_stress_needs_a_crystal(lennard_jones):
    pair = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 3.6]])
    pair.calc = PhystrainCalculator(lennard_jones)
    with pytest.raises(PropertyNotImplementedError):
        pair.get_stress()
    assert pair.get_potential_energy() < 0


def test_precision_is_a_copy(lennard_jones, strained):
    single = PhystrainCalculator(lennard_jones, dtype="float32")
    assert lennard_jones.epsilon.dtype == torch.float64
    double = PhystrainCalculator(lennard_jones)
    energy = double.get_potential_energy(strained)
    assert single.get_potential_energy(strained) != energy
    assert single.get_potential_energy(strained) == pytest.approx(energy, rel=1e-5)
    np.testing.assert_allclose(single.get_stress(strained), double.get_stress(strained), atol=1e-6)
    with pytest.raises(UserError, match="float32 or float64"):
        PhystrainCalculator(lennard_jones, dtype="half")


def test_saved_model(tmp_path, argon):
    statistics = Statistics.bare((18,))
    config = {"kind": "lennard_jones", "cutoff": 6.0, "minimum": {"Ar-Ar": 3.8}}
    potential = build(config, statistics).to(torch.float64)
    save_model(tmp_path / "model.safetensors", potential.state_dict(), config, statistics)
    argon.rattle(0.1, seed=0)
    calculator = PhystrainCalculator.from_path(tmp_path / "model.safetensors", skin=0.3)
    expected = PhystrainCalculator(potential).get_forces(argon)
    np.testing.assert_allclose(calculator.get_forces(argon), expected, atol=1e-12)
    with pytest.raises(UserError, match="never shown Cu"):
        calculator.get_potential_energy(bulk("Cu"))


def test_missing_model_file(tmp_path):
    with pytest.raises(UserError, match="no such model file"):
        PhystrainCalculator.from_path(tmp_path / "absent.safetensors")

"""Phonons of crystals whose frequencies are known."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from phystrain.data.structures import Structures
from phystrain.potentials import build
from phystrain.reliability import phonons
from phystrain.reliability.phonons import Config
from phystrain.statistics import Statistics

needs_phonopy = pytest.mark.skipif(
    phonons.importlib.util.find_spec("phonopy") is None, reason="phonopy is not installed (phystrain[phonons])"
)


@needs_phonopy
def test_fcc_of_nearest_neighbours_has_its_highest_frequency(subject_of):
    """Springs k between nearest neighbours of fcc, as at the minimum of a short-ranged pair potential.

    The longitudinal frequency at X is the highest: omega² = 8 k / m (Ashcroft and Mermin, problem 22.2).
    """
    settings = {"kind": "lennard_jones", "depth": 0.0103, "minimum": {"Ar-Ar": 3.8}, "cutoff": 5.0}
    potential = build({**settings, "inner_fraction": 0.9}, Statistics.bare((18,))).double()
    start = Structures.from_ase([bulk("Ar", "fcc", a=5.3)])
    result = Config(temperature=300, length=15)(subject_of(potential, start=start))
    assert (result.passed, result.grade) == (True, "safe"), result.sentence
    stiffness = 72 * 0.0103 / 3.8**2
    omega = np.sqrt(8 * stiffness / 39.948) / 10.18051  # rad/fs
    assert result.figures["highest frequency, THz"] == pytest.approx(1000 * omega / (2 * np.pi), rel=0.01)
    assert result.figures["displaced supercells"] == 1
    assert result.figures["atoms in the primitive cell"] == 1
    # Dulong and Petit, less h²<nu²>/(12 k² T²) of it
    assert 2.99 < result.figures["heat capacity, k_B/atom"] < 3
    assert list(result.curves) == ["density of states", "branch 1", "branch 2", "branch 3"]
    assert max(result.curves["branch 3"].y) == pytest.approx(result.figures["highest frequency, THz"], rel=0.01)
    assert min(result.curves["branch 1"].y) == pytest.approx(0, abs=0.02)


@needs_phonopy
def test_simple_cubic_has_imaginary_modes(argon_of, subject_of):
    start = Structures.from_ase([bulk("Ar", "sc", a=3.7)])
    result = Config(temperature=40)(subject_of(argon_of(0.0103), start=start))
    assert result.passed is False, result.sentence
    assert result.figures["lowest frequency, THz"] < -0.3
    assert result.figures["imaginary modes, fraction"] > 0.05
    assert result.conditions == ["crystalline Ar has imaginary phonons"]


@needs_phonopy
def test_sizes_are_limited(argon_of, subject_of, crystal):
    assert "more than 20 atoms" in Config(most_atoms=20)(subject_of(argon_of(0.0103), start=crystal)).sentence
    limited = Config(most_atoms=10, most_displacements=1)
    result = limited(subject_of(argon_of(0.0103), start=Structures.from_ase([bulk("Ar", "fcc", a=5.3)])))
    assert result.figures["atoms in the supercell"] <= 10


def test_one_oscillator():
    """Of one THz at the temperature h/k_B: x = 1."""
    capacity, entropy, free = phonons.harmonic(np.array([[1.0]]), np.array([3]), phonons.KELVIN)
    assert capacity == pytest.approx(np.e / (np.e - 1) ** 2)
    assert free == pytest.approx(0.5 + np.log(1 - 1 / np.e))
    assert entropy == pytest.approx(1 / (np.e - 1) - np.log(1 - 1 / np.e))


def test_molecules_and_no_phonopy(argon_of, subject_of, crystal, monkeypatch):
    molecule = Structures.from_ase([Atoms("Ar2", [[0, 0, 0], [0, 0, 3.8]])])
    assert not Config()(subject_of(argon_of(0.0103), start=molecule)).applies
    monkeypatch.setattr(phonons.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(phonons.UserError, match=r"pip install 'phystrain\[phonons\]'"):
        Config()(subject_of(argon_of(0.0103), start=crystal))
    assert not Config().runs_unasked(subject_of(argon_of(0.0103), start=crystal))

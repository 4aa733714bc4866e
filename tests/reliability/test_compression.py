"""Holes under compression: found where one was put, not found where there is none."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from phystrain.data.statistics import compute, reference_energies
from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.potentials import build
from phystrain.reliability.compression import Config, find_hole, shortest_bonds
from phystrain.statistics import Statistics


def test_fall_of_a_known_curve():
    ratio = np.linspace(1, 0.8, 6)
    assert find_hole(ratio, np.array([0.0, 1, 2, 3, 4, 5]), 0.97) == (0, pytest.approx(np.nan, nan_ok=True))
    # under tension at first, which is allowed; then a barrier of 3 eV and a hole of 5 eV beyond it
    assert find_hole(ratio, np.array([0.0, -1, 2, 1, -3, 0]), 0.95) == (5, pytest.approx(0.92))
    # the same fall counts where it comes after what is allowed
    assert find_hole(ratio, np.array([0.0, -1, 2, 3, 4, 5]), 0.97) == (1, pytest.approx(1))
    rounding = np.array([0.0, 1, 1 - 1e-7, 3, 2, 5])
    assert find_hole(ratio, rounding, 0.99, tolerance=0.01) == (1, pytest.approx(ratio[3]))
    assert find_hole(ratio, np.array([0.0, 1, np.inf, 3, 4, 5]), 0.97) == (np.inf, pytest.approx(0.92))


def test_sound_potential_has_no_hole(lennard_jones, subject_of):
    result = Config()(subject_of(lennard_jones))
    assert result.passed
    assert result.figures["structures"] == result.figures["bonds"] == 1
    assert result.figures["structures with a hole"] == result.figures["bonds with a hole"] == 0
    assert result.figures["largest drop, bonds, eV"] == 0


def test_planted_hole_is_found_where_it_is(with_hole, subject_of):
    """The wall of a pair ends at 2.6 Å and the flat bottom, 0.5 eV deep, begins at 2.2 Å."""
    result = Config(ratio=0.55, points=200)(subject_of(with_hole))
    figures = result.figures
    assert result.passed is False
    assert figures["structures with a hole"] == figures["bonds with a hole"] == 1
    length = 5.3 / np.sqrt(2)
    # one bond alone: the energy of its pair falls from the top of the wall, while the other neighbours still push
    assert 2.3 / length < figures["length ratio where the first hole begins, bonds"] < 2.62 / length
    distance = np.linspace(2.0, 3.5, 3001)
    alone = with_hole.pair_energy(torch.from_numpy(distance)).detach().numpy()
    assert figures["largest drop, bonds, eV"] == pytest.approx(alone.max() + 0.5, abs=0.3)
    # the whole crystal: all twelve neighbours fall in together
    assert 2.3 / length < figures["length ratio where the first hole begins, structures"] < 2.62 / length
    assert figures["largest drop, structures, eV"] > 32 * 6 * 0.9 * (alone.max() + 0.5)
    assert "falls in 2 of 2" in result.sentence
    assert list(result.curves) == ["structure Ar32 (1)", "Ar-Ar bond in Ar32 (1)"]


def test_molecule_and_morse_with_wall(subject_of):
    """A molecule is not compressed as a whole; its bonds are, one of each kind, shortest first."""
    water = Atoms("OHHOHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.98, 0], [0, 0, 3], [0.95, 0, 3], [-0.24, 0.93, 3]])
    structures = Structures.from_ase([water])
    statistics = compute(structures, 4.0, reference_energies(structures, "zero"))
    (bond,) = shortest_bonds(structures)
    assert bond.elements == (1, 8)
    assert bond.length == pytest.approx(0.95)
    settings = {"kind": "sum", "terms": {"morse": {"kind": "morse"}, "zbl": {"kind": "zbl"}}}
    potential = build(settings, statistics).double()
    result = Config()(subject_of(potential, start=structures, statistics=statistics))
    assert result.passed, result.sentence
    assert result.figures["structures"] == 0
    assert result.figures["bonds"] == 1
    curve = result.curves["H-O bond in H4O2 (1)"]
    assert curve.x[-1] == pytest.approx(0.6 * (0.31 + 0.66) / 0.95)


def test_tension_at_the_start_is_no_hole(lennard_jones, subject_of):
    """A crystal stretched by 8 %: its energy falls until the distances that the data hold."""
    stretched = Structures.from_ase([bulk("Ar", "fcc", a=5.3 * 1.08, cubic=True) * (2, 2, 2)])
    known = Statistics(species=(18,), shortest={"18-18": 3.6})
    assert Config()(subject_of(lennard_jones, start=stretched, statistics=known)).passed
    assert Config()(subject_of(lennard_jones, start=stretched)).passed is False


def test_needs_a_structure(lennard_jones, subject_of):
    with pytest.raises(UserError, match="no structure to compress"):
        Config()(subject_of(lennard_jones, start=None))

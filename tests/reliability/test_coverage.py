import pytest
from ase import Atoms
from ase.build import bulk

from phystrain.data.structures import Structures
from phystrain.reliability.coverage import Config
from phystrain.statistics import Statistics


def test_known_distances_and_densities(lennard_jones, subject_of):
    frames = [bulk("NaCl", "rocksalt", a=a, cubic=True) for a in (5.2, 5.6)]
    train = Structures.from_ase(frames)
    start = Structures.from_ase([bulk("NaCl", "rocksalt", a=5.0, cubic=True)])
    subject = subject_of(lennard_jones, train=train, start=start, statistics=Statistics.bare((11, 17)))
    result = Config(radius=4.0)(subject)
    assert result.passed is None
    assert result.grade is None
    figures = result.figures
    assert figures["shortest distance Cl-Na, Å"] == pytest.approx(2.6)
    assert figures["shortest distance Na-Na, Å"] == pytest.approx(5.2 / 2**0.5)
    assert figures["smallest volume, Å³/atom"] == pytest.approx(5.2**3 / 8)
    # ions of sodium are nearer than two atoms of sodium would be
    assert figures["neighbours bonded to Na"] == "18 to 18, mean 18.0"
    assert "Cl-Na below 2.60 Å is outside the data" in result.conditions
    assert "Cl-Na at 2.50 Å, in the structures to run, is outside the data" in result.conditions
    # six neighbours of four atoms of sodium in each frame
    assert sum(result.curves["Cl-Na"].y) == 2 * 4 * 6
    assert sum(result.curves["Na-Na"].y) == 2 * 4 * 12 / 2


def test_pairs_and_elements_that_the_data_lacks(lennard_jones, subject_of):
    train = Structures.from_ase([Atoms("ArNe", [[0, 0, 0], [20, 0, 0]])])
    start = Structures.from_ase([Atoms("ArKr", [[0, 0, 0], [4, 0, 0]])])
    result = Config()(subject_of(lennard_jones, train=train, start=start))
    assert result.conditions == [
        "Ne-Ne, Ar-Ne, Ar-Ar within 6 Å is outside the data",
        "Kr of the structures to run is outside the data",
    ]


def test_needs_the_training_data(lennard_jones, subject_of):
    assert Config()(subject_of(lennard_jones)).applies is False

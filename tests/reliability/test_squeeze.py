import numpy as np
import pytest
from ase import Atoms

from phystrain.data.structures import Structures
from phystrain.reliability.squeeze import Config
from phystrain.units import GPA


def test_sound_potential_follows_the_pressure(lennard_jones, subject_of, crystal):
    stress = np.broadcast_to(-2 * GPA * np.eye(3), (1, 3, 3)).copy()
    subject = subject_of(lennard_jones, train=crystal.with_labels(stress=stress))
    result = Config(picoseconds=2, timestep=5, replicas=2, highest=3)(subject)
    assert result.passed
    assert (result.grade, result.conditions, result.applies) == ("safe", [], True)
    assert result.figures["lowest pressure reached, GPa"] == pytest.approx(3, abs=0.4)
    assert result.figures["highest pressure in the training data, GPa"] == pytest.approx(2)
    # solid argon at 3 GPa has about 0.73 of its volume at 0 GPa (Anderson, Swenson 1975); the pair form is a little off
    assert 0.65 < result.figures["volume at the end over that at the start"] < 0.8
    curve = result.curves["run 1"]
    assert np.corrcoef(curve.x, curve.y)[0, 1] < -0.9


def test_ramp_that_the_cell_cannot_follow_proves_nothing(lennard_jones, subject_of):
    result = Config(picoseconds=0.5, timestep=5, replicas=1, highest=3, relaxation=2000)(subject_of(lennard_jones))
    assert (result.passed, result.grade, result.conditions) == (None, None, [])
    assert result.figures["lowest pressure reached, GPa"] < 2
    assert "too fast" in result.sentence


def test_hole_is_fallen_into_under_pressure(with_hole, subject_of):
    config = Config(picoseconds=1.5, timestep=4, replicas=2, highest=500)
    result = config(subject_of(with_hole))
    assert result.passed is False
    lowest = result.figures["lowest pressure at failure, GPa"]
    assert 1 < lowest < 500
    assert result.grade == "limited"
    assert result.conditions == [f"pressures above {lowest:.2g} GPa are unsupported"]
    assert "2 of 2 runs failed on the way to 500 GPa" in result.sentence
    assert config.model_copy(update={"unsafe": 500.0})(subject_of(with_hole)).grade == "unsafe"


def test_does_not_apply_to_molecules(lennard_jones, subject_of):
    pair = Structures.from_ase([Atoms("Ar2", [[0, 0, 0], [0, 0, 4]])])
    result = Config()(subject_of(lennard_jones, start=pair))
    assert result.applies is False
    assert result.passed is None
    assert "periodic" in result.sentence


def test_does_not_apply_without_stress(lennard_jones, subject_of):
    lennard_jones.gives_stress = False
    result = Config(picoseconds=0.01)(subject_of(lennard_jones))
    assert result.applies is False
    assert "no stress" in result.sentence


@pytest.fixture
def colliding(argon):
    """The crystal with two atoms so close that a run stops before its first record."""
    argon.positions[1] = argon.positions[0] + [0, 0, 1]
    return Structures.from_ase([argon])


def test_run_that_fails_at_once_is_a_failure(lennard_jones, subject_of, crystal, colliding):
    config = Config(picoseconds=0.01, replicas=2)
    result = config(subject_of(lennard_jones, start=Structures.concatenate([crystal, colliding])))
    assert (result.passed, result.grade) == (False, "unsafe")
    assert list(result.curves) == ["run 1"]
    assert result.figures["volume at the end over that at the start"] == pytest.approx(1, abs=0.1)
    alone = config(subject_of(lennard_jones, start=colliding))
    assert alone.curves == {}
    assert alone.figures["volume at the end over that at the start"] is None


def test_periodic_structures_are_found_behind_others(lennard_jones, subject_of, crystal):
    pair = Structures.from_ase([Atoms("Ar2", [[0, 0, 0], [0, 0, 4]])])
    subject = subject_of(lennard_jones, start=Structures.concatenate([pair, pair, crystal]))
    result = Config(picoseconds=0.01, replicas=2)(subject)
    assert result.applies
    assert result.figures["runs"] == 2

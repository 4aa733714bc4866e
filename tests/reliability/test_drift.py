import pytest

from phystrain.errors import UserError
from phystrain.reliability.drift import Config


def test_sound_potential_conserves_energy(lennard_jones, subject_of):
    result = Config(picoseconds=3, timestep=5, replicas=1)(subject_of(lennard_jones))
    assert result.passed
    assert abs(result.figures["slope, meV/atom/ps"]) < 0.02
    assert 3 < result.figures["fluctuation ratio dt to dt/2"] < 5
    assert result.curves["run 1"].y[0] == 0
    assert result.curves["run 1"].x[-1] == pytest.approx(3)


def test_swirl_is_caught(not_conservative, subject_of):
    result = Config(picoseconds=3, timestep=5, replicas=1)(subject_of(not_conservative))
    assert result.passed is False
    assert result.figures["drift ratio"] > 1
    assert result.figures["fluctuation ratio dt to dt/2"] < 2  # a smaller time step does not help


def test_broken_run_fails(with_hole, subject_of):
    result = Config(picoseconds=0.5, timestep=5, temperature=12000, halving=False)(subject_of(with_hole))
    assert result.passed is False
    assert "broke off" in result.sentence
    assert result.figures["runs completed"] < 2


def test_needs_a_start(lennard_jones, subject_of):
    with pytest.raises(UserError, match="start"):
        Config()(subject_of(lennard_jones, start=None))

import ase.io
import numpy as np
import pytest

from phystrain.reliability.survival import Config, median_survival, survival_curve


def test_sound_potential_survives(lennard_jones, subject_of):
    result = Config(picoseconds=1, timestep=5, replicas=2)(subject_of(lennard_jones))
    assert result.passed
    assert result.figures["runs"] == 6
    assert list(result.curves) == ["40 K", "60 K", "80 K"]
    assert result.figures["median survival at 80 K, ps"] is None
    assert "All 6 runs" in result.sentence


def test_hole_kills_hot_runs_only(with_hole, subject_of, tmp_path):
    frames = tmp_path / "failing.xyz"
    config = Config(picoseconds=1.5, timestep=4, replicas=3, temperatures=(40, 6000), frames_to=frames)
    result = config(subject_of(with_hole))
    assert result.passed is False
    assert result.figures["survived at 40 K"] == 1
    assert result.figures["survived at 6000 K"] == 0
    assert result.figures["failures at 40 K"] == ""
    assert "3 x distance (Ar-Ar contact of 1." in result.figures["failures at 6000 K"]
    assert 0 < result.figures["median survival at 6000 K, ps"] < 1.5
    saved = ase.io.read(frames, ":")
    assert len(saved) == 3
    assert all("Ar-Ar contact" in frame.info["failure"] for frame in saved)
    assert all(frame.pbc.all() for frame in saved)
    shortest = [frame.get_all_distances(mic=True)[~np.eye(32, dtype=bool)].min() for frame in saved]
    assert max(shortest) < 0.6 * 2 * 1.06


def test_repeated_audit_gives_the_same_result(with_hole, subject_of):
    config = Config(picoseconds=0.3, timestep=4, replicas=2, temperatures=(6000,))
    assert config(subject_of(with_hole)) == config(subject_of(with_hole))
    other = config(subject_of(with_hole, seed=1))
    assert other.figures != config(subject_of(with_hole)).figures


def test_median_and_curve():
    times, survived = np.array([1.0, 2.0, 5.0, 5.0, 3.0]), np.array([False, False, True, True, False])
    assert median_survival(times, survived) == 3
    assert median_survival(times[:4], survived[:4]) is None
    curve = survival_curve(times, survived, 5.0)
    assert curve.x == [0, 1, 1, 2, 2, 3, 3, 5]
    assert curve.y == pytest.approx([1, 1, 0.8, 0.8, 0.6, 0.6, 0.4, 0.4])

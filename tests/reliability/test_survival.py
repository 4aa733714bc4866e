import ase.io
import numpy as np
import pytest

from phystrain.reliability._kaplan_meier import kaplan_meier, largest_rate
from phystrain.reliability.survival import Config, survival_curve


def test_sound_potential_survives(lennard_jones, subject_of):
    result = Config(picoseconds=1, timestep=5, replicas=2)(subject_of(lennard_jones))
    assert result.passed
    assert result.figures["runs"] == 6
    assert list(result.curves) == ["40 K", "60 K", "80 K"]
    assert result.figures["median survival at 80 K, ps"] is None
    assert "All 6 runs" in result.sentence
    assert (result.grade, result.kelvin, result.conditions) == ("safe", 80, [])


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
    assert {(frame.info["reason"], int(frame.info["thermostat_K"])) for frame in saved} == {("distance", 6000)}
    assert all(0 < float(frame.info["time_ps"]) < 1.5 for frame in saved)
    assert all(int(frame.info["temperature_K"]) > 1000 for frame in saved)
    assert all(frame.pbc.all() for frame in saved)
    shortest = [frame.get_all_distances(mic=True)[~np.eye(32, dtype=bool)].min() for frame in saved]
    assert max(shortest) < 0.6 * 2 * 1.06


def test_repeated_audit_gives_the_same_result(with_hole, subject_of):
    config = Config(picoseconds=0.3, timestep=4, replicas=2, temperatures=(6000,))
    assert config(subject_of(with_hole)) == config(subject_of(with_hole))
    other = config(subject_of(with_hole, seed=1))
    assert other.figures != config(subject_of(with_hole)).figures


def test_median_and_curve():
    times, failed = np.array([1.0, 2.0, 5.0, 5.0, 3.0]), np.array([True, True, False, False, True])
    assert kaplan_meier(times, failed).median[0] == 3
    assert kaplan_meier(times[:4], failed[:4]).median[0] is None
    curve = survival_curve(kaplan_meier(times, failed), 5.0)
    assert curve.x == [0, 1, 1, 2, 2, 3, 3, 5]
    assert curve.y == pytest.approx([1, 1, 0.8, 0.8, 0.6, 0.6, 0.4, 0.4])
    assert all(low <= y <= high for low, y, high in zip(curve.low, curve.y, curve.high, strict=True))


def test_kaplan_meier_against_published_remissions():
    """6-MP arm of Freireich et al. 1963, the standard example: 21 patients, 9 relapses, 12 lost from sight."""
    failed = [6, 6, 6, 7, 10, 13, 16, 22, 23]
    ended = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    times = np.array([*failed, *ended], dtype=float)
    found = kaplan_meier(times, np.arange(21) < 9)
    assert found.times.tolist() == [0, 6, 7, 10, 13, 16, 22, 23]
    published = [1, 0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448]
    np.testing.assert_allclose(found.fraction, published, atol=6e-4)
    assert found.median == (23, 13, None)  # 95 % interval on the log(-log) scale, open above, as R's survfit has it
    variance = (0.448**2) * sum(
        d / (n * (n - d)) for d, n in [(3, 21), (1, 17), (1, 15), (1, 12), (1, 11), (1, 7), (1, 6)]
    )
    width = 1.959964 * np.sqrt(variance) / 0.448 / np.log(0.448)
    assert found.low[-1] == pytest.approx(0.448 ** np.exp(-width), abs=2e-3)
    assert found.high[-1] == pytest.approx(0.448 ** np.exp(width), abs=2e-3)


def test_what_no_failure_proves():
    none = kaplan_meier(np.full(4, 10.0), np.zeros(4, bool))
    assert (none.low[0], none.high[0]) == (pytest.approx(0.025**0.25), 1)
    every = kaplan_meier(np.full(4, 1.0), np.ones(4, bool))
    assert (every.low[-1], every.high[-1]) == (0, pytest.approx(1 - 0.025**0.25))
    assert largest_rate(0, 40.0) == pytest.approx(3 / 40, rel=2e-3)
    # as often as promised: with a true rate just at the bound, no failure shows in one case of twenty
    assert np.exp(-largest_rate(0, 40.0) * 40) == pytest.approx(0.05)
    assert largest_rate(3, 40.0) == pytest.approx(7.754 / 40, rel=1e-3)  # Poisson table


def test_grade_follows_the_ladder(with_hole, subject_of):
    config = Config(picoseconds=0.6, timestep=4, replicas=2)
    found = config.model_copy(update={"temperatures": (40, 60, 6000, 7000)})(subject_of(with_hole))
    assert (found.grade, found.kelvin) == ("limited", 60)
    assert found.conditions == ["dynamics at 6000 K is unsupported: 2 of 2 runs of 0.6 ps failed (distance)"]
    # two runs of 0.6 ps: 1.2 / 3 ps
    assert "At 60 K that proves, with 95 % confidence, less than one failure in 0.4 ps" in found.sentence
    assert found.figures["largest failure rate at 60 K (95 %), 1/ps"] == pytest.approx(2.5, rel=2e-3)
    hot = config.model_copy(update={"temperatures": (6000, 60)})(subject_of(with_hole, temperatures=(6000.0,)))
    assert (hot.grade, hot.kelvin) == ("unsafe", 60)  # it holds below, but not where it was trained

import numpy as np
import pytest

from phystrain.errors import UserError
from phystrain.reliability.dimers import Config, DimerCurve, dimer_curves, measure
from phystrain.statistics import Statistics


def test_sound_potential_passes(lennard_jones, subject_of):
    result = Config()(subject_of(lennard_jones))
    assert result.passed
    assert result.figures["tortuosity, Ar-Ar"] == pytest.approx(1, abs=0.01)
    curve = result.curves["Ar-Ar"]
    assert curve.x[0] == pytest.approx(0.6 * 2 * 1.06)
    assert curve.y[0] > 1
    assert curve.y[-1] == 0


def test_hole_at_short_range_is_caught(with_hole, subject_of):
    result = Config()(subject_of(with_hole))
    assert result.passed is False
    assert "Ar-Ar does not repel at 1.5" in result.sentence  # just below 0.75 * 2.12
    assert "tortuosity 5." in result.sentence
    assert result.figures["faulty pairs"] == 1


def test_force_is_minus_the_slope_and_the_energy_that_of_the_pair(lennard_jones):
    first, second = dimer_curves(lennard_jones, [(18, 18), (10, 18)], 0.8, 400)
    assert second.name == "Ar-Ne"
    assert second.radii == pytest.approx(1.06 + 0.58)
    inner = slice(1, -1)
    slope = np.gradient(first.energy, first.distance)
    np.testing.assert_allclose(first.force[inner], -slope[inner], rtol=2e-2, atol=2e-3)
    at = np.abs(first.distance - 3.4 * 2 ** (1 / 6)).argmin()
    assert first.energy[at] == pytest.approx(-0.0103, abs=1e-4)
    assert first.energy.argmin() == pytest.approx(at, abs=1)


def test_measures_of_known_curves():
    r = np.linspace(1, 5, 401)
    well = DimerCurve("X-X", 2.0, r, (r - 2) ** 2, -2 * (r - 2))
    assert measure(well)["force flips"] == 1
    assert measure(well)["tortuosity"] == pytest.approx(1, abs=1e-3)
    wavy = DimerCurve("X-X", 2.0, r, -np.cos(np.pi * r), -np.pi * np.sin(np.pi * r))
    assert measure(wavy)["tortuosity"] == pytest.approx(8 / 4, abs=0.01)
    assert measure(wavy)["force flips"] >= 3
    jump = DimerCurve("X-X", 2.0, r, 1 / r + 0.5 * (r > 3), 1 / r**2)
    assert measure(jump)["force flips"] == 0
    assert measure(jump)["energy jump eV"] == pytest.approx(1.0, rel=0.01)  # up the step and down after it
    assert measure(jump)["tortuosity"] > 1.1


def test_pairs_can_be_named(lennard_jones, subject_of):
    statistics = Statistics.bare((10, 18))
    all_pairs = Config(points=20)(subject_of(lennard_jones, statistics=statistics))
    assert list(all_pairs.curves) == ["Ne-Ne", "Ar-Ne", "Ar-Ar"]
    one = Config(pairs=("Ne-Ar",), points=20)(subject_of(lennard_jones, statistics=statistics))
    assert list(one.curves) == ["Ar-Ne"]
    with pytest.raises(UserError, match="'Ar-Kr' is no pair"):
        Config(pairs=("Ar-Kr",))(subject_of(lennard_jones))

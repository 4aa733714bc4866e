"""Scales and figures on data whose errors are drawn from known spreads."""

import numpy as np
import pytest
from scipy.stats import t as student

from phystrain.errors import UserError
from phystrain.uncertainty.calibration import (
    FIRM_ATOMS,
    FIRM_STRUCTURES,
    MARGIN,
    ONE_SIGMA,
    Observed,
    calibrate,
    quality,
)


def drawn(members: int, scale: float, atoms: int = 40_000) -> Observed:
    """Members that scatter by a width of its own for each atom, and errors ``scale`` times as wide."""
    random = np.random.default_rng(1)
    width = np.exp(random.normal(size=atoms))[:, None]
    forces = width * random.normal(size=(members, atoms, 3))
    spread = np.sqrt(forces.var(axis=0, ddof=1).mean(axis=1))
    return Observed(spread, scale * width * random.normal(size=(atoms, 3)), 10)


@pytest.mark.parametrize(("members", "scale"), [(3, 0.5), (4, 3.0), (12, 3.0)])
def test_a_known_scale_is_recovered(members, scale):
    found = calibrate(drawn(members, scale))
    few = student.ppf((1 + ONE_SIGMA) / 2, df=3 * (members - 1))  # few members do not know their own width
    assert found.scale == pytest.approx(scale * few, rel=0.03)
    assert few == pytest.approx(1, abs=0.1)
    assert found.limit == pytest.approx(MARGIN * found.scale * drawn(members, scale).spread.max())
    assert (found.structures, found.atoms) == (10, 40_000)


def test_a_scale_that_rests_on_little_is_remarked_upon():
    assert "10 structures with 40000 atoms only" in calibrate(drawn(4, 1.0)).remark
    many = drawn(4, 1.0, atoms=499)._replace(structures=FIRM_STRUCTURES)
    assert "20 structures with 499 atoms only" in calibrate(many).remark
    assert calibrate(drawn(4, 1.0, atoms=FIRM_ATOMS)._replace(structures=FIRM_STRUCTURES)).remark == ""


def test_the_scale_is_as_rough_as_it_is_said_to_be():
    scales, even = [], np.linspace(0.999, 1.001, FIRM_ATOMS)
    for seed in range(200):
        error = np.random.default_rng(seed).normal(size=(FIRM_ATOMS, 3))
        scales.append(calibrate(Observed(even, error, FIRM_STRUCTURES)).scale)
    assert np.std(scales) == pytest.approx(0.96 / np.sqrt(3 * FIRM_ATOMS), rel=0.2)


def test_figures_of_a_spread_that_is_right_too_small_and_meaningless():
    observed = drawn(60, 2.0)
    right = quality(observed._replace(spread=calibrate(observed).scale * observed.spread))
    assert right["within 1 spread"] == pytest.approx(0.683, abs=0.01)
    assert right["within 2 spreads"] == pytest.approx(0.954, abs=0.01)
    assert right["miscalibration area"] < 0.01
    assert right["rank correlation"] == pytest.approx(right["attainable"], abs=0.03)
    assert right["spread, eV/Å"] == pytest.approx(right["error, eV/Å"], rel=0.05)
    small = quality(observed)
    assert small["within 1 spread"] == pytest.approx(0.383, abs=0.01)  # half a standard deviation
    assert small["miscalibration area"] > 0.15
    shuffled = quality(observed._replace(spread=np.random.default_rng(2).permutation(observed.spread)))
    assert abs(shuffled["rank correlation"]) < 0.02


def test_atoms_without_labels_or_without_forces_by_symmetry_do_not_count():
    observed = drawn(4, 1.0, atoms=100)
    error, spread = observed.error.copy(), observed.spread.copy()
    error[:20] = np.nan
    spread[20:30] = error[20:30] = 0.0
    found = calibrate(observed._replace(error=error, spread=spread))
    assert found.atoms == 70
    assert np.isfinite(found.scale)
    with pytest.raises(UserError, match="10 held-out atoms with forces at least, and here are 5"):
        calibrate(observed._replace(error=error[:35], spread=spread[:35]))

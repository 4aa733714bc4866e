"""Scales and figures on data whose errors are drawn from known spreads."""

import numpy as np
import pytest
from scipy.stats import t as student

from phystrain.errors import UserError
from phystrain.uncertainty.calibration import MARGIN, ONE_SIGMA, Observed, calibrate, quality


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

"""Angular distribution functions on cases known by hand, and the test's verdict on a right and a wrong potential."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from phystrain.data.structures import Structures
from phystrain.reliability.angles import Angles, Config, difference, distribution, nearest


def test_angles_of_crystals():
    """Twelve neighbours in fcc: 24 pairs at 60, 12 at 90, 24 at 120 and 6 at 180 degrees around every atom."""
    frames = Structures.from_ase([bulk("Ar", "fcc", a=5.3, cubic=True) * (2, 2, 2)] * 2)
    near = nearest(frames)
    assert near[18, 18] == pytest.approx(5.3 / np.sqrt(2))
    found = distribution(frames, {pair: 1.3 * r for pair, r in near.items()}, 36)
    assert found.counts == {"Ar-Ar-Ar": 2 * 32 * 66}
    weight = found.values["Ar-Ar-Ar"] * 5 * 66
    assert weight.sum() == pytest.approx(66)
    for angle, count in ((60, 24), (90, 12), (120, 24), (180, 6)):
        around = (found.edges[:-1] >= angle - 6) & (found.edges[:-1] <= angle + 1)
        assert weight[around].sum() == pytest.approx(count)
    rock_salt = Structures.from_ase([bulk("NaCl", "rocksalt", a=5.64, cubic=True)])
    limits = {(11, 17): 3.5, (17, 11): 3.5, (11, 11): 3.0, (17, 17): 3.0}
    mixed = distribution(rock_salt, limits, 18)
    assert mixed.counts == {"Cl-Na-Cl": 4 * 15, "Na-Cl-Na": 4 * 15}


def test_water_has_its_angle_whichever_way_it_is_turned():
    water = Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    frames = []
    for number in range(5):
        frame = water.copy()
        frame.rotate(50 * number, (1, 2, 3))
        frames.append(frame[[number % 3, (number + 1) % 3, (number + 2) % 3]])
    structures = Structures.from_ase(frames)
    near = nearest(structures)
    assert near[8, 1] == pytest.approx(0.96, abs=0.001)
    found = distribution(structures, {pair: 1.3 * r for pair, r in near.items()}, 180)
    assert found.counts["H-O-H"] == 5
    assert found.edges[found.values["H-O-H"].argmax()] == pytest.approx(104, abs=1)


def test_error_is_bounded_and_known():
    edges = np.linspace(0, 180, 181)
    random = -np.diff(np.cos(np.radians(edges))) / 2
    peak = np.zeros(180)
    peak[90] = 1.0
    reference = Angles(edges, {"X-X-X": peak}, {"X-X-X": 10})
    assert difference(reference, reference)["X-X-X"] == 0
    assert difference(reference, Angles(edges, {"X-X-X": random}, {"X-X-X": 10}))["X-X-X"] == pytest.approx(100)
    half = Angles(edges, {"X-X-X": (peak + random) / 2}, {"X-X-X": 10})
    assert difference(reference, half)["X-X-X"] == pytest.approx(50)
    nothing = Angles(edges, {}, {})
    assert difference(reference, nothing)["X-X-X"] == pytest.approx(50, abs=1)  # the missing peak, and nothing instead


def test_own_angles_are_found_and_wrong_ones_are_not(argon_of, argon_reference, subject_of):
    config = Config(picoseconds=2, timestep=5, replicas=2, frames=40)
    subject = subject_of(argon_of(0.0103), reference=argon_reference, start=None)
    right = config(subject)
    assert (right.passed, right.grade) == (True, "safe"), right.sentence
    assert list(right.curves) == ["Ar-Ar-Ar", "Ar-Ar-Ar, reference"]
    wrong = config(replace(subject, potential=argon_of(0.0005)))
    assert (wrong.passed, wrong.grade) == (False, "limited"), wrong.sentence
    assert "angles at 40 K" in wrong.conditions[0]

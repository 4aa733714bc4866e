"""Distances from training structures: small where they should be, large where they should be, and a guide to errors."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.reliability.errors import predict
from phystrain.reliability.novelty import Config, errors_by_distance
from phystrain.uncertainty.novelty import Novelty


def rattled(amplitudes, first: int = 0) -> Structures:
    frames = []
    for seed, amplitude in enumerate(amplitudes, start=first):
        frame = bulk("Ar", "fcc", a=5.3, cubic=True) * (2, 2, 2)
        frame.rattle(amplitude, seed=seed)
        frames.append(frame)
    return Structures.from_ase(frames)


def test_rim_holds_what_is_alike_and_not_what_is_far():
    known = Novelty(rattled([0.1] * 20))
    alike = known.atoms(rattled([0.1] * 10, first=50))
    assert (alike > 1).mean() < 0.08
    assert known.structures(rattled([0.3], first=70)) > 2
    assert known.structures(rattled([0.1] * 2)) == pytest.approx(np.zeros(2), abs=1e-5)  # its own structures


def test_same_surroundings_whichever_way_they_are_turned():
    water = Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    frames = []
    for seed in range(30):
        frame = water.copy()
        frame.rattle(0.05, seed=seed)
        frames.append(frame)
    known = Novelty(Structures.from_ase(frames))
    turned = frames[3].copy()
    turned.rotate(77, (1, 2, 3))
    turned.positions = -turned.positions[[2, 0, 1]] + 4
    turned.numbers = turned.numbers[[2, 0, 1]]
    assert known.structures(Structures.from_ase([turned])) == pytest.approx(0, abs=1e-4)
    bent = water.copy()
    bent.set_angle(1, 0, 2, 60)  # lengths of the bonds stay as they are
    assert known.structures(Structures.from_ase([bent]))[0] > 2
    strange = known.atoms(Structures.from_ase([Atoms("OHF", water.positions)]))
    assert np.isinf(strange).all()


def test_training_structures_that_are_all_alike():
    crystal = rattled([0.0])
    known = Novelty(crystal.select([0, 0]))
    assert known.structures(crystal)[0] < 1
    assert known.structures(rattled([0.1]))[0] > 1
    with pytest.raises(UserError, match="two"):
        Novelty(crystal)


def test_groups_and_rank_of_known_errors():
    distance = np.array([0.1, 3.0, 0.2, 0.5, 2.0, np.inf])
    found = errors_by_distance(distance, np.array([1.0, 5, 2, 3, 4, 9]) / 1000, 3)
    assert found.distance == pytest.approx([0.15, 1.25, 3.0])
    assert found.error == pytest.approx([np.sqrt(2.5), np.sqrt(12.5), 5.0])
    assert found.correlation == pytest.approx(1)


def test_errors_grow_with_distance(argon_of, subject_of):
    """Labels by the right depth, predictions by a wrong one: errors are forces, which grow with the displacements."""
    train = rattled([0.05] * 10)
    test = predict(argon_of(0.0103), rattled(np.linspace(0.02, 0.3, 15), first=40))
    subject = subject_of(argon_of(0.02), train=train, test=test, start=None)
    assert Config().runs_unasked(subject)
    result = Config(bins=3)(subject)
    assert result.passed is None
    assert result.figures["rank correlation of distance and force error, held-out structures"] > 0.9
    curve = result.curves["held-out structures"]
    assert len(curve.x) == 3
    assert curve.x == sorted(curve.x)
    assert curve.y == sorted(curve.y)


def test_dynamics_that_leaves_the_training_data(argon_of, argon_reference, subject_of):
    train = argon_reference.frames.select(np.arange(0, len(argon_reference.frames), 16))
    config = Config(picoseconds=2, timestep=5, replicas=2, frames=30, far=3)
    subject = subject_of(argon_of(0.0103), train=train, reference=argon_reference, start=None)
    right = config(subject)
    assert (right.passed, right.grade) == (True, "safe"), right.sentence
    assert right.figures["fraction of reference frames outside"] < 0.1
    wrong = config(replace(subject, potential=argon_of(0.0005)))
    assert (wrong.passed, wrong.grade) == (False, "limited"), wrong.sentence
    assert "outside of the training data" in wrong.conditions[0]


def test_needs_training_structures(argon_of, subject_of, crystal):
    with pytest.raises(UserError, match="trained on are not at hand"):
        Config()(subject_of(argon_of(0.0103)))
    assert not Config().runs_unasked(subject_of(argon_of(0.0103), train=crystal, test=crystal))
    with pytest.raises(UserError, match="no held-out forces"):
        Config()(subject_of(argon_of(0.0103), train=rattled([0.1, 0.1]), test=crystal))

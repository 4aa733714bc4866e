"""Mean-square displacements on cases known by hand, and the test's verdict on a right and a wrong potential."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk

from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.reliability.diffusion import Config, squared_displacement


def test_displacement_is_that_of_the_definition():
    path = np.cumsum(np.random.default_rng(0).normal(size=(50, 3, 3)), axis=0) + 100
    found = squared_displacement(path)
    for lag in (0, 1, 7, 49):
        moved = path[lag:] - path[: len(path) - lag]
        assert found[lag] == pytest.approx(np.square(moved).sum(axis=2).mean(), abs=1e-9)


def test_random_walk_has_its_coefficient():
    """Steps of variance 2 D t: D of 0.5 Å²/ps for argon, half of it for neon, within the standard error given."""
    generator = np.random.default_rng(1)
    species = np.repeat([18, 10], 100)
    spread = np.where(species == 18, 1.0, np.sqrt(0.5))[:, None] * np.sqrt(2 * 0.5 * 0.01)
    path = np.cumsum(generator.normal(size=(4000, 200, 3)) * spread, axis=0)
    found = Config()._diffusion([path], species, 1000, 10.0)
    for number, coefficient in ((18, 0.5), (10, 0.25)):
        what = found[number]
        assert what.coefficient == pytest.approx(coefficient, abs=4 * what.error + 0.01)
        assert 0 < what.error < 0.1
        assert what.power == pytest.approx(1, abs=0.15)
        assert what.farthest == pytest.approx(np.sqrt(6 * coefficient * 5), rel=0.1)


def test_fluid_diffuses_as_in_its_own_trajectory_and_not_when_bound(argon_of, trajectory_of, subject_of):
    fluid = Structures.from_ase([bulk("Ar", "fcc", a=6.4, cubic=True) * (2, 2, 2)])
    reference = trajectory_of(argon_of(0.0103), fluid, 300.0, every=4, picoseconds=6)
    wrapped = reference.frames.positions % (2 * 6.4)  # as files often have it
    reference = replace(reference, frames=replace(reference.frames, positions=wrapped))
    config = Config(picoseconds=4, timestep=5, replicas=2)
    subject = subject_of(argon_of(0.0103), reference=reference, start=None)
    right = config(subject)
    assert (right.passed, right.grade) == (True, "safe"), right.sentence
    assert right.figures["root-mean-square displacement Ar, reference, Å"] < 6.4
    assert right.figures["diffusion coefficient Ar, Å²/ps"] > 0.5
    assert "is not diffusive yet: run longer" in right.sentence  # still nearly ballistic after 0.6 ps
    assert list(right.curves) == ["Ar", "Ar, reference"]
    wrong = config(replace(subject, potential=argon_of(0.3)))
    assert wrong.passed is False, wrong.sentence
    assert "diffusion is off: Ar" in wrong.sentence
    assert wrong.conditions


def test_solid_is_not_judged(argon_of, argon_reference, subject_of):
    result = Config(picoseconds=2, timestep=5, replicas=1)(
        subject_of(argon_of(0.0103), reference=argon_reference, start=None)
    )
    assert result.passed is result.grade is None
    assert "too short to be diffusive" in result.sentence
    assert result.figures["root-mean-square displacement Ar, Å"] < 0.6


def test_molecules_and_no_reference(argon_of, argon_reference, subject_of):
    frames = replace(argon_reference.frames, pbc=np.zeros_like(argon_reference.frames.pbc))
    result = Config()(subject_of(argon_of(0.0103), reference=replace(argon_reference, frames=frames)))
    assert not result.applies
    with pytest.raises(UserError, match="no reference trajectory; give one with --reference"):
        Config()(subject_of(argon_of(0.0103)))

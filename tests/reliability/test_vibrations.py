"""Densities of vibrational states on cases known by hand, and the test's verdict on a right and a wrong potential."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from phystrain.reliability.vibrations import Config, bounded_error, spectrum, total, velocities


def test_rigid_motion_is_no_vibration():
    generator = np.random.default_rng(0)
    masses = np.array([1.0, 12, 16, 1])
    body = generator.normal(size=(4, 3))
    angle = 0.02 * np.arange(60)
    turn = np.zeros((60, 3, 3))
    turn[:, 0, 0], turn[:, 0, 1] = np.cos(angle), -np.sin(angle)
    turn[:, 1, 0], turn[:, 1, 1], turn[:, 2, 2] = np.sin(angle), np.cos(angle), 1
    path = np.einsum("fxy,ay->fax", turn, body) + 0.1 * np.arange(60)[:, None, None]
    still = velocities(path, 1.0, masses, turning=True)
    assert np.abs(still).max() < 1e-4 * np.abs(velocities(path, 1.0, masses, turning=False)).max()
    linear = path[:, :2]
    assert np.abs(velocities(linear, 1.0, masses[:2], turning=True)).max() < 1e-4


def test_amplitudes_at_high_frequency_are_put_back():
    """Two oscillators of equal velocity at 2 and 30 THz, a frame every 10 fs."""
    time = 10.0 * np.arange(2001)
    path = np.zeros((2001, 2, 3))
    for atom, frequency in enumerate((2e-3, 30e-3)):
        path[:, atom, 0] = np.sin(2 * np.pi * frequency * time) / (2 * np.pi * frequency)
    power = spectrum([np.diff(path, axis=0) / 10], 500, np.ones(2))
    frequency = np.fft.rfftfreq(500, 0.01)
    assert frequency[power[:, 0].argmax()] == pytest.approx(2)
    assert frequency[power[:, 1].argmax()] == pytest.approx(30)
    assert total(power)[frequency > 15].sum() == pytest.approx(0.5, abs=0.005)


def test_error_is_the_shift_over_the_width():
    frequency = np.linspace(0, 100, 1001)
    bell = np.exp(-(((frequency - 50) / 8) ** 2) / 2)
    bell /= bell.sum()
    assert bounded_error(frequency, bell, bell) == 0
    assert bounded_error(frequency, bell, np.roll(bell, 20)) == pytest.approx(100 * 2 / 8, rel=0.01)
    assert bounded_error(frequency, bell, np.roll(bell, 300)) == 100
    tail = 0.97 * bell + 0.03 * (np.abs(frequency - 97) < 2.96) / 60  # beyond 1.2 times 60.25
    assert bounded_error(frequency, bell, tail) == pytest.approx(100 * 0.03 * (1.2 * 60.4 - 50) / 8, rel=0.05)


def test_oscillators_have_their_frequency(einstein, crystal, trajectory_of, subject_of):
    """Each atom on its spring: one line at sqrt(k/m)/(2 pi), 2.47 THz or 82.5 1/cm for 1 eV/Å² and argon."""
    crystal = replace(crystal, positions=crystal.positions + 1)  # springs know no periodic images: no atom may wrap
    sites = torch.from_numpy(crystal.positions)
    reference = trajectory_of(einstein(sites, 1.0), crystal, 40.0, every=6, picoseconds=8)
    config = Config(picoseconds=4, timestep=5, replicas=2, window=2.0, fastest=10)
    subject = subject_of(einstein(sites, 1.0), reference=reference, start=None)
    right = config(subject)
    assert (right.passed, right.grade) == (True, "safe"), right.sentence
    mean = right.figures["mean frequency, 1/cm"]
    assert mean == pytest.approx(82.5, rel=0.02)
    assert right.figures["mean frequency, reference, 1/cm"] == pytest.approx(82.5, rel=0.05)  # stronger friction
    curve = right.curves["all"]
    assert curve.x[int(np.argmax(curve.y))] == pytest.approx(82.5, abs=right.figures["resolution, 1/cm"])
    wrong = config(replace(subject, potential=einstein(sites, 2.0)))
    assert (wrong.passed, wrong.grade) == (False, "limited")
    curve = wrong.curves["all"]
    assert curve.x[int(np.argmax(curve.y))] == pytest.approx(82.5 * np.sqrt(2), abs=17)
    assert wrong.figures["error, %"] == 100


def test_long_intervals_do_not_apply(argon_of, argon_reference, subject_of):
    """A frame every 10 fs is enough for what is heavier than neon, not for faster ones."""
    result = Config(fastest=60)(subject_of(argon_of(0.0103), reference=argon_reference))
    assert not result.applies
    assert "one every 7.6 fs" in result.sentence

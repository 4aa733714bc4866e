"""Radial distribution functions on cases known by hand, and the test's verdict on a right and a wrong potential."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from phystrain.data.structures import Structures
from phystrain.dynamics import Settings, replicate, simulate
from phystrain.errors import UserError
from phystrain.potentials import build
from phystrain.reliability import Result
from phystrain.reliability._reference_run import Compared, frames_of, matching
from phystrain.reliability.rdf import Config, Distribution, difference, distribution
from phystrain.statistics import Statistics


def test_crystal_has_twelve_neighbours(argon):
    """The integral over the first shell of density times g(r), which must not depend on the origin or on wrapping."""
    frames = []
    for seed in range(20):
        frame = argon.copy()
        frame.rattle(0.05, seed=seed)
        frame.positions += seed * 3.1  # far outside the cell
        frames.append(frame)
    found = distribution(Structures.from_ase(frames), 4.6, 200)
    assert found.periodic
    g = found.values["Ar-Ar"]
    shells = 4 / 3 * np.pi * np.diff(found.edges**3)
    density = (len(argon) - 1) / argon.get_volume()
    assert (g * shells).sum() * density == pytest.approx(12)
    assert found.edges[g.argmax()] == pytest.approx(5.3 / np.sqrt(2), abs=0.1)


def test_ideal_gas_is_one_in_every_pair():
    """Of two elements in a skew cell that changes its volume."""
    generator = np.random.default_rng(0)
    frames = []
    for number in range(200):
        cell = np.array([[9.0, 0, 0], [3, 9, 0], [1, 2, 8]]) * (1 + 0.002 * number)
        frames.append(Atoms("O40Si20", positions=generator.uniform(0, 1, (60, 3)) @ cell, cell=cell, pbc=True))
    found = distribution(Structures.from_ase(frames), 4.0, 8)
    assert list(found.values) == ["O-O", "O-Si", "Si-Si"]
    for values in found.values.values():
        np.testing.assert_allclose(values[2:], 1, atol=0.2)
        np.testing.assert_allclose(values[5:], 1, atol=0.06)
    assert difference(found, found) == dict.fromkeys(found.values, 0)


def test_error_is_bounded_and_known():
    edges = np.linspace(0, 4, 5)
    reference = Distribution(edges, {"X-X": np.array([0.0, 2.0, 1.0, 1.0])}, True)
    flat = Distribution(edges, {"X-X": np.ones(4)}, True)
    half = Distribution(edges, {"X-X": np.array([0.5, 1.5, 1.0, 1.0])}, True)
    wild = Distribution(edges, {"X-X": np.full(4, 30.0)}, True)
    assert difference(reference, flat)["X-X"] == pytest.approx(100)
    assert difference(reference, half)["X-X"] == pytest.approx(50)
    assert difference(reference, wild)["X-X"] == 100


def test_distances_of_molecules():
    """Two sets of dimers, 1.05 and 3.05 Å: densities without overlap differ by 2."""
    short = Structures.from_ase([Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.05]])] * 3)
    long = Structures.from_ase([Atoms("CO", positions=[[0, 0, 0], [3.05, 0, 0]])] * 2)
    first, second = distribution(short, 10.0, 100), distribution(long, 10.0, 100)
    assert list(first.values) == ["all", "C-O"]
    assert first.values["all"][10] == pytest.approx(1 / 0.1)
    assert difference(first, second)["all"] == pytest.approx(2)


@pytest.fixture
def reference(lennard_jones, crystal) -> Structures:
    """Frames of the potential's own dynamics at 40 K."""
    settings = Settings(temperature=40, timestep=5, picoseconds=6, friction=0.02, frame_interval=20, seed=9)
    frames = frames_of(simulate(lennard_jones, replicate(crystal, 2), settings), 0.2)
    assert frames is not None
    return frames


def test_own_structure_is_found_and_a_wrong_one_is_not(lennard_jones, reference, subject_of):
    config = Config(picoseconds=3, timestep=5, friction=0.02, replicas=2, bins=60, limit=20, frames=40)
    right = config(subject_of(lennard_jones, test=reference))
    assert right.passed, right.figures
    assert right.figures["largest distance, Å"] == pytest.approx(5.3)
    assert right.figures["runs completed"] == 2
    assert 70 <= right.figures["frames"] <= 80
    assert right.figures["error, %"] == right.figures["error Ar-Ar, %"]
    assert right.figures["error, %"] < 4 * right.figures["error between halves of the reference, %"] + 5
    assert list(right.curves) == ["Ar-Ar", "Ar-Ar, labelled frames"]
    wrong = config(subject_of(type(lennard_jones)(epsilon=0.0005), test=reference))
    assert wrong.passed is False
    assert wrong.figures["error, %"] > 2 * right.figures["error, %"]


def test_frames_after_a_failure_do_not_count(with_hole, reference, subject_of):
    config = Config(picoseconds=2, timestep=4, replicas=2, temperature=4000, frames=40, burn_in=0, bins=50)
    subject = subject_of(with_hole, test=reference)
    run = config.run(subject, subject.start, 4000.0, 4.0, 9, 0.01)
    assert not run.survived.any()
    interval = run.settings.frame_interval
    assert len(frames_of(run, 0.0)) == sum((step - 1) // interval for step in run.steps)
    assert frames_of(run, 0.95) is None
    result = config.model_copy(update={"burn_in": 0.95})(subject)
    assert result.passed is False
    assert (result.grade, result.kelvin) == ("unsafe", 0)
    assert "Nothing could be compared: 2 of 2 runs broke off (Ar-Ar contact" in result.sentence


def test_reference_must_be_of_the_same_kind(lennard_jones, reference, crystal, subject_of):
    config = Config(picoseconds=0.1, replicas=1)
    other = replace(reference, cell=1.1 * reference.cell)
    result = config(subject_of(lennard_jones, test=other))
    assert result.passed is None
    assert "Not done: 0 test structures" in result.sentence
    mixed = Structures.concatenate([other, reference, Structures.from_ase([Atoms("Ar")] * 3)])
    start = Structures.concatenate([Structures.from_ase([Atoms("Ar")]), crystal])
    start, same = matching(start, mixed, 0.05)
    assert len(start) == 1
    assert start.sizes[0] == 32
    assert len(same) == len(reference)
    with pytest.raises(UserError, match="no frames to compare with"):
        config(subject_of(lennard_jones))


def test_cells_too_thin_to_hold_a_pair_are_not_judged(argon):
    thin = [bulk("Mo", "bcc", a=3.15, cubic=True) for _ in range(12)]
    for seed, frame in enumerate(thin):
        frame.rattle(0.05, seed=seed)
    reference = Structures.from_ase(thin)
    run = simulate(
        build({"kind": "zbl"}, Statistics.bare((42,))),
        reference.select([0]),
        Settings(picoseconds=0.01, frame_interval=2, guards={"contact": None}),
    )
    result = Config(limit=5.0).judged(Compared(run, 0.25, reference, None, 300.0), Result(test="rdf", title="thin"))
    assert result.passed is None
    assert "so thin" in result.sentence


def test_trajectory_is_used_at_its_own_temperature_and_start(argon_of, argon_reference, subject_of):
    """No start, no test data and another temperature: all that counts is the trajectory."""
    config = Config(picoseconds=2, timestep=5, replicas=2, bins=60, frames=40)
    subject = subject_of(argon_of(0.0103), reference=argon_reference, start=None, temperatures=(900.0,))
    right = config(subject)
    assert (right.passed, right.grade) == (True, "safe"), right.sentence
    assert right.figures["temperature, K"] == 40
    assert right.threshold.startswith("error <= 15 or")
    assert list(right.curves) == ["Ar-Ar", "Ar-Ar, reference"]
    wrong = config(replace(subject, potential=argon_of(0.0005)))
    assert (wrong.passed, wrong.grade) == (False, "limited")
    assert wrong.conditions == [f"distances at 40 K are off by {wrong.figures['error, %']:.1f} %"]

"""Bonds of molecules that hold, and of molecules that do not."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms

from phystrain.data.structures import Structures
from phystrain.potentials import build
from phystrain.reliability.bonds import Config, mean_bonds
from phystrain.statistics import Statistics


@pytest.fixture
def nitrogen() -> Structures:
    return Structures.from_ase([Atoms("N2", [[0, 0, 0], [0, 0, 1.1]])])


def bound(depth: float):
    settings = {"kind": "lennard_jones", "depth": depth, "minimum": {"N-N": 1.1}, "cutoff": 5.0}
    return build(settings, Statistics.bare((7,))).double()


def test_bonds_and_mean_lengths():
    stretched = [Atoms("OHH", [[0, 0, 0], [0.9 + 0.02 * n, 0, 0], [-0.24, 0.93, 0]]) for n in range(7)]
    structures = Structures.from_ase(stretched)
    bonds, mean = mean_bonds(structures.positions.reshape(-1, 3, 3), structures.species[:3], 1.2)
    assert bonds.tolist() == [[0, 1], [0, 2]]
    assert mean == pytest.approx([0.96, np.hypot(0.24, 0.93)])


def test_strong_bond_holds_and_a_weak_one_breaks(nitrogen, trajectory_of, subject_of):
    reference = trajectory_of(bound(4.0), nitrogen, 300.0, step=1.0, every=2, picoseconds=0.3)
    config = Config(picoseconds=0.4, timestep=1, replicas=2)
    subject = subject_of(bound(4.0), reference=reference, start=None, statistics=Statistics.bare((7,)))
    right = config(subject)
    assert (right.passed, right.grade, right.kelvin) == (True, "safe", None), right.sentence
    assert right.figures["bonds"] == 1
    assert right.figures["time to collapse of run 1, ps"] is None
    assert right.figures["mean time to collapse, ps"] == 0.4
    wrong = config(replace(subject, potential=bound(0.005)))
    assert (wrong.passed, wrong.grade, wrong.kelvin) == (False, "unsafe", 0.0), wrong.sentence
    assert "N-N bond of 1.1" in wrong.sentence
    assert 0 < wrong.figures["mean time to collapse, ps"] < 0.4
    # the reference of which bonds break is no measure
    loose = trajectory_of(bound(0.005), nitrogen, 300.0, step=1.0, every=2, picoseconds=0.3)
    assert config(replace(subject, reference=loose)).passed is None


def test_labelled_frames_serve_and_crystals_do_not_apply(nitrogen, crystal, subject_of):
    frames = []
    for seed in range(12):
        frame = nitrogen.to_ase(0)
        frame.rattle(0.02, seed=seed)
        frames.append(frame)
    config = Config(picoseconds=0.1, timestep=1, replicas=1)
    subject = subject_of(bound(4.0), start=nitrogen, test=Structures.from_ase(frames))
    assert config(subject).passed
    assert not config(subject_of(bound(4.0), start=crystal, test=crystal)).applies

"""The choice of structures to label."""

import numpy as np
import pytest
from ase import Atoms

from phystrain.data.structures import Structures
from phystrain.uncertainty.ranking import APART, closest, difference, rank, surroundings, worst_atoms


def test_ranking_finds_the_outlier_once(disagreeing, argon):
    random = np.random.default_rng(3)
    frames = []
    for _ in range(12):
        frame = argon.copy()
        frame.positions += random.normal(scale=0.05, size=(32, 3))
        frames.append(frame)
    for closer, shaken in ((1.2, 0.0), (1.21, 1e-3), (1.6, 1e-3)):  # two alike, and one that is worse
        frame = frames[5].copy()
        frame.positions[7] += closer * (frame.positions[6] - frame.positions[7]) / 3.75
        frame.positions += random.normal(scale=shaken, size=(32, 3))
        frames.append(frame)
    structures = Structures.from_ase(frames)
    _, spread = disagreeing.predict(structures)
    assert rank(structures, spread, 3, apart=0.0).chosen.tolist() == [14, 13, 12]
    found = rank(structures, spread, 3, apart=0.015)
    assert found.chosen.tolist()[:2] == [14, 13]
    assert found.chosen[2] < 12
    every = rank(structures, spread, 15, apart=0.1)  # the others are within thermal motion of an atom of the chosen
    assert (every.chosen.tolist(), every.alike) == ([14, 13], 13)
    assert set(worst_atoms(structures, spread)[12:] - structures.offsets[12:15]) <= {6, 7}


def test_ranking_of_one_crystal_takes_frames_far_apart_and_no_twins(argon):
    random = np.random.default_rng(5)
    frames = []
    for _ in range(10):
        frame = argon.copy()
        frame.positions += random.normal(scale=0.12, size=(32, 3))
        twin = frame.copy()
        twin.positions += random.normal(scale=2e-3, size=(32, 3))
        frames += [frame, twin]
    structures = Structures.from_ase(frames)
    atom = 32 * np.arange(20) + 7
    spread = np.full(20 * 32, 0.1)
    spread[atom] = 1 - 0.01 * np.arange(20)  # each less certain than its twin, and all nearly alike
    assert rank(structures, spread, 6, apart=APART).chosen.tolist() == [0]  # the rest is thermal motion
    found = rank(structures, spread, 6)
    assert found.close == len(found.chosen) - 1 == 5
    assert len(set(found.chosen // 2)) == 6  # no two of a pair
    around = surroundings(structures, np.arange(20 * 32), np.array([18]))
    apart = difference(around[atom], around).reshape(20, 20, 32).min(axis=2)  # of the doubtful atom from any of a frame
    assert (spread[atom] * apart[:, 0])[1:].argmax() + 1 in found.chosen  # the second
    every = rank(structures, spread, 20)
    assert len(every.chosen) < 20
    assert len(every.chosen) + every.alike == 20
    assert every.alike >= 10  # the twins
    assert (spread[atom][every.chosen][:-1] > spread[atom][every.chosen][1:]).all()


def test_empty_places_make_no_molecules_alike():
    water = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    longer = water.copy()
    longer.set_distance(0, 1, 1.16, fix=0)
    around = surroundings(Structures.from_ase([water, longer]), np.array([0, 3]), np.array([1, 8]))
    assert difference(around[:1], around[1:]).item() == pytest.approx(
        0.2 / np.sqrt(2), rel=0.01
    )  # two neighbours, one moved
    alone = surroundings(Structures.from_ase([Atoms("O"), Atoms("O")]), np.array([0, 1]), np.array([1, 8]))
    assert difference(alone[:1], alone[1:]).item() == 0


def test_surroundings_do_not_know_order_or_orientation():
    molecule = Atoms("OSiO2", [[0, 0, 0], [1.6, 0, 0], [2.4, 1.4, 0], [2.4, -1.4, 0.5]])
    other = molecule[[0, 3, 1, 2]]
    other.rotate(40, (1, 2, 3))
    near, far = surroundings(Structures.from_ase([molecule, other]), np.array([0, 4]), np.array([8, 14]))
    np.testing.assert_allclose(near, far)
    lengths = molecule.get_distances(0, [1, 2, 3])
    np.testing.assert_allclose(near[:8], [*sorted(lengths[1:]), *[5.0] * 6])
    np.testing.assert_allclose(near[8:], [lengths[0], *[5.0] * 7])
    assert closest(Structures.from_ase([molecule, Atoms("O")])).tolist() == [pytest.approx(1.6 / 1.77), np.inf]

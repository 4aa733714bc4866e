"""Augmented structures: what is moved, how far, and that nothing coincides."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.data import covalent_radii

from phystrain.augment._floor import closest_disjoint
from phystrain.augment.pull_perturb import Config
from phystrain.augment.rattle import Config as Rattle
from phystrain.augment.strain import Config as Strain
from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.neighbours import neighbour_list, shortest_distance


def _set() -> Structures:
    quartz_like = bulk("SiO", "zincblende", a=4.6, cubic=True)
    quartz_like.rattle(0.1, seed=3)
    return Structures.from_ase([molecule("CH3CH2OH"), quartz_like, molecule("C6H6")])


def _displacements(made: Structures, start: Structures) -> list[np.ndarray]:
    sources = made.info["source"].astype(int)
    return [
        made.positions[made.offsets[i] : made.offsets[i + 1]] - start.positions[start.offsets[s] : start.offsets[s + 1]]
        for i, s in enumerate(sources)
    ]


def test_rounds_and_facts():
    start = _set()
    made = Config(rounds=4)(start, seed=0)
    assert len(made) == 4 * len(start)
    assert list(made.info["round"]) == ["0", "1", "2", "3"] * 3
    assert list(made.info["source"]) == ["0"] * 4 + ["1"] * 4 + ["2"] * 4
    assert set(made.info["config_type"]) == {"pull_perturb"}
    assert np.isnan(made.energy).all()
    assert np.isnan(made.forces).all()
    assert np.array_equal(made.species, start.select(np.repeat(np.arange(3), 4)).species)


def test_last_round_is_undisturbed_and_the_first_is_not():
    start = _set()
    made = Config(rounds=5)(start, seed=1)
    for number, moved in zip(made.info["round"], _displacements(made, start), strict=True):
        assert (np.abs(moved).max() == 0) == (number == "4")


def test_displacements_stay_below_the_ramp():
    start = _set()
    config = Config(rounds=5, pull=0.6, perturb=0.9, sites=20)
    largest = np.zeros(5)
    for seed in range(20):
        made = config(start, seed)
        for number, moved in zip(made.info["round"].astype(int), _displacements(made, start), strict=True):
            largest[number] = max(largest[number], np.linalg.norm(moved, axis=1).max())
    bound = np.linspace(1, 0, 5) * (0.6 / 2 + 0.9)
    assert (largest <= bound + 1e-12).all()
    assert (largest[:4] > 0.6 * bound[:4]).all(), "the ramp is used, not only kept to"


def test_pull_alone_shortens_the_closest_disjoint_pairs_and_moves_nothing_else():
    start = Structures.from_ase([molecule("CH3CH2OH")])
    made = Config(rounds=2, perturb=0.0, pull=0.4)(start, seed=5)
    moved = _displacements(made, start)[0]
    touched = np.flatnonzero(np.abs(moved).max(axis=1))
    atoms = start.to_ase(0)
    distances = atoms.get_all_distances()
    # by hand: the closest pair of all (O-H), then the closest that shares no atom with it
    upper = [(distances[i, j], i, j) for i in range(9) for j in range(i + 1, 9)]
    first = min(upper)
    second = min(pair for pair in upper if not {pair[1], pair[2]} & {first[1], first[2]})
    assert sorted(touched) == sorted([*first[1:], *second[1:]])
    after = made.to_ase(0).get_all_distances()
    for distance, i, j in (first, second):
        assert distance - 0.4 - 1e-12 <= after[i, j] < distance
        assert moved[i] == pytest.approx(-moved[j])


def test_perturbation_alone_moves_the_number_of_sites():
    start = _set()
    made = Config(rounds=3, pull=0.0, perturb=0.3, sites=4)(start, seed=0)
    counts = [(np.abs(moved).max(axis=1) > 0).sum() for moved in _displacements(made, start)]
    assert counts == [4, 4, 0] * 3


def test_pairs_are_pulled_through_the_periodic_boundary():
    atoms = Atoms("Si2O", positions=[[0.2, 2, 2], [9.0, 2, 2], [5, 2, 2]], cell=[10, 10, 10], pbc=True)
    start = Structures.from_ase([atoms])
    made = Config(rounds=2, pairs=1, perturb=0.0, pull=0.3)(start, seed=2)
    moved = _displacements(made, start)[0]
    assert moved[0, 0] < 0 < moved[1, 0], "the silicon atoms are 1.2 Å apart through the boundary"
    assert np.abs(moved[2]).max() == 0


def test_own_image_is_never_pulled():
    thin = Atoms("SiO", positions=[[0, 0, 0], [10, 10, 10]], cell=[2.0, 20, 20], pbc=True)  # images 2 Å away
    made = Config(rounds=2, perturb=0.0, pairs=2)(Structures.from_ase([thin]), seed=0)
    moved = _displacements(made, Structures.from_ase([thin]))[0]
    assert np.abs(moved).max() > 0
    assert moved[0] == pytest.approx(-moved[1])


def test_closest_disjoint_is_greedy_and_disjoint():
    first, second = np.array([0, 0, 1, 2, 3, 0]), np.array([1, 2, 2, 3, 3, 4])
    distances = np.array([1.0, 1.1, 1.2, 1.3, 1.4, 1.5])
    assert list(closest_disjoint(first, second, distances, 5, 3)) == [0, 3]  # (0,1), (2,3); (3,3) is an own image
    assert list(closest_disjoint(first, second, distances, 5, 1)) == [0]
    assert list(closest_disjoint(first, second, distances * 0, 5, 3)) == []


@pytest.mark.parametrize("floor", [0.3, 0.4, 0.6])
def test_no_pair_falls_below_the_floor(floor: float):
    crowded = bulk("SiO", "zincblende", a=4.0, cubic=True)
    start = Structures.from_ase([molecule("C6H6"), crowded, Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.74]])])
    for seed in range(15):
        made = Config(rounds=3, pull=3.0, perturb=3.0, sites=40, pairs=6, floor=floor)(start, seed)
        for frame in made.frames():
            edges, shifts = neighbour_list(frame.positions, frame.cell.array, frame.pbc, 2.0)
            vectors = frame.positions[edges[1]] - frame.positions[edges[0]] + shifts @ frame.cell.array
            radii = covalent_radii[frame.numbers]
            ratio = np.linalg.norm(vectors, axis=1) / (radii[edges[0]] + radii[edges[1]])
            assert ratio.min(initial=9.0) >= floor - 1e-6


def test_wall_is_reached_by_default():
    start = _set()
    reached = min(
        shortest_distance(frame.positions, frame.cell.array, frame.pbc)
        for seed in range(5)
        for frame in Config()(start, seed).frames()
    )
    assert 0.2 < reached < 0.7, "less than the shortest bond (0.97 Å), but no coincidence"


def test_pair_below_the_floor_from_the_start_comes_no_closer():
    close = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.1]])
    made = Config(rounds=6)(Structures.from_ase([close]), seed=0)
    assert all(frame.get_distance(0, 1) >= 0.1 - 1e-9 for frame in made.frames())


def test_single_atoms_are_left_out():
    start = Structures.from_ase([Atoms("H"), molecule("H2O")])
    assert set(Config()(start, 0).info["source"]) == {"1"}
    with pytest.raises(UserError, match="two atoms or more"):
        Config()(start.select([0]), 0)


def test_rattle_amplitude():
    start = Structures.from_ase([bulk("Cu", cubic=True).repeat(4)])
    gaussian = np.concatenate(_displacements(Rattle(amplitude=0.1)(start, 0), start))
    assert gaussian.std() == pytest.approx(0.1, rel=0.05)
    uniform = np.concatenate(_displacements(Rattle(amplitude=0.1, distribution="uniform")(start, 0), start))
    assert 0.099 < np.abs(uniform).max() <= 0.1


def test_strain_keeps_fractional_positions_and_the_normal_of_a_slab():
    crystal = bulk("SiO", "zincblende", a=4.6, cubic=True)
    slab = Atoms("Cu2", positions=[[0, 0, 3], [1, 1, 5]], cell=[3, 3, 0], pbc=[True, True, False])
    start = Structures.from_ase([crystal, molecule("H2O"), slab])
    made = Strain(amplitude=0.05)(start, 0)
    assert set(made.info["source"]) == {"0", "2"}
    for frame, source in zip(made.frames(), made.info["source"], strict=True):
        if source == "0":
            assert frame.get_scaled_positions() == pytest.approx(crystal.get_scaled_positions())
            strain = np.linalg.solve(crystal.cell.array, frame.cell.array) - np.eye(3)
            assert strain == pytest.approx(strain.T)
            assert 0 < np.abs(strain).max() <= 0.05
        else:
            assert frame.positions[:, 2] == pytest.approx([3, 5])
            assert not np.allclose(frame.cell.array, slab.cell.array)
    with pytest.raises(UserError, match="periodic"):
        Strain()(start.select([1]), 0)

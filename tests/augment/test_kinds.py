"""What every augmentation promises, and what each of the smaller ones does."""

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.data import covalent_radii

from phystrain import registry
from phystrain.augment.compress import Config as Compress
from phystrain.augment.dimers import Config as Dimers
from phystrain.augment.hot_md import Config as HotMD
from phystrain.augment.rattle import Config as Rattle
from phystrain.augment.strain import Config as Strain
from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.neighbours import neighbour_list

KINDS = registry.kinds("augment")
SETTINGS = {
    "hot_md": {"picoseconds": 0.02, "frames": 2, "temperatures": [50.0, 100.0]},
    "strain": {"expand": 0.5},
    "compress": {"cell": 0.7},
}


def _recipe(kind: str, **settings):
    return registry.parse("augment", {"kind": kind, **SETTINGS.get(kind, {}), **settings})


def _argon(count: int) -> Structures:
    frames = [bulk("Ar", "fcc", a=5.2 + 0.1 * number, cubic=True) for number in range(count)]
    for number, frame in enumerate(frames):
        frame.rattle(0.1, seed=number)
        frame.info["origin"] = f"n{number}"
    return Structures.from_ase(frames, info=("origin",))


def _contacts(frame: Atoms) -> np.ndarray:
    edges, shifts = neighbour_list(frame.positions, frame.cell.array, frame.pbc, 3.0)
    vectors = frame.positions[edges[1]] - frame.positions[edges[0]] + shifts @ frame.cell.array
    radii = covalent_radii[frame.numbers]
    return np.linalg.norm(vectors, axis=1) / (radii[edges[0]] + radii[edges[1]])


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_fixes_the_structures_and_another_changes_them(kind, lennard_jones):
    start, make = _argon(2), _recipe(kind)
    first, again, other = (make(start, seed, teacher=lennard_jones) for seed in (7, 7, 8))
    assert np.array_equal(first.positions, again.positions)
    assert np.array_equal(first.positions, other.positions) == (kind == "compress"), "which draws nothing"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not _recipe(kind).of_the_set])
def test_pieces_of_a_set_give_what_the_whole_gives(kind, lennard_jones):
    start, make = _argon(3), _recipe(kind)
    whole = make.make(start, np.arange(3), 5, lennard_jones).structures
    pieces = [make.make(start.select([n]), np.array([n]), 5, lennard_jones).structures for n in (2, 0, 1)]
    for piece, number in zip(pieces, "201", strict=True):
        same = whole.select(whole.info["source"] == number)
        assert len(piece) == len(same) > 0
        assert piece.positions == pytest.approx(same.positions, abs=1e-12)
        assert piece.cell == pytest.approx(same.cell)
        assert list(piece.info["round"]) == list(same.info["round"])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not _recipe(kind).of_the_set])
def test_input_is_left_alone_and_facts_are_kept(kind, lennard_jones):
    start = _argon(1)
    before = start.positions.copy()
    made = _recipe(kind)(start, 0, teacher=lennard_jones)
    assert np.array_equal(start.positions, before)
    assert set(made.info["origin"]) == {"n0"}
    assert set(made.info["config_type"]) == {kind}
    assert set(made.info["source"]) == {"0"}
    assert np.isnan(made.energy).all()
    assert np.isnan(made.forces).all()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("rattle", {"amplitude": 0.8}),
        ("strain", {"amplitude": 0.3}),
        ("strain", {"amplitude": 0.3, "expand": 0.2}),
        ("compress", {"cell": 0.2, "bonds": 3}),
        ("dimers", {"shortest": 0.55}),
    ],
)
def test_no_pair_falls_below_the_floor(kind, settings):
    thin = Atoms("Si", cell=np.diag([1.35, 5, 5]), pbc=True)  # its own images are near the floor of 0.55
    start = Structures.from_ase([molecule("C6H6"), bulk("SiO", "zincblende", a=3.6, cubic=True), thin])
    least = 9.0
    for seed in range(5):
        made = _recipe(kind, floor=0.55, **settings)(start, seed)
        least = min([least, *(_contacts(frame).min(initial=9.0) for frame in made.frames())])
    assert 0.55 - 1e-6 <= least < 0.7, "and it is approached"


def test_pair_below_the_floor_from_the_start_comes_no_closer():
    start = Structures.from_ase([Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.1]])])
    moved = Rattle(amplitude=0.05, copies=30).make(start, np.array([0]), 0, None)
    assert moved.limited > 5
    assert all(frame.get_distance(0, 1) >= 0.1 - 1e-9 for frame in moved.structures.frames())
    assert len(Compress()(start, 0)) == 0


# ---- dimers


def test_dimers_of_all_pairs_over_the_whole_range():
    start = Structures.from_ase([bulk("SiO", "zincblende", a=4.6, cubic=True), molecule("H2O")])
    made = Dimers(points=12, shortest=0.5, longest=7.0)(start, 0)
    assert not made.pbc.any()
    assert not made.cell.any()
    assert list(made.sizes[:3]) == [1, 1, 1]
    assert sorted(made.species[:3]) == [1, 8, 14]
    pairs = made.select(made.sizes == 2)
    species, ends = pairs.species.reshape(-1, 2), pairs.positions.reshape(-1, 2, 3)
    distances = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)
    for pair in itertools.combinations_with_replacement((1, 8, 14), 2):
        mine = distances[(species == pair).all(axis=1)]
        start_at = 0.5 * covalent_radii[list(pair)].sum()
        edges = np.geomspace(start_at, 7.0, 13)
        assert ((edges[:-1] <= mine) & (mine <= edges[1:])).all(), "one in each interval"
    assert len(Dimers(points=12, atoms=False)(start, 0)) == 6 * 12


def test_dimers_that_cannot_be():
    with pytest.raises(ValueError, match="below the floor"):
        Dimers(shortest=0.3)
    with pytest.raises(UserError, match=r"Ar-Ar starts at 1\.06"):
        Dimers(longest=1.0)(_argon(1), 0)


# ---- compress


def test_compress_shortens_the_shortest_bond_of_each_pair_in_even_steps():
    water = molecule("H2O")
    water.positions[1] *= 1.01  # the bonds are told apart
    start = Structures.from_ase([water])
    made = Compress(steps=4, floor=0.3)(start, 0)
    bond = water.get_all_distances()
    shortest = min((bond[0, 1], 1), (bond[0, 2], 2))
    lengths = [frame.get_distance(0, shortest[1]) for frame in made.frames()]
    floor = 0.3 * (covalent_radii[8] + covalent_radii[1])
    even = shortest[0] - (shortest[0] - floor) * np.arange(1, 5) / 4
    oxygen_hydrogen = [length for length in lengths if np.abs(even - length).min() < 1e-9]
    assert oxygen_hydrogen == pytest.approx(even)
    middle = (water.positions[0] + water.positions[shortest[1]]) / 2
    first = made.to_ase(next(i for i, length in enumerate(lengths) if abs(length - even[0]) < 1e-9))
    assert (first.positions[0] + first.positions[shortest[1]]) / 2 == pytest.approx(middle)
    across = [frame.get_distance(1, 2) for frame in made.frames()]
    assert min(across) < 0.5 * bond[1, 2], "the H-H distance too"


def test_compress_through_the_boundary_and_of_the_cell():
    atoms = Atoms("Si2", positions=[[0.2, 2, 2], [9.0, 2, 2]], cell=[10, 10, 10], pbc=True)
    made = Compress(steps=1, cell=0.8)(Structures.from_ase([atoms]), 0)
    bond, cell = made.to_ase(0), made.to_ase(1)
    assert bond.get_distance(0, 1, mic=True) == pytest.approx(0.4 * 2 * covalent_radii[14])
    assert bond.positions[0, 0] < 0.2
    assert cell.cell.array == pytest.approx(np.eye(3) * 8)
    assert cell.get_scaled_positions() == pytest.approx(atoms.get_scaled_positions())


def test_equivalent_bonds_are_compressed_once():
    square = Atoms("H4", positions=[[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    start = Structures.from_ase([square])
    make = Compress(bonds=4, steps=3)
    assert len(make.make(start, np.array([0]), 0, None).structures) == 12
    assert len(make(start, 0)) == 3


# ---- strain


def test_expanded_cells_grow_in_even_steps():
    start = _argon(1)
    made = Strain(copies=4, amplitude=1e-9, expand=1.0)(start, 0)
    growth = np.cbrt(np.linalg.det(made.cell) / np.linalg.det(start.cell))
    assert growth == pytest.approx([1.0, 1.25, 1.5, 1.75, 2.0], abs=1e-6), "four alike, and the grown ones"
    free = made.select([4]).to_ase(0)
    assert free.get_scaled_positions() == pytest.approx(start.to_ase(0).get_scaled_positions())


# ---- dynamics


def test_hot_md_heats_and_a_guard_ends_what_explodes(lennard_jones, with_hole):
    start = _argon(2)
    made = HotMD(temperatures=[20.0, 300.0], picoseconds=0.1, frames=4)(start, 1, teacher=lennard_jones)
    assert len(made) == 2 * 2 * 4
    assert set(made.info["temperature"]) == {"20", "300"}
    spread = {}
    for kelvin in ("20", "300"):
        chosen = made.select(made.info["temperature"] == kelvin)
        away = chosen.positions - start.select(chosen.info["source"].astype(int)).positions
        spread[kelvin] = np.sqrt((away**2).mean())
    assert spread["300"] > 2 * spread["20"] > 0
    recipe = HotMD(temperatures=[20_000.0], picoseconds=0.2, frames=5, floor=0.95)
    stopped = recipe.make(start, np.arange(2), 1, with_hole)
    assert stopped.limited > 0
    assert len(stopped.structures) + stopped.limited == 2 * 5
    assert min([9.0, *(_contacts(frame).min(initial=9.0) for frame in stopped.structures.frames())]) >= 0.95


def test_hot_md_needs_a_teacher():
    with pytest.raises(UserError, match="give a potential"):
        HotMD()(_argon(1), 0)

"""Which structures count as the same."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from scipy.spatial.transform import Rotation

from phystrain.augment._fingerprint import fingerprints, first_of_each
from phystrain.data.structures import Structures


def _frames() -> list[Atoms]:
    frames = [molecule("CH3CH2OH"), bulk("SiO", "zincblende", a=4.6, cubic=True), Atoms("H"), bulk("Cu")]
    frames.append(Atoms("Cu2", positions=[[0, 0, 3], [1, 1, 5]], cell=[3, 3, 0], pbc=[True, True, False]))
    for number, frame in enumerate(frames):
        frame.rattle(0.05, seed=number)
    return frames


def _moved(frame: Atoms, seed: int) -> Atoms:
    """The same structure elsewhere, turned, its atoms reordered and put into other cells."""
    generator = np.random.default_rng(seed)
    turn = Rotation.random(random_state=seed).as_matrix()
    order = generator.permutation(len(frame))
    images = generator.integers(-2, 3, size=(len(frame), 3)) * frame.pbc
    positions = (frame.positions + images @ frame.cell.array)[order] @ turn.T + generator.normal(size=3)
    return Atoms(frame.numbers[order], positions=positions, cell=frame.cell.array @ turn.T, pbc=frame.pbc)


@pytest.mark.parametrize("seed", range(5))
def test_place_orientation_and_order_do_not_matter(seed: int):
    frames = _frames()
    before = fingerprints(Structures.from_ase(frames))
    after = fingerprints(Structures.from_ase([_moved(frame, seed) for frame in frames]))
    assert np.array_equal(before, after)
    assert len(set(before.tolist())) == len(frames)


@pytest.mark.parametrize("index", [0, 1, 4])
def test_small_changes_matter(index: int):
    frame = _frames()[index]
    changed = [frame.copy() for _ in range(4)]
    changed[1].positions[0, 0] += 0.01
    changed[2].numbers[0] += 1
    changed[3].set_cell(frame.cell.array * 1.003, scale_atoms=True)
    hashes = fingerprints(Structures.from_ase(changed))
    assert len(set(hashes.tolist())) == (3 if index == 0 else 4), "a molecule has no cell"


def test_distant_parts_of_molecules_matter():
    pairs = [Atoms("H2", positions=[[0, 0, 0], [0, 0, far]]) for far in (6.0, 6.1, 6.0)]
    assert list(first_of_each(fingerprints(Structures.from_ase(pairs)))) == [0, 1]


def test_blocks_of_pairs_do_not_matter(monkeypatch: pytest.MonkeyPatch):
    structures = Structures.from_ase(_frames() * 3)
    whole = fingerprints(structures)
    from phystrain.data.graphs import GraphStore

    pairs = GraphStore.pairs
    monkeypatch.setattr(GraphStore, "pairs", lambda self: pairs(self, block=50))
    assert np.array_equal(fingerprints(structures), whole)
    assert np.array_equal(whole[:5], whole[5:10])


def test_molecules_far_apart_in_a_box_matter():
    def pair(far, shift):
        atoms = Atoms("H2", positions=[[0, 0, 0], [0, 0, far]], cell=[20, 21, 22], pbc=True)
        atoms.positions += shift
        return atoms

    pairs = [pair(6.0, 0), pair(7.0, 0), pair(9.0, 0), pair(7.0, 3.3), pair(13.0, 0)]
    # 9 and 13 Å are the same across the boundary
    assert list(first_of_each(fingerprints(Structures.from_ase(pairs)))) == [0, 1, 2]

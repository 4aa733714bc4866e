"""Which structures are the same, whatever their place, orientation and order of atoms."""

import numpy as np
import numpy.typing as npt

from phystrain.data.graphs import GraphStore
from phystrain.data.structures import Floats, Structures

REACH = 5.0
"""Å up to which distances count."""

RESOLUTION = 1e-3
"""Å: structures whose distances differ by less are the same, by and large."""

Hashes = npt.NDArray[np.uint64]
_GOLDEN, _FIRST, _SECOND = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_OFFSET = 0.3819660113  # bins begin at no round number: distances in built structures are round


def fingerprints(structures: Structures, store: GraphStore | None = None) -> Hashes:
    """(systems,) hash of each structure, the same for structures that are moved, rotated, mirrored or reordered.

    Of every atom the element and the sorted distances to its neighbours by element; of a structure the atoms in any
    order, the thickness of the cell in all (length, area or volume), and, beyond the neighbours, how far a molecule
    extends and how atoms are spread along the periodic directions.

    Args:
        structures: to tell apart.
        store: with neighbours up to :data:`REACH` or beyond, if there is one already.
    """
    store = GraphStore(structures, REACH) if store is None else store
    around = np.zeros(len(structures.species), dtype=np.uint64)
    for (centre, neighbour), vectors in store.pairs():
        distance = np.linalg.norm(vectors, axis=1)
        near = distance < REACH
        edge = _mixed(
            _bins(distance[near] / RESOLUTION) + _GOLDEN * structures.species[neighbour[near]].astype(np.uint64)
        )
        # edges are sorted by centre; a running sum modulo 2**64 gives exact sums of every stretch
        around += _sums(edge, np.bincount(centre[near], minlength=len(around)))
    atom = _mixed(around + _GOLDEN * structures.species.astype(np.uint64))
    whole = _sums(atom, structures.sizes)
    return _mixed(
        whole
        + _mixed(_bins(_thickness(structures))) * _FIRST
        + _mixed(_bins(_extent(structures))) * _SECOND
        + _waves(structures)
    )


def first_of_each(hashes: Hashes) -> npt.NDArray[np.int64]:
    """Ascending numbers of the first structure of every fingerprint."""
    return np.sort(np.unique(hashes, return_index=True)[1])


def _mixed(value: Hashes) -> Hashes:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014, doi:10.1145/2714064.2660195)."""
    value = (value ^ (value >> np.uint64(30))) * _FIRST
    value = (value ^ (value >> np.uint64(27))) * _SECOND
    return np.asarray(value ^ (value >> np.uint64(31)))


def _bins(value: Floats) -> Hashes:
    return np.asarray(np.floor(value + _OFFSET).astype(np.int64).astype(np.uint64))


def _sums(values: Hashes, counts: npt.NDArray[np.int64]) -> Hashes:
    running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values, dtype=np.uint64)])
    ends = np.cumsum(counts)
    return np.asarray(running[ends] - running[ends - counts])


def _thickness(structures: Structures) -> Floats:
    """(systems,) volume of the periodic directions (length, area, volume), in units of 0.01 Å to that power."""
    vectors = np.where(structures.pbc[:, :, None], structures.cell, 0.0)
    gram = vectors @ vectors.transpose(0, 2, 1)
    gram += (~structures.pbc)[:, :, None] * np.eye(3)
    measure = np.sqrt(np.maximum(np.linalg.det(gram), 0.0))
    return np.asarray(np.where(structures.pbc.any(axis=1), measure, 0.0) / 0.01)


def _extent(structures: Structures) -> Floats:
    """(systems,) radius of gyration of structures that are not periodic, zero for others, in the resolution."""
    sizes, system = structures.sizes, structures.system
    centre = np.stack([np.bincount(system, structures.positions[:, i], len(structures)) for i in range(3)], axis=1)
    away = structures.positions - (centre / sizes[:, None])[system]
    spread = np.sqrt(np.bincount(system, (away**2).sum(axis=1), len(structures)) / sizes)
    return np.asarray(np.where(structures.pbc.any(axis=1), 0.0, spread) / RESOLUTION)


def _waves(structures: Structures) -> Hashes:
    """(systems,) sum over periodic directions of the hashed amplitude of the longest density wave along each.

    It tells apart what moves as a whole farther away than neighbours are looked for: molecules in a large box.
    """
    vectors = np.where(structures.pbc[:, :, None], structures.cell, 0.0)
    fractions = np.einsum("ai,aij->aj", structures.positions, np.linalg.pinv(vectors)[structures.system])
    waves = structures.species[:, None] * np.exp(2j * np.pi * fractions)
    starts = structures.offsets[:-1]
    amplitude = np.abs(np.add.reduceat(waves, starts, axis=0)) / np.add.reduceat(structures.species, starts)[:, None]
    length = np.linalg.norm(vectors, axis=2)
    hashes = _mixed(_bins(amplitude * length / RESOLUTION) + _SECOND)
    return np.asarray(np.where(structures.pbc, hashes, np.uint64(0)).sum(axis=1, dtype=np.uint64))

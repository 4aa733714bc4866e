"""A floor under the distances of made structures, and the pairs of atoms of a structure."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from ase.data import covalent_radii

from phystrain.data.structures import Floats, Ints, Structures
from phystrain.neighbours import neighbour_list

REDRAWS = 10
HALVINGS = 40
_SLACK = 1e-9


@dataclass(frozen=True)
class Pairs:
    """Pairs of different atoms, images included, each once, ascending in distance.

    Attributes:
        first, second: (pairs,) atoms.
        vectors: (pairs, 3) Å, from the first to the image of the second.
        distances: (pairs,) Å.
    """

    first: Ints
    second: Ints
    vectors: Floats
    distances: Floats


class Frame:
    """One structure of a set, and the floor under its distances.

    Args:
        structures: the set.
        index: number of the structure.
        fraction: floor as a fraction of the sum of the covalent radii.

    Attributes:
        positions: (atoms, 3) Å.
        species: (atoms,).
        cell: (3, 3) Å.
        pbc: (3,).
    """

    def __init__(self, structures: Structures, index: int, fraction: float) -> None:
        part = slice(structures.offsets[index], structures.offsets[index + 1])
        self.positions, self.species = structures.positions[part], structures.species[part]
        self.cell, self.pbc = structures.cell[index], structures.pbc[index]
        self._floor_radii = fraction * covalent_radii[self.species]

    @property
    def widest_floor(self) -> float:
        """Å, largest floor that any pair can have."""
        return 2 * float(self._floor_radii.max())

    def floors(self, first: Ints, second: Ints, distances: Floats) -> Floats:
        """(pairs,) Å below which pairs of these distances must not fall."""
        return np.minimum(self._floor_radii[first] + self._floor_radii[second], distances)

    def pairs(self, radius: float) -> Pairs:
        """Pairs up to a radius (Å). An atom keeps its distance to its own images, so those are not listed."""
        (first, second), shifts = neighbour_list(self.positions, self.cell, self.pbc, radius)
        once = first < second
        first, second, shifts = first[once], second[once], shifts[once]
        vectors = self.positions[second] - self.positions[first] + shifts @ self.cell
        distances = np.linalg.norm(vectors, axis=1)
        # Equal distances in a crystal differ by rounding: without it, the order would depend on the machine.
        order = np.lexsort((shifts[:, 2], shifts[:, 1], shifts[:, 0], second, first, distances.round(6)))
        return Pairs(first[order], second[order], vectors[order], distances[order])

    def offending(self, positions: Floats, cell: Floats | None = None) -> Ints:
        """Atoms that are below their floor in a changed geometry, own images included, if the cell changes.

        Args:
            positions: (atoms, 3) Å, not wrapped.
            cell: (3, 3) Å, if it changes too.
        """
        reach = self.widest_floor
        (first, second), shifts = neighbour_list(positions, self.cell if cell is None else cell, self.pbc, reach)
        if not len(first):
            return first
        distances = _distances(positions, first, second, shifts, self.cell if cell is None else cell)
        before = _distances(self.positions, first, second, shifts, self.cell)
        low = distances < self.floors(first, second, before) - _SLACK
        return np.unique(first[low])

    def held(self, draw: Callable[[], Floats]) -> tuple[Floats, bool]:
        """A displacement, (atoms, 3) Å, such that no pair falls below its floor.

        Drawn again if need be; where it is crowded, the moves of the atoms that are too close are halved until they
        are not. No moves at all are always allowed.

        Args:
            draw: gives a displacement.

        Returns:
            displacement: (atoms, 3) Å.
            limited: whether the first one would not do.
        """
        displacement, atoms = np.zeros_like(self.positions), np.empty(0, dtype=np.int64)
        for attempt in range(REDRAWS):
            displacement = draw()
            atoms = self.offending(self.positions + displacement)
            if not len(atoms):
                return displacement, attempt > 0
        for _ in range(HALVINGS):
            displacement[atoms] /= 2
            atoms = self.offending(self.positions + displacement)
            if not len(atoms):
                return displacement, True
        return np.zeros_like(displacement), True


def closest_disjoint(first: Ints, second: Ints, distances: Floats, atoms: int, wanted: int) -> Ints:
    """Numbers of the closest pairs that share no atom, taken greedily.

    Args:
        first, second: (pairs,) atoms of each pair; pairs of an atom with itself are ignored.
        distances: (pairs,) Å, ascending, of the minimum image or of every image. Pairs at 0 Å are ignored: they have
            no direction.
        atoms: how many there are.
        wanted: pairs to find; fewer are returned if there are no more.
    """
    free = np.ones(atoms, dtype=bool)
    left = np.flatnonzero((first != second) & (distances > 1e-6))
    chosen: list[int] = []
    while len(chosen) < wanted and len(left):
        pair = int(left[0])
        chosen.append(pair)
        free[[first[pair], second[pair]]] = False
        left = left[free[first[left]] & free[second[left]]]
    return np.array(chosen, dtype=np.int64)


def _distances(positions: Floats, first: Ints, second: Ints, shifts: npt.NDArray[np.float64], cell: Floats) -> Floats:
    return np.asarray(np.linalg.norm(positions[second] - positions[first] + shifts @ cell, axis=1))

"""How far structures are from those that a potential was trained on, atom by atom.

The surroundings of an atom are described by sums over its neighbours of each element, in shells of the distance: how
many there are, and the lengths of their dipole and quadrupole, which see angles (the power spectrum of the neighbour
density up to l = 2; Bartók, Kondor, Csányi 2013, doi:10.1103/PhysRevB.87.184115, by shells and without cross terms).
Descriptors are the same for surroundings that are moved, turned or mirrored. The distance of an atom is that to the
nearest training atom of its element, in units of the distance that nearly all training atoms keep to the nearest atom
of another training structure. So 1 is the rim of what is known: of structures that are like the training data, two
atoms in a hundred lie beyond it. A structure is as far as its farthest atom.
"""

from typing import NamedTuple

import numpy as np
from ase.data import covalent_radii

from phystrain.data.graphs import GraphStore
from phystrain.data.structures import Floats, Ints, Structures
from phystrain.errors import UserError

SHELLS = 6
"""Shells of distance in a descriptor."""

MOST = 4000
"""Training atoms of each element that are kept, drawn at random."""

MOST_STRUCTURES = 2000
"""Training structures that are looked at, drawn at random."""

RIM = 0.98
"""Fraction of training atoms that are nearer to another training structure than one unit."""

_CHUNK = 500  # atoms whose distances to all training atoms are held at a time


class _Known(NamedTuple):
    """Training atoms of one element.

    Attributes:
        points: (atoms, features) descriptors.
        unit: length of these that counts as 1.
    """

    points: Floats
    unit: float


class Novelty:
    """Distances from training structures; see the module.

    Args:
        train: structures that a potential was trained on, two at least.
        cutoff: Å up to which neighbours count; three times the largest covalent radius, 4 Å at least, if not given.
        seed: of the choice of atoms where there are many.

    Raises:
        UserError: fewer than two structures.
    """

    def __init__(self, train: Structures, cutoff: float | None = None, seed: int = 0) -> None:
        if len(train) < 2:
            raise UserError("distances from the training structures need two of these at least")
        self.elements = np.array(train.elements)
        largest = float(covalent_radii[self.elements].max())
        self.cutoff = max(4.0, 3.0 * largest) if cutoff is None else cutoff
        generator = np.random.default_rng(seed)
        if len(train) > MOST_STRUCTURES:
            train = train.select(np.sort(generator.choice(len(train), MOST_STRUCTURES, replace=False)))
        descriptors = self._descriptors(train)
        self._known: dict[int, _Known] = {}
        for element in self.elements.tolist():
            of_element = np.flatnonzero(train.species == element)
            if not len(of_element):
                continue  # only in structures that were not drawn: infinitely far, like other elements
            if len(of_element) > MOST:
                of_element = np.sort(generator.choice(of_element, MOST, replace=False))
            self._known[element] = _known(descriptors[of_element], train.system[of_element])

    def atoms(self, structures: Structures) -> Floats:
        """(atoms,) distance of each atom, 1 being the rim of the training data; infinite for other elements."""
        found = np.full(len(structures.species), np.inf)
        if not len(structures):
            return found
        descriptors = self._descriptors(structures)
        strange = self._strange_neighbours(structures)
        for element, known in self._known.items():
            chosen = np.flatnonzero(structures.species == element)
            found[chosen] = _nearest(descriptors[chosen], known.points) / known.unit
        found[strange] = np.inf
        return found

    def structures(self, structures: Structures) -> Floats:
        """(systems,) distance of the farthest atom of each structure."""
        return np.maximum.reduceat(self.atoms(structures), structures.offsets[:-1]) if len(structures) else np.empty(0)

    def _strange_neighbours(self, structures: Structures) -> Ints:
        """Atoms in structures with an element that the training data lacks: nothing is known of those either."""
        strange = np.bincount(
            structures.system, weights=~np.isin(structures.species, self.elements), minlength=len(structures)
        )
        return np.flatnonzero(strange[structures.system] > 0)

    def _descriptors(self, structures: Structures) -> Floats:
        """(atoms, 3 * elements * SHELLS) of all atoms."""
        n = len(self.elements)
        kind = np.searchsorted(self.elements, structures.species).clip(max=n - 1)
        known = np.isin(structures.species, self.elements)
        centres = np.linspace(0.0, self.cutoff, SHELLS + 2)[1:-1]
        width = centres[0]
        found = np.zeros((len(structures.species), n, SHELLS, 3))
        for (centre, neighbour), vectors in GraphStore(structures, self.cutoff).pairs(200_000):
            kept = known[neighbour]
            middle, other, arms = centre[kept], kind[neighbour[kept]], vectors[kept]
            distance = np.sqrt(np.square(arms).sum(axis=1))
            unit = arms / distance[:, None].clip(min=1e-9)
            inside = 0.5 * (1 + np.cos(np.pi * np.minimum(distance / self.cutoff, 1.0)))
            shells = np.exp(-np.square((distance[:, None] - centres) / width)) * inside[:, None]
            x, y, z = unit.T
            # real harmonics, so normed that the squares of each degree have unit sum
            quadrupole = [
                np.sqrt(3) * x * y,
                np.sqrt(3) * y * z,
                np.sqrt(3) * x * z,
                np.sqrt(3) / 2 * (x * x - y * y),
                1.5 * z * z - 0.5,
            ]
            first = int(middle[0]) if len(middle) else 0
            rows = (int(middle[-1]) - first + 1) if len(middle) else 0
            slot = (middle - first) * n + other

            def summed(values: Floats, slot: Ints = slot, rows: int = rows) -> Floats:
                columns = [np.bincount(slot, weights=column, minlength=rows * n) for column in values.T]
                return np.stack(columns, axis=1).astype(np.float64).reshape(rows, n, SHELLS)

            block = found[first : first + rows]
            block[..., 0] += summed(shells)
            for degree, parts in ((1, [x, y, z]), (2, quadrupole)):
                sums = np.stack([summed(shells * part[:, None]) for part in parts])
                block[..., degree] += np.linalg.norm(sums, axis=0)
        return found.reshape(len(found), -1)


def _known(descriptors: Floats, system: Ints) -> _Known:
    """Training atoms of an element, and their unit of length.

    Args:
        descriptors: (atoms, features).
        system: (atoms,) structure of each.
    """
    nearest = _nearest(descriptors, descriptors, (system, system))
    nearest = nearest[np.isfinite(nearest)]
    # where all training atoms are alike, one per cent of a descriptor stands in
    least = 0.01 * max(float(np.linalg.norm(descriptors, axis=1).mean()), 1e-6)
    unit = float(np.quantile(nearest, RIM)) if len(nearest) else 0.0
    return _Known(descriptors, max(unit, 0.1 * least) if unit > 0 else least)


def _nearest(points: Floats, known: Floats, system: tuple[Ints, Ints] | None = None) -> Floats:
    """(points,) distance to the nearest known one, of another structure if the structures are given."""
    squares = np.square(known).sum(axis=1)
    found = np.empty(len(points))
    for start in range(0, len(points), _CHUNK):
        part = slice(start, start + _CHUNK)
        distance = squares - 2 * points[part] @ known.T
        if system is not None:
            distance[system[0][part, None] == system[1]] = np.inf
        found[part] = distance.min(axis=1)
    return np.asarray(np.sqrt((found + np.square(points).sum(axis=1)).clip(min=0.0)))

"""Bonds of a structure, one of each kind, for the tests that compress or stretch them."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from ase.data import covalent_radii
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from phystrain.data.structures import Floats, Structures
from phystrain.dynamics.guards import BOND_FACTOR
from phystrain.neighbours import neighbour_list
from phystrain.statistics import pair_label


class Bond(NamedTuple):
    """Two atoms of one structure.

    Attributes:
        elements: atomic numbers, ascending.
        first, second: atoms.
        vector: (3,) Å from the first to the second, or its image.
        length: Å.
    """

    elements: tuple[int, int]
    first: int
    second: int
    vector: Floats
    length: float

    @property
    def radii(self) -> float:
        """Å, sum of covalent radii."""
        return float(covalent_radii[self.elements[0]] + covalent_radii[self.elements[1]])

    @property
    def label(self) -> str:
        """Such as ``O-Si``."""
        return pair_label(*self.elements)


def shortest_bonds(structure: Structures) -> list[Bond]:
    """The shortest bond of each pair of elements in one structure; if nothing is bonded, the closest pair.

    Args:
        structure: a set of one.
    """
    species, radii = structure.species, covalent_radii[structure.species]
    reach = 2 * BOND_FACTOR * float(radii.max())
    edges, shifts = neighbour_list(structure.positions, structure.cell[0], structure.pbc[0], 2 * reach)
    vectors = structure.positions[edges[1]] - structure.positions[edges[0]] + shifts @ structure.cell[0]
    apart = edges[0] < edges[1]  # an atom and its own image cannot approach each other
    edges, vectors = edges[:, apart], vectors[apart]
    lengths = np.linalg.norm(vectors, axis=1)
    contact = lengths / radii[edges].sum(axis=0)
    if not len(contact):
        return []
    kinds = np.sort(species[edges], axis=0)
    bonded = contact < BOND_FACTOR
    if not bonded.any():
        bonded = contact == contact.min()
    chosen = np.flatnonzero(bonded)
    chosen = chosen[np.lexsort((lengths[chosen], kinds[1, chosen], kinds[0, chosen]))]
    _, places = np.unique(kinds[:, chosen], axis=1, return_index=True)  # the first of each kind is its shortest
    return [
        Bond(
            (int(kinds[0, pair]), int(kinds[1, pair])),
            int(edges[0, pair]),
            int(edges[1, pair]),
            vectors[pair],
            float(lengths[pair]),
        )
        for pair in chosen[places]
    ]


def beyond(structure: Structures, bond: Bond) -> npt.NDArray[np.bool_] | None:
    """(atoms,) the part of a structure in vacuum that hangs on the second atom of a bond; ``None`` in rings and cells.

    Args:
        structure: a set of one.
        bond: between two of its atoms.
    """
    if structure.pbc.any():
        return None
    radii = covalent_radii[structure.species]
    reach = 2 * BOND_FACTOR * float(radii.max())
    edges, _ = neighbour_list(structure.positions, structure.cell[0], structure.pbc[0], reach)
    lengths = np.linalg.norm(structure.positions[edges[1]] - structure.positions[edges[0]], axis=1)
    ends = np.sort(edges, axis=0)
    kept = (lengths < BOND_FACTOR * radii[edges].sum(axis=0)) & ~(
        (ends[0] == min(bond.first, bond.second)) & (ends[1] == max(bond.first, bond.second))
    )
    size = len(radii)
    graph = coo_array((np.ones(int(kept.sum())), (edges[0, kept], edges[1, kept])), shape=(size, size))
    _, part = connected_components(graph, directed=False)
    return None if part[bond.first] == part[bond.second] else np.asarray(part == part[bond.second])

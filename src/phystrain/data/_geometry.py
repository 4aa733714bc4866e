"""Geometry that no potential can be trained on, and geometry that is merely suspicious."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from ase.data import chemical_symbols, covalent_radii

from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.neighbours import neighbour_list

COINCIDENT = 1e-3
"""Å: atoms nearer than this are one atom written twice."""

CLOSE = 0.6
"""Atoms nearer than this multiple of the sum of their covalent radii are remarked upon."""

FLAT = 0.1
"""Å: a periodic cell thinner than this is no cell."""


@dataclass(frozen=True)
class Contacts:
    """Pairs of atoms that are suspiciously close, nearest first.

    Attributes:
        structure: (pairs,) number of the structure.
        atoms: (pairs, 2) numbers of the atoms within it, ascending; equal for an atom and its own image.
        distance: (pairs,) Å, periodic images included.
        ratio: (pairs,) distance over the sum of the covalent radii.
    """

    structure: npt.NDArray[np.int64]
    atoms: npt.NDArray[np.int64]
    distance: npt.NDArray[np.float64]
    ratio: npt.NDArray[np.float64]


def heights(structures: Structures) -> npt.NDArray[np.float64]:
    """(systems, 3) Å, thickness of each cell along its periodic directions; infinite along the others."""
    result = np.full((len(structures), 3), np.inf)
    for pattern in np.unique(structures.pbc, axis=0):
        count = int(pattern.sum())
        if count == 0:
            continue
        members = np.flatnonzero((structures.pbc == pattern).all(axis=1))
        vectors = structures.cell[members][:, pattern]
        result[np.ix_(members, np.flatnonzero(pattern))] = _thickness(vectors)
    return result


def _thickness(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(n, k) distance of each of k vectors from the span of the others; (n, k, 3)."""
    count = vectors.shape[1]
    result = np.empty(vectors.shape[:2])
    for index in range(count):
        vector, others = vectors[:, index], np.delete(vectors, index, axis=1)
        # an orthonormal basis of the others; flat cells give a zero height below whatever it is
        basis = np.linalg.svd(others, full_matrices=False)[2] if count > 1 else others
        inside = np.einsum("nki,ni->nk", basis, vector)
        rest = vector - np.einsum("nk,nki->ni", inside, basis)
        result[:, index] = np.linalg.norm(rest, axis=1)
    return result


def require_sound(structures: Structures, where: list[str]) -> None:
    """Refuse elements that do not exist and periodic cells without thickness.

    Args:
        structures: to look at.
        where: place of each for messages.

    Raises:
        UserError: names the first frame, and the mend.
    """
    wrong = np.flatnonzero((structures.species < 1) | (structures.species >= len(chemical_symbols)))
    if len(wrong):
        index = int(structures.system[wrong[0]])
        number, atom = int(structures.species[wrong[0]]), int(wrong[0] - structures.offsets[index])
        raise UserError(
            f"{where[index]}: atom {atom} has atomic number {number}, a ghost or padding. Remove such atoms."
        )
    thin = np.flatnonzero((heights(structures) < FLAT).any(axis=1))
    if len(thin):
        raise UserError(
            f"{where[thin[0]]}: periodic, but its cell {structures.cell[thin[0]].tolist()} has no volume. "
            'Give the Lattice in Å, or pbc="F F F".'
        )


def contacts(structures: Structures) -> Contacts:
    """All pairs of atoms nearer than :data:`CLOSE` times the sum of their covalent radii (Cordero et al. 2008)."""
    radii = covalent_radii[structures.species]
    numbers, pairs, distances = [np.empty(0, np.int64)], [np.empty((0, 2), np.int64)], [np.empty(0)]
    for index in range(len(structures)):
        part = slice(structures.offsets[index], structures.offsets[index + 1])
        positions, cell = structures.positions[part], structures.cell[index]
        if len(positions) == 1 and not structures.pbc[index].any():
            continue
        reach = 2 * CLOSE * float(radii[part].max())
        edges, shifts = neighbour_list(positions, cell, structures.pbc[index], reach)
        vectors = positions[edges[1]] - positions[edges[0]] + shifts @ cell
        distance = np.sqrt((vectors**2).sum(axis=1))
        close = (distance < CLOSE * (radii[part][edges[0]] + radii[part][edges[1]])) & (edges[0] <= edges[1])
        if close.any():
            numbers.append(np.full(int(close.sum()), index))
            pairs.append(edges[:, close].T)
            distances.append(distance[close])
    structure, atoms, distance = np.concatenate(numbers), np.concatenate(pairs), np.concatenate(distances)
    ratio = distance / radii[structures.offsets[structure][:, None] + atoms].sum(axis=1)
    order = np.argsort(ratio, kind="stable")
    return Contacts(structure[order], atoms[order], distance[order], ratio[order])


def describe(structures: Structures, found: Contacts, pair: int) -> str:
    """``atoms 0 and 1 (H, O) are 0.3 Å apart``, for the pair of that number."""
    start = structures.offsets[found.structure[pair]]
    first, second = found.atoms[pair]
    symbols = ", ".join(chemical_symbols[structures.species[start + atom]] for atom in (first, second))
    return f"atoms {first} and {second} ({symbols}) are {found.distance[pair]:.3g} Å apart"

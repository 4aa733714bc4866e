"""Which structures to label next: those that models trained alike disagree about, no two of them alike.

A structure is as uncertain as its most uncertain atom, as in DP-GEN (Zhang et al. 2020, doi:10.1016/j.cpc.2020.107206):
one place that the labels do not cover is enough to spoil dynamics. A structure whose most uncertain atom has the
surroundings of any atom of a chosen structure is left out: a label of that one teaches what a label of it would. Where
too few are left, the farthest of the others come in.
"""

from typing import NamedTuple

import numpy as np
from ase.data import covalent_radii
from scipy.spatial.distance import cdist

from phystrain.data.graphs import GraphStore
from phystrain.data.structures import Floats, Ints, Structures

REACH = 5.0
"""Å up to which neighbours are compared."""

NEAREST = 8
"""Neighbours of each element that are compared."""

APART = 0.1
"""Å by which the surroundings of two structures differ that are not alike, if there are enough of them."""

LEAST = 0.025
"""The same where there are not: at 300 K the atoms of a metal have surroundings that differ by no more."""


class Ranking(NamedTuple):
    """What is chosen of a set.

    Attributes:
        chosen: numbers of structures, most uncertain first.
        alike: structures that are like a chosen one.
        close: how many of the chosen ones are nearer to another one than :data:`APART`, for want of others.
    """

    chosen: Ints
    alike: int
    close: int


def rank(structures: Structures, spread: Floats, count: int, apart: float | None = None) -> Ranking:
    """The most uncertain structures, no two of them alike.

    Where no distance is given and :data:`APART` leaves too few, as in a stiff crystal, those join that are nearer, by
    spread times distance to what is chosen: what is new counts as much as how little is known of it.

    Args:
        structures: to choose from.
        spread: (atoms,) eV/Å.
        count: how many, at most.
        apart: Å; a structure is like a chosen one if the distances around its most uncertain atom differ by less, as a
            root mean square, from those around any atom of the same element there. :data:`APART` if not given.
    """
    worst = worst_atoms(structures, spread)
    elements = np.array(structures.elements)
    around = surroundings(structures, worst, elements)
    uncertain = spread[worst]
    nearest = np.full(len(structures), np.inf)  # of the chosen
    waiting = np.ones(len(structures), dtype=bool)
    limit, least = (APART, LEAST) if apart is None else (apart, apart)
    chosen: list[int] = []
    close = 0
    while len(chosen) < count:
        if (free := waiting & (nearest >= limit)).any():
            number = int(np.where(free, uncertain, -np.inf).argmax())
        elif (free := waiting & (nearest >= least)).any():
            number = int(np.where(free, uncertain * nearest, -np.inf).argmax())
            close += 1
        else:
            break
        chosen.append(number)
        waiting[number] = False
        known = np.arange(structures.offsets[number], structures.offsets[number + 1])
        taught = surroundings(structures.select([number]), known - known[0], elements)
        for element in elements[np.isin(elements, structures.species[known])]:
            asked = np.flatnonzero(waiting & (structures.species[worst] == element))
            there = taught[structures.species[known] == element]
            nearest[asked] = np.minimum(nearest[asked], difference(around[asked], there).min(axis=1))
    order = np.array(sorted(chosen, key=lambda number: -uncertain[number]), dtype=np.int64)
    return Ranking(order, int((waiting & (nearest < least)).sum()), close)


def difference(first: Floats, second: Floats) -> Floats:
    """(first, second) Å, between surroundings: root mean square over the neighbours that either of two atoms has.

    Places that are empty around both would only make two atoms of a molecule, with few neighbours, more alike.

    Args:
        first, second: (atoms, numbers) Å, of :func:`surroundings`.
    """
    empty = [(numbers >= REACH).astype(np.float64) for numbers in (first, second)]
    there = first.shape[1] - empty[0] @ empty[1].T
    return np.asarray(np.sqrt(cdist(first, second, "sqeuclidean") / there.clip(min=1)))


def worst_atoms(structures: Structures, spread: Floats) -> Ints:
    """(systems,) the atom with the largest spread of each structure, as a number among all atoms."""
    by_system = np.lexsort((-spread, structures.system))
    return np.asarray(by_system[structures.offsets[:-1]])


def surroundings(structures: Structures, atoms: Ints, elements: Ints) -> Floats:
    """(chosen atoms, numbers) Å: sorted distances from some atoms to their nearest neighbours of every element.

    Args:
        structures: any.
        atoms: (chosen atoms,) as numbers among all atoms.
        elements: (elements,) atomic numbers, ascending; all that occur, or more.
    """
    store = GraphStore(structures, REACH)
    distances = np.full((len(atoms), len(elements), NEAREST), REACH)
    place = np.full(len(structures.species), -1)
    place[atoms] = np.arange(len(atoms))
    for (centre, neighbour), vectors in store.pairs():
        near = place[centre] >= 0
        row = place[centre[near]]
        column = np.searchsorted(elements, structures.species[neighbour[near]])
        length = np.linalg.norm(vectors[near], axis=1)
        order = np.lexsort((length, column, row))
        row, column, length = row[order], column[order], length[order]
        _, first, counts = np.unique(row * len(elements) + column, return_index=True, return_counts=True)
        order_within = np.arange(len(row)) - np.repeat(first, counts)
        kept = order_within < NEAREST
        distances[row[kept], column[kept], order_within[kept]] = length[kept]
    return distances.reshape(len(atoms), -1)


def closest(structures: Structures) -> Floats:
    """(systems,) shortest distance as a fraction of the sum of covalent radii; infinite for a lone atom."""
    radii = covalent_radii[structures.species]
    store = GraphStore(structures, 2 * float(radii.max()))
    shortest = np.full(len(structures), np.inf)
    for (centre, neighbour), vectors in store.pairs():
        fraction = np.linalg.norm(vectors, axis=1) / (radii[centre] + radii[neighbour])
        np.minimum.at(shortest, structures.system[centre], fraction)
    return shortest

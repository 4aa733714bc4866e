"""Which structures to label next: those that models trained alike disagree about, no two of them alike.

A structure is as uncertain as its most uncertain atom, as in DP-GEN (Zhang et al. 2020, doi:10.1016/j.cpc.2020.107206):
one place that the labels do not cover is enough to spoil dynamics. A structure whose most uncertain atom has the
surroundings of any atom of a chosen structure is left out: a label of that one teaches what a label of it would.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from scipy.spatial.distance import cdist

from phystrain.allocator import keep_memory
from phystrain.data.graphs import GraphStore
from phystrain.data.read import read
from phystrain.data.structures import Floats, Ints, Structures
from phystrain.data.write import write
from phystrain.errors import UserError
from phystrain.preflight import require_new
from phystrain.saving import load_model
from phystrain.uncertainty.ensemble import load_ensemble

REACH = 5.0
"""Å up to which neighbours are compared."""

NEAREST = 8
"""Neighbours of each element that are compared."""


class Ranking(NamedTuple):
    """What is chosen of a set.

    Attributes:
        chosen: numbers of structures, most uncertain first.
        alike: structures that are like a chosen one.
    """

    chosen: Ints
    alike: int


def rank_structures(
    path: Path,
    data: Path,
    *,
    count: int = 20,
    output: Path = Path("next.xyz"),
    apart: float = 0.1,
    contact: float = 0.5,
    say: Callable[[str], None] = print,
) -> Structures:
    """Choose structures to label next and write them, without labels, most uncertain first.

    Args:
        path: run folder or model file, with an ensemble.
        data: structures to choose from.
        count: how many, at most.
        output: file for them; ``info`` tells ``spread`` (eV/Å), ``atom`` (the most uncertain one) and ``source``
            (number in the file).
        apart: see :func:`rank`.
        contact: shortest distance, as a fraction of the sum of covalent radii, that a method could still label.
        say: told what was found.

    Raises:
        UserError: no ensemble, nothing to choose from, or the file cannot be written.
    """
    keep_memory()
    require_new(output, data)
    if count < 1:
        raise UserError(f"rank: count should be 1 or more, got {count}")
    model = load_model(path)
    ensemble = load_ensemble(model)
    everything = read(data).structures.without_labels()
    numbers = np.flatnonzero(closest(everything) >= contact)
    structures = everything.select(numbers)
    if not len(structures):
        raise UserError(f"every structure of {data} has atoms closer than {contact:g} of their radii: lower --contact")
    _, spread = ensemble.predict(structures)
    found = rank(structures, spread, count, apart)
    worst = worst_atoms(structures, spread)[found.chosen]
    best = structures.select(found.chosen)
    facts = {
        "spread": np.array([f"{value:.4f}" for value in spread[worst]]),
        "atom": (worst - structures.offsets[found.chosen]).astype(str),
        "source": numbers[found.chosen].astype(str),
    }
    best = replace(best, info=best.info | facts)
    write(best, output)
    say(f"{len(everything)} structures, {len(everything) - len(numbers)} left out for atoms too close")
    limit = None if ensemble.calibration is None else ensemble.calibration.largest
    if limit is not None:
        say(f"{int((_largest(structures, spread) > limit).sum())} are less certain than any held-out one")
    for number, (value, atom) in enumerate(zip(spread[worst], worst, strict=True)):
        source, symbol = facts["source"][number], chemical_symbols[structures.species[atom]]
        say(f"  {number + 1:3d}. structure {source}: {value:.3f} eV/Å on {symbol} (atom {facts['atom'][number]})")
    if len(best) < count:
        say(f"fewer than {count}: the other {found.alike} are within {apart:g} Å of a chosen one (--apart)")
    say(f"label next {output}")
    return best


def rank(structures: Structures, spread: Floats, count: int, apart: float) -> Ranking:
    """The most uncertain structures, no two of them alike.

    Args:
        structures: to choose from.
        spread: (atoms,) eV/Å.
        count: how many, at most.
        apart: Å; a structure is like a chosen one if the distances around its most uncertain atom differ by less, as a
            root mean square, from those around any atom of the same element there.
    """
    worst = worst_atoms(structures, spread)
    elements = np.array(structures.elements)
    around = surroundings(structures, worst, elements)
    chosen: list[int] = []
    free = np.ones(len(structures), dtype=bool)
    for number in np.argsort(-spread[worst], kind="stable").tolist():
        if len(chosen) == count:
            break
        if not free[number]:
            continue
        chosen.append(number)
        free[number] = False
        known = np.arange(structures.offsets[number], structures.offsets[number + 1])
        taught = surroundings(structures.select([number]), known - known[0], elements)
        for element in elements[np.isin(elements, structures.species[known])] if apart > 0 else ():
            asked = np.flatnonzero(free & (structures.species[worst] == element))
            there = taught[structures.species[known] == element]
            nearest = cdist(around[asked], there).min(axis=1) / np.sqrt(around.shape[1])
            free[asked] = nearest >= apart
    return Ranking(np.array(chosen, dtype=np.int64), len(structures) - len(chosen) - int(free.sum()))


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


def _largest(structures: Structures, spread: Floats) -> Floats:
    return np.asarray(np.maximum.reduceat(spread, structures.offsets[:-1]))

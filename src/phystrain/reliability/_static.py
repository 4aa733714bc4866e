"""What the static tests share: structures to look at, predictions of many copies, and noise."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, cast

import numpy as np
import torch
from ase.data import chemical_symbols
from pydantic import Field
from scipy.special import comb
from torch import nn

from phystrain.data._geometry import heights
from phystrain.data.graphs import GraphStore
from phystrain.data.structures import Floats, Ints, Structures, groups
from phystrain.derive import Potential, evaluate, placement
from phystrain.errors import UserError
from phystrain.reliability import Grade, ReliabilityTest, Subject

ORDER = 5
"""Of the differences by which jumps and noise are told from a smooth function."""

_FINE = 8  # order by which noise is told from a smooth function over longer steps
_JUMP = 6.0  # fifth difference of a step of one in the middle of six points


class StaticTest(ReliabilityTest):
    """Base of tests that look at many copies of a few structures."""

    structures: int = Field(default=2, ge=1, description="how many structures to look at")
    batch_atoms: int = Field(default=2000, ge=1, description="atoms evaluated at a time")


class Values(NamedTuple):
    """What a potential says of structures; not a number where something is not defined.

    Attributes:
        energy: (systems,) eV.
        forces: (atoms, 3) eV/Å; empty if not asked for.
        stress: (systems, 3, 3) eV/Å³; empty if not asked for.
    """

    energy: Floats
    forces: Floats
    stress: Floats


ROOM = 300.0
"""K, by which static findings are weighed where no temperature was given; nothing runs at it."""


def structures_of(subject: Subject, kind: str, count: int, *, rattle: float = 0.0) -> Structures:
    """Structures of more than one atom to look at, unlabelled: of ``start``, else ``test``, else ``train``.

    Args:
        subject: under test.
        kind: of the test, for the message.
        count: how many, equally spaced in the set.
        rattle: Å, random displacement of every atom: forces of perfect crystals are zero whatever is wrong.

    Raises:
        UserError: there is no structure.
    """
    for source in (subject.start, subject.test, subject.train):
        if source is not None and len(source):
            bodies = source.select((source.sizes > 1) | source.pbc.any(axis=1)).without_labels()
            if len(bodies):
                chosen = bodies.select(evenly(len(bodies), count))
                noise = np.random.default_rng(subject.seed).normal(size=chosen.positions.shape)
                return replace(chosen, positions=chosen.positions + rattle * noise, info={})
    raise UserError(f"{kind}: there is no structure to look at; give a start or a test structure")


def predict(potential: nn.Module, structures: Structures, batch_atoms: int, *want: str) -> Values:
    """Energies and what else is asked for, in batches of consecutive structures.

    Args:
        potential: on its device and in its precision.
        structures: any.
        batch_atoms: atoms evaluated at a time.
        want: ``forces``, ``stress``.
    """
    device, dtype = placement(potential)
    model = cast(Potential, potential)
    batches = groups(structures.sizes, batch_atoms)
    # lists are made batch by batch: those of all structures at once may not fit into memory
    found = [
        evaluate(model, store.graph(np.arange(len(store)), dtype).to(device), ("energy", *want))
        for store in (GraphStore(structures.select(batch), max(model.cutoff, 0.1)) for batch in batches)
    ]
    parts = [
        [value.to(torch.float64).cpu().numpy() for value in column if value is not None]
        for column in zip(*found, strict=True)
    ]
    return Values(*(np.concatenate(part) if part else np.empty(0) for part in parts))


def energies_of(potential: nn.Module, structures: Structures, batch_atoms: int) -> Floats:
    """(systems,) eV."""
    return predict(potential, structures, batch_atoms).energy


def copies_at(structure: Structures, positions: Floats, cells: Floats | None = None) -> Structures:
    """Copies of one structure at other positions.

    Args:
        structure: a set of one.
        positions: (copies, atoms, 3) Å.
        cells: (copies, 3, 3) Å; that of the structure if not given.
    """
    copies = structure.select(np.zeros(len(positions), dtype=np.int64))
    return replace(copies, positions=positions.reshape(-1, 3), cell=copies.cell if cells is None else cells)


def opened(structure: Structures) -> Structures:
    """The atoms of a structure without their periodic images."""
    return replace(structure, pbc=np.zeros_like(structure.pbc), cell=np.zeros_like(structure.cell))


def cluster(species: Ints, positions: Floats) -> Structures:
    """A set of one structure in vacuum; species (atoms,), positions (atoms, 3) Å."""
    nothing = np.full((1, 3, 3), np.nan)
    return Structures(
        positions=positions,
        species=species,
        offsets=np.array([0, len(species)]),
        cell=np.zeros((1, 3, 3)),
        pbc=np.zeros((1, 3), dtype=bool),
        energy=np.array([np.nan]),
        forces=np.full_like(positions, np.nan),
        stress=nothing,
        weight=np.ones(1),
    )


def in_double(potential: nn.Module) -> nn.Module:
    """The potential in double precision on the CPU; itself if it is so already."""
    if placement(potential) == (torch.device("cpu"), torch.float64):
        return potential
    return copy.deepcopy(potential).to("cpu", torch.float64)


def jumps_of(values: Floats) -> Floats:
    """(points - 5, ...) size of a jump in the middle of each six successive points, equally spaced.

    Fifth differences: of a smooth function they fall with the fifth power of the spacing, of a jump they do not fall.

    Args:
        values: (points, ...).
    """
    return np.asarray(np.diff(values, n=ORDER, axis=0) / _JUMP)


def noise_of(values: Floats, order: int = ORDER) -> float:
    """Standard deviation of the noise of finely spaced values, by their differences; jumps do not count.

    Args:
        values: (points, ...).
        order: of the differences.
    """
    # differences of independent noise of standard deviation one have this one
    size = float(np.sqrt(comb(2 * order, order)))
    differences = np.diff(values, n=order, axis=0).reshape(len(values) - order, -1) / size
    return float(np.median(np.sqrt(np.square(differences).mean(axis=1))))


def rounding(
    potential: nn.Module, structure: Structures, batch_atoms: int, *, step: float = 5e-3, points: int = 28
) -> tuple[float, float]:
    """Noise of the energy (eV) and of the force components (eV/Å) while all atoms move a little.

    Where the potential has a lower precision it is compared with itself in double precision. One that is in double
    already may still round inside: then what is no smooth function of the place is noise.

    Args:
        potential: in the precision to look at.
        structure: a set of one.
        batch_atoms: atoms evaluated at a time.
        step: Å, so long that the energy changes by more than its last digit, and so short that what is smooth has no
            eighth differences.
        points: how many.
    """
    direction = np.random.default_rng(0).normal(size=structure.positions.shape)
    places = structure.positions + step * np.arange(points)[:, None, None] * direction
    copies = copies_at(structure, places)
    found = predict(potential, copies, batch_atoms, "forces")
    double = in_double(potential)
    if double is not potential:
        exact = predict(double, copies, batch_atoms, "forces")
        return float(np.std(found.energy - exact.energy)), float(np.sqrt(np.mean((found.forces - exact.forces) ** 2)))
    return noise_of(found.energy, _FINE), noise_of(found.forces.reshape(points, -1), _FINE)


def worst_grade(*grades: Grade) -> Grade:
    """The worst; ``safe`` if there are none."""
    order: tuple[Grade, ...] = ("safe", "limited", "unsafe")
    return order[max((order.index(grade) for grade in grades), default=0)]


def formula(structures: Structures, number: int, count: int) -> str:
    """Name of a structure, such as ``Ar32 (1)``.

    Args:
        structures: that hold it.
        number: which of them.
        count: what to call it.
    """
    species = structures.species[structures.offsets[number] : structures.offsets[number + 1]]
    symbols, counts = np.unique(species, return_counts=True)
    parts = (
        f"{chemical_symbols[symbol]}{times if times > 1 else ''}"
        for symbol, times in zip(symbols.tolist(), counts.tolist(), strict=True)
    )
    return f"{''.join(parts)} ({count + 1})"


def widest_gap(single: Structures) -> float:
    """Å, the thickest layer without an atom's centre along any lattice direction of a periodic structure."""
    cell = single.cell[0]
    fractions = np.sort(np.linalg.solve(cell.T, single.positions.T).T % 1.0, axis=0)
    gaps = np.diff(fractions, axis=0, append=fractions[:1] + 1).max(axis=0)
    return float((gaps * heights(single)[0]).max())


def affordable(kinds: Sequence[str], atoms: Sequence[int], limit: int, least: int) -> list[int]:
    """Numbers of what can be looked at: one of each kind before a second of any, as many as the effort allows.

    Args:
        kinds: of each.
        atoms: that are evaluated for each.
        limit: atoms in all.
        least: how many in any case.
    """
    turns = [kinds[:place].count(kind) for place, kind in enumerate(kinds)]
    order = np.argsort(turns, kind="stable")
    cost = np.cumsum(np.array(atoms)[order])
    return order[: max(least, int(np.searchsorted(cost, limit, side="right")))].tolist()


def evenly(total: int, most: int) -> Ints:
    """(chosen,) numbers below ``total``, evenly spaced, at most ``most``; the first and the last are among them."""
    return np.unique(np.linspace(0, total - 1, min(most, total)).astype(np.int64))


def finite(values: Floats) -> list[float | None]:
    """For curves: what is not finite is left out."""
    return [float(value) if np.isfinite(value) else None for value in values.ravel()]


def spread(values: Floats) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.square(values).mean())) if values.size else 0.0

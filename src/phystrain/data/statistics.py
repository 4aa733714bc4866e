"""Reference energies, distances and scales of a set of labelled structures."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from ase.data import atomic_numbers, chemical_symbols

from phystrain.data._geometry import heights
from phystrain.data.graphs import GraphStore
from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.registry import did_you_mean
from phystrain.statistics import Statistics, pair_name

Floats = npt.NDArray[np.float64]
Energies = Mapping[str | int, float | int] | Mapping[str, float] | Mapping[int, float]
CHOICES = ("auto", "isolated", "fit", "zero")

VACUUM = 8.0
"""Å: a single atom in a periodic cell thicker than this is isolated."""

IMPLAUSIBLE = 30.0
"""eV/atom: no binding energy is larger than this."""


_EDGES = 200_000
"""Edges that are looked at together: some 50 MB."""


class References(NamedTuple):
    """Energies of single atoms.

    Attributes:
        energies: eV by atomic number.
        source: ``given``, ``isolated``, ``fitted`` or ``zero``.
        warnings: what to know about them, one line each.
    """

    energies: dict[int, float]
    source: str
    warnings: tuple[str, ...] = ()


LEAST_FORCE = 1e-3
"""eV/Å. Forces with a smaller root mean square vanish by symmetry: their size says nothing about the data."""


def isolated(structures: Structures) -> npt.NDArray[np.bool_]:
    """(systems,) whether each structure is a single atom in vacuum.

    That is one atom which is not periodic, or is marked ``config_type=IsolatedAtom`` (any case, with or without
    underscore), or whose cell is thicker than :data:`VACUUM` along every periodic direction.
    """
    return np.concatenate([_isolated(block) for block in structures.blocks()])


def _isolated(structures: Structures) -> npt.NDArray[np.bool_]:
    single = structures.sizes == 1
    if not single.any():
        return single
    marked = np.zeros(len(structures), dtype=bool)
    if "config_type" in structures.info:
        kinds = np.char.replace(np.char.lower(structures.info["config_type"]), "_", "")
        marked = np.isin(kinds, ("isolatedatom", "isolatedatoms"))
    alone = (heights(structures) > VACUUM).all(axis=1)
    return np.asarray(single & (marked | alone))


def composition(structures: Structures, elements: Sequence[int] | None = None) -> npt.NDArray[np.int64]:
    """(systems, elements) number of atoms of each of ``elements``, by default ``structures.elements``."""
    known = np.array(structures.elements if elements is None else elements)
    return np.concatenate([_composition(block, known) for block in structures.blocks()])


def _composition(structures: Structures, elements: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    flat = structures.system * len(elements) + np.searchsorted(elements, structures.species)
    return np.bincount(flat, minlength=len(structures) * len(elements)).reshape(len(structures), len(elements))


def residuals(structures: Structures, energies: Mapping[int, float]) -> Floats:
    """(systems,) eV/atom, what remains of each energy after the references; not-a-number where not labelled."""
    elements = structures.elements
    single = np.array([energies[number] for number in elements])
    parts = [(block.energy - composition(block, elements) @ single) / block.sizes for block in structures.blocks()]
    return np.concatenate(parts)


def reference_energies(structures: Structures, given: Energies | str = "auto") -> References:
    """Energy of a single atom of every element.

    Args:
        structures: labelled structures, isolated atoms among them or not.
        given: energies in eV by symbol or atomic number; or ``isolated`` (from frames of single atoms), ``fit`` (least
            squares of the energies per atom, of minimum norm where compositions leave it open), ``zero``, or ``auto``:
            isolated atoms if every element has one, else the fit, else zero where there are no energies.

    Raises:
        UserError: an element without energy, an unknown symbol, or nothing to fit to.
    """
    elements = structures.elements
    if not isinstance(given, str):
        return _checked(structures, References(_named(given, elements), "given"))
    if given not in CHOICES:
        raise UserError(f"reference_energies cannot be {given!r}: {did_you_mean(given, CHOICES)}")
    single = isolated(structures) & structures.labelled("energy")
    present = set(structures.part(single).elements)
    missing = [chemical_symbols[number] for number in elements if number not in present]
    labelled = structures.labelled("energy") & ~single
    if given == "zero" or (given == "auto" and missing and not labelled.any()):
        return References(dict.fromkeys(elements, 0.0), "zero")
    if given == "isolated" and missing:
        raise UserError(
            f"no isolated atom of {', '.join(missing)} with an energy: add such frames, give reference_energies by "
            "element, or use 'fit'."
        )
    if given == "isolated" or (given == "auto" and not missing):
        return _checked(structures, _from_isolated(structures.select(single)))
    if not labelled.any():
        raise UserError("reference energies cannot be fitted: no structure has an energy.")
    return _fitted(structures.part(labelled), elements, [] if len(missing) == len(elements) else missing)


def compute(structures: Structures, cutoff: float, references: References) -> Statistics:
    """Everything a potential may know about the data.

    Isolated atoms count neither among the energies nor among the neighbours, unless there is nothing else.

    Args:
        structures: the training set.
        cutoff: Å, for the number of neighbours and the distances.
        references: energies of single atoms.
    """
    single = isolated(structures)
    body = np.full(len(structures), True) if single.all() else ~single
    nearest, shortest, edges = _distances(GraphStore(structures, cutoff, lists="built"), cutoff)
    remainder = residuals(structures, references.energies)[body]
    remainder = remainder[np.isfinite(remainder)]
    return Statistics(
        species=structures.elements,
        reference_energies=references.energies,
        reference_source=references.source,
        energy_mean=float(remainder.mean()) if len(remainder) else 0.0,
        energy_rms=_scale(remainder - remainder.mean()) if len(remainder) else 1.0,
        force_rms=_force_rms(structures),
        neighbours=edges / float(structures.sizes[body].sum()),
        cutoff=cutoff,
        nearest=nearest,
        shortest=shortest,
    )


def _force_rms(structures: Structures) -> float:
    """eV/Å over all components of labelled forces."""
    total, count = 0.0, 0
    for block in structures.blocks():
        forces = block.forces[np.isfinite(block.forces).all(axis=1)]
        total, count = total + float(np.sum(forces**2)), count + forces.size
    return _divisor(float(np.sqrt(total / count)) if count else 0.0, LEAST_FORCE)


def _scale(values: Floats) -> float:
    """Root mean square, to divide by."""
    return _divisor(float(np.sqrt(np.mean(values**2))) if values.size else 0.0)


def _divisor(rms: float, least: float = 1e-12) -> float:
    """1 in place of what is zero but for rounding."""
    return rms if rms > least else 1.0


def _distances(store: GraphStore, cutoff: float) -> tuple[dict[str, float], dict[str, float], int]:
    """Mean nearest and shortest distance by pair, and the number of edges, within ``cutoff``.

    Of the two means of a pair (a to its nearest b, b to its nearest a) the smaller is taken: an atom of a common
    element is often far from the nearest one of a rare element, and that is no bond.
    """
    elements = np.array(store.structures.elements)
    kinds = len(elements)
    total, count = np.zeros((kinds, kinds)), np.zeros((kinds, kinds))
    least, edges_found = np.full((kinds, kinds), np.inf), 0
    for block, edges, vectors in store.listed(_EDGES):
        column = np.searchsorted(elements, block.species)
        distance = np.sqrt((vectors**2).sum(axis=1))
        inside = distance < cutoff
        (centre, neighbour), distance = edges[:, inside], distance[inside]
        edges_found += len(distance)
        if not len(distance):
            continue
        start = int(centre.min())
        table = np.full((int(centre.max()) + 1 - start, kinds), np.inf)
        np.minimum.at(table, (centre - start, column[neighbour]), distance)
        seen = np.isfinite(table)
        own = column[start : start + len(table)]
        np.add.at(total, own, np.where(seen, table, 0.0))
        np.add.at(count, own, seen)
        np.minimum.at(least, own, table)
    with np.errstate(invalid="ignore"):
        mean = np.where(count > 0, total / np.maximum(count, 1), np.inf)
    nearest, shortest = {}, {}
    for first, second in itertools.combinations_with_replacement(range(kinds), 2):
        if np.isfinite(least[first, second]):
            name = pair_name(int(elements[first]), int(elements[second]))
            nearest[name] = float(min(mean[first, second], mean[second, first]))
            shortest[name] = float(min(least[first, second], least[second, first]))
    return nearest, shortest, edges_found


def _named(given: Energies, elements: tuple[int, ...]) -> dict[int, float]:
    """Energies by atomic number, of the elements that occur."""
    energies: dict[int, float] = {}
    for name, energy in given.items():
        text = str(name).strip()
        number = int(text) if text.isdigit() else atomic_numbers.get(text.capitalize(), 0)
        if not 0 < number < len(chemical_symbols):
            raise UserError(f"reference_energies: {text!r} is no element.")
        if not np.isfinite(energy):
            raise UserError(f"reference_energies: the energy of {text} is {energy}.")
        energies[number] = float(energy)
    missing = [chemical_symbols[number] for number in elements if number not in energies]
    if missing:
        raise UserError(f"reference_energies names no energy of {', '.join(missing)}, which the data contain: add it.")
    return {number: energies[number] for number in elements}


def _from_isolated(structures: Structures) -> References:
    """The lowest energy of each element among isolated atoms."""
    species, energy = structures.species, structures.energy
    energies, warnings = {}, []
    for number in structures.elements:
        own = energy[species == number]
        energies[number] = float(own.min())
        if np.ptp(own) > 1e-3:
            warnings.append(
                f"{len(own)} isolated {chemical_symbols[number]} atoms differ by {np.ptp(own):.3g} eV; "
                "the lowest is used"
            )
    return References(energies, "isolated", tuple(warnings))


def _fitted(structures: Structures, elements: tuple[int, ...], missing: list[str]) -> References:
    """Least squares of the energies per atom; of minimum norm where compositions leave it open."""
    present = structures.elements
    rows = np.empty((0, len(present) + 1))
    for block in structures.blocks():
        more = np.column_stack([composition(block, present), block.energy]) / block.sizes[:, None]
        # of many rows the triangle of their QR decomposition, which has the same least squares
        whole = len(more) == len(structures)
        rows = more if whole else np.asarray(np.linalg.qr(np.concatenate([rows, more]), "r"))
    solution, _, rank, _ = np.linalg.lstsq(rows[:, :-1], rows[:, -1], rcond=1e-7)
    energies = dict.fromkeys(elements, 0.0) | dict(zip(present, solution.tolist(), strict=True))
    warnings = []
    if rank < len(elements):
        warnings.append(
            f"compositions fix {rank} of {len(elements)} reference energies; the potential holds for such compositions "
            "only. Isolated-atom energies would lift that."
        )
    if missing:
        warnings.append(f"isolated atoms are not used because {', '.join(missing)} has none; energies are fitted")
    return References(energies, "fitted", tuple(warnings))


def _checked(structures: Structures, references: References) -> References:
    """Warn where references and energies cannot be of the same calculation."""
    rest = residuals(structures, references.energies)[~isolated(structures)]
    rest = rest[np.isfinite(rest)]
    if not len(rest) or abs(np.median(rest)) < IMPLAUSIBLE:
        return references
    warning = (
        f"energies lie {np.median(rest):.4g} eV/atom from the isolated atoms, which no binding explains: "
        "give references of the same level of theory and the same electrons"
    )
    return references._replace(warnings=(*references.warnings, warning))

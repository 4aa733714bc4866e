"""Classical potentials as files for LAMMPS; :mod:`phystrain.interfaces.lammps_library` checks them with LAMMPS itself.

Formats: setfl, ``pair_style eam/alloy`` and ``eam/fs``; ``pair_style table``; ``pair_style sw``. Energies are those of
``units metal``, eV and Å. LAMMPS interpolates tables by cubic polynomials, so the functions are tabulated finely enough
that energies of structures agree to 1e-6 eV an atom and forces to 1e-5 eV/Å.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ase.build import bulk
from ase.data import atomic_masses, chemical_symbols
from jaxtyping import Float
from torch import Tensor, nn

from phystrain import __version__
from phystrain.derive import evaluate
from phystrain.errors import UserError
from phystrain.files import write_text
from phystrain.graph import AtomGraph
from phystrain.interfaces.lammps_library import LammpsResult, evaluate_in_lammps, load_lammps
from phystrain.layers.embedded_atom import EmbeddedAtomPotential
from phystrain.layers.pair import PairPotential, covalent_distance
from phystrain.statistics import Statistics, pair_name

__all__ = ["LammpsResult", "evaluate_in_lammps", "load_lammps", "write_lammps"]

Array = npt.NDArray[np.float64]

SPACING = 5e-4
"""Å between the points of functions of the distance."""

DENSITIES = 20_000
"""Points of embedding functions."""

TABLE_POINTS = 20_000
"""Points of the table in the square of the distance that LAMMPS makes of a pair table."""

INNERMOST = 0.3
"""Å, below which tables are no longer those of the potential: energies go on in a straight line, densities stay."""

COMPRESSED = 0.8
"""Embedding functions reach to the density in a close-packed crystal whose bonds have this fraction of the shortest
distance in the data."""


@dataclass
class Terms:
    """The parts of a potential that LAMMPS sums up.

    Attributes:
        pairs: terms that are pair potentials.
        embedded: terms with an embedding energy.
        angular: terms of Stillinger and Weber's form.
        references: eV by atomic number, which LAMMPS does not add.
    """

    pairs: list[PairPotential] = field(default_factory=list)
    embedded: list[EmbeddedAtomPotential] = field(default_factory=list)
    angular: list[Any] = field(default_factory=list)
    references: dict[int, float] = field(default_factory=dict)


@torch.no_grad()
def write_lammps(
    potential: nn.Module, folder: Path | str, statistics: Statistics, *, spacing: float = SPACING
) -> list[Path]:
    """Write a classical potential, or a sum of such, for LAMMPS.

    ``in.potential`` holds the commands; the tables lie beside it.

    Args:
        potential: any sum of reference energies, pair potentials, angles of Stillinger and Weber and at most one
            embedded-atom potential.
        folder: for the files; made if need be, files of the same names in it are replaced.
        statistics: of the training data: elements, and the distances that decide how far the tables reach.
        spacing: Å between the points of functions of the distance.

    Returns:
        The files, ``in.potential`` first.

    Raises:
        UserError: a network, or another potential that LAMMPS has no style for.
    """
    folder = Path(folder)
    terms = Terms()
    _collect(copy.deepcopy(potential).to(torch.float64).eval(), terms)
    if len(terms.embedded) > 1 or len(terms.angular) > 1:
        kind = "embedded-atom" if len(terms.embedded) > 1 else "Stillinger-Weber"
        raise UserError(f"a potential with two {kind} terms cannot be written for LAMMPS: keep one of them.")
    if not (terms.pairs or terms.embedded or terms.angular):
        raise UserError("the potential has only reference energies: there is nothing to write for LAMMPS.")
    files: dict[str, str] = {}
    styles: list[tuple[str, str, list[tuple[str, str, str]]]] = []  # style, its arguments, (types, file, what)
    symbols = [chemical_symbols[number] for number in statistics.species]
    if terms.embedded:
        style, text = _setfl(terms.embedded[0], terms.pairs, statistics, spacing)
        name = f"potential.{style.replace('/', '.')}"
        files[name] = text
        styles.append((style, "", [("* *", name, " ".join(symbols))]))
    if terms.pairs and not terms.embedded:
        files["potential.table"], places = _pair_tables(terms.pairs, statistics, spacing)
        lines = [(types, "potential.table", keyword) for types, keyword in places]
        styles.append(("table", f" spline {TABLE_POINTS}", lines))
    if terms.angular:
        files["potential.sw"] = _stillinger_weber(terms.angular[0])
        styles.append(("sw", "", [("* *", "potential.sw", " ".join(symbols))]))
    written = {"in.potential": _commands(styles, statistics, terms.references)} | files
    for name, text in written.items():
        write_text(folder / name, text)
    return [folder / name for name in written]


def _collect(potential: nn.Module, terms: Terms) -> None:
    """Sort the parts of a potential.

    Told apart by what they have, because plug-ins are not imported by name.
    """
    inner = getattr(potential, "terms", None)
    if isinstance(inner, nn.ModuleDict):
        for term in inner.values():
            _collect(term, terms)
    elif getattr(potential, "additive", False) and isinstance(held := getattr(potential, "potential", None), nn.Module):
        _collect(held, terms)  # any other potential around one changes its energies
    elif isinstance(potential, PairPotential):
        terms.pairs.append(potential)
    elif isinstance(potential, EmbeddedAtomPotential):
        terms.embedded.append(potential)
    elif hasattr(potential, "lammps_entries"):
        terms.angular.append(potential)
    elif getattr(potential, "cutoff", None) == 0 and hasattr(potential, "energies"):
        for number, energy in zip(potential.species, potential.energies.tolist(), strict=True):  # type: ignore[operator, arg-type]
            terms.references[number] = terms.references.get(number, 0.0) + energy
    else:
        raise UserError(
            f"{type(potential).__name__} cannot be written for LAMMPS: only classical potentials and their sums can.\n"
            "All others run through ASE: phystrain.interfaces.ase.PhystrainCalculator.from_path(MODEL)."
        )


def _commands(
    styles: Sequence[tuple[str, str, list[tuple[str, str, str]]]], statistics: Statistics, references: dict[int, float]
) -> str:
    """Text of ``in.potential``."""
    symbols = [chemical_symbols[number] for number in statistics.species]
    types = ", ".join(f"{number} {symbol}" for number, symbol in enumerate(symbols, 1))
    energies = ", ".join(f"{chemical_symbols[z]} {energy:.8f}" for z, energy in sorted(references.items()))
    lines = [
        f"# Written by phystrain {__version__}. Needs units metal, atom_style atomic; include it once there is a box.",
        f"# Atom types: {types}",
        "# If LAMMPS runs elsewhere: -var potential_folder FOLDER (without spaces).",
        f"# Below {INNERMOST} Å the tables are not those of the potential.",
    ]
    if references:
        lines.append(f"# LAMMPS leaves out the energies of isolated atoms (eV): {energies}")
    lines += ["", "variable potential_folder index ."]
    hybrid = len(styles) > 1
    named = " ".join(style + arguments for style, arguments, _ in styles)
    lines.append(f"pair_style {'hybrid/overlay ' if hybrid else ''}{named}")
    for style, _, places in styles:
        for kinds, file, what in places:
            lines.append(f"pair_coeff {kinds} {style + ' ' if hybrid else ''}${{potential_folder}}/{file} {what}")
    lines += [f"mass {k} {atomic_masses[z]:.6f}" for k, z in enumerate(statistics.species, 1)]
    return "\n".join(lines) + "\n"


# ---- functions of the distance


def _inside(r: Array, cutoff: float) -> Float[Tensor, " distances"]:
    """Distances (Å) that are not too short, the last one just inside the cut-off: a table may jump to zero there."""
    return torch.from_numpy(np.clip(r, INNERMOST, np.nextafter(min(r[-1], cutoff), 0)))


def _pair_curve(terms: Sequence[PairPotential | EmbeddedAtomPotential], first: int, second: int, r: Array) -> Array:
    """(distances,) eV, energy of a pair of atomic numbers, summed over the terms."""
    width = 1e-4
    inside = torch.cat([_inside(r, max(term.cutoff for term in terms)), torch.tensor([INNERMOST, INNERMOST + width])])
    energy = torch.zeros_like(inside)
    for term in terms:
        found = term.pair_energies(inside, term.kinds.pair_of(first, second, inside))
        energy = energy + torch.where(inside < term.cutoff, found, 0.0)
    *values, low, high = energy.numpy()
    return np.array(values) + (high - low) / width * np.minimum(r - INNERMOST, 0.0)


@torch.enable_grad()
def _dimer_forces(terms: Sequence[PairPotential], first: int, second: int, r: Array) -> Array:
    """(distances,) eV/Å, force between two atoms, positive where they repel."""
    count, cutoff = len(r), max(term.cutoff for term in terms)
    positions = torch.zeros(2 * count, 3, dtype=torch.float64)
    positions[1::2, 0] = _inside(r, cutoff)
    one = 2 * torch.arange(count)
    graph = AtomGraph(
        positions=positions,
        species=torch.tensor([first, second]).repeat(count),
        system=torch.arange(count).repeat_interleave(2),
        cell=torch.zeros(count, 3, 3, dtype=torch.float64),
        pbc=torch.zeros(count, 3, dtype=torch.bool),
        edges=torch.stack([torch.cat([one, one + 1]), torch.cat([one + 1, one])]),
        shifts=torch.zeros(2 * count, 3, dtype=torch.float64),
        cutoff=cutoff,
    )
    forces = np.zeros(count)
    for term in terms:
        found = evaluate(term, graph, ("forces",)).forces
        assert found is not None
        forces += found[1::2, 0].numpy()
    return forces


def _density_curve(term: EmbeddedAtomPotential, at: int, source: int, r: Array, cutoff: float) -> Array:
    """(distances,) density that an atom of one atomic number causes at one of another; ``r`` ends at ``cutoff``."""
    distance = _inside(r, cutoff)
    numbers = term.kinds.species_index(torch.tensor([at, source]))
    one, other = (index.expand(len(distance)) for index in numbers)
    found: Tensor = torch.where(distance < term.cutoff, term.densities(distance, one, other), 0.0)
    return found.numpy()


def _largest_density(term: EmbeddedAtomPotential, statistics: Statistics) -> float:
    """A density that hardly any structure of these elements exceeds (see :data:`COMPRESSED`)."""
    largest = 0.0
    for at in statistics.species:
        for source in statistics.species:
            near = COMPRESSED * statistics.shortest.get(pair_name(at, source), covalent_distance(at, source))
            near = max(near, INNERMOST)
            size = int(np.ceil(term.cutoff / near)) + 2
            lattice = bulk("X", "fcc", a=np.sqrt(2) * near).cell.array
            indices = np.stack(np.meshgrid(*[np.arange(-size, size + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
            r = np.linalg.norm(indices @ lattice, axis=1)
            r = np.sort(r[(r > 1e-6) & (r < term.cutoff)])
            largest = max(largest, float(_density_curve(term, at, source, r, np.inf).sum()))
    return largest or 1.0


def _setfl(
    term: EmbeddedAtomPotential, pairs: Sequence[PairPotential], statistics: Statistics, spacing: float
) -> tuple[str, str]:
    """The pair style and the text of its file; pair potentials are added to the pair part."""
    species = statistics.species
    by_element = len(species) == 1 or bool(getattr(term, "by_element", False))
    parts: list[PairPotential | EmbeddedAtomPotential] = [term, *pairs]
    cutoff = max(part.cutoff for part in parts)
    own: Any = getattr(term, "points", None)
    points = own() if own is not None and not pairs else None
    if points is None:
        r = np.linspace(0.0, cutoff, int(np.ceil(cutoff / spacing)) + 1)
        density = torch.linspace(0.0, _largest_density(term, statistics), DENSITIES, dtype=torch.float64)
    else:  # it follows LAMMPS's rules on points of its own, which no finer table would
        r, density = points
    symbols = " ".join(chemical_symbols[number] for number in species)
    lines = [
        f"Written by phystrain {__version__}",
        "eV and Å; pair energies include all pair terms of the potential",
        "energies of isolated atoms are left out",
        f"{len(species)} {symbols}",
        f"{len(density)} {float(density[1]):.17e} {len(r)} {r[1]:.17e} {cutoff:.17e}",
    ]
    for source in species:
        index = term.kinds.species_index(torch.tensor([source])).expand(len(density))
        lines.append(f"{source} {atomic_masses[source]:.6f} 1.0 none")
        lines += _rows(term.embedding(density, index).numpy())
        for at in species[:1] if by_element else species:
            lines += _rows(_density_curve(term, at, source, r, cutoff))
    for row, first in enumerate(species):
        for second in species[: row + 1]:
            lines += _rows(r * _pair_curve(parts, first, second, r))
    return "eam/alloy" if by_element else "eam/fs", "\n".join(lines) + "\n"


def _rows(values: Array) -> list[str]:
    """Five numbers a line."""
    text = [f"{value:.16e}" for value in values]
    return [" ".join(text[start : start + 5]) for start in range(0, len(text), 5)]


def _pair_tables(
    pairs: Sequence[PairPotential], statistics: Statistics, spacing: float
) -> tuple[str, list[tuple[str, str]]]:
    """Text of a file for ``pair_style table``, and the section of every two atom types."""
    cutoff = max(term.cutoff for term in pairs)
    r = np.linspace(INNERMOST, cutoff, int(np.ceil((cutoff - INNERMOST) / spacing)) + 1)
    lines = [f"# Written by phystrain {__version__}; eV and Å"]
    places = []
    for row, first in enumerate(statistics.species):
        for column, second in enumerate(statistics.species[row:], row):
            keyword = f"{chemical_symbols[first]}-{chemical_symbols[second]}"
            curve = zip(r, _pair_curve(pairs, first, second, r), _dimer_forces(pairs, first, second, r), strict=True)
            lines += ["", keyword, f"N {len(r)} R {r[0]:.17g} {r[-1]:.17g}", ""]
            lines += [
                f"{number} {x:.16e} {energy:.16e} {force:.16e}" for number, (x, energy, force) in enumerate(curve, 1)
            ]
            places.append((f"{row + 1} {column + 1}", keyword))
    return "\n".join(lines) + "\n", places


def _stillinger_weber(term: Any) -> str:
    """Text of a file for ``pair_style sw``."""
    lines = [f"# Written by phystrain {__version__}; units metal"]
    for number, (elements, row) in enumerate(term.lammps_entries().items()):
        if not number:
            lines.append(f"# element 1, 2, 3, {' '.join(row)}")
        lines.append(" ".join([*elements, *(f"{value:.17g}" for value in row.values())]))
    return "\n".join(lines) + "\n"

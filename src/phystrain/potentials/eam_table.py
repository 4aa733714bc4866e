"""Embedded-atom potentials from files: funcfl, setfl (eam/alloy) and its Finnis-Sinclair form (eam/fs).

The formats are those of DYNAMO as LAMMPS documents them (pair_style eam). Which one a file has is told from its
content. Nothing is fitted. A table that does not go to zero at its cut-off jumps there, as in LAMMPS.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from phystrain.errors import UserError
from phystrain.layers.embedded_atom import EmbeddedAtomPotential
from phystrain.layers.spline import Array, CubicTable, five_point, not_a_knot
from phystrain.potentials._tables import TableConfig
from phystrain.statistics import Statistics
from phystrain.units import COULOMB

LAMMPS_COULOMB = 27.2 * 0.529
"""eV Å, Hartree times Bohr as DYNAMO and LAMMPS round them."""

Format = Literal["funcfl", "alloy", "fs"]


class Sizes(BaseModel):
    """What is known of a table without its numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Format
    elements: tuple[int, ...] = Field(description="atomic numbers, in the order of the file")
    densities: int = Field(description="points of each embedding function")
    distances: int = Field(description="points of each function of the distance")
    cutoff: float = Field(description="Å")


class Config(TableConfig):
    """Embedded-atom potential of the literature, read from a file: funcfl, eam/alloy or eam/fs."""

    kind: Literal["eam_table"] = "eam_table"
    rules: Literal["ase", "lammps"] = Field(
        "ase",
        description="whose values between the points, and whose unit of the effective charges of funcfl: ase, twice "
        "continuously differentiable splines and 14.3996 eV Å; lammps, once, and 27.2 * 0.529 eV Å",
    )
    sizes: Sizes | None = Field(None, description="found when the file is read")

    @classmethod
    def measure(cls, text: str, name: str) -> dict[str, Any]:
        return read_eam(text, name).sizes.model_dump()

    def build(self, statistics: Statistics) -> "EAMTable":
        return EAMTable(self, statistics)


@dataclass(frozen=True)
class EAMFile:
    """Content of a file.

    Attributes:
        sizes: numbers of points, elements, cut-off.
        density_step: of the embedding functions.
        distance_step: Å.
        embedding: (elements, densities) eV.
        density: (source, at, distances) density that an element causes at an atom of another.
        pair: (elements, elements, distances) eV Å, r times the pair energy; for funcfl the effective charge.
    """

    sizes: Sizes
    density_step: float
    distance_step: float
    embedding: Array
    density: Array
    pair: Array


class EAMTable(EmbeddedAtomPotential):
    """See the module.

    Args:
        config: settings, with the sizes of the table.
        statistics: elements of the data, which must all be in the table.

    Attributes:
        by_element: whether the density that an atom causes is the same at atoms of all elements.
    """

    symmetric = False

    def __init__(self, config: Config, statistics: Statistics) -> None:
        sizes = config.sizes
        assert sizes is not None  # the validator has read the file
        super().__init__(statistics.species, sizes.cutoff)
        if missing := [chemical_symbols[z] for z in self.kinds.species if z not in sizes.elements]:
            known = ", ".join(chemical_symbols[z] for z in sizes.elements)
            raise UserError(f"{config.file} is a table of {known}, not of {', '.join(missing)}: take another table.")
        count, n_pairs = len(self.kinds.species), len(self.kinds.pairs)
        self.by_element = sizes.format != "fs"
        self.symmetric = count == 1
        self._of_energy = config.rules == "ase"  # or of r times the energy
        self._n_densities = count if self.by_element else count**2
        self.embedding_table = CubicTable([sizes.densities] * count, uniform=True)
        points = [sizes.distances] * self._n_densities + [sizes.distances - self._of_energy] * n_pairs
        self.distance_table = CubicTable(points, uniform=True)
        if (found := config.table(read_eam)) is not None:
            self._fill(found, config.rules)

    @torch.no_grad()
    def _fill(self, table: EAMFile, rules: Literal["ase", "lammps"]) -> None:
        order = [table.sizes.elements.index(z) for z in self.kinds.species]
        spline = not_a_knot if rules == "ase" else five_point
        density = np.arange(table.sizes.densities, dtype=np.float64) * table.density_step
        self.embedding_table.fill([spline(density, table.embedding[i]) for i in order])
        r = np.arange(table.sizes.distances, dtype=np.float64) * table.distance_step
        if self.by_element:
            curves = [spline(r, table.density[i, i]) for i in order]
        else:
            curves = [spline(r, table.density[source, at]) for source in order for at in order]
        for first, second in self.kinds.pairs:
            values = table.pair[table.sizes.elements.index(first), table.sizes.elements.index(second)]
            if table.sizes.format == "funcfl":
                values = (COULOMB if rules == "ase" else LAMMPS_COULOMB) * values**2
            curves.append(spline(r[1:], values[1:] / r[1:]) if self._of_energy else spline(r, values))
        self.distance_table.fill(curves)

    def points(self) -> tuple[Array, Float[Tensor, " densities"]] | None:
        """The distances (Å) and densities of the table, where LAMMPS's rules give the same from them as we do."""
        if self._of_energy:
            return None
        distances, densities = (
            table.origin[1 : int(table.last_row[0]) + 1] for table in (self.distance_table, self.embedding_table)
        )
        return distances.cpu().numpy(), densities

    def pair_energies(self, distance: Float[Tensor, " edges"], pair: Int[Tensor, " edges"]) -> Float[Tensor, " edges"]:
        energies: Tensor = self.distance_table(distance, pair + self._n_densities)
        if not self._of_energy:
            energies = energies / distance
        return torch.where(distance < self.cutoff, energies, 0.0)

    def densities(
        self, distance: Float[Tensor, " edges"], first: Int[Tensor, " edges"], second: Int[Tensor, " edges"]
    ) -> Float[Tensor, " edges"]:
        curve = second if self.by_element else second * len(self.kinds.species) + first
        return torch.where(distance < self.cutoff, self.distance_table(distance, curve), 0.0)

    def embedding(self, density: Float[Tensor, " atoms"], species: Int[Tensor, " atoms"]) -> Float[Tensor, " atoms"]:
        """(atoms,) eV; linear beyond the end of the table. Zero at zero density as far as the table is."""
        energies: Tensor = self.embedding_table(density, species)
        return energies


def read_eam(text: str, name: str) -> EAMFile:
    """Read a file of an embedded-atom potential.

    Args:
        text: content of the file.
        name: of the file, for messages.

    Raises:
        UserError: not such a file, or cut short.
    """
    lines = text.splitlines()
    try:
        start = lines[3].split() if len(lines) > 3 else []
        setfl = bool(start) and start[0].isdecimal() and len(start) >= 1 + int(start[0]) > 1 and start[1][0].isalpha()
        return _read_setfl(lines, name) if setfl else _read_funcfl(lines)
    except (ValueError, IndexError) as error:
        reason = str(error).split("\n", maxsplit=1)[0]
        raise UserError(
            f"{name} is no complete EAM table (funcfl, eam/alloy or eam/fs): {reason}.\nTake another copy of the file."
        ) from error


def _numbers(tokens: list[str]) -> Array:
    return np.array([token.replace("D", "e").replace("d", "e") for token in tokens], dtype=np.float64)


def _positive(step: float, count: int, what: str) -> None:
    if not step > 0 or count < 5:
        raise ValueError(f"it has {count} points of {what}, {step:g} apart")


def _sized(values: Array, *shape: int) -> Array:
    if values.size != np.prod(shape):
        raise ValueError(f"{int(np.prod(shape)) - values.size} of {int(np.prod(shape))} numbers are missing")
    return values.reshape(shape)


def _read_funcfl(lines: list[str]) -> EAMFile:
    """One element; its pair energy is the square of an effective charge over the distance."""
    number = int(lines[1].split()[0])
    n_density, d_density, n_r, d_r, cutoff = _numbers(lines[2].split()[:5])
    n_density, n_r = int(n_density), int(n_r)
    _positive(d_density, n_density, "the density")
    _positive(d_r, n_r, "the distance")
    values = _numbers(" ".join(lines[3:]).split())[: n_density + 2 * n_r]
    values = _sized(values, n_density + 2 * n_r)
    embedding, charge, density = np.split(values, [n_density, n_density + n_r])
    sizes = Sizes(format="funcfl", elements=(number,), densities=n_density, distances=n_r, cutoff=float(cutoff))
    return EAMFile(sizes, d_density, d_r, embedding[None], density[None, None], charge[None, None])


def _read_setfl(lines: list[str], name: str) -> EAMFile:
    """Several elements; densities by element (alloy) or by pair (fs), told apart by how many numbers there are."""
    names = lines[3].split()[1 : 1 + int(lines[3].split()[0])]
    count = len(names)
    n_density, d_density, n_r, d_r, cutoff = _numbers(lines[4].split()[:5])
    n_density, n_r = int(n_density), int(n_r)
    _positive(d_density, n_density, "the density")
    _positive(d_r, n_r, "the distance")
    tokens = " ".join(lines[5:]).split()
    shared = count * (4 + n_density) + count * (count + 1) // 2 * n_r
    lengths: dict[Format, int] = {"alloy": shared + count * n_r, "fs": shared + count**2 * n_r}
    form = next((form for form, length in lengths.items() if length == len(tokens)), None)
    if form is None:
        wanted = " or ".join(f"{length} ({form})" for form, length in lengths.items())
        raise ValueError(f"it has {len(tokens)} entries after the fifth line, not {wanted}")
    columns = 1 if form == "alloy" else count
    length = 4 + n_density + columns * n_r
    blocks = [tokens[i * length : (i + 1) * length] for i in range(count)]
    values = np.stack([_numbers(block[4:]) for block in blocks])
    density = values[:, n_density:].reshape(count, columns, n_r)
    pair = np.empty((count, count, n_r))
    rows, others = np.tril_indices(count)
    pair[rows, others] = pair[others, rows] = _numbers(tokens[count * length :]).reshape(-1, n_r)
    elements = tuple(_element(symbol, block[0], name) for symbol, block in zip(names, blocks, strict=True))
    sizes = Sizes(format=form, elements=elements, densities=n_density, distances=n_r, cutoff=float(cutoff))
    return EAMFile(
        sizes, d_density, d_r, values[:, :n_density], np.broadcast_to(density, (count, count, n_r)).copy(), pair
    )


def _element(symbol: str, number: str, name: str) -> int:
    found = atomic_numbers.get(symbol) or int(float(number))
    if not 0 < found < len(chemical_symbols):
        raise UserError(f"{name}: {symbol!r} is no chemical element. Name the elements in line 4 by their symbols.")
    return int(found)

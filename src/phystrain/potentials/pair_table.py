"""Pair potentials from files of LAMMPS's pair_style table: one section for each pair of elements.

The energy is the twice continuously differentiable cubic spline through the points of the file whose slope at both
ends is minus the force there; LAMMPS makes the same before it interpolates once more. Forces follow from the energy;
the forces of the file serve for the ends and as a check. Nothing is fitted. Below the first distance of a section the
energy goes on in a straight line (LAMMPS stops there); beyond the last one it is zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from ase.data import chemical_symbols
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from phystrain.errors import UserError
from phystrain.layers.pair import PairPotential
from phystrain.layers.spline import Array, CubicTable, clamped
from phystrain.potentials._tables import TableConfig
from phystrain.registry import did_you_mean
from phystrain.statistics import Statistics

_AGREEMENT = 0.1
"""Largest typical deviation of the forces of a file from minus the derivative of its energies, relative."""


class SectionSize(BaseModel):
    """What is known of a section without its numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    points: int
    end: float = Field(description="Å, the last distance")


class Config(TableConfig):
    """Pair potential read from a file of LAMMPS's pair_style table."""

    kind: Literal["pair_table"] = "pair_table"
    sections: dict[str, str] = Field(
        {}, description="section of the file by pair such as O-Si; if not given, those named O-Si, O_Si, OSi or reverse"
    )
    sizes: dict[str, SectionSize] | None = Field(None, description="found when the file is read")

    @classmethod
    def measure(cls, text: str, name: str) -> dict[str, Any]:
        return {
            section.name: {"points": len(section.distance), "end": float(section.distance[-1])}
            for section in read_pair_tables(text, name).values()
        }

    def build(self, statistics: Statistics) -> "PairTable":
        return PairTable(self, statistics)


@dataclass(frozen=True)
class Section:
    """One section of a file.

    Attributes:
        name: its keyword.
        distance: (points,) Å, ascending.
        energy: (points,) eV.
        force: (points,) eV/Å, positive where the atoms repel.
    """

    name: str
    distance: Array
    energy: Array
    force: Array


class PairTable(PairPotential):
    """See the module.

    Args:
        config: settings, with the sizes of the sections.
        statistics: elements of the data; every pair of them needs a section.
    """

    def __init__(self, config: Config, statistics: Statistics) -> None:
        sizes = config.sizes
        assert sizes is not None  # the validator has read the file
        super().__init__(statistics.species, 0.0)
        names = [_section_of(pair, config, len(self.kinds.pairs)) for pair in self.kinds.pairs]
        self.kinds.complete([0.0] * len(names), dict.fromkeys(config.sections, 0.0))  # refuses what is no pair
        self.cutoff = max(sizes[name].end for name in names)
        self.table = CubicTable([sizes[name].points for name in names], uniform=False)
        if (found := config.table(read_pair_tables)) is not None:
            sections = [found[name] for name in names]
            self.table.fill([clamped(s.distance, s.energy, -s.force[0], -s.force[-1]) for s in sections])

    def pair_energies(self, distance: Float[Tensor, " edges"], pair: Int[Tensor, " edges"]) -> Float[Tensor, " edges"]:
        """(edges,) eV."""
        return torch.where(distance < self.table.end()[pair], self.table(distance, pair), 0.0)


def _section_of(pair: tuple[int, int], config: Config, n_pairs: int) -> str:
    """Name of the section of a pair of atomic numbers."""
    assert config.sizes is not None
    symbols = [chemical_symbols[number] for number in pair]
    orders = (symbols, symbols[::-1])
    for name in ("-".join(order) for order in orders):
        if name in config.sections:
            if (section := config.sections[name]) not in config.sizes:
                raise UserError(
                    f"{config.file} has no section {section!r}: {did_you_mean(section, tuple(config.sizes))}"
                )
            return section
    usual = (joint.join(order) for joint in ("-", "_", "") for order in orders)
    if (found := next((name for name in usual if name in config.sizes), None)) is not None:
        return found
    if n_pairs == len(config.sizes) == 1:
        return next(iter(config.sizes))
    raise UserError(
        f"{config.file} has sections {', '.join(config.sizes)}: none is named after the pair {'-'.join(symbols)}.\n"
        f"Name it under 'sections', such as {{{'-'.join(symbols)}: {next(iter(config.sizes))}}}."
    )


def read_pair_tables(text: str, name: str) -> dict[str, Section]:
    """Sections of a file of LAMMPS's pair_style table by their keyword.

    Args:
        text: content of the file.
        name: of the file, for messages.

    Raises:
        UserError: not such a file, cut short, or with forces that contradict the energies.
    """
    lines = [line.partition("#")[0].split() for line in text.splitlines()]
    sections: dict[str, Section] = {}
    place = 0
    while (place := _next(lines, place)) < len(lines):
        keyword = lines[place][0]
        try:
            place = _next(lines, place + 1)
            options = lines[place]
            count = int(options[options.index("N") + 1])
            if "BITMAP" in options:
                raise ValueError("BITMAP is not understood; write the table with R or RSQ")
            start = _next(lines, place + 1)
            place = start + count
            whole = [row[:4] for row in lines[start:place] if len(row) >= 4]
            if len(whole) < max(count, 4):
                raise ValueError(f"it has {len(whole)} points instead of {max(count, 4)}")
            rows = np.array(whole, dtype=np.float64)
            distance = _distances(options, rows[:, 1])
            if not (np.isfinite(rows).all() and (np.diff(distance) > 0).all() and distance[0] >= 0):
                raise ValueError("distances should rise, and all be numbers")
        except (ValueError, IndexError) as error:
            raise UserError(
                f"{name}, section {keyword}: {error}.\nIt should be a file of LAMMPS's pair_style table."
            ) from error
        sections[keyword] = Section(keyword, distance, rows[:, 2], rows[:, 3])
        _require_agreement(sections[keyword], name)
    if not sections:
        raise UserError(f"{name} has no sections: it should be a file of LAMMPS's pair_style table.")
    return sections


def _next(lines: Sequence[list[str]], place: int) -> int:
    """The first line that is not empty from ``place`` on."""
    while place < len(lines) and not lines[place]:
        place += 1
    return place


def _distances(options: list[str], given: Array) -> Array:
    """(points,) Å: evenly spaced (R), evenly spaced in the square (RSQ), or as they stand in the file."""
    for option in ("R", "RSQ"):
        if option in options:
            place = options.index(option)
            low, high = float(options[place + 1]), float(options[place + 2])
            even: Array = np.linspace(low, high, len(given))
            return even if option == "R" else np.sqrt(np.linspace(low**2, high**2, len(given)))
    return given


def _require_agreement(section: Section, name: str) -> None:
    """Refuse forces with the wrong sign or in other units."""
    slopes = clamped(section.distance, section.energy, -section.force[0], -section.force[-1])(section.distance, 1)
    inner = slice(1, -1)
    scale = float(np.median(np.abs(section.force[inner])))
    typical = float(np.median(np.abs(section.force + slopes)[inner]))
    if typical > _AGREEMENT * scale + 1e-8:
        raise UserError(
            f"{name}, section {section.name}: the forces are not minus the derivative of the energies "
            f"({typical:.2g} eV/Å apart).\nCheck units (eV, Å) and the sign of the last column."
        )

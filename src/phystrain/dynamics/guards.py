"""Stop rules of molecular dynamics: when a structure has left what physics allows, and why.

The rules and their defaults are those of published stability protocols: temperature runaway and jump as in mlipaudit,
bond deviation as in Fu et al. 2023 (arXiv 2210.07237, section 4), and a shortest distance relative to the covalent
radii of Cordero et al. 2008 (doi:10.1039/b801115j), which also catches holes of the energy surface at short range.
"""

from typing import NamedTuple

import torch
from ase.data import chemical_symbols, covalent_radii
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from phystrain.dynamics.verlet_list import VerletList
from phystrain.statistics import pair_label

BOND_FACTOR = 1.2
"""Pairs closer than this times the sum of their covalent radii in the starting structure count as bonds."""


class Guards(BaseModel):
    """When to stop a structure. Each is checked on every structure by itself.

    Non-finite energies and forces always stop it. All are checked at every step, the temperature jump between
    records, the spread at an interval of its own, since it costs a pass through every model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    contact: float | None = Field(
        default=0.6, gt=0, description="shortest distance allowed, as a fraction of the sum of the two covalent radii"
    )
    temperature_rise: float | None = Field(
        default=10_000.0, gt=0, description="K above the set temperature at which the run counts as exploded"
    )
    temperature_factor: float | None = Field(
        default=None, gt=1, description="multiple of the set temperature at which the run counts as exploded; tighter"
    )
    temperature_jump: float | None = Field(
        default=100.0, gt=1, description="factor between two records at which the run counts as exploded"
    )
    bond_stretch: float | None = Field(
        default=None, gt=0, description="Å by which a bond of the starting structure may change; for molecules"
    )
    spread: float | None = Field(
        default=None, gt=0, description="eV/Å by which models may disagree about a force; needs an ensemble"
    )
    spread_interval: int = Field(default=10, ge=1, description="steps between looks at the spread")
    spread_stops: bool = Field(default=True, description="whether the spread stops a structure, or is only noted")

    def hottest(self, temperature: Float[Tensor, " systems"]) -> Float[Tensor, " systems"]:
        """(systems,) K above which a structure set to these temperatures counts as exploded."""
        limit = torch.full_like(temperature, torch.inf)
        if self.temperature_rise is not None:
            limit = temperature + self.temperature_rise
        if self.temperature_factor is not None:
            tighter = torch.where(temperature > 0, self.temperature_factor * temperature, torch.inf)
            limit = torch.minimum(limit, tighter)
        return limit


class Failure(NamedTuple):
    """Why a structure was stopped.

    Attributes:
        reason: ``distance``, ``temperature``, ``bond``, ``volume``, ``non-finite`` or ``spread``.
        finding: for people, without the time.
    """

    reason: str
    finding: str


class Bonds(NamedTuple):
    """Bonds of the starting structures, each in both directions.

    Attributes:
        atoms: (2, bonds).
        shifts: (bonds, 3) Å, added to the second atom.
        lengths: (bonds,) Å, at the start.
    """

    atoms: Int[Tensor, "2 bonds"]
    shifts: Float[Tensor, "bonds 3"]
    lengths: Float[Tensor, " bonds"]

    def stretch(self, positions: Float[Tensor, "atoms 3"]) -> Float[Tensor, " bonds"]:
        """(bonds,) Å, change of length at positions that have not been wrapped."""
        first, second = self.atoms
        vectors = positions[second] - positions[first] + self.shifts
        return torch.linalg.vector_norm(vectors, dim=1) - self.lengths

    def rescale(self, factor: Float[Tensor, "atoms 1"]) -> "Bonds":
        """The bonds in cells that have changed by a factor for each atom; lengths are still those at the start."""
        return self._replace(shifts=self.shifts * factor[self.atoms[0]])

    def keep(self, atoms: Tensor) -> "Bonds":
        """The bonds among the atoms of a mask (atoms,), renumbered."""
        kept = atoms[self.atoms[0]]
        numbers = torch.cumsum(atoms, 0) - 1
        return Bonds(numbers[self.atoms[:, kept]], self.shifts[kept], self.lengths[kept])


def find_bonds(neighbours: VerletList) -> Bonds:
    """The bonds at the positions of the last graph of ``neighbours``."""
    bonded = neighbours.contacts() < BOND_FACTOR
    return Bonds(neighbours.pairs[:, bonded], neighbours.shift_vectors[bonded], neighbours.distances[bonded])


def short_contacts(neighbours: VerletList, limit: float) -> dict[int, Failure]:
    """Structures with a pair closer than ``limit`` times the sum of its covalent radii, by their number."""
    contacts = neighbours.contacts()
    if not len(contacts) or float(contacts.min()) >= limit:  # the usual case costs one reduction
        return {}
    failures = {}
    system = neighbours.system[neighbours.pairs[0]]
    for number in torch.unique(system[contacts < limit]).tolist():
        worst = torch.where(system == number, contacts, torch.inf).argmin()
        names = _pair(neighbours.species, neighbours.pairs[:, worst])
        distance = float(neighbours.distances[worst])
        failures[number] = Failure("distance", f"{names} contact of {distance:.2f} Å")
    return failures


def stretched_bonds(
    bonds: Bonds, positions: Float[Tensor, "atoms 3"], neighbours: VerletList, limit: float
) -> dict[int, Failure]:
    """Structures with a bond changed by more than ``limit`` Å, by their number."""
    stretch = bonds.stretch(positions)
    if not len(stretch) or float(stretch.abs().max()) <= limit:
        return {}
    failures = {}
    system = neighbours.system[bonds.atoms[0]]
    for number in torch.unique(system[stretch.abs() > limit]).tolist():
        worst = torch.where(system == number, stretch.abs(), -1.0).argmax()
        names = _pair(neighbours.species, bonds.atoms[:, worst])
        before, now = float(bonds.lengths[worst]), float(bonds.lengths[worst] + stretch[worst])
        failures[number] = Failure("bond", f"{names} bond changed from {before:.2f} to {now:.2f} Å")
    return failures


def too_hot(temperature: Float[Tensor, " systems"], limit: Float[Tensor, " systems"]) -> dict[int, Failure]:
    """Structures hotter (K) than their limit, by their number."""
    hot = ~(temperature <= limit)  # also true for not-a-number
    if not bool(hot.any()):
        return {}
    return {
        number: Failure("temperature", f"temperature of {temperature[number]:,.0f} K (limit {limit[number]:,.0f} K)")
        for number in torch.nonzero(hot).squeeze(1).tolist()
    }


def not_finite(
    energy: Float[Tensor, " systems"], forces: Float[Tensor, "atoms 3"], system: Int[Tensor, " atoms"]
) -> dict[int, Failure]:
    """Structures whose energy or forces are not finite, by their number."""
    if bool(torch.isfinite(energy.sum() + forces.sum())):
        return {}
    wrong_forces = torch.zeros_like(energy).index_add(0, system, (~torch.isfinite(forces)).sum(dim=1).to(energy.dtype))
    failures = {}
    for number in torch.nonzero(~torch.isfinite(energy) | (wrong_forces > 0)).squeeze(1).tolist():
        what = "energy" if not bool(torch.isfinite(energy[number])) else "force"
        failures[number] = Failure("non-finite", f"{what} that is not a finite number")
    return failures


def changed_volumes(ratio: Float[Tensor, " systems"], smallest: float, largest: float) -> dict[int, Failure]:
    """Structures whose volume over that at the start has left this range, by their number."""
    wrong = ~((ratio >= smallest) & (ratio <= largest))  # also true for not-a-number
    if not bool(wrong.any()):
        return {}
    return {
        number: Failure("volume", f"volume {ratio[number]:.2f} times that at the start")
        for number in torch.nonzero(wrong).squeeze(1).tolist()
    }


def doubtful(
    spread: Float[Tensor, " atoms"], system: Int[Tensor, " atoms"], species: Int[Tensor, " atoms"], limit: float
) -> dict[int, Failure]:
    """Structures with an atom whose force models disagree about by more than ``limit`` eV/Å, by their number."""
    if not len(spread) or float(spread.max()) <= limit:
        return {}
    failures = {}
    for number in torch.unique(system[~(spread <= limit)]).tolist():
        worst = int(torch.where(system == number, spread, -1.0).argmax())
        finding = f"spread of {spread[worst]:.2f} eV/Å of the force on {chemical_symbols[int(species[worst])]}"
        failures[number] = Failure("spread", f"{finding} (limit {limit:.2f})")
    return failures


def closest_contacts(neighbours: VerletList, n_systems: int) -> Float[Tensor, " systems"]:
    """(systems,) shortest distance as a fraction of the sum of covalent radii; infinite where no pair is listed."""
    contacts = neighbours.contacts()
    closest = contacts.new_full((n_systems,), torch.inf)
    return closest.scatter_reduce(0, neighbours.system[neighbours.pairs[0]], contacts, "amin")


def listing_radius(species: Int[Tensor, " atoms"], guards: Guards) -> float:
    """Å up to which pairs must be listed for the guards to see them."""
    largest = 2 * float(covalent_radii[species.cpu().numpy()].max())
    radius = 0.0 if guards.contact is None else guards.contact * largest
    return radius if guards.bond_stretch is None else max(radius, BOND_FACTOR * largest)


def _pair(species: Tensor, atoms: Tensor) -> str:
    return pair_label(*(int(species[atom]) for atom in atoms))

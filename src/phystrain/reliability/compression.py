"""Holes of the energy surface under compression: the energy must rise when atoms are pushed together.

Two static scans, in the spirit of the energy-volume scans and pair curves of mlip-arena (Chiang et al. 2025,
arXiv 2509.20630), but inside the user's own structures: periodic structures are compressed as a whole, and in every
structure the shortest bond of each kind is compressed alone, its two atoms moving towards each other.

A structure may begin under tension, so that its energy falls at first. That is allowed down to the shortest distance
of the training data, and for the first few per cent in any case. From the lowest energy found there, every fall of
the energy counts.
"""

from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from phystrain.data.structures import Floats, Structures
from phystrain.errors import UserError
from phystrain.reliability import Curve, Figures, Result, Subject
from phystrain.reliability._barriers import REGION, BarrierTest
from phystrain.reliability._bonds import Bond, shortest_bonds
from phystrain.reliability._static import affordable, energies_of, evenly, finite, formula
from phystrain.statistics import Statistics, pair_name


class Config(BarrierTest):
    """Energy under compression of whole structures and of single bonds."""

    kind: Literal["compression"] = "compression"
    structures: int = Field(default=4, ge=1, description="how many structures to compress")
    ratio: float = Field(default=0.8, gt=0, lt=1, description="smallest length of a periodic structure, as a fraction")
    contact: float = Field(
        default=0.6, gt=0, lt=1, description="shortest length of a bond, as a fraction of the sum of covalent radii"
    )
    points: int = Field(default=32, ge=5, description="points of each scan")
    settle: float = Field(
        default=0.03, ge=0, lt=1, description="fraction of compression in which the energy may fall in any case"
    )
    tolerance: float = Field(default=0.01, ge=0, description="eV, fall of the energy that does not count")
    atoms: int = Field(default=30_000, ge=1, description="atoms that are evaluated in all, which limits the scans")

    def __call__(self, subject: Subject) -> Result:
        """Compress structures of ``subject.start``, or of ``subject.test``.

        Raises:
            UserError: there is no structure.
        """
        source = subject.start if subject.start is not None else subject.test
        if source is None or not len(source):
            raise UserError("compression: there is no structure to compress; give a start or a test structure")
        chosen = source.select(evenly(len(source), self.structures))
        chosen = chosen.without_labels()
        scans = [scan for number in range(len(chosen)) for scan in self._scans(chosen.select([number]), number)]
        kinds = ["" if scan.whole else scan.bonds[0].label for scan in scans]
        atoms = [int(scan.structures.sizes.sum()) for scan in scans]
        scans = [scans[number] for number in sorted(affordable(kinds, atoms, self.atoms, len(set(kinds))))]
        if not scans:
            return Result(test=self.kind, title="Compression", sentence="Nothing to compress: no two atoms are near.")
        together = Structures.concatenate([scan.structures for scan in scans])
        energies = energies_of(subject.potential, together, self.batch_atoms)
        parts = np.split(energies, np.cumsum([len(scan.structures) for scan in scans])[:-1])
        found = [
            Finding(
                scan, energy, *find_hole(scan.ratio, energy, self._allowed(scan, subject.statistics), self.tolerance)
            )
            for scan, energy in zip(scans, parts, strict=True)
        ]
        return self._judged(found, subject)

    def _scans(self, structure: Structures, number: int) -> list["Scan"]:
        """All scans of one structure."""
        bonds = shortest_bonds(structure)
        scans = [compressed_bond(structure, number, bond, self.contact, self.points) for bond in bonds]
        if structure.pbc.any() and bonds:
            scans.insert(0, compressed_whole(structure, number, bonds, self.ratio, self.points))
        return [scan for scan in scans if scan.ratio[-1] < 1]

    def _allowed(self, scan: "Scan", statistics: Statistics) -> float:
        """Ratio of lengths down to which the energy may fall."""
        beyond = [
            statistics.shortest[pair_name(*bond.elements)] / bond.length
            for bond in scan.bonds
            if pair_name(*bond.elements) in statistics.shortest
        ]
        return min(1 - self.settle, max(beyond, default=1.0))

    def _judged(self, found: list["Finding"], subject: Subject) -> Result:
        groups = {"structures": [f for f in found if f.scan.whole], "bonds": [f for f in found if not f.scan.whole]}
        figures: Figures = {}
        for name, group in groups.items():
            bad = [f for f in group if self._is_hole(f)]
            figures[name] = len(group)
            figures[f"{name} with a hole"] = len(bad)
            figures[f"largest drop, {name}, eV"] = max((f.drop for f in group), default=None)
            figures[f"length ratio where the first hole begins, {name}"] = max((f.begins for f in bad), default=None)
        holes = [f for f in found if self._is_hole(f)]
        worst = max(holes, key=lambda f: f.drop, default=None)
        curves: dict[str, Curve] = {}
        for finding in found:
            curves.setdefault(
                f"structure {finding.scan.name}" if finding.scan.whole else finding.scan.name, _curve(finding)
            )
        return Result(
            test=self.kind,
            title="Compression",
            figures=figures,
            passed=worst is None,
            threshold=(
                f"the energy rises by compression to {self.ratio:g} of the length, and of each kind of bond to "
                f"{self.contact:g} of the sum of covalent radii; falls below {self.tolerance:g} eV do not count"
            ),
            sentence=(
                f"The energy rises steadily in all {len(found)} compressions."
                if worst is None
                else f"The energy falls in {len(holes)} of {len(found)} compressions, most in {worst.scan.name}: "
                f"{_size(worst.drop)}, from {worst.begins:.3f} of its length on."
            ),
            curves=curves,
            grade=self.grade_behind((hole.barrier for hole in holes), subject),
            conditions=_conditions(holes),
        )

    def _is_hole(self, finding: "Finding") -> bool:
        return not finding.drop <= self.tolerance


class Scan(NamedTuple):
    """A series of structures, more and more compressed.

    Attributes:
        name: for people.
        whole: whether a whole structure is compressed, not a bond.
        ratio: (points,) length as a fraction of the one at the start, falling from 1.
        structures: as many.
        bonds: those that are compressed.
    """

    name: str
    whole: bool
    ratio: Floats
    structures: Structures
    bonds: list[Bond]


class Finding(NamedTuple):
    """A scan and its energies.

    Attributes:
        scan: as made.
        energy: (points,) eV.
        drop: eV, largest fall of the energy; infinite where an energy is not finite.
        begins: ratio of lengths at which the first fall begins; not a number without one.
    """

    scan: Scan
    energy: Floats
    drop: float
    begins: float

    @property
    def barrier(self) -> float:
        """Energy (eV) to climb from the lowest to where the first fall begins; of a region, for whole structures.

        No thermal motion compresses a structure as a whole, but some atoms and their neighbours it may.
        """
        before = self.energy[self.scan.ratio >= self.begins - 1e-9]
        rise = float(before.max() - before.min()) if np.isfinite(before).all() and len(before) else 0.0
        return rise * min(1.0, REGION / int(self.scan.structures.sizes[0])) if self.scan.whole else rise


def find_hole(ratio: Floats, energy: Floats, allowed: float, tolerance: float = 0.0) -> tuple[float, float]:
    """Largest fall of the energy below an earlier value, eV, and the ratio at which the first fall begins.

    Args:
        ratio: (points,) of lengths, falling from 1.
        energy: (points,) eV.
        allowed: ratio down to which the energy may fall; the search begins at the lowest energy found until there.
        tolerance: eV, falls up to this are none.
    """
    wrong = ~np.isfinite(energy)
    if wrong.any():
        return float("inf"), float(ratio[wrong.argmax()])
    first = int(energy[ratio >= min(allowed, 1.0) - 1e-9].argmin())
    highest = np.maximum.accumulate(energy[first:])
    fall = highest - energy[first:]
    if fall.max() <= tolerance:
        return float(fall.max()), float("nan")
    return float(fall.max()), float(ratio[first + (fall > tolerance).argmax() - 1])


def compressed_whole(structure: Structures, number: int, bonds: list[Bond], ratio: float, points: int) -> Scan:
    """One structure with its cell, scaled; fractional coordinates stay.

    Args:
        structure: a set of one.
        number: of it, for its name.
        bonds: its shortest ones.
        ratio: smallest length as a fraction.
        points: how many.
    """
    ratios = np.linspace(1, ratio, points)
    copies = structure.select(np.zeros(points, dtype=np.int64))
    positions = copies.positions * np.repeat(ratios, structure.sizes[0])[:, None]
    cells = copies.cell * ratios[:, None, None]
    return Scan(formula(structure, 0, number), True, ratios, replace(copies, positions=positions, cell=cells), bonds)


def compressed_bond(structure: Structures, number: int, bond: Bond, contact: float, points: int) -> Scan:
    """One structure in which two atoms approach each other, each by half.

    Args:
        structure: a set of one.
        number: of it, for its name.
        bond: the two atoms.
        contact: shortest length as a fraction of the sum of covalent radii.
        points: how many.
    """
    ratios = np.linspace(1, contact * bond.radii / bond.length, points)
    copies = structure.select(np.zeros(points, dtype=np.int64))
    positions = copies.positions.reshape(points, -1, 3).copy()
    move = 0.5 * (1 - ratios)[:, None] * bond.vector
    positions[:, bond.first] += move
    positions[:, bond.second] -= move
    name = f"{bond.label} bond in {formula(structure, 0, number)}"
    return Scan(name, False, ratios, replace(copies, positions=positions.reshape(-1, 3)), [bond])


def _conditions(holes: list[Finding]) -> list[str]:
    """What is not supported: of each kind of bond, and of whole structures, where the first fall begins."""
    bonds: dict[str, float] = {}
    for hole in holes:
        if not hole.scan.whole:
            (bond,) = hole.scan.bonds
            bonds[bond.label] = max(bonds.get(bond.label, 0.0), hole.begins * bond.length)
    whole = [hole.begins for hole in holes if hole.scan.whole]
    return [
        *(f"{label} below {length:.2f} Å is unsupported" for label, length in bonds.items()),
        *([f"compression below {max(whole):.2f} of the length is unsupported"] if whole else []),
    ]


def _curve(finding: Finding) -> Curve:
    return Curve(
        x=finding.scan.ratio.tolist(),
        y=finite(finding.energy - finding.energy[0]),
        x_label="length as a fraction of that at the start",
        y_label="change of the energy, eV",
    )


def _size(drop: float) -> str:
    return f"by {drop:.3g} eV" if np.isfinite(drop) else "to what is no finite number"

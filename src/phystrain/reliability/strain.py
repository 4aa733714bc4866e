"""Energy against volume: the user's periodic structures, strained evenly by up to a fifth of their length.

Measures and range as in mlip-arena's energy-volume scans (Chiang et al. 2025, arXiv 2509.20630): sign changes of the
energy's steps (one for a single well), tortuosity (one for a single well) and Spearman's rank correlation of energy
and volume on both branches. Where the minimum lies inside, Birch and Murnaghan's equation of state is fitted near it
(Birch 1947, doi:10.1103/PhysRev.71.809), with :mod:`ase.eos`. Fractional coordinates stay as they are.
"""

from typing import Literal, NamedTuple

import numpy as np
from ase.eos import EquationOfState
from pydantic import Field
from scipy.stats import spearmanr
from torch import nn

from phystrain.data.structures import Floats, Structures
from phystrain.reliability import Curve, Figures, Result, Subject
from phystrain.reliability._barriers import REGION, BarrierTest
from phystrain.reliability._static import (
    copies_at,
    energies_of,
    evenly,
    finite,
    formula,
    structures_of,
    widest_gap,
)
from phystrain.units import GPA

VACUUM = 6.0
"""Å without an atom between layers, from which a cell is that of a surface: its volume is nobody's."""


class Config(BarrierTest):
    """Even strain of periodic structures, and their equation of state."""

    kind: Literal["strain"] = "strain"
    structures: int = Field(default=4, ge=1, description="how many structures to strain")
    strain: float = Field(default=0.2, gt=0, lt=1, description="largest change of length, as a fraction")
    points: int = Field(default=41, ge=21, description="points of each scan; an odd number includes no strain")
    small_step: float = Field(default=1.0, ge=0, description="meV/atom, steps of the energy that count as none")
    most_flips: int = Field(default=1, ge=0, description="most sign changes of the energy's steps")
    tortuosity_limit: float = Field(default=1.1, ge=1, description="largest tortuosity; 1 is a single smooth well")
    correlation: float = Field(default=0.95, gt=0, le=1, description="least rank correlation on either branch")
    window: float = Field(default=0.03, gt=0, lt=1, description="change of length about the minimum that is fitted")

    def __call__(self, subject: Subject) -> Result:
        """Strain structures of ``subject.start``, or of its other sets.

        Raises:
            UserError: there is no structure.
        """
        every = structures_of(subject, self.kind, 10**9)
        periodic = np.flatnonzero(every.pbc.all(axis=1))
        periodic = periodic[[widest_gap(every.select([number])) < VACUUM for number in periodic]]
        if not len(periodic):
            sentence = f"No structure is periodic in three directions without {VACUUM:g} Å of vacuum between layers."
            return Result(test=self.kind, title="Strain", applies=False, sentence=sentence)
        chosen = evenly(len(periodic), self.structures)
        scans = [self._scan(subject.potential, every.select([periodic[place]]), place) for place in chosen.tolist()]
        faults = [self._faults(scan) for scan in scans]
        bad = [number for number, found in enumerate(faults) if found]
        figures: Figures = {"structures": len(scans), "faulty structures": len(bad)}
        for scan in scans:
            figures |= {f"{what}, {scan.name}": value for what, value in scan.measures.items()}
        return Result(
            test=self.kind,
            title="Strain",
            figures=figures,
            passed=not bad,
            threshold=(
                f"within {100 * self.strain:g} % of the length at most {self.most_flips} sign change of the energy's "
                f"steps, tortuosity <= {self.tortuosity_limit:g}, rank correlation >= {self.correlation:g} on both "
                f"branches (steps below {self.small_step:g} meV/atom do not count; measures of mlip-arena)"
            ),
            sentence=_sentence([scan.name for scan in scans], faults, scans),
            curves={scan.name: scan.curve for scan in scans},
            grade=self.grade_behind((REGION * scans[number].barrier(self.small_step) for number in bad), subject),
            conditions=list(dict.fromkeys(scans[number].condition(self.small_step) for number in bad)),
        )

    def _scan(self, potential: nn.Module, single: Structures, place: int) -> "Scan":
        ratio = np.linspace(1 - self.strain, 1 + self.strain, self.points)
        energy = _energies(potential, single, ratio, self.batch_atoms)
        volume = float(abs(np.linalg.det(single.cell[0]))) / int(single.sizes[0])
        name = formula(single, 0, place)
        measures = self._measures(energy)
        lowest = int(np.nan_to_num(energy, nan=np.inf).argmin())
        if 0 < lowest < len(ratio) - 1 and np.isfinite(energy).all():
            near = ratio[lowest] * np.linspace(1 - self.window, 1 + self.window, 13)
            measures |= _equation_of_state(volume * near**3, _energies(potential, single, near, self.batch_atoms))
        return Scan(name, ratio, energy, measures, volume)

    def _measures(self, energy: Floats) -> dict[str, float | int | None]:
        """Flips, tortuosity and rank correlations of energies per atom (eV) at equally spaced lengths."""
        steps = np.diff(energy)
        steps = np.where(np.abs(steps) < 1e-3 * self.small_step, 0.0, steps)
        signs = np.sign(steps[steps != 0])
        lowest = int(np.nan_to_num(energy, nan=np.inf).argmin())
        rise = abs(energy[0] - energy[lowest]) + abs(energy[-1] - energy[lowest])
        # what is flat but for noise has no ranks
        level = np.concatenate([[0.0], np.cumsum(steps)])
        return {
            "sign changes": int(np.count_nonzero(np.diff(signs))),
            "tortuosity": float(np.abs(steps).sum() / rise) if rise > 1e-3 * self.small_step else 1.0,
            "rank correlation, compression": _correlation(level[: lowest + 1]),
            "rank correlation, tension": _correlation(level[lowest:]),
        }

    def _faults(self, scan: "Scan") -> list[str]:
        if not np.isfinite(scan.energy).all():
            return ["its energy is no finite number"]
        faults = []
        measures = {name: value for name, value in scan.measures.items() if value is not None}
        if measures["sign changes"] > self.most_flips:
            faults.append(f"its steps change their sign {measures['sign changes']} times")
        if measures["tortuosity"] > self.tortuosity_limit:
            faults.append(f"its tortuosity is {measures['tortuosity']:.2f}")
        if measures.get("rank correlation, compression", -1.0) > -self.correlation:
            faults.append("it does not rise steadily under compression")
        if measures.get("rank correlation, tension", 1.0) < self.correlation:
            faults.append("it does not rise steadily under tension")
        return faults


class Scan(NamedTuple):
    """Energies of one structure.

    Attributes:
        name: of the structure.
        ratio: (points,) length as a fraction of that at the start, ascending.
        energy: (points,) eV/atom.
        measures: by name.
        volume: Å³/atom at the start.
    """

    name: str
    ratio: Floats
    energy: Floats
    measures: dict[str, float | int | None]
    volume: float

    @property
    def curve(self) -> Curve:
        return Curve(
            x=(self.volume * self.ratio**3).tolist(),
            y=finite(self.energy - np.nanmin(self.energy)),
            x_label="volume, Å³/atom",
            y_label="energy above the lowest, eV/atom",
        )

    def _first_fall(self, small: float) -> tuple[int, float] | None:
        """Where the energy first falls on the way outwards from the start, and the rise before (eV/atom)."""
        start = int(np.abs(self.ratio - 1).argmin())
        found = []
        for way in (slice(start, None, -1), slice(start, None)):
            energy = self.energy[way]
            settled = int(np.nan_to_num(energy[: max(2, len(energy) // 2)], nan=np.inf).argmin())
            beyond = np.nan_to_num(energy[settled:], nan=-np.inf)
            fall = np.maximum.accumulate(beyond) - beyond > 1e-3 * small
            if fall.any():
                place = int(fall.argmax())
                number = settled + place - 1
                found.append((start + number * (1 if way.step is None else -1), float(np.ptp(beyond[:place]))))
        return min(found, key=lambda one: one[1]) if found else None

    def barrier(self, small: float) -> float:
        """eV/atom to climb before the energy falls; 0 if it never rises first."""
        fall = self._first_fall(small)
        return 0.0 if fall is None else fall[1]

    def condition(self, small: float) -> str:
        """What is not supported."""
        fall = self._first_fall(small)
        if fall is None:
            return f"strain of {self.name} is unsupported"
        change = self.ratio[fall[0]] - 1
        what = "compression" if change < 0 else "expansion"
        return f"{what} of {self.name} by more than {100 * abs(change):.0f} % of its length is unsupported"


def _energies(potential: nn.Module, single: Structures, ratio: Floats, batch_atoms: int) -> Floats:
    """(points,) eV/atom of a structure scaled to fractions of its length."""
    positions = ratio[:, None, None] * single.positions
    copies = copies_at(single, positions, ratio[:, None, None] * single.cell)
    return np.asarray(energies_of(potential, copies, batch_atoms) / single.sizes[0])


def _equation_of_state(volume: Floats, energy: Floats) -> dict[str, float | int | None]:
    """Volume (Å³/atom) and bulk modulus (GPa) where a fit succeeds and its minimum lies inside."""
    try:
        lowest, _, modulus = EquationOfState(volume, energy, eos="birchmurnaghan").fit(warn=False)
    except (RuntimeError, ValueError):  # no minimum among the points: the curve is no well
        return {}
    if not volume[0] < lowest < volume[-1]:
        return {}
    return {"volume at rest, Å³/atom": float(lowest), "bulk modulus, GPa": float(modulus) / GPA}


def _correlation(energy: Floats) -> float | None:
    """Rank correlation of energies with their order; ``None`` where there are too few or all are one."""
    if len(energy) < 4 or not np.isfinite(energy).all() or np.ptp(energy) == 0:
        return None
    return float(spearmanr(np.arange(len(energy)), energy).statistic)


def _sentence(names: list[str], faults: list[list[str]], scans: list[Scan]) -> str:
    bad = [f"of {name} {', '.join(found)}" for name, found in zip(names, faults, strict=True) if found]
    if bad:
        return f"The energy under strain is faulty in {len(bad)} of {len(names)} structures: {'; '.join(bad[:3])}."
    moduli = [scan.measures["bulk modulus, GPa"] for scan in scans if scan.measures.get("bulk modulus, GPa")]
    known = [float(modulus) for modulus in moduli if modulus is not None]
    note = f"; bulk modulus {min(known):.0f} to {max(known):.0f} GPa" if known else ""
    return f"A single smooth well under strain in all {len(names)} structures{note}."

"""Are bonds smooth springs? One bond of each kind, stretched and shortened where it is.

In the manner of the bond smoothness test of Liu et al. 2026 (arXiv 2602.04861), on the user's own structures: in a
molecule whose two halves hang on the bond one half is carried away as a whole, to where nothing acts any more; in
rings and crystals the two atoms move alone, and less far, for what they meet there belongs to other bonds. Looked for
are minima of the energy that no chemistry put there, and forces that change more suddenly than the bond's own
stiffness explains.

A half that is carried away may have one well and, behind a barrier, the products; a second well on the way, or a force
that rises again far out, is an artefact of most networks beyond their data and is named with the length where it
begins.
"""

from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field
from torch import nn

from phystrain.data.structures import Floats, Structures
from phystrain.reliability import Curve, Figures, Result, Subject
from phystrain.reliability._barriers import BarrierTest
from phystrain.reliability._bonds import Bond, beyond, shortest_bonds
from phystrain.reliability._static import (
    copies_at,
    finite,
    formula,
    predict,
    structures_of,
)


class Config(BarrierTest):
    """Energy and force along bonds of the user's structures."""

    kind: Literal["stretch"] = "stretch"
    structures: int = Field(default=3, ge=1, description="structures in which bonds are looked for")
    squeezed: float = Field(default=0.75, gt=0, lt=1, description="length of a shortened bond, as a fraction")
    longest: float = Field(default=2.5, gt=1, description="length of a bond between two halves, as a fraction")
    inside: float = Field(default=1.25, gt=1, description="length of a bond in a ring or crystal, as a fraction")
    points: int = Field(default=60, ge=20, description="points of each line between two halves; a third in crystals")
    depth: float = Field(default=0.05, gt=0, description="eV, depth of a further minimum that counts")
    roughness: float = Field(
        default=0.1, gt=0, description="largest step of the force that smoothness does not explain, over its range"
    )
    smooth_force: float = Field(default=0.2, gt=0, description="eV/Å, force steps smaller than this are smooth anyhow")

    def __call__(self, subject: Subject) -> Result:
        """Stretch bonds in ``subject.start``, or in its other sets.

        Raises:
            UserError: there is no structure.
        """
        chosen = structures_of(subject, self.kind, self.structures)
        lines: dict[str, Line] = {}
        for number in range(len(chosen)):
            single = chosen.select([number])
            for bond in shortest_bonds(single):
                if bond.label not in lines and bond.length < 1.5 * bond.radii:
                    lines[bond.label] = self._line(subject.potential, single, bond, formula(chosen, number, number))
        if not lines:
            sentence = "No two atoms of the structures are bonded."
            return Result(test=self.kind, title="Bond stretching", applies=False, sentence=sentence)
        figures: Figures = {}
        faults: dict[str, list[Fault]] = {}
        for label, line in lines.items():
            faults[label] = self._faults(line)
            figures[f"minima, {label}"] = len(wells(line.energy, self.depth))
            figures[f"roughness of the force, {label}"] = roughness(line.force)
            figures[f"largest force, {label}, eV/Å"] = float(np.abs(line.force).max())
        bad = {label: found for label, found in faults.items() if found}
        figures = {"bonds": len(lines), "faulty bonds": len(bad)} | figures
        parts = [f"{label} {', '.join(fault.what for fault in found)}" for label, found in bad.items()]
        return Result(
            test=self.kind,
            title="Bond stretching",
            figures=figures,
            passed=not bad,
            threshold=(
                f"no further minimum deeper than {self.depth:g} eV, and no sudden step of the force by more than "
                f"{self.roughness:g} of its range (after arXiv 2602.04861)"
            ),
            sentence=(
                f"{len(bad)} of {len(lines)} kinds of bonds are faulty: {'; '.join(parts[:4])}."
                if bad
                else f"All {len(lines)} kinds of bonds have a single well and a smooth force."
                if len(lines) > 1
                else "The bonds have a single well and a smooth force."
            ),
            curves={f"{label} in {line.name}": line.curve for label, line in lines.items()},
            grade=self.grade_behind((fault.barrier for found in bad.values() for fault in found), subject),
            conditions=[fault.condition(label) for label, found in bad.items() for fault in found[:1]],
        )

    def _line(self, potential: nn.Module, single: Structures, bond: Bond, name: str) -> "Line":
        """Energy and force along one bond."""
        half = beyond(single, bond)
        count = self.points if half is not None else max(20, self.points // 3)
        ratio = np.linspace(self.squeezed, self.inside if half is None else self.longest, count)
        move = (ratio - 1)[:, None] * bond.vector
        positions = np.repeat(single.positions[None], count, axis=0)
        share = np.zeros(len(single.positions))
        if half is None:
            share[bond.first], share[bond.second] = -0.5, 0.5
        else:
            share[half] = 1.0
        positions += share[None, :, None] * move[:, None, :]
        found = predict(potential, copies_at(single, positions), self.batch_atoms, "forces")
        forces = found.forces.reshape(positions.shape)
        along = np.einsum("pax,a,x->p", forces, share, bond.vector / bond.length)
        return Line(name, bond, ratio * bond.length, found.energy - found.energy[np.abs(ratio - 1).argmin()], along)

    def _faults(self, line: "Line") -> list["Fault"]:
        if not (np.isfinite(line.energy).all() and np.isfinite(line.force).all()):
            place = int((~np.isfinite(line.energy + line.force)).argmax())
            return [Fault("has no finite energy or force", float(line.length[place]), line, float("nan"))]
        start = int(np.abs(line.length - line.bond.length).argmin())
        faults = []
        found = wells(line.energy, self.depth)
        if found:
            own = min(found, key=lambda well: abs(well - start))
            for well in found:
                if well != own:
                    between = slice(min(well, own), max(well, own) + 1)
                    top = min(well, own) + int(line.energy[between].argmax())
                    barrier = float(line.energy[top] - line.energy[own])
                    what = f"has a further minimum at {line.length[well]:.2f} Å"
                    faults.append(Fault(what, float(line.length[top]), line, barrier))
        if roughness(line.force, self.smooth_force) > self.roughness:
            place = roughest(line.force)
            what = f"changes its force suddenly at {line.length[place]:.2f} Å"
            barrier = float(line.energy[place] - line.energy.min())
            faults.append(Fault(what, float(line.length[place]), line, barrier))
        return faults


class Line(NamedTuple):
    """A bond and what it costs to change it.

    Attributes:
        name: of the structure.
        bond: as it is there.
        length: (points,) Å, ascending.
        energy: (points,) eV above the structure as it is.
        force: (points,) eV/Å along the bond, positive where it pushes apart.
    """

    name: str
    bond: Bond
    length: Floats
    energy: Floats
    force: Floats

    @property
    def curve(self) -> Curve:
        return Curve(
            x=self.length.tolist(),
            y=finite(self.energy),
            x_label="length of the bond, Å",
            y_label="energy above the structure as it is, eV",
        )


class Fault(NamedTuple):
    """Something wrong with a bond: in words, the length where it begins (Å), and the energy it takes to get there."""

    what: str
    begins: float
    line: Line
    barrier: float

    def condition(self, label: str) -> str:
        """What is not supported."""
        side = "below" if self.begins < self.line.bond.length else "above"
        return f"{label} bonds {side} {self.begins:.2f} Å are unsupported"


def wells(energy: Floats, depth: float) -> list[int]:
    """Places of the minima that are deeper than ``depth`` (eV) on both sides; the ends of a line are none.

    Args:
        energy: (points,) eV.
        depth: eV.
    """
    found, lowest, highest = [], 0, 0
    falling = True  # what looks for a minimum now; a rise by ``depth`` from the lowest ends the search
    for place in range(1, len(energy)):
        if falling:
            if energy[place] < energy[lowest]:
                lowest = place
            elif energy[place] > energy[lowest] + depth:
                found.append(lowest)
                falling, highest = False, place
        elif energy[place] > energy[highest]:
            highest = place
        elif energy[place] < energy[highest] - depth:
            falling, lowest = True, place
    return [place for place in found if place > 0]


def roughness(force: Floats, smallest: float = 0.0) -> float:
    """Largest sudden step of the force, over the spread of all forces; 0 if it is below ``smallest``.

    By third differences, which a step of the force doubles and a smooth curve loses.

    Args:
        force: (points,) eV/Å, equally spaced.
        smallest: eV/Å.
    """
    change = np.abs(np.diff(force, n=3)).max() / 2
    return 0.0 if change < smallest else float(change / max(np.ptp(force), 1e-9))


def roughest(force: Floats) -> int:
    """Point where the force is least smooth."""
    return int(np.abs(np.diff(force, n=3)).argmax()) + 1

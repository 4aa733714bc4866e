"""Jumps of energy and forces when atoms cross the cut-off, or when their neighbours change places.

Single atoms of the user's structures are moved along short straight lines in fine steps, in the structure as it is and
in a compressed one, where more neighbours come within reach; to atoms in vacuum, a further atom is carried through the
cut-off of the outermost one. In dense matter every such line takes many neighbours through the cut-off and changes
the order of many others, which is what a cap on the number of neighbours stumbles over (Fu et al. 2025,
arXiv 2502.12147, name both among the causes of lost energy conservation).

A jump is told from a steep but smooth curve by fifth differences: where they are largest the line is looked at again
with a sixteenth of the step, at which anything smooth has vanished and a jump is as large as before. Where only the
force looks like one, a sixteenth of that decides: the onset of a repulsion whose third derivative alone is not
continuous is only a bend.
"""

from dataclasses import replace
from itertools import product
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from phystrain.data.structures import Floats, Structures
from phystrain.derive import cutoff_known
from phystrain.neighbours import neighbour_list
from phystrain.reliability import Curve, Grade, Result, Subject
from phystrain.reliability._static import (
    ORDER,
    ROOM,
    StaticTest,
    affordable,
    copies_at,
    formula,
    jumps_of,
    noise_of,
    opened,
    predict,
    spread,
    structures_of,
)
from phystrain.units import BOLTZMANN

_FINER = 16
_NOISE_FACTOR = 10  # a jump smaller than so many standard deviations of the noise is none
_UNKNOWN = (3.0, 12.0)  # Å, where the cut-off is looked for if the potential names none
_SMALLEST = 0.1  # meV/Å, jumps of forces below this are none
_SIDEWAYS = 0.5  # Å that an atom is moved at most to bring a neighbour to the cut-off
_FEWEST = 3  # lines, whatever the effort
_LONGEST = 30.0  # Å, a longer cut-off is none


class Config(StaticTest):
    """Jumps of energy and forces along short lines through the user's structures."""

    kind: Literal["cutoff"] = "cutoff"
    rattle: float = Field(default=0.02, ge=0, description="Å, random displacement first, so that no line is special")
    compressed: float = Field(default=0.85, gt=0, le=1, description="length of the compressed copy, as a fraction")
    step: float = Field(default=0.01, gt=0, description="Å between points of a line")
    points: int = Field(default=40, ge=12, description="points of a line")
    atoms: int = Field(default=25_000, ge=1, description="atoms that are evaluated in all, which limits the lines")
    closer: int = Field(default=8, ge=1, description="places that are looked at again with finer steps")
    thermal: float = Field(
        default=0.01, gt=0, description="largest jump of the energy, in units of k_B T at the lowest temperature"
    )
    force: float = Field(default=10.0, gt=0, description="meV/Å, largest jump of a force")
    part: float = Field(default=0.05, gt=0, description="largest jump of a force, as a fraction of the RMS, if smaller")
    fatal: float = Field(default=20.0, gt=1, description="a jump of so many times the limit is unsafe")

    def __call__(self, subject: Subject) -> Result:
        """Move atoms of ``subject.start``, or of its other sets.

        Raises:
            UserError: there is no structure.
        """
        chosen = structures_of(subject, self.kind, self.structures, rattle=self.rattle)
        cutoff = float(subject.potential.cutoff)  # type: ignore[arg-type]
        known = cutoff_known(subject.potential) and 0 < cutoff < _LONGEST
        lines = self._lines(chosen, cutoff if known else None, np.random.default_rng(subject.seed))
        steepest = [self._steepest(subject, line) for line in lines]
        tops = [place for some, _ in steepest for place in some]
        scales = [scale for line, (_, scale) in zip(lines, steepest, strict=True) if line.kind == "as it is"]
        force_limit = min(self.force, max(1000 * self.part * min(scales, default=np.inf), _SMALLEST))
        # the largest by energy and the largest by force, as many of each; a place may be both
        half = max(1, self.closer // 2)
        picked = {id(top): top for top in sorted(tops, key=lambda top: -top.energy)[:half]}
        picked |= {id(top): top for top in sorted(tops, key=lambda top: -top.force)[:half]}
        limit = 1000 * self.thermal * BOLTZMANN * max(1.0, min(subject.temperatures, default=ROOM))
        found = []
        for top in picked.values():
            step = top.line.step / _FINER
            jump = self._closer(subject, top, step)
            # a step of the energy is one however it is smeared; a force may only bend
            if jump.size(limit, force_limit) > 1 and jump.size(limit, np.inf) <= 1:
                jump = self._closer(subject, top._replace(begin=jump.place - step / 2), step / _FINER)
            found.append(jump)
        worst = max(found, key=lambda jump: jump.size(limit, force_limit))
        noise = float(np.median([jump.noise for jump in found]))
        force_noise = float(np.median([jump.force_noise for jump in found]))
        jumping = [jump for jump in found if jump.size(limit, force_limit) > 1]
        neighbours = max((most_neighbours(line, cutoff) for line in lines), default=0) if known else None
        return Result(
            test=self.kind,
            title="Cut-off",
            figures={
                "cut-off, Å": cutoff if known else None,
                "lines": len(lines),
                "points": sum(len(line.places) for line in lines),
                "most neighbours of a moved atom": neighbours,
                "places with a jump": len(jumping),
                "largest jump of the energy, meV": max(jump.energy for jump in found),
                "largest jump of a force, meV/Å": max(jump.force for jump in found),
                "rounding of the energy, meV": noise,
                "rounding of the forces, meV/Å": force_noise,
            },
            passed=not jumping,
            threshold=(
                f"no jump of the energy above {limit:.2g} meV, which is {self.thermal:g} k_B T, and none of a force "
                f"above {force_limit:.2g} meV/Å, which is {self.force:g} or {100 * self.part:g} % of the RMS force"
            ),
            sentence=self._sentence(jumping, worst, len(lines), cutoff if known else None),
            curves={"around the largest jump" if jumping else "around the steepest place": worst.curve},
            grade=_grade(worst.size(limit, force_limit), self.fatal),
            conditions=[f"the energy jumps {_where(worst, cutoff)}"] if jumping else [],
        )

    def _lines(self, chosen: Structures, cutoff: float | None, generator: np.random.Generator) -> list["Line"]:
        """As many lines as the effort allows, all kinds of them in turn."""
        lines = []
        reach = self.step * (np.arange(self.points, dtype=np.float64) - (self.points - 1) / 2)
        for ratio, number in product((1.0, self.compressed), range(len(chosen))):
            single = chosen.select([number])
            single = replace(single, positions=ratio * single.positions, cell=ratio * single.cell)
            name = formula(chosen, number, number) + ("" if ratio == 1 else f" at {ratio:g} of its length")
            kind = "as it is" if ratio == 1 else "compressed"
            for element in single.elements:
                atom = int(generator.choice(np.flatnonzero(single.species == element)))
                direction, middle = self._aim(single, atom, cutoff, generator)
                lines.append(Line(kind, name, single, atom, direction, reach + middle, self.step))
        for number in range(len(chosen)):
            if chosen.pbc[number].any():
                continue
            for element in chosen.elements:
                # to atoms in vacuum the cut-off is nothing that their own motion crosses
                approach = reach + cutoff if cutoff is not None else np.arange(*_UNKNOWN, 5 * self.step)
                step = self.step if cutoff is not None else 5 * self.step
                carried, direction = with_probe(chosen.select([number]), element, generator)
                last = int(carried.sizes[0]) - 1
                name = f"an atom carried to {formula(chosen, number, number)}"
                lines.append(Line("probe", name, carried, last, direction, approach, step))
        lines = sorted((lines[number] for number in generator.permutation(len(lines))), key=lambda line: line.kind)
        atoms = [len(line.places) * int(line.structure.sizes[0]) for line in lines]
        return [lines[number] for number in affordable([line.kind for line in lines], atoms, self.atoms, _FEWEST)]

    def _aim(
        self, single: Structures, atom: int, cutoff: float | None, generator: np.random.Generator
    ) -> tuple[Floats, float]:
        """A direction (3,) and the place (Å) of the middle of a line: where a neighbour is at the cut-off if one is."""
        direction = _direction(generator)
        if cutoff is not None:
            vectors = _vectors(single, atom, single.positions[atom], cutoff + _SIDEWAYS)
            distances = np.linalg.norm(vectors, axis=1)
            nearest = int(np.abs(distances - cutoff).argmin()) if len(distances) else 0
            if len(distances) and abs(distances[nearest] - cutoff) < _SIDEWAYS:
                return np.asarray(vectors[nearest] / distances[nearest]), float(distances[nearest] - cutoff)
        return direction, 0.0

    def _steepest(self, subject: Subject, line: "Line") -> tuple[list["Top"], float]:
        """The places of a line with the largest fifth differences, apart from one another; and its RMS force, eV/Å."""
        energy, forces = _along(subject, line, line.places, self.batch_atoms)
        by_energy = np.abs(jumps_of(energy))
        by_force = np.linalg.norm(jumps_of(forces), axis=2).max(axis=1)
        by_energy, by_force = (np.nan_to_num(values, nan=np.inf) for values in (by_energy, by_force))
        tops, free = [], np.ones((2, len(by_energy)), dtype=bool)
        for _ in range(self.closer):
            for kind, values in enumerate((by_energy, by_force)):
                window = int(np.where(free[kind], values, -1.0).argmax())
                free[kind, max(0, window - 2) : window + 3] = False
                tops.append(Top(line, line.places[window + ORDER // 2], by_energy[window], by_force[window]))
            if not free.all(axis=0).any():
                break
        return tops, spread(forces)

    def _closer(self, subject: Subject, top: "Top", step: float) -> "Jump":
        """What is left of a steep place with finer steps (Å)."""
        places = top.begin + step * np.arange(-3.0, _FINER + 4)
        energy, forces = _along(subject, top.line, places, self.batch_atoms)
        by_energy = np.abs(jumps_of(energy))
        by_force = np.linalg.norm(jumps_of(forces), axis=2).max(axis=1)
        noise, force_noise = noise_of(energy), noise_of(forces)
        largest = int((by_energy / max(by_energy.max(), 1e-300) + by_force / max(by_force.max(), 1e-300)).argmax())
        middle = float(places[largest + ORDER // 2] + step / 2)
        return Jump(
            top.line,
            middle,
            1000 * float(by_energy.max()),
            1000 * float(by_force.max()),
            1000 * noise,
            1000 * force_noise,
            Curve(
                x=(places - middle).tolist(),
                y=[float(1000 * value) if np.isfinite(value) else None for value in energy - energy[0]],
                x_label="displacement of one atom, Å",
                y_label="change of the energy, meV",
            ),
        )

    def _sentence(self, jumping: list["Jump"], worst: "Jump", lines: int, cutoff: float | None) -> str:
        if not jumping:
            what = "through the cut-off and past other atoms" if cutoff is not None else "past other atoms"
            return f"Energy and forces are continuous along {lines} lines that take atoms {what}."
        size = f"{worst.energy:.2g} meV and {worst.force:.2g} meV/Å"
        return f"The potential jumps by {size} {_where(worst, cutoff or 0.0)} in {worst.line.name}."


class Line(NamedTuple):
    """A straight line that one atom is moved along.

    Attributes:
        kind: ``as it is`` or ``compressed``, of the structure; ``probe`` for an atom that is carried to it.
        name: of the structure, for people.
        structure: a set of one.
        atom: that moves.
        direction: (3,) of length one.
        places: (points,) Å from where it is.
        step: Å between them.
    """

    kind: str
    name: str
    structure: Structures
    atom: int
    direction: Floats
    places: Floats
    step: float


class Top(NamedTuple):
    """A steep place: line, where its interval begins (Å), and what looks like a jump there (eV, eV/Å)."""

    line: Line
    begin: float
    energy: float
    force: float


class Jump(NamedTuple):
    """What is left of a steep place with finer steps.

    Attributes:
        line: it lies on.
        place: Å along the line.
        energy, force: meV and meV/Å, of the jump.
        noise, force_noise: meV and meV/Å, standard deviation beside it.
        curve: energy there.
    """

    line: Line
    place: float
    energy: float
    force: float
    noise: float
    force_noise: float
    curve: Curve

    def size(self, energy: float, force: float) -> float:
        """In units of the limits (meV, meV/Å), beyond the noise; infinite where something is not finite."""
        excess = max(
            (self.energy - _NOISE_FACTOR * self.noise) / energy, (self.force - _NOISE_FACTOR * self.force_noise) / force
        )
        return excess if np.isfinite(self.energy + self.force) else float("inf")


def with_probe(structure: Structures, element: int, generator: np.random.Generator) -> tuple[Structures, Floats]:
    """A structure in vacuum with a further atom on its outermost one, and the direction (3,) away from all others.

    Args:
        structure: a set of one.
        element: atomic number of the further atom.
        generator: of the direction.
    """
    direction = _direction(generator)
    outermost = int((structure.positions @ direction).argmax())
    carried = replace(
        opened(structure),
        positions=np.vstack([structure.positions, structure.positions[outermost]]),
        species=np.append(structure.species, element),
        forces=np.full((len(structure.species) + 1, 3), np.nan),
        offsets=structure.offsets + np.array([0, 1]),
    )
    return carried, direction


def most_neighbours(line: Line, cutoff: float) -> int:
    """Neighbours of the atom that moves, in the middle of its line."""
    return len(_distances(line, float(np.median(line.places)), cutoff))


def _along(subject: Subject, line: Line, places: Floats, batch_atoms: int) -> tuple[Floats, Floats]:
    """(points,) eV and (points, atoms, 3) eV/Å."""
    positions = np.repeat(line.structure.positions[None], len(places), axis=0)
    positions[:, line.atom] += places[:, None] * line.direction
    found = predict(subject.potential, copies_at(line.structure, positions), batch_atoms, "forces")
    return found.energy, found.forces.reshape(positions.shape)


def _distances(line: Line, place: float, radius: float) -> Floats:
    """Å from the atom that moves to all others within a radius."""
    moved = line.structure.positions[line.atom] + place * line.direction
    return np.asarray(np.linalg.norm(_vectors(line.structure, line.atom, moved, radius), axis=1))


def _vectors(single: Structures, atom: int, place: Floats, radius: float) -> Floats:
    """(neighbours, 3) Å from an atom, were it at ``place``, to all others within a radius."""
    positions = single.positions.copy()
    positions[atom] = place
    edges, shifts = neighbour_list(positions, single.cell[0], single.pbc[0], radius)
    vectors = positions[edges[1]] - positions[edges[0]] + shifts @ single.cell[0]
    return np.asarray(vectors[(edges[0] == atom) & (edges[1] != atom)])


def _where(jump: Jump, cutoff: float) -> str:
    """Of the atoms that meet at a jump."""
    if not 0 < cutoff < _LONGEST:
        return "where neighbours come and go"
    distances = _distances(jump.line, jump.place, cutoff + 0.1)
    if (np.abs(distances - cutoff) < 2 * jump.line.step / _FINER).any():
        return f"where an atom crosses the cut-off of {cutoff:g} Å"
    count = int(np.count_nonzero(distances < cutoff))
    return f"where no atom crosses the cut-off (a cap on neighbours? There are {count})"


def _direction(generator: np.random.Generator) -> Floats:
    vector = generator.normal(size=3)
    return np.asarray(vector / np.linalg.norm(vector))


def _grade(size: float, fatal: float) -> Grade:
    return "safe" if size <= 1 else "unsafe" if size > fatal else "limited"

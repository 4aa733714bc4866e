"""Energy, forces and stress must know neither origin nor direction nor numbering.

Energy, forces and stress of the user's own structures, rattled, are compared with those of turned, mirrored, shifted,
renumbered and re-imaged copies and of a supercell, in the precision of the potential. What remains is told apart: a
symmetry that is broken stays broken in double precision and beyond the noise of the energy, which is measured by
itself; what vanishes there is rounding. Large energies that are summed in single precision show as noise
(`MACE <https://github.com/ACEsuit/mace>`_ and others advise double precision for that reason).
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.spatial.transform import Rotation
from torch import nn

from phystrain.data.structures import Floats, Structures
from phystrain.reliability import Figures, Grade, Result, Subject
from phystrain.reliability._static import (
    StaticTest,
    Values,
    in_double,
    predict,
    rounding,
    spread,
    structures_of,
    worst_grade,
)
from phystrain.units import GPA

_NOISE_FACTOR = 10  # an operation that differs by less than so many standard deviations of the noise is not broken


class Config(StaticTest):
    """Rotation, reflection, translation, permutation, periodic images and supercells."""

    kind: Literal["symmetry"] = "symmetry"
    rattle: float = Field(default=0.05, ge=0, description="Å, random displacement first, so that forces are not zero")
    energy: float = Field(default=0.1, gt=0, description="meV/atom, largest difference of the energy")
    forces: float = Field(default=0.01, gt=0, description="largest difference of a force, as a fraction of the RMS")
    smallest_force: float = Field(default=0.5, gt=0, description="meV/Å, difference of a force that is allowed anyhow")
    stress: float = Field(default=0.1, gt=0, description="GPa, largest difference of a stress")
    noise: float = Field(default=0.01, gt=0, description="meV/atom, largest rounding of the energy")
    force_noise: float = Field(default=2.0, gt=0, description="meV/Å, largest rounding of the forces")
    fatal: float = Field(default=10.0, gt=1, description="a symmetry broken by so many times the limit is unsafe")

    def __call__(self, subject: Subject) -> Result:
        """Look at structures of ``subject.start``, or of its other sets.

        Raises:
            UserError: there is no structure.
        """
        chosen = structures_of(subject, self.kind, self.structures, rattle=self.rattle)
        generator = np.random.default_rng(subject.seed)
        singles = [chosen.select([number]) for number in range(len(chosen))]
        changes = [list(operations(single, generator)) for single in singles]
        own = self._compared(subject.potential, singles, changes)
        noise = [rounding(subject.potential, single, self.batch_atoms) for single in singles]
        energy_noise = max(1000 * noise[i][0] / int(single.sizes[0]) for i, single in enumerate(singles))
        force_noise = 1000 * max(of_forces for _, of_forces in noise)
        wrong = [name for name, difference in own.items() if self._excess(difference) > 1]
        broken = []
        if wrong:
            double = self._compared(in_double(subject.potential), singles, changes)
            beyond = Difference(_NOISE_FACTOR * energy_noise, _NOISE_FACTOR * force_noise, np.inf, 1.0)
            broken = [
                name
                for name in wrong
                if self._excess(double[name]) > 1
                and (own[name].energy > beyond.energy or own[name].forces > beyond.forces or not own[name].finite)
            ]
        rough = energy_noise > self.noise or force_noise > self.force_noise or len(broken) < len(wrong)
        figures: Figures = {
            "rounding of the energy, meV/atom": energy_noise,
            "rounding of the forces, meV/Å": force_noise,
        }
        for name, difference in own.items():
            figures[f"energy after {name}, meV/atom"] = difference.energy
            figures[f"forces after {name}, meV/Å"] = difference.forces
            if np.isfinite(difference.stress):
                figures[f"stress after {name}, GPa"] = difference.stress
        return Result(
            test=self.kind,
            title="Symmetry",
            figures=figures,
            passed=not broken and not rough,
            threshold=(
                f"differences up to {self.energy:g} meV/atom, {100 * self.forces:g} % of the RMS force (or "
                f"{self.smallest_force:g} meV/Å) and {self.stress:g} GPa; rounding up to {self.noise:g} meV/atom and "
                f"{self.force_noise:g} meV/Å"
            ),
            sentence=_sentence(own, broken, rough, energy_noise, force_noise),
            grade=self._grade([own[name] for name in broken], rough),
            conditions=[
                *(f"a change of the energy by {name} is not physical" for name in broken),
                *([f"energies are rounded to {energy_noise:.2g} meV/atom"] if energy_noise > self.noise else []),
                *([f"forces are rounded to {force_noise:.2g} meV/Å"] if force_noise > self.force_noise else []),
            ],
        )

    def _compared(
        self, potential: nn.Module, singles: list[Structures], changes: list[list["Operation"]]
    ) -> dict[str, "Difference"]:
        """The largest differences by name of the operation."""
        worst: dict[str, Difference] = {}
        for single, some in zip(singles, changes, strict=True):
            everything = Structures.concatenate([single, *(change.structure for change in some)])
            want = ("forces", "stress") if single.pbc.all() else ("forces",)
            found = predict(potential, everything, self.batch_atoms, *want)
            forces = np.split(found.forces, everything.offsets[1:-1])
            before = Values(found.energy[:1], forces[0], found.stress[:1])
            for number, change in enumerate(some, start=1):
                after = Values(found.energy[[number]], forces[number], found.stress[number : number + 1])
                difference = change.difference(before, after)
                worst[change.name] = difference.or_worse(worst.get(change.name, difference))
        return worst

    def _excess(self, difference: "Difference") -> float:
        """The largest difference in units of its limit."""
        if not difference.finite:
            return float("inf")
        force = max(self.smallest_force, self.forces * difference.scale)
        stress = difference.stress / self.stress if np.isfinite(difference.stress) else 0.0
        return max(difference.energy / self.energy, difference.forces / force, stress)

    def _grade(self, broken: list["Difference"], rough: bool) -> Grade:
        grades: list[Grade] = ["unsafe" if self._excess(one) > self.fatal else "limited" for one in broken]
        return worst_grade(*grades, "limited" if rough else "safe")


class Difference(NamedTuple):
    """Between what is and what should be.

    Attributes:
        energy: meV/atom.
        forces: meV/Å, the largest component.
        stress: GPa, the largest component; not a number without.
        scale: meV/Å, RMS force.
    """

    energy: float
    forces: float
    stress: float
    scale: float

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.energy) and np.isfinite(self.forces))

    def or_worse(self, other: "Difference") -> "Difference":
        """The larger of both, one by one; not a number counts as largest in energy and forces."""
        return Difference(
            float(np.maximum(self.energy, other.energy)),
            float(np.maximum(self.forces, other.forces)),
            float(np.fmax(self.stress, other.stress)),
            min(self.scale, other.scale),
        )


class Operation(NamedTuple):
    """A copy of a structure, and how its results follow from those of the original.

    Attributes:
        name: for people.
        structure: the copy, a set of one.
        matrix: (3, 3) orthogonal, what turns the original.
        order: (atoms,) atom of the original that each atom of the copy is.
    """

    name: str
    structure: Structures
    matrix: Floats
    order: npt.NDArray[np.int64]

    def difference(self, before: Values, after: Values) -> Difference:
        """What is left between the copy's results and those that the original's make it expect."""
        size = len(before.forces)
        expected = (before.forces @ self.matrix.T)[self.order]
        stress = after.stress
        if stress.size:
            stress = stress - self.matrix @ before.stress @ self.matrix.T
        return Difference(
            1000 * abs(float(after.energy[0] / len(self.order) - before.energy[0] / size)),
            1000 * float(np.abs(after.forces - expected).max()),
            float(np.abs(stress).max()) / GPA if stress.size else float("nan"),
            1000 * spread(before.forces),
        )


def operations(structure: Structures, generator: np.random.Generator) -> Iterator[Operation]:
    """Everything that must change nothing but the frame of reference.

    Args:
        structure: a set of one.
        generator: of rotations, shifts and orders.
    """
    size = int(structure.sizes[0])
    same, one = np.arange(size), np.eye(3)
    for name in ("rotation", "rotation", "reflection"):
        matrix = Rotation.random(random_state=generator).as_matrix() * (-1 if name == "reflection" else 1)
        turned = replace(structure, positions=structure.positions @ matrix.T, cell=structure.cell @ matrix.T)
        yield Operation(name, turned, matrix, same)
    shifted = structure.positions + generator.uniform(-5, 5, 3)
    yield Operation("translation", replace(structure, positions=shifted), one, same)
    order = generator.permutation(size)
    swapped = replace(structure, positions=structure.positions[order], species=structure.species[order])
    yield Operation("permutation", swapped, one, order)
    if not structure.pbc.any():
        return
    periodic = structure.pbc[0]
    cells = generator.integers(-2, 3, (size, 3)) * periodic
    elsewhere = structure.positions + cells @ structure.cell[0]
    yield Operation("wrapping", replace(structure, positions=elsewhere), one, same)
    lengths = np.where(periodic, np.linalg.norm(structure.cell[0], axis=1), np.inf)
    axis = int(lengths.argmin())
    doubled = structure.cell.copy()
    doubled[0, axis] *= 2
    twice = Structures.concatenate([structure, structure])
    twice.positions[size:] += structure.cell[0, axis]
    large = replace(
        twice,
        offsets=np.array([0, 2 * size]),
        **{name: getattr(twice, name)[:1] for name in ("pbc", "energy", "stress", "weight")},
        cell=doubled,
    )
    yield Operation("doubling the cell", large, one, np.concatenate([same, same]))


def _sentence(
    own: dict[str, Difference], broken: list[str], rough: bool, energy_noise: float, force_noise: float
) -> str:
    worst_energy = max(difference.energy for difference in own.values())
    worst_force = max(difference.forces for difference in own.values())
    if broken:
        names = " and ".join(filter(None, [", ".join(broken[:-1]), broken[-1]]))
        energy, forces = max(own[name].energy for name in broken), max(own[name].forces for name in broken)
        return f"Broken symmetry: {names} changes the energy by {energy:.2g} meV/atom, forces by {forces:.2g} meV/Å."
    if rough:
        return (
            f"Symmetries hold but for a loss of precision: energies are rounded to {energy_noise:.2g} meV/atom, forces "
            f"to {force_noise:.2g} meV/Å."
        )
    return f"All symmetries hold, to {worst_energy:.1g} meV/atom and {worst_force:.1g} meV/Å."

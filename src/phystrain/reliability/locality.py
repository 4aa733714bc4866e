"""Far atoms leave one another alone, and parts add up.

Three checks in vacuum, on the user's structures without their periodic images: two copies far apart have twice the
energy, atoms far away exert no force, and atoms far from one another have the energies of lone ones. Distances and the
scale of judgement are those of ml-peg (https://github.com/ddmms/ml-peg: extensivity with 100 Å between the parts, good
0, bad 10 meV; ghost atoms 40 Å away, good 0, bad 5 meV/Å).

Each is looked at from two distances. A potential with a true long range, such as one with Coulomb interactions, has
differences that decay from one to the other; the criteria are not meant for it, and it is told so with its decay. What
depends on the number of atoms, or on anything else that is not local, does not decay.
"""

from typing import Literal, NamedTuple

import numpy as np
from ase.data import chemical_symbols
from pydantic import Field
from torch import nn

from phystrain.data.structures import Floats, Structures
from phystrain.reliability import Figures, Grade, Result, Subject
from phystrain.reliability._static import StaticTest, cluster, opened, predict, structures_of

_DECAY = 0.8  # at twice the distance less than this part must be left for the difference to count as decaying


class Config(StaticTest):
    """Extensivity, locality and the limit of isolated atoms."""

    kind: Literal["locality"] = "locality"
    apart: float = Field(default=100.0, gt=0, description="Å between two copies")
    ghosts: float = Field(default=40.0, gt=0, description="Å from a structure to the ghost atoms")
    alone: float = Field(default=60.0, gt=0, description="Å between atoms that should be isolated")
    energy: float = Field(default=1.0, gt=0, description="meV, largest difference of an energy")
    bad_energy: float = Field(default=10.0, gt=0, description="meV, difference from which a potential is unsafe")
    force: float = Field(default=0.5, gt=0, description="meV/Å, largest force of ghost atoms")
    bad_force: float = Field(default=5.0, gt=0, description="meV/Å, force from which a potential is unsafe")
    reference: float = Field(
        default=0.1, gt=0, description="eV, difference of a lone atom from its reference energy that is mentioned"
    )

    def __call__(self, subject: Subject) -> Result:
        """Look at structures of ``subject.start``, or of its other sets.

        Raises:
            UserError: there is no structure.
        """
        chosen = opened(structures_of(subject, self.kind, self.structures))
        lone = self._lone(subject)
        checks = [self._copies(subject.potential, chosen), self._alone(subject.potential, lone)]
        checks += self._ghosts(subject.potential, chosen, lone)
        bad = [check for check in checks if not check.value <= check.limit]
        far_ranged = bool(bad) and all(check.decays for check in bad)
        figures: Figures = {}
        for check in checks:
            figures[check.name] = check.value
            if check in bad:
                figures[f"at {check.at:g} Å: {check.name}"] = check.other
        references = self._references(subject, lone)
        figures |= {f"lone {name} less its reference energy, meV": 1000 * value for name, value in references.items()}
        return Result(
            test=self.kind,
            title="Locality",
            figures=figures,
            passed=None if far_ranged else not bad,
            threshold=(
                f"energies of parts {self.apart:g} Å apart add up to {self.energy:g} meV, atoms {self.ghosts:g} Å away "
                f"exert less than {self.force:g} meV/Å (a tenth of what ml-peg calls bad)"
            ),
            sentence=_sentence(checks, bad, far_ranged),
            applies=not far_ranged,
            grade=None if far_ranged else self._grade(bad),
            conditions=[
                *([f"interactions reach beyond {self.ghosts:g} Å"] if far_ranged else []),
                *(
                    f"energies of lone {name} are off by {value:.2g} eV, and so is all that dissociates to them"
                    for name, value in references.items()
                    if abs(value) > self.reference
                ),
            ],
        )

    def _lone(self, subject: Subject) -> dict[int, float]:
        """Energy (eV) of each element's lone atom."""
        species = subject.statistics.species
        singles = Structures.concatenate([cluster(np.array([z]), np.zeros((1, 3))) for z in species])
        return dict(zip(species, predict(subject.potential, singles, self.batch_atoms).energy.tolist(), strict=True))

    def _references(self, subject: Subject, lone: dict[int, float]) -> dict[str, float]:
        """Energies (eV) by element, of lone atoms less those of the data; only where the data's are isolated atoms."""
        if subject.statistics.reference_source not in ("given", "isolated"):
            return {}
        known = subject.statistics.reference_energies
        return {chemical_symbols[z]: energy - known[z] for z, energy in lone.items() if z in known}

    def _copies(self, potential: nn.Module, chosen: Structures) -> "Check":
        """Two copies against twice one."""
        once = predict(potential, chosen, self.batch_atoms).energy
        both = []
        for gap in (self.apart / 2, self.apart):
            pairs = [_twice(chosen.select([number]), gap) for number in range(len(chosen))]
            both.append(predict(potential, Structures.concatenate(pairs), self.batch_atoms).energy - 2 * once)
        name = f"two copies {self.apart:g} Å apart less twice one, meV"
        return _check(name, both, 1, self.apart / 2, self.energy, self.bad_energy, "meV")

    def _alone(self, potential: nn.Module, lone: dict[int, float]) -> "Check":
        """All elements, two atoms of each, on a line."""
        species = np.repeat(list(lone), 2)
        expected = 2 * sum(lone.values())
        differences = []
        for gap in (self.alone, 2 * self.alone):
            places = gap * np.arange(len(species))[:, None] * np.array([1.0, 0, 0])
            found = predict(potential, cluster(species, places), self.batch_atoms).energy
            differences.append(found - expected)
        name = f"{len(species)} atoms {2 * self.alone:g} Å apart less lone ones, meV"
        return _check(name, differences, 1, self.alone, self.energy, self.bad_energy, "meV")

    def _ghosts(self, potential: nn.Module, chosen: Structures, lone: dict[int, float]) -> list["Check"]:
        """One far atom of each element round each structure: the force they exert and feel, and what they add."""
        alone = predict(potential, chosen, self.batch_atoms, "forces")
        sizes, count = chosen.sizes, len(lone)
        own = np.concatenate([np.arange(size) + at + count * i for i, (size, at) in enumerate(_blocks(sizes))])
        forces, energies = [], []
        for gap in (self.ghosts, 2 * self.ghosts):
            haunted = [_haunted(chosen.select([number]), list(lone), gap) for number in range(len(chosen))]
            found = predict(potential, Structures.concatenate(haunted), self.batch_atoms, "forces")
            changed = found.forces.copy()
            changed[own] -= alone.forces
            forces.append(np.linalg.norm(changed, axis=1))
            energies.append(found.energy - alone.energy - sum(lone.values()))
        # the nearer ones are judged by their force, as in ml-peg; the farther ones tell whether it decays
        name = f"force of atoms {self.ghosts:g} Å away, meV/Å"
        force = _check(name, forces, 0, 2 * self.ghosts, self.force, self.bad_force, "meV/Å")
        name = f"energy of atoms {2 * self.ghosts:g} Å away less lone ones, meV"
        return [force, _check(name, energies, 1, self.ghosts, self.energy, self.bad_energy, "meV")]

    def _grade(self, bad: list["Check"]) -> Grade:
        if not bad:
            return "safe"
        return "limited" if all(check.value < check.bad for check in bad) else "unsafe"


class Check(NamedTuple):
    """One comparison from two distances, of which one is judged.

    Attributes:
        name: of the figure, with its unit.
        value: in the unit, largest magnitude at the distance to judge.
        other, at: the same at the other distance, and that distance (Å).
        decays: whether it is clearly smaller at the larger distance.
        limit, bad: in the unit.
        unit: meV or meV/Å.
    """

    name: str
    value: float
    other: float
    at: float
    decays: bool
    limit: float
    bad: float
    unit: str


def _check(name: str, values: list[Floats], judged: int, at: float, limit: float, bad: float, unit: str) -> Check:
    """Compare.

    Args:
        name, at, limit, bad, unit: see :class:`Check`.
        values: eV or eV/Å, at the nearer distance and at the farther.
        judged: which of them.
    """
    near, far = (1000 * float(np.abs(value).max()) for value in values)
    value, other = (far, near) if judged else (near, far)
    return Check(name, value, other, at, far < _DECAY * near, limit, bad, unit)


def _twice(structure: Structures, gap: float) -> Structures:
    """A structure in vacuum and a copy at a distance (Å) beside it."""
    width = np.ptp(structure.positions[:, 0]) + gap
    return cluster(
        np.tile(structure.species, 2),
        np.vstack([structure.positions, structure.positions + np.array([width, 0.0, 0.0])]),
    )


def _haunted(structure: Structures, elements: list[int], gap: float) -> Structures:
    """A structure in vacuum with one atom of each element around it, ``gap`` (Å) outside of the sphere it fills."""
    centre = structure.positions.mean(axis=0)
    radius = float(np.linalg.norm(structure.positions - centre, axis=1).max()) + gap
    # a spiral over the sphere: far from one another, too
    turn = np.arange(len(elements)) + 0.5
    height, angle = 1 - 2 * turn / len(elements), np.pi * (1 + 5**0.5) * turn
    ring = np.sqrt(1 - height**2)
    sphere = np.stack([ring * np.cos(angle), ring * np.sin(angle), height], axis=1)
    places = np.vstack([structure.positions, centre + radius * sphere])
    return cluster(np.concatenate([structure.species, elements]), places)


def _blocks(sizes: np.ndarray) -> list[tuple[int, int]]:
    """Size and first atom of each structure."""
    return list(zip(sizes.tolist(), (np.cumsum(sizes) - sizes).tolist(), strict=True))


def _sentence(checks: list[Check], bad: list[Check], far_ranged: bool) -> str:
    if not bad:
        energy = max(check.value for check in checks if check.unit == "meV")
        force = max(check.value for check in checks if check.unit == "meV/Å")
        return f"Parts add up to {energy:.1g} meV, and far atoms exert no more than {force:.1g} meV/Å."
    worst = max(bad, key=lambda check: check.value / check.limit)
    what = worst.name.removesuffix(f", {worst.unit}")
    if not np.isfinite(worst.value):
        return f"Not a finite number: {what}."
    if far_ranged:
        return (
            f"Long-ranged: the criteria do not apply ({what}: {worst.value:.2g} {worst.unit}, "
            f"{worst.other:.2g} {worst.unit} at {worst.at:g} Å: it decays)."
        )
    return f"Not local: {what} is {worst.value:.2g} {worst.unit}, and does not decay with distance."

"""Tests of a crystal at rest: the smallest one of the data is relaxed, and then each test measures what it is about."""

from abc import abstractmethod
from typing import ClassVar, Literal

import numpy as np
from ase.filters import FrechetCellFilter
from ase.optimize import LBFGS
from pydantic import Field
from torch import nn

from phystrain.data.structures import Structures
from phystrain.interfaces.ase import PhystrainCalculator
from phystrain.reliability import ReliabilityTest, Result, Subject
from phystrain.reliability._static import in_double


class CrystalTest(ReliabilityTest):
    """Base of the tests of a crystal at rest; they run only if they are named.

    Attributes:
        title: for people.
        measures: what is measured, in the plural.
    """

    cost: ClassVar[int] = 0
    level: ClassVar[Literal[0, 1, 2]] = 2
    title: ClassVar[str]
    measures: ClassVar[str]
    force: float = Field(default=1e-3, gt=0, description="eV/Å, largest left after the relaxation")
    steps: int = Field(default=500, ge=1, description="most steps of the relaxation")
    most_atoms: int = Field(default=400, ge=1, description="largest crystal that is tried")
    batch_atoms: int = Field(default=2000, ge=1, description="atoms evaluated at a time")

    def runs_unasked(self, subject: Subject) -> bool:  # noqa: ARG002
        return False

    def __call__(self, subject: Subject) -> Result:
        """Relax the smallest crystal of ``subject.start``, or of ``subject.test`` or ``subject.train``, and measure.

        Raises:
            UserError: a library that the test needs is not installed.
        """
        result = Result(test=self.kind, title=self.title, threshold=self.criterion())
        crystal = smallest_crystal(subject.start, subject.test, subject.train)
        if crystal is None:
            sentence = f"No structure is periodic in three directions: there are no {self.measures}."
            return result.model_copy(update={"applies": False, "sentence": sentence})
        self.require_library()
        name = str(crystal.to_ase(0).symbols)
        if len(crystal.positions) > self.most_atoms:
            sentence = f"Not done: {name} has more than {self.most_atoms} atoms; give a smaller crystal, or most_atoms."
            return result.model_copy(update={"sentence": sentence})
        potential = in_double(subject.potential)
        rest = relaxed(potential, crystal, 0, self.force, self.steps)
        if rest is None:
            sentence = f"{name} does not come to rest in {self.steps} steps: it has no {self.measures}."
            lost = {"passed": False, "grade": "limited", "conditions": [f"{name} does not relax"]}
            return result.model_copy(update={**lost, "sentence": sentence})
        return self.judged(potential, crystal, rest, name, subject, result)

    def require_library(self) -> None:
        """Refuse to go on without what is not installed.

        Raises:
            UserError: naming the package.
        """

    @abstractmethod
    def criterion(self) -> str:
        """When the test passes, in words, with its source."""

    @abstractmethod
    def judged(
        self, potential: nn.Module, crystal: Structures, rest: Structures, name: str, subject: Subject, result: Result
    ) -> Result:
        """The result with what is measured.

        Args:
            potential: in double precision.
            crystal: one structure, as given.
            rest: the same, relaxed.
            name: its formula.
            subject: under test.
            result: to complete.
        """


def relaxed(potential: nn.Module, structures: Structures, number: int, force: float, steps: int) -> Structures | None:
    """A periodic structure without forces and stress, by ASE's LBFGS; ``None`` if it does not come to rest.

    Args:
        potential: in double precision, if small forces are wanted.
        structures: to take it from.
        number: which one.
        force: eV/Å, largest left over (of the cell: of the derivative by the logarithm of its deformation, per atom).
        steps: most steps.
    """
    atoms = structures.to_ase(number)
    atoms.calc = PhystrainCalculator(potential)
    optimiser = LBFGS(FrechetCellFilter(atoms), logfile=None)
    try:
        arrived = optimiser.run(fmax=force, steps=steps)
    except (ValueError, FloatingPointError, np.linalg.LinAlgError):  # a cell that collapsed on the way
        return None
    volume = atoms.get_volume() / abs(np.linalg.det(structures.cell[number]))
    if not arrived or not np.isfinite(atoms.positions).all() or not 0.3 < volume < 3:
        return None
    atoms.calc = None
    return Structures.from_ase([atoms])


def smallest_crystal(*sources: Structures | None) -> Structures | None:
    """The smallest structure that is periodic in three directions, from the first source that has one."""
    for structures in sources:
        if structures is not None and structures.pbc.all(axis=1).any():
            periodic = np.flatnonzero(structures.pbc.all(axis=1))
            return structures.select([periodic[structures.sizes[periodic].argmin()]]).without_labels()
    return None

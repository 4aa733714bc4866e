"""Structures far from equilibrium, made from the few labelled ones, and labelled by a teacher.

One file is one way to make structures: a pydantic ``Config`` that is called with :class:`Structures`.
"""

import logging
from abc import abstractmethod
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field
from torch import nn

from phystrain.augment._copies import Made
from phystrain.augment._fingerprint import fingerprints, first_of_each
from phystrain.augment._relabel import align, default_cache, load_teacher, relabel
from phystrain.data.structures import Ints, Structures
from phystrain.errors import UserError
from phystrain.registry import PluginConfig

__all__ = ["Augmentation", "Made", "align", "default_cache", "load_teacher", "relabel"]

log = logging.getLogger(__name__)


class Augmentation(PluginConfig):
    """Base of every augmentation.

    A sub-class writes :meth:`make`, and :meth:`applies` and ``refusal`` if there are structures it can do nothing with.

    Attributes:
        floor: distance that no pair may fall below, as a fraction of the sum of the covalent radii (ASE's, from
            Cordero et al. 2008, doi:10.1039/b801115j). 0.4 lies well inside the repulsive wall of any bond (0.25 Å for
            H-H, 0.7 Å for Si-O) and far from coincidence. A pair that is closer from the start may not come closer.
        needs_teacher: whether structures are made by means of the teacher's potential.
        of_the_set: whether they are made of the set as a whole rather than of each structure by itself.
        refusal: what to say where no structure will do.
    """

    needs_teacher: ClassVar[bool] = False
    of_the_set: ClassVar[bool] = False
    refusal: ClassVar[str] = "there is no structure to start from."

    floor: float = Field(default=0.4, gt=0, lt=1)

    def __call__(self, structures: Structures, seed: int, teacher: nn.Module | None = None) -> Structures:
        """New, unlabelled structures, each once.

        Args:
            structures: to start from.
            seed: of the random choices; the same seed gives the same structures.
            teacher: a :class:`phystrain.derive.Potential`, for kinds that ``needs_teacher``.

        Raises:
            UserError: no structure will do, or the teacher is missing.
        """
        numbers = self.usable(structures, teacher)
        made = self.make(structures.select(numbers), numbers, seed, teacher)
        kept = first_of_each(fingerprints(made.structures))
        log.info("%s: %s", self.kind, made.summary(len(made.structures) - len(kept)))
        return made.structures.select(kept)

    @abstractmethod
    def make(self, structures: Structures, numbers: Ints, seed: int, teacher: nn.Module | None) -> Made:
        """New structures, duplicates included.

        Args:
            structures: to start from; only those that :meth:`applies` to.
            numbers: (systems,) number of each in the whole set: what random numbers are a function of, so that a set
                may be worked on in pieces.
            seed: of the random choices.
            teacher: a potential if ``needs_teacher``.
        """

    def applies(self, structures: Structures) -> npt.NDArray[np.bool_]:
        """(systems,) whether anything can be made of each structure."""
        return np.ones(len(structures), dtype=bool)

    def usable(self, structures: Structures, teacher: nn.Module | None) -> Ints:
        """Numbers of the structures that will do.

        Raises:
            UserError: there is none, or the teacher is missing.
        """
        if self.needs_teacher and teacher is None:
            raise UserError(f"{self.kind} follows the forces of a teacher: give a potential, such as a fitted eam")
        numbers = np.flatnonzero(self.applies(structures))
        if not len(numbers):
            raise UserError(f"{self.kind} {self.refusal}")
        return numbers

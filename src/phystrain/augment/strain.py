"""Stretch, compress and shear periodic cells: structures that teach stress and the equation of state."""

from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from torch import nn

from phystrain.augment import Augmentation
from phystrain.augment._copies import Made, copies
from phystrain.augment._floor import HALVINGS, Frame
from phystrain.data.structures import Floats, Ints, Structures


class Config(Augmentation):
    """Random homogeneous strains, atoms moved along with the cell.

    The strain is v 1 + s: v changes every length alike, s is symmetric with zero diagonal. It acts within the
    periodic directions only, so a slab is strained in its plane.

    Attributes:
        copies: structures made of each periodic structure; others are left out.
        amplitude: largest value of v and of each component of s.
        expand: as many structures again, in which every length grows in even steps by up to this much on top of the
            random strain (1.0: twice as long, eight times the volume); none if not given. Bonds that let go are what
            the labels of dense structures never show.
        floor: fraction of the sum of covalent radii that no pair may fall below.
    """

    refusal: ClassVar[str] = "needs periodic structures and this set has none: use rattle or pull_perturb."

    kind: Literal["strain"] = "strain"
    copies: int = Field(default=5, ge=1)
    amplitude: float = Field(default=0.05, gt=0, le=0.3)
    expand: float | None = Field(default=None, gt=0, le=2)

    def applies(self, structures: Structures) -> npt.NDArray[np.bool_]:
        """Structures that are periodic in some direction."""
        return np.asarray(structures.pbc.any(axis=1))

    def make(self, structures: Structures, numbers: Ints, seed: int, teacher: nn.Module | None) -> Made:  # noqa: ARG002
        """The copies of each; ``info`` holds ``config_type``, ``round`` and ``source``."""
        growth = np.zeros(self.copies)
        if self.expand is not None:
            growth = np.concatenate([growth, self.expand * np.arange(1, self.copies + 1) / self.copies])
        positions, cells, limited = [], [], 0
        for index, name in enumerate(numbers.tolist()):
            frame = Frame(structures, index, self.floor)
            along = _projector(frame.cell[frame.pbc])
            for number, grown in enumerate(growth.tolist()):
                strain = self._strain(np.random.default_rng([seed, name, number]))
                deformation, held_back = _held(frame, along, strain, grown)
                positions.append(frame.positions @ deformation)
                cells.append(frame.cell @ deformation)
                limited += held_back
        sources = np.repeat(np.arange(len(structures)), len(growth))
        rounds = np.tile(np.arange(len(growth)), len(structures))
        return Made(copies(structures, numbers, sources, positions, self.kind, rounds, cells), limited)

    def _strain(self, generator: np.random.Generator) -> Floats:
        volume, yz, xz, xy = generator.uniform(-self.amplitude, self.amplitude, size=4)
        return np.array([[volume, xy, xz], [xy, volume, yz], [xz, yz, volume]])


def _held(frame: Frame, along: Floats, strain: Floats, grown: float) -> tuple[Floats, bool]:
    """(3, 3) deformation, the random strain halved until no pair is below its floor; and whether it was."""
    for halved in range(HALVINGS):
        within = (1 + grown) * (np.eye(3) + strain / 2**halved) - np.eye(3)
        deformation = np.eye(3) + along @ within @ along
        if not len(frame.offending(frame.positions @ deformation, frame.cell @ deformation)):
            return deformation, halved > 0
    return np.eye(3) + grown * along, True


def _projector(vectors: Floats) -> Floats:
    """(3, 3) projection on the space that lattice vectors, (n, 3) Å, span."""
    _, _, directions = np.linalg.svd(vectors, full_matrices=False)
    return np.asarray(directions.T @ directions)

"""Stretch, compress and shear periodic cells: structures that teach stress and the equation of state."""

from typing import Literal

import numpy as np
from pydantic import Field

from phystrain.augment import Augmentation
from phystrain.augment._copies import copies
from phystrain.data.structures import Floats, Structures
from phystrain.errors import UserError


class Config(Augmentation):
    """Random homogeneous strains, atoms moved along with the cell.

    The strain is v 1 + s: v changes every length alike, s is symmetric with zero diagonal. It acts within the
    periodic directions only, so a slab is strained in its plane.

    Attributes:
        copies: structures made of each periodic structure; others are left out.
        amplitude: largest value of v and of each component of s.
    """

    kind: Literal["strain"] = "strain"
    copies: int = Field(default=5, ge=1)
    amplitude: float = Field(default=0.05, gt=0, le=0.3)

    def __call__(self, structures: Structures, seed: int) -> Structures:
        """``copies`` unlabelled structures of each; ``info`` holds ``config_type``, ``round`` and ``source``.

        Raises:
            UserError: no structure is periodic.
        """
        periodic = np.flatnonzero(structures.pbc.any(axis=1))
        if not len(periodic):
            raise UserError("strain needs periodic structures and this set has none: use rattle or pull_perturb.")
        sources = np.repeat(periodic, self.copies)
        rounds = np.tile(np.arange(self.copies), len(periodic))
        positions, cells = [], []
        for index, number in zip(sources.tolist(), rounds.tolist(), strict=True):
            along = _projector(structures.cell[index][structures.pbc[index]])
            deformation = np.eye(3) + along @ self._strain(np.random.default_rng([seed, index, number])) @ along
            part = slice(structures.offsets[index], structures.offsets[index + 1])
            positions.append(structures.positions[part] @ deformation)
            cells.append(structures.cell[index] @ deformation)
        return copies(structures, sources, positions, "strain", rounds, np.stack(cells))

    def _strain(self, generator: np.random.Generator) -> Floats:
        volume, yz, xz, xy = generator.uniform(-self.amplitude, self.amplitude, size=4)
        return np.array([[volume, xy, xz], [xy, volume, yz], [xz, yz, volume]])


def _projector(vectors: Floats) -> Floats:
    """(3, 3) projection on the space that lattice vectors, (n, 3) Å, span."""
    _, _, directions = np.linalg.svd(vectors, full_matrices=False)
    return np.asarray(directions.T @ directions)

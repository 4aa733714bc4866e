"""Move every atom a little at random: structures near the ones that are known."""

from typing import Literal

import numpy as np
from pydantic import Field

from phystrain.augment import Augmentation
from phystrain.augment._copies import copies
from phystrain.data.structures import Structures


class Config(Augmentation):
    """Random displacements of all atoms.

    Attributes:
        copies: structures made of each structure.
        amplitude: Å, standard deviation (gaussian) or largest value (uniform) of each Cartesian component.
        distribution: of the components.
    """

    kind: Literal["rattle"] = "rattle"
    copies: int = Field(default=5, ge=1)
    amplitude: float = Field(default=0.05, gt=0, le=1)
    distribution: Literal["gaussian", "uniform"] = "gaussian"

    def __call__(self, structures: Structures, seed: int) -> Structures:
        """``copies`` unlabelled structures of each; ``info`` holds ``config_type``, ``round`` and ``source``."""
        sources = np.repeat(np.arange(len(structures)), self.copies)
        rounds = np.tile(np.arange(self.copies), len(structures))
        positions = []
        for index, number in zip(sources.tolist(), rounds.tolist(), strict=True):
            generator = np.random.default_rng([seed, index, number])
            shape = (structures.sizes[index], 3)
            drawn = generator.normal(size=shape) if self.distribution == "gaussian" else generator.uniform(-1, 1, shape)
            part = slice(structures.offsets[index], structures.offsets[index + 1])
            positions.append(structures.positions[part] + self.amplitude * drawn)
        return copies(structures, sources, positions, "rattle", rounds)

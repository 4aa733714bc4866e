"""Move every atom a little at random: structures near the ones that are known."""

from typing import Literal

import numpy as np
from pydantic import Field
from torch import nn

from phystrain.augment import Augmentation
from phystrain.augment._copies import Made, copies
from phystrain.augment._floor import Frame
from phystrain.data.structures import Floats, Ints, Structures


class Config(Augmentation):
    """Random displacements of all atoms.

    Attributes:
        copies: structures made of each structure.
        amplitude: Å, standard deviation (gaussian) or largest value (uniform) of each Cartesian component.
        distribution: of the components.
        floor: fraction of the sum of covalent radii that no pair may fall below.
    """

    kind: Literal["rattle"] = "rattle"
    copies: int = Field(default=5, ge=1)
    amplitude: float = Field(default=0.05, gt=0, le=1)
    distribution: Literal["gaussian", "uniform"] = "gaussian"

    def make(self, structures: Structures, numbers: Ints, seed: int, teacher: nn.Module | None) -> Made:  # noqa: ARG002
        """``copies`` structures of each; ``info`` holds ``config_type``, ``round`` and ``source``."""
        sources = np.repeat(np.arange(len(structures)), self.copies)
        rounds = np.tile(np.arange(self.copies), len(structures))
        positions, limited = [], 0
        for index, name in enumerate(numbers.tolist()):
            frame = Frame(structures, index, self.floor)
            for number in range(self.copies):
                generator = np.random.default_rng([seed, name, number])
                displacement, held_back = frame.held(lambda: self._drawn(frame, generator))  # noqa: B023
                positions.append(frame.positions + displacement)
                limited += held_back
        return Made(copies(structures, numbers, sources, positions, self.kind, rounds), limited)

    def _drawn(self, frame: Frame, generator: np.random.Generator) -> Floats:
        shape = frame.positions.shape
        drawn = generator.normal(size=shape) if self.distribution == "gaussian" else generator.uniform(-1, 1, shape)
        return np.asarray(self.amplitude * drawn)

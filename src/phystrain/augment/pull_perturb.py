"""Pull close atoms together, then push some atoms away: structures from the repulsive wall outwards.

The two-step algorithm of physics-informed pretraining (arXiv 2602.19592, section on off-equilibrium structures). Every
round starts from the undisturbed structure; the largest moves shrink from round to round, and the last round is the
undisturbed structure itself.
"""

from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from torch import nn

from phystrain.augment import Augmentation
from phystrain.augment._copies import Made, copies
from phystrain.augment._floor import Frame, Pairs, closest_disjoint
from phystrain.data.structures import Floats, Ints, Structures

_FIRST_RADIUS = 3.0
_LAST_RADIUS = 60.0


class Config(Augmentation):
    """Pull and perturb, with ramps that decrease over the rounds.

    Each round moves the two atoms of each of the ``pairs`` closest pairs that share no atom towards each other by
    u/2, with u uniform up to the round's pull, then moves ``sites`` atoms along random directions by a length uniform
    up to the round's perturbation. Pull and perturbation fall linearly to zero over the rounds.

    Attributes:
        rounds: structures made of each structure; the last is undisturbed (a single round has full strength).
        pull: Å, largest shortening of a pair in the first round.
        perturb: Å, largest displacement of a site in the first round.
        pairs: pairs pulled per round; fewer where the structure has not got as many.
        sites: atoms perturbed per round; all atoms where there are fewer.
        floor: fraction of the sum of covalent radii that no pair may fall below.
    """

    refusal: ClassVar[str] = "needs structures of two atoms or more: this set holds single atoms only."

    kind: Literal["pull_perturb"] = "pull_perturb"
    rounds: int = Field(default=5, ge=1)
    pull: float = Field(default=1.0, ge=0, le=10)
    perturb: float = Field(default=1.0, ge=0, le=10)
    pairs: int = Field(default=2, ge=0)
    sites: int = Field(default=5, ge=0)

    def applies(self, structures: Structures) -> npt.NDArray[np.bool_]:
        """Structures of two atoms or more."""
        return np.asarray(structures.sizes > 1)

    def make(self, structures: Structures, numbers: Ints, seed: int, teacher: nn.Module | None) -> Made:  # noqa: ARG002
        """``rounds`` structures of each; ``info`` holds ``config_type``, ``round`` and ``source``.

        Random numbers are a function of the seed, the number of the structure in the set and the round.
        """
        ramp = np.linspace(1.0, 0.0, self.rounds) if self.rounds > 1 else np.ones(1)
        positions, limited = [], 0
        for index, name in enumerate(numbers.tolist()):
            frame = Frame(structures, index, self.floor)
            near, chosen = self._closest(frame)
            for number, strength in enumerate(ramp.tolist()):
                if strength == 0:
                    positions.append(frame.positions)
                    continue
                generator = np.random.default_rng([seed, name, number])
                displacement, held_back = frame.held(
                    lambda: self._drawn(frame, near, chosen, strength, generator)  # noqa: B023
                )
                positions.append(frame.positions + displacement)
                limited += held_back
        sources = np.repeat(np.arange(len(structures)), self.rounds)
        rounds = np.tile(np.arange(self.rounds), len(structures))
        return Made(copies(structures, numbers, sources, positions, self.kind, rounds), limited)

    def _closest(self, frame: Frame) -> tuple[Pairs, Ints]:
        """Pairs of a structure, and the numbers of those to pull."""
        radius = _FIRST_RADIUS
        wanted = min(self.pairs, len(frame.positions) // 2)
        while True:
            near = frame.pairs(radius)
            chosen = closest_disjoint(near.first, near.second, near.distances, len(frame.positions), wanted)
            if len(chosen) == wanted or radius >= _LAST_RADIUS:
                return near, chosen
            radius *= 2

    def _drawn(
        self, frame: Frame, near: Pairs, chosen: Ints, strength: float, generator: np.random.Generator
    ) -> Floats:
        """(atoms, 3) Å, pulled and then perturbed."""
        displacement = self._pulled(frame, near, chosen, strength, generator)
        atoms = len(displacement)
        sites = generator.choice(atoms, size=min(self.sites, atoms), replace=False)
        direction = generator.normal(size=(len(sites), 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        displacement[sites] += direction * generator.uniform(0, strength * self.perturb, size=(len(sites), 1))
        return displacement

    def _pulled(
        self, frame: Frame, near: Pairs, chosen: Ints, strength: float, generator: np.random.Generator
    ) -> Floats:
        first, second, distances = near.first[chosen], near.second[chosen], near.distances[chosen]
        # Uniform up to the floor where that comes first: what redrawing longer pulls would give, and no pair of atoms
        # passes through one another.
        longest = np.minimum(strength * self.pull, distances - frame.floors(first, second, distances))
        length = generator.uniform(size=len(chosen)) * longest
        towards = near.vectors[chosen] / distances[:, None] * (length[:, None] / 2)
        displacement = np.zeros_like(frame.positions)
        displacement[first] = towards
        displacement[second] = -towards
        return displacement

"""Isolated pairs of atoms of all elements of the set: what no condensed structure says about short and long range."""

import itertools
from typing import ClassVar, Literal

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from pydantic import Field, model_validator
from torch import nn

from phystrain.augment import Augmentation
from phystrain.augment._copies import Made
from phystrain.data.structures import Floats, Ints, Structures
from phystrain.errors import UserError


class Config(Augmentation):
    """Two atoms without cell, for every pair of elements of the set, from inside the wall to beyond the bond.

    Distances are drawn one from each of ``points`` intervals that grow by a constant factor from the shortest to the
    longest, so that they are densest where the energy is steepest. The pairs point in random directions.

    Attributes:
        points: distances of each pair of elements.
        shortest: shortest distance, as a fraction of the sum of the covalent radii; not below ``floor``.
        longest: Å, longest distance.
        atoms: whether isolated atoms are made too.
        floor: fraction of the sum of covalent radii that no pair may fall below.
    """

    of_the_set: ClassVar[bool] = True

    kind: Literal["dimers"] = "dimers"
    points: int = Field(default=24, ge=1)
    shortest: float = Field(default=0.5, gt=0)
    longest: float = Field(default=6.0, gt=0)
    atoms: bool = True

    @model_validator(mode="after")
    def _above_the_floor(self) -> "Config":
        if self.shortest < self.floor:
            raise ValueError(f"shortest is {self.shortest}, below the floor of {self.floor}: raise it, or lower floor")
        return self

    def make(self, structures: Structures, numbers: Ints, seed: int, teacher: nn.Module | None) -> Made:  # noqa: ARG002
        """Isolated atoms, then the dimers; ``info`` holds ``config_type`` and ``round``, the number of the distance.

        Raises:
            UserError: the longest distance is shorter than the shortest.
        """
        elements = structures.elements
        singles = [[element] for element in elements] if self.atoms else []
        species, rounds = [*singles], [0] * len(singles)
        positions = [np.zeros((1, 3)) for _ in singles]
        for first, second in itertools.combinations_with_replacement(elements, 2):
            vectors = self._vectors(first, second, np.random.default_rng([seed, first, second]))
            positions += [np.stack([np.zeros(3), vector]) for vector in vectors]
            species += [[first, second]] * self.points
            rounds += range(self.points)
        return Made(_isolated(species, positions, rounds, self.kind, tuple(structures.info)))

    def _vectors(self, first: int, second: int, generator: np.random.Generator) -> Floats:
        """(points, 3) Å."""
        start = self.shortest * float(covalent_radii[first] + covalent_radii[second])
        if start >= self.longest:
            raise UserError(
                f"dimers: longest is {self.longest:g} Å, but {chemical_symbols[first]}-{chemical_symbols[second]} "
                f"starts at {start:.2f} Å. Raise longest, or lower shortest."
            )
        step = (np.arange(self.points) + generator.uniform(size=self.points)) / self.points
        direction = generator.normal(size=(self.points, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        return np.asarray(start * (self.longest / start) ** step[:, None] * direction)


def _isolated(
    species: list[list[int]], positions: list[Floats], rounds: list[int], kind: str, names: tuple[str, ...]
) -> Structures:
    """Structures without cell and labels; facts of the set's own are empty."""
    count, sizes = len(species), [len(one) for one in species]
    flat = np.concatenate(positions)
    return Structures(
        positions=flat,
        species=np.array([number for one in species for number in one], dtype=np.int64),
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        cell=np.zeros((count, 3, 3)),
        pbc=np.zeros((count, 3), dtype=bool),
        energy=np.full(count, np.nan),
        forces=np.full_like(flat, np.nan),
        stress=np.full((count, 3, 3), np.nan),
        weight=np.ones(count),
        info={name: np.full(count, "") for name in (*names, "source")}
        | {"config_type": np.full(count, kind), "round": np.array(rounds).astype(str)},
    )

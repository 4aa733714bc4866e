"""Shorten bonds step by step down to the wall, inside the structure: what each pair of elements does when squeezed."""

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from torch import nn

from phystrain.augment import Augmentation
from phystrain.augment._copies import Made, copies
from phystrain.augment._floor import Frame, Pairs
from phystrain.data.structures import Floats, Ints, Structures
from phystrain.neighbours import neighbour_list

_REACH = 4.0


class Config(Augmentation):
    """The shortest bonds of every pair of elements, each by itself, both atoms moved alike.

    The length falls in even steps from what it is to the floor. A scan ends where a third atom gets in the way.

    Attributes:
        steps: structures made of each bond, the last with the bond at its floor.
        bonds: how many of the shortest bonds of each pair of elements of a structure, up to 4 Å.
        cell: if given, as many structures again in which all lengths, those of the cell included, shrink in even
            steps to this fraction of themselves, or until the first pair is at its floor.
        floor: fraction of the sum of covalent radii at which to stop.
    """

    refusal: ClassVar[str] = "needs structures of two atoms or more: this set holds single atoms only."

    kind: Literal["compress"] = "compress"
    steps: int = Field(default=6, ge=1)
    bonds: int = Field(default=1, ge=0)
    cell: float | None = Field(default=None, gt=0, lt=1)

    def applies(self, structures: Structures) -> npt.NDArray[np.bool_]:
        """Structures of two atoms or more."""
        return np.asarray(structures.sizes > 1)

    def make(self, structures: Structures, numbers: Ints, seed: int, teacher: nn.Module | None) -> Made:  # noqa: ARG002
        """Up to ``steps`` structures of each bond; no random choices. ``info`` holds where each comes from."""
        positions, cells, limited = [], [], 0
        sources: list[int] = []
        rounds: list[int] = []
        for index in range(len(structures)):
            frame = Frame(structures, index, self.floor)
            squeezed = list(self._bonds(frame)) + list(self._cells(frame))
            kept = [one for one in squeezed if one is not None]
            limited += len(squeezed) - len(kept)
            positions += [moved for moved, _ in kept]
            cells += [cell for _, cell in kept]
            sources += [index] * len(kept)
            rounds += range(len(kept))
        return Made(copies(structures, numbers, sources, positions, self.kind, rounds, cells), limited)

    def _bonds(self, frame: Frame) -> Iterator[tuple[Floats, Floats] | None]:
        """Positions and cell of each step of each bond; ``None`` for steps that are not possible."""
        near = frame.pairs(_REACH)
        floors = frame.floors(near.first, near.second, near.distances)
        for pair in self._shortest(frame, near).tolist():
            towards = near.vectors[pair] / near.distances[pair] / 2
            for step in range(1, self.steps + 1):
                move = towards * (near.distances[pair] - floors[pair]) * step / self.steps
                positions = frame.positions.copy()
                positions[near.first[pair]] += move
                positions[near.second[pair]] -= move
                if np.allclose(move, 0) or len(frame.offending(positions)):
                    yield from [None] * (self.steps - step + 1)
                    break
                yield positions, frame.cell

    def _shortest(self, frame: Frame, near: Pairs) -> Ints:
        """Numbers of the shortest pairs, ``bonds`` of each pair of elements."""
        first, second = frame.species[near.first], frame.species[near.second]
        kind = 1000 * np.minimum(first, second) + np.maximum(first, second)
        apart = np.flatnonzero(near.distances > 1e-6)  # coincident atoms have no direction
        chosen = [apart[kind[apart] == one][: self.bonds] for one in np.unique(kind[apart])]
        return np.concatenate([np.empty(0, np.int64), *chosen])

    def _cells(self, frame: Frame) -> Iterator[tuple[Floats, Floats] | None]:
        """The whole structure made smaller about the origin of its cell."""
        if self.cell is None:
            return
        smallest = max(self.cell, _smallest(frame, frame.widest_floor / self.cell))
        for step in range(1, self.steps + 1):
            factor = 1 - (1 - smallest) * step / self.steps
            yield None if factor > 1 - 1e-9 else (frame.positions * factor, frame.cell * factor)


def _smallest(frame: Frame, reach: float) -> float:
    """Factor of all lengths at which the first pair up to ``reach`` (Å), own images included, is at its floor."""
    (first, second), shifts = neighbour_list(frame.positions, frame.cell, frame.pbc, max(_REACH, reach))
    vectors = frame.positions[second] - frame.positions[first] + shifts @ frame.cell
    distances = np.linalg.norm(vectors, axis=1)
    apart = distances > 1e-6
    first, second, distances = first[apart], second[apart], distances[apart]
    return float((frame.floors(first, second, distances) / distances).max(initial=0.0))

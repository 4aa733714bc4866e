"""Batches of an epoch: of a number of structures, or filled by a budget of atoms and edges.

A budget is met without a loop over structures. Once, places are made for them: structures fall into classes of equal
or nearly equal cost, and each class, the dearest first, is dealt to the batches that hold least so far. Every epoch
then deals the structures of a class to the places of that class at random. So the number of batches is known before the
first epoch and the same in all of them, a step is found at once, and whatever an epoch draws keeps the budget.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Order = Callable[[int], Ints]
"""Numbers of the structures of a step, by its position in the epoch."""

_ROUNDING = 1e-9
"""Of sums of costs: less than one atom or edge of any budget."""


_CLASSES = 300
"""Of structures of nearly the same cost."""

_MORE = 1.01
"""By which the number of batches grows at a time where the budget was exceeded."""


class Budget(NamedTuple):
    """What a global batch may hold.

    Attributes:
        atoms: at most; any number if ``None``.
        edges: at most, of the lists of training, reserve included; any number if ``None``.
    """

    atoms: int | None = None
    edges: int | None = None

    def costs(self, atoms: Ints, edges: Ints | None) -> Floats:
        """(structures,) share of the budget that each needs, of what it needs most.

        Args:
            atoms: (structures,) of each.
            edges: (structures,) of each; needed only if they are limited.
        """
        shares = [] if self.atoms is None else [atoms / self.atoms]
        shares += [] if self.edges is None or edges is None else [edges / self.edges]
        return np.max(shares, axis=0)


class Equal:
    """Batches whose numbers of structures differ by one at most.

    Args:
        count: of structures.
        size: largest number in a batch.
    """

    def __init__(self, count: int, size: int) -> None:
        self.count = count
        self.steps = max(1, -(-count // size))

    def epoch(self, random: np.random.Generator) -> Order:
        """Another order, drawn at random."""
        order = random.permutation(self.count)
        size, longer = divmod(self.count, self.steps)

        def batch(position: int) -> Ints:
            first = position * size + min(position, longer)
            return order[first : first + size + (position < longer)]

        return batch


class Packed:
    """Batches that keep a budget; a structure that exceeds it is alone in its batch.

    Args:
        costs: (structures,) share of the budget that each needs.

    Attributes:
        oversized: (n,) numbers of the structures that exceed the budget.
    """

    def __init__(self, costs: Floats) -> None:
        self.oversized, self._rest = np.flatnonzero(costs > 1), np.flatnonzero(costs <= 1)
        self._classes, ceilings = _classes(costs[self._rest])
        places = _places(ceilings, np.bincount(self._classes, minlength=len(ceilings)))
        counts = np.bincount(places)
        self._by_batch = np.argsort(places, kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self._batches = len(counts)
        self.steps = self._batches + len(self.oversized)

    def epoch(self, random: np.random.Generator) -> Order:
        """Another order, drawn at random."""
        shuffled = random.permutation(len(self._rest))
        by_class = shuffled[np.argsort(self._classes[shuffled], kind="stable")]
        numbers = self._rest[by_class[self._by_batch]]
        turns = random.permutation(self.steps)

        def batch(position: int) -> Ints:
            turn = int(turns[position])
            if turn >= self._batches:
                return self.oversized[turn - self._batches, None]
            return numbers[self._starts[turn] : self._starts[turn + 1]]

        return batch


def _classes(costs: Floats) -> tuple[npt.NDArray[np.int16], Floats]:
    """Class of each structure, the dearest class first, and the highest cost in each class."""
    values, found = np.unique(-costs, return_inverse=True)
    if len(values) > _CLASSES:
        # steps of a few per cent, between the highest and the lowest
        scale = np.log(np.maximum(costs, costs.max() * 1e-4))
        width = max((scale.max() - scale.min()) / (_CLASSES - 1), 1e-12)
        _, found = np.unique(np.floor((scale.max() - scale) / width), return_inverse=True)
    ceilings = np.zeros(int(found.max(initial=-1)) + 1)
    np.maximum.at(ceilings, found, costs)
    return found.astype(np.int16), ceilings


def _places(ceilings: Floats, members: Ints) -> Ints:
    """(structures,) batch of every place, class by class, so that no batch exceeds the budget."""
    total = int(members.sum())
    batches = min(max(1, int(np.ceil(ceilings @ members - _ROUNDING))), total)
    while batches:
        places, fullest = _dealt(ceilings, members, batches)
        if fullest <= 1 + _ROUNDING:
            return places
        batches = min(total, max(batches + 1, int(batches * min(fullest, _MORE))))
    return np.empty(0, np.int64)


def _dealt(ceilings: Floats, members: Ints, batches: int) -> tuple[Ints, float]:
    """Batch of every place, and the cost of the dearest batch."""
    loads = np.zeros(batches)
    most = max(1, batches // 8)  # at once: after each of them the batches that hold least are others
    found: list[Ints] = []
    for cost, count in zip(ceilings, members.tolist(), strict=True):
        for start in range(0, count, most):
            several = min(count - start, most)
            chosen = np.argpartition(loads, several - 1)[:several]
            loads[chosen] += cost
            found.append(chosen)
    return np.concatenate(found), float(loads.max())

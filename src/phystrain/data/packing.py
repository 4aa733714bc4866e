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

from phystrain.errors import UserError

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
        processes: that each need a structure of every batch.
    """

    def __init__(self, count: int, size: int, processes: int = 1) -> None:
        self.count = count
        self.steps = max(1, min(-(-count // size), count // processes))

    def epoch(self, random: np.random.Generator) -> Order:
        """Another order, drawn at random."""
        order = random.permutation(self.count)
        size, longer = divmod(self.count, self.steps)

        def batch(position: int) -> Ints:
            first = position * size + min(position, longer)
            return order[first : first + size + (position < longer)]

        return batch


class Packed:
    """Batches that keep a budget.

    A structure that exceeds it is alone in its batch; of several processes each of the others then takes one of the
    cheapest structures.

    Args:
        costs: (structures,) share of the budget that each needs.
        processes: that each need a structure of every batch.

    Raises:
        UserError: the budget does not hold a structure for every process.

    Attributes:
        oversized: (n,) numbers of the structures that exceed the budget.
    """

    def __init__(self, costs: Floats, processes: int = 1) -> None:
        large = costs > 1
        self.oversized = np.flatnonzero(large)
        rest = np.flatnonzero(~large)
        helpers = len(self.oversized) * (processes - 1)
        if helpers:
            rest = rest[np.argsort(costs[rest], kind="stable")]
            if len(rest) < helpers:
                raise UserError(_too_small(processes))
        self._alone = np.column_stack([self.oversized, rest[:helpers].reshape(len(self.oversized), processes - 1)])
        self._rest = np.sort(rest[helpers:])
        self._classes, ceilings = _classes(costs[self._rest])
        members = np.bincount(self._classes, minlength=len(ceilings))
        places = _places(ceilings, members, processes)
        self._batches = int(places.max()) + 1 if len(places) else 0
        counts = np.bincount(places, minlength=self._batches)
        if len(counts) and counts.min() < processes:
            raise UserError(_too_small(processes))
        self._by_batch = np.argsort(places, kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self.steps = self._batches + len(self._alone)

    def epoch(self, random: np.random.Generator) -> Order:
        """Another order, drawn at random."""
        shuffled = random.permutation(len(self._rest))
        by_class = shuffled[np.argsort(self._classes[shuffled], kind="stable")]
        numbers = self._rest[by_class[self._by_batch]]
        turns = random.permutation(self.steps)

        def batch(position: int) -> Ints:
            turn = int(turns[position])
            if turn >= self._batches:
                return self._alone[turn - self._batches]
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


def _places(ceilings: Floats, members: Ints, processes: int) -> Ints:
    """(structures,) batch of every place, class by class, so that no batch exceeds the budget."""
    total = int(members.sum())
    batches = min(max(1, int(np.ceil(ceilings @ members - _ROUNDING))), total)
    while batches:
        places, fullest = _dealt(ceilings, members, batches, processes)
        if fullest <= 1 + _ROUNDING:
            return places
        batches = min(total, max(batches + 1, int(batches * min(fullest, _MORE))))
    return np.empty(0, np.int64)


def _dealt(ceilings: Floats, members: Ints, batches: int, processes: int) -> tuple[Ints, float]:
    """Batch of every place, and the cost of the dearest batch."""
    loads = np.zeros(batches)
    dealt: list[Ints] = []
    # what every process but the first needs in each batch is dealt before, from the cheapest
    spare = np.minimum(
        members[::-1], np.maximum(0, (processes - 1) * batches - np.cumsum(members[::-1]) + members[::-1])
    )
    first = 0
    for cost, count in zip(ceilings[::-1], spare, strict=True):
        bins = (first + np.arange(count)) % batches
        np.add.at(loads, bins, cost)
        dealt.append(bins)
        first += int(count)
    dealt.reverse()
    most = max(1, batches // 8)
    for number, (cost, left) in enumerate(zip(ceilings, members - spare[::-1], strict=True)):
        found = [dealt[number]]
        for start in range(0, int(left), most):
            count = min(int(left) - start, most)
            bins = np.argpartition(loads, count - 1)[:count]
            loads[bins] += cost
            found.append(bins)
        dealt[number] = np.concatenate(found)
    return np.concatenate(dealt), float(loads.max())


def _too_small(processes: int) -> str:
    return f"batch_atoms or batch_edges leaves no structure for each of {processes} processes: raise it, or use fewer"

"""Batches of an epoch: of a number of structures, or filled by a budget of atoms and edges.

A budget is met without a loop over structures. Structures are sorted by cost and cut into rows as long as there are
batches; a batch takes one of each row, at random. Whichever it takes, it costs at most the sum of the first, and
dearest, of every row, so the number of batches is the smallest for which that sum keeps the budget: it is known before
the first epoch, the same in all of them, and a step can be found at once. Structures of equal cost fall into rows at
random too.
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
        large = costs > 1
        self.oversized = np.flatnonzero(large)
        # the dearest first; equal ones keep whatever order an epoch gives them
        self._rest = np.flatnonzero(~large)
        self._costs = costs[self._rest]
        self._batches = self._fewest(np.sort(self._costs)[::-1])
        self.steps = self._batches + len(self.oversized)

    def epoch(self, random: np.random.Generator) -> Order:
        """Another order, drawn at random."""
        shuffled = random.permutation(len(self._rest))
        order = shuffled[np.argsort(-self._costs[shuffled], kind="stable")]
        rows = -(-len(order) // self._batches) if self._batches else 0
        table = np.full(rows * self._batches, -1, dtype=np.int64)
        table[: len(order)] = self._rest[order]
        table = random.permuted(table.reshape(rows, self._batches), axis=1).T.copy()
        places = random.permutation(self.steps)

        def batch(position: int) -> Ints:
            place = int(places[position])
            if place >= self._batches:
                return self.oversized[place - self._batches, None]
            return table[place][table[place] >= 0]

        return batch

    def _fewest(self, costs: Floats) -> int:
        """The smallest number of batches whose dearest possible one costs no more than the budget, by bisection."""
        low, high = min(1, len(costs)), len(costs)
        while low < high:
            middle = (low + high) // 2
            if costs[::middle].sum() <= 1 + _ROUNDING:
                high = middle
            else:
                low = middle + 1
        return low

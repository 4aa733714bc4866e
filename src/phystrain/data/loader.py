"""Which structures make up which step: a pure function of seed, step and number of processes."""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch

from phystrain import noise
from phystrain.data.deal import deal
from phystrain.data.graphs import WORKERS, GraphStore
from phystrain.data.packing import Budget, Equal, Order, Packed
from phystrain.labels import Batch

AHEAD = WORKERS + 1
"""Batches that are prepared before they are asked for, where neighbour lists are built for each."""


class Loader:
    """Shuffled batches of a store, addressed by step, so that training can resume anywhere.

    Every epoch visits every structure once. All processes draw the same global batch and take their share of it,
    about as many edges (of lists that are not held: atoms) as the others; it may be empty.

    Args:
        store: the structures.
        batch_size: structures of a global batch, where the batches of an epoch differ by one structure at most; or
            what it may hold, see :mod:`phystrain.data.packing`.
        seed: of the order and of the random streams.
        dtype: of the floating-point parts.
        rank, world_size: this process and how many there are.
    """

    def __init__(
        self,
        store: GraphStore,
        batch_size: int | Budget,
        seed: int,
        *,
        dtype: torch.dtype = torch.float32,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.store = store
        self._plan = _plan(store, batch_size)
        self.steps_per_epoch = self._plan.steps
        self.dtype = dtype
        self._seed, self._rank, self._world_size = seed, rank, world_size
        # lists that are not held are not all built only to share batches out: atoms tell the cost nearly as well
        counted = store.held or (isinstance(batch_size, Budget) and batch_size.edges is not None)
        sizes = store.edge_counts if counted else store.structures.sizes
        self._costs = sizes if world_size > 1 else np.empty(0, np.int64)
        self._epoch = -1
        self._order: Order
        self._last: int | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._coming: dict[int, Future[Batch]] = {}

    @property
    def remark(self) -> str:
        """What to tell a person about the batches; empty if there is nothing."""
        if isinstance(self._plan, Equal) or not len(self._plan.oversized):
            return ""
        sizes = self.store.structures.sizes[self._plan.oversized]
        return (
            f"{len(sizes)} structures exceed the budget of a batch and are alone in theirs; the largest has "
            f"{sizes.max()} atoms"
        )

    @property
    def structures_per_step(self) -> float:
        """Mean number of structures of a global batch."""
        return len(self.store) / self.steps_per_epoch

    def indices(self, step: int) -> npt.NDArray[np.int64]:
        """Numbers of the structures of the whole global batch of a step."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order = self._plan.epoch(np.random.default_rng([self._seed, epoch]))
            self._epoch = epoch
        return self._order(position)

    def batch(self, step: int) -> Batch:
        """Share of this process in the batch of a step, each structure with its random stream of that step.

        Where lists are not held, threads begin with those of the steps that follow at the same distance.
        """
        if self.store.held:
            return self._made(step, self.indices(step))
        if self._pool is None:
            self._pool = ThreadPoolExecutor(WORKERS)
        stride = 1 if self._last is None else max(1, step - self._last)
        self._last = step
        wanted = range(step, step + AHEAD * stride, stride)
        for other in self._coming.keys() - set(wanted):
            self._coming.pop(other).cancel()
        for other in wanted:
            if other not in self._coming:
                self._coming[other] = self._pool.submit(self._made, other, self.indices(other))
        return self._coming.pop(step).result()

    def _made(self, step: int, whole: npt.NDArray[np.int64]) -> Batch:
        indices = whole
        if self._world_size > 1:
            indices = whole[deal(self._costs[whole], self._world_size)[self._rank]]
        keys = noise.mix(torch.from_numpy(indices.copy()), self._seed, step)
        return self.store.batch(indices, keys, self.dtype)


def _plan(store: GraphStore, batch_size: int | Budget) -> Equal | Packed:
    if not isinstance(batch_size, Budget):
        return Equal(len(store), batch_size)
    edges = None if batch_size.edges is None else store.edge_counts
    return Packed(batch_size.costs(store.structures.sizes, edges))


def in_order(store: GraphStore, batch_size: int, rank: int = 0, world_size: int = 1) -> list[npt.NDArray[np.int64]]:
    """All structures once, in the order of the file, in batches: for validation, tests and labelling."""
    numbers = np.arange(len(store), dtype=np.int64)[rank::world_size]
    return [numbers[start : start + batch_size] for start in range(0, len(numbers), batch_size)]

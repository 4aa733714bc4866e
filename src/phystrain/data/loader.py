"""Which structures make up which step: a pure function of seed, step and number of processes."""

import numpy as np
import numpy.typing as npt
import torch

from phystrain import noise
from phystrain.data.deal import deal
from phystrain.data.graphs import GraphStore
from phystrain.labels import Batch


class Loader:
    """Shuffled batches of a store, addressed by step, so that training can resume anywhere.

    Every epoch visits every structure once. All processes draw the same global batch and take their share of it,
    about as many edges as the others; it may be empty.

    Args:
        store: the structures.
        batch_size: structures of a global batch; the batches of an epoch differ by one structure at most.
        seed: of the order and of the random streams.
        dtype: of the floating-point parts.
        rank, world_size: this process and how many there are.
    """

    def __init__(
        self,
        store: GraphStore,
        batch_size: int,
        seed: int,
        *,
        dtype: torch.dtype = torch.float32,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.store = store
        self.steps_per_epoch = max(1, -(-len(store) // batch_size))
        self.dtype = dtype
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._costs = store.edge_counts if world_size > 1 else np.empty(0, np.int64)
        self._epoch = -1
        self._batches: list[npt.NDArray[np.int64]] = []

    def indices(self, step: int) -> npt.NDArray[np.int64]:
        """Numbers of the structures of the whole global batch of a step."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            order = np.random.default_rng([self._seed, epoch]).permutation(len(self.store))
            self._batches = np.array_split(order, self.steps_per_epoch)
            self._epoch = epoch
        return self._batches[position]

    def batch(self, step: int) -> Batch:
        """Share of this process in the batch of a step, each structure with its random stream of that step."""
        indices = self.indices(step)
        if self._world_size > 1:
            indices = indices[deal(self._costs[indices], self._world_size)[self._rank]]
        keys = noise.mix(torch.from_numpy(indices.copy()), self._seed, step)
        return self.store.batch(indices, keys, self.dtype)


def in_order(store: GraphStore, batch_size: int, rank: int = 0, world_size: int = 1) -> list[npt.NDArray[np.int64]]:
    """All structures once, in the order of the file, in batches: for validation, tests and labelling."""
    numbers = np.arange(len(store), dtype=np.int64)[rank::world_size]
    return [numbers[start : start + batch_size] for start in range(0, len(numbers), batch_size)]

import numpy as np
import pytest
import torch
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from phystrain.data.deal import deal
from phystrain.data.graphs import GraphStore
from phystrain.data.loader import Loader, in_order
from phystrain.data.structures import Structures


def store(count: int) -> GraphStore:
    """Structures told apart by their species."""
    return GraphStore(
        Structures.from_ase(
            [Atoms(numbers=[1 + i] * (1 + i % 3), positions=np.eye(3)[: 1 + i % 3]) for i in range(count)]
        ),
        3.0,
    )


STORE = {count: store(count) for count in range(1, 14)}


@settings(deadline=None)
@given(st.integers(1, 13), st.integers(1, 6), st.integers(0, 3), st.integers(0, 4))
def test_an_epoch_visits_every_structure_once(count, batch_size, seed, epoch):
    loader = Loader(STORE[count], batch_size, seed)
    steps = range(epoch * loader.steps_per_epoch, (epoch + 1) * loader.steps_per_epoch)
    batches = [loader.indices(step) for step in steps]
    assert sorted(np.concatenate(batches)) == list(range(count))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= batch_size


def test_a_batch_is_a_function_of_seed_and_step():
    forwards, backwards = Loader(STORE[13], 4, seed=1), Loader(STORE[13], 4, seed=1)
    expected = {step: forwards.batch(step) for step in range(12)}
    for step in (11, 3, 0, 7, 3):
        batch = backwards.batch(step)
        assert torch.equal(batch.graph.positions, expected[step].graph.positions)
        assert torch.equal(batch.graph.species, expected[step].graph.species)
        assert torch.equal(batch.key, expected[step].key)
    orders = {tuple(Loader(STORE[13], 13, seed).indices(0)) for seed in range(4)}
    assert len(orders) == 4
    assert not np.array_equal(forwards.indices(0), forwards.indices(forwards.steps_per_epoch))


@settings(deadline=None)
@given(st.integers(4, 13), st.integers(1, 6), st.integers(1, 4), st.integers(0, 20))
def test_shares_of_processes_partition_the_batch(count, batch_size, processes, step):
    shares = [Loader(STORE[count], batch_size, 5, rank=rank, world_size=processes) for rank in range(processes)]
    assert len({share.steps_per_epoch for share in shares}) == 1
    whole = shares[0].indices(step)
    parts = [share.batch(step) for share in shares]
    assert len(whole) <= batch_size
    assert [part.graph.n_systems > 0 for part in parts] == [rank < len(whole) for rank in range(processes)]
    species = np.concatenate([part.graph.species.numpy()[_first(part.graph.system)] for part in parts])
    assert sorted(species - 1) == sorted(whole)
    single = Loader(STORE[count], len(whole), 5).store.batch(whole)
    assert single.graph.n_systems == sum(part.graph.n_systems for part in parts)


def test_random_streams_do_not_depend_on_the_number_of_processes():
    def keys(processes: int) -> dict[int, int]:
        loaders = [Loader(STORE[12], 4, 2, rank=rank, world_size=processes) for rank in range(processes)]
        found = {}
        for loader in loaders:
            batch = loader.batch(5)
            found.update(zip(batch.graph.species[_first(batch.graph.system)].tolist(), batch.key.tolist(), strict=True))
        return found

    assert keys(1) == keys(2) == keys(4)
    assert Loader(STORE[12], 12, 2).batch(0).key.sort().values.tolist() != sorted(keys(1).values())


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers(1, 8))
def test_dealing_is_close_to_even(costs, processes):
    shares = deal(costs, processes)
    assert sorted(np.concatenate(shares)) == list(range(len(costs)))
    loads = [sum(max(1, costs[position]) for position in share) for share in shares]
    assert max(loads) - min(loads) <= max(1, *costs)
    assert [len(share) > 0 for share in shares] == [number < len(costs) for number in range(processes)]


def test_in_order():
    assert [batch.tolist() for batch in in_order(STORE[5], 2)] == [[0, 1], [2, 3], [4]]
    shares = [np.concatenate(in_order(STORE[5], 2, rank, 2)) for rank in range(2)]
    assert sorted(np.concatenate(shares)) == list(range(5))


@pytest.mark.parametrize("stride", [1, 3])
def test_batches_made_ahead_are_the_same(stride):
    held = Loader(STORE[13], 4, 2)
    ahead = Loader(GraphStore(STORE[13].structures, 3.0, lists="built"), 4, 2)
    for step in [*range(0, 40, stride), 7, 8, 200]:
        one, other = held.batch(step), ahead.batch(step)
        assert torch.equal(one.graph.positions, other.graph.positions)
        assert torch.equal(one.graph.edges, other.graph.edges)
        assert torch.equal(one.key, other.key)


def _first(system: torch.Tensor) -> np.ndarray:
    """Number of the first atom of each structure."""
    return np.unique(system.numpy(), return_index=True)[1]

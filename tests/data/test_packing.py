import numpy as np
import pytest
import torch
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from phystrain.data.graphs import GraphStore
from phystrain.data.loader import Loader
from phystrain.data.packing import Budget, Equal, Packed
from phystrain.data.structures import Structures


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.integers(1, 100), st.integers(0, 3))
def test_batches_keep_the_budget(sizes, atoms, seed):
    costs = Budget(atoms=atoms).costs(np.array(sizes), None)
    plan = Packed(costs)
    order = plan.epoch(np.random.default_rng(seed))
    batches = [order(position) for position in range(plan.steps)]
    assert sorted(np.concatenate(batches)) == list(range(len(sizes)))
    for batch in batches:
        assert len(batch)
        assert sum(sizes[number] for number in batch) <= atoms or len(batch) == 1
    assert plan.oversized.tolist() == [number for number, size in enumerate(sizes) if size > atoms]


def test_both_limits_are_kept_and_batches_are_full():
    random = np.random.default_rng(0)
    atoms, edges = random.integers(20, 41, 5000), random.integers(500, 1500, 5000)
    plan = Packed(Budget(atoms=1000, edges=30_000).costs(atoms, edges))
    order = plan.epoch(np.random.default_rng(1))
    batches = [order(position) for position in range(plan.steps)]
    assert max(atoms[batch].sum() for batch in batches) <= 1000
    assert max(edges[batch].sum() for batch in batches) <= 30_000
    least = max(atoms.sum() / 1000, edges.sum() / 30_000)
    assert least <= plan.steps < 1.15 * least


def test_batches_of_very_different_structures_are_full():
    sizes = np.clip(np.random.default_rng(0).lognormal(3.2, 0.6, 20_000), 1, 400).astype(np.int64)
    for atoms in (450, 2000):
        plan = Packed(Budget(atoms=atoms).costs(sizes, None))
        order = plan.epoch(np.random.default_rng(1))
        totals = [sizes[order(position)].sum() for position in range(plan.steps)]
        assert max(totals) <= atoms
        assert np.mean(totals) > 0.96 * atoms


def test_epochs_differ_and_equal_costs_meet_anyone():
    plan = Packed(np.full(12, 0.25))
    assert plan.steps == 3
    seen = set()
    for seed in range(200):
        order = plan.epoch(np.random.default_rng(seed))
        for position in range(3):
            first = order(position)
            seen |= {(one, other) for one in first.tolist() for other in first.tolist() if one < other}
    assert len(seen) == 12 * 11 // 2


def test_equal_batches_are_those_of_array_split():
    plan = Equal(23, 5)
    order = plan.epoch(np.random.default_rng(3))
    expected = np.array_split(np.random.default_rng(3).permutation(23), plan.steps)
    for position, batch in enumerate(expected):
        np.testing.assert_array_equal(order(position), batch)


def chains(count: int) -> Structures:
    """Rows of one to six atoms, 1 Å apart."""
    return Structures.from_ase([Atoms("H" * (1 + n % 6), [[i, 0, 0] for i in range(1 + n % 6)]) for n in range(count)])


@pytest.mark.parametrize("budget", [Budget(atoms=12), Budget(edges=12), Budget(atoms=10, edges=20)])
def test_loader_fills_batches(budget):
    store = GraphStore(chains(50), 1.5)
    loader = Loader(store, budget, 4)
    for epoch in range(2):
        steps = range(epoch * loader.steps_per_epoch, (epoch + 1) * loader.steps_per_epoch)
        batches = [loader.batch(step) for step in steps]
        assert sum(batch.graph.n_systems for batch in batches) == 50
        assert max(batch.graph.n_atoms for batch in batches) <= (budget.atoms or 10**9)
        assert max(batch.graph.edges.shape[1] for batch in batches) <= (budget.edges or 10**9)
    again = Loader(store, budget, 4)
    for step in (loader.steps_per_epoch + 1, 0, 2):  # resumed anywhere
        np.testing.assert_array_equal(again.indices(step), loader.indices(step))
    assert loader.structures_per_step == pytest.approx(50 / loader.steps_per_epoch)


def test_what_exceeds_the_budget_is_said():
    loader = Loader(GraphStore(chains(12), 1.5), Budget(atoms=4), 0)
    assert "4 structures exceed the budget" in loader.remark
    assert "largest has 6 atoms" in loader.remark
    assert not Loader(loader.store, Budget(atoms=6), 0).remark
    assert loader.steps_per_epoch >= 4 + (2 * (1 + 2 + 3 + 4)) / 4


def test_processes_share_filled_batches():
    """One batch of one large structure leaves the other process nothing, and that is all right."""
    store = GraphStore(chains(30), 1.5, lists="built")
    shares = [Loader(store, Budget(atoms=5), 1, rank=rank, world_size=2) for rank in range(2)]
    alone = Loader(store, Budget(atoms=5), 1)
    for step in range(alone.steps_per_epoch):
        parts = [share.batch(step) for share in shares]
        assert sorted(torch.cat([part.key for part in parts])) == sorted(alone.batch(step).key)
        assert abs(parts[0].graph.n_atoms - parts[1].graph.n_atoms) <= 6

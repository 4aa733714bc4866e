import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.neighborlist import primitive_neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from phystrain.data.graphs import GraphStore
from phystrain.data.structures import Structures
from phystrain.graph import AtomGraph

CUTOFF = 3.5


@st.composite
def crystals(draw):
    """Random atoms in random cells: thin ones, skewed ones, left-handed ones, any periodic directions."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lengths = random.uniform(1.2, 7.0, size=3)
    skew = draw(st.sampled_from([0.0, 0.3, 1.5]))
    while True:
        cell = (np.eye(3) + skew * random.uniform(-1, 1, size=(3, 3))) * lengths[:, None]
        if abs(np.linalg.det(cell)) > 4.0:
            break
    count = draw(st.integers(1, 6))
    pbc = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    scaled = random.uniform(-1.0, 2.0, size=(count, 3))  # not wrapped
    return Atoms(numbers=random.integers(1, 90, count), positions=scaled @ cell, cell=cell, pbc=pbc)


def edge_set(edges, shifts, vectors, cutoff):
    """Edges as a set, without those that lie on the cut-off but for rounding."""
    distance = np.linalg.norm(vectors, axis=1)
    rows = np.column_stack([np.asarray(edges).T, np.round(shifts)]).astype(int)[np.abs(distance - cutoff) > 1e-6]
    found = [tuple(row) for row in rows.tolist()]
    assert len(found) == len(set(found))
    return set(found)


def reference(atoms: Atoms, cutoff: float):
    centre, neighbour, shifts, vectors = primitive_neighbor_list(
        "ijSD", atoms.pbc, atoms.cell.array, atoms.positions, cutoff
    )
    return edge_set([centre, neighbour], shifts, vectors, cutoff)


def edges_of(graph: AtomGraph):
    return edge_set(graph.edges.numpy(), graph.shifts.numpy(), graph.vectors.numpy(), graph.cutoff)


@settings(deadline=None, max_examples=150)
@given(crystals())
def test_edges_are_those_of_ase(atoms):
    graph = GraphStore(Structures.from_ase([atoms]), CUTOFF).graph([0], torch.float64)
    assert edges_of(graph) == reference(atoms, CUTOFF)
    assert (graph.distances < CUTOFF + 1e-9).all()
    assert (graph.edges[0].diff() >= 0).all()


def test_molecule_without_a_cell():
    atoms = molecule("CH3CH2OH")
    assert edges_of(AtomGraph.from_ase(atoms, CUTOFF)) == reference(atoms, CUTOFF)


@settings(deadline=None, max_examples=60)
@given(crystals(), st.integers(0, 1000))
def test_displaced_copies_keep_complete_edges(atoms, seed):
    reach = 0.4  # Å, largest displacement of an atom
    store = GraphStore(Structures.from_ase([atoms]), CUTOFF + 2 * reach)
    direction = np.random.default_rng(seed).normal(size=(len(atoms), 3))
    step = reach * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    moved = store.graph([0], torch.float64).displaced(torch.from_numpy(step)).within(CUTOFF)
    atoms.positions += step
    assert edges_of(moved) == reference(atoms, CUTOFF)


def assorted() -> list[Atoms]:
    frames = [bulk("Cu"), molecule("H2O"), Atoms("He"), bulk("NaCl", "rocksalt", a=5.6), molecule("CH4")]
    frames.append(bulk("Si", cubic=True))
    for number, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=number)
        results = {"energy": -17000.123456789 + number, "forces": atoms.positions * 2}
        if atoms.pbc.all():
            results["stress"] = np.arange(6.0) + number
        if number != 2:
            atoms.calc = SinglePointCalculator(atoms, **results)
    return frames


@pytest.mark.parametrize("chosen", [[0, 1, 2, 3, 4, 5], [4], [2], [5, 0, 0, 2, 1], []])
def test_batches_are_concatenations(chosen):
    frames = assorted()
    structures = Structures.from_ase(frames)
    batch = GraphStore(structures, 4.0).batch(chosen, dtype=torch.float64)
    if chosen:
        expected = AtomGraph.concatenate([AtomGraph.from_ase(frames[index], 4.0) for index in chosen])
        for name in ("positions", "species", "system", "cell", "pbc", "edges", "shifts"):
            assert torch.equal(getattr(batch.graph, name), getattr(expected, name)), name
    picked = structures.select(chosen)
    for name in ("energy", "forces", "stress", "weight"):
        np.testing.assert_array_equal(getattr(batch.labels, name).numpy(), getattr(picked, name), err_msg=name)
    assert batch.key.tolist() == chosen


def test_energies_stay_in_double_precision():
    batch = GraphStore(Structures.from_ase(assorted()), 4.0).batch([0])
    assert batch.labels.energy.dtype == torch.float64
    assert batch.labels.energy.item() == -17000.123456789
    assert batch.graph.positions.dtype == batch.labels.forces.dtype == torch.float32


@pytest.mark.parametrize("block", [1, 40, 10**6])
def test_pairs_in_blocks_are_all_edges(block):
    store = GraphStore(Structures.from_ase(assorted()), 4.0)
    graph = store.graph(range(len(store)), torch.float64)
    parts = list(store.pairs(block))
    np.testing.assert_array_equal(np.concatenate([edges for edges, _ in parts], axis=1), graph.edges.numpy())
    np.testing.assert_allclose(np.concatenate([vectors for _, vectors in parts]), graph.vectors.numpy(), atol=1e-13)
    assert len(parts) == {1: 6, 10**6: 1}.get(block, len(parts))
    assert store.edge_counts.sum() == graph.edges.shape[1]


@pytest.mark.parametrize("block", [1, 40, 10**6])
def test_lists_built_when_needed_are_those_held(block):
    structures = Structures.from_ase(assorted())
    held, built = GraphStore(structures, 4.0), GraphStore(structures, 4.0, lists="built")
    assert held.held
    assert not built.held
    np.testing.assert_array_equal(built.edge_counts, held.edge_counts)
    for one, other in zip(held.pairs(block), built.pairs(block), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    for chosen in ([5, 0, 0, 2], [], [4]):
        one, other = held.batch(chosen), built.batch(chosen)
        for name in ("positions", "species", "system", "cell", "pbc", "edges", "shifts"):
            assert torch.equal(getattr(one.graph, name), getattr(other.graph, name)), name
        assert torch.equal(one.labels.energy.nan_to_num(), other.labels.energy.nan_to_num())


def test_graphs_of_a_part_are_those_of_its_copy():
    structures = Structures.from_ase(assorted())
    part, copy = structures.part([5, 1, 3]), structures.select([5, 1, 3])
    own = np.arange(3.0 * len(copy.positions)).reshape(-1, 3)
    for lists in ("held", "built"):
        one = GraphStore(part, 4.0, guide=own, lists=lists).batch([2, 0])
        other = GraphStore(copy, 4.0, guide=own).batch([2, 0])
        assert torch.equal(one.graph.positions, other.graph.positions)
        assert torch.equal(one.graph.edges, other.graph.edges)
        assert torch.equal(one.labels.guide, other.labels.guide)
        assert torch.equal(one.labels.forces.nan_to_num(), other.labels.forces.nan_to_num())
    assert "positions" not in part.__dict__


def test_lists_of_large_sets_are_not_held(monkeypatch):
    from phystrain.data import graphs

    structures = Structures.from_ase(assorted())
    monkeypatch.setattr(graphs, "_SMALL", 10)
    edges = GraphStore(structures, 4.0).edge_counts.sum()
    monkeypatch.setattr(graphs, "HELD", graphs._EDGE * edges)
    assert GraphStore(structures, 4.0).held
    monkeypatch.setattr(graphs, "HELD", graphs._EDGE * edges - 1)
    assert not GraphStore(structures, 4.0).held

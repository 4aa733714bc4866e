"""Layers with derivatives of their own: values are those of plain torch, derivatives those of the values."""

import pytest
import torch
from ase.build import bulk, molecule
from torch.autograd import gradcheck, gradgradcheck

from phystrain.compiled import _EdgeGraph
from phystrain.graph import AtomGraph
from phystrain.layers.activations import SiLU
from phystrain.layers.messages import directed_sums, filtered_sums
from phystrain.layers.undirected import undirected

ATOMS, EDGES, CHANNELS = 3, 5, 2
CENTRE = torch.tensor([0, 0, 1, 2, 2])
NEIGHBOUR = torch.tensor([1, 2, 0, 0, 2])
DEGREES = (0, 1, 1)


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


def third_derivatives(function, inputs):
    """Of the sum of squares of the values with respect to the inputs, each contracted with the one before."""
    value = function(*inputs).square().sum()
    for _ in range(3):
        gradients = torch.autograd.grad(value, inputs, create_graph=True)
        value = sum((gradient**2).sum() for gradient in gradients)
    return gradients


def plain_filtered_sums(features, filters):
    messages = features[:, NEIGHBOUR] * filters[:, list(DEGREES)].transpose(0, 1)
    return torch.zeros_like(features).index_add(1, CENTRE, messages)


def plain_directed_sums(values, directions):
    return torch.zeros(3, ATOMS, CHANNELS).double().index_add(1, CENTRE, directions.T[:, :, None] * values)


FUNCTIONS = {
    "filtered sums": (
        lambda features, filters: filtered_sums(features, filters, torch.stack([CENTRE, NEIGHBOUR]), DEGREES),
        plain_filtered_sums,
        (random(3, ATOMS, CHANNELS), random(EDGES, 2, CHANNELS, seed=1)),
    ),
    "directed sums": (
        lambda values, directions: directed_sums(values, directions, CENTRE, ATOMS),
        plain_directed_sums,
        (random(EDGES, CHANNELS), random(EDGES, 3, seed=1)),
    ),
    "silu": (SiLU(), torch.nn.functional.silu, (random(4, 3),)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives(name):
    function, plain, inputs = FUNCTIONS[name]
    torch.testing.assert_close(function(*inputs), plain(*inputs))
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)
    found, expected = third_derivatives(function, inputs), third_derivatives(plain, inputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functional_derivatives(name):
    """``torch.func``, by which networks are differentiated before they are compiled."""
    function, plain, inputs = FUNCTIONS[name]
    inputs = tuple(value.detach() for value in inputs)
    found, expected = (torch.func.grad(lambda *x, f=f: f(*x).square().sum())(*inputs) for f in (function, plain))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "frames",
    [
        [molecule("CH3CH2OH"), bulk("SiC", "zincblende", a=4.2)],
        [bulk("Cu", "fcc", a=3.6)],  # all neighbours are images of the atom itself, many at the same distance
    ],
)
def test_pairs_are_opposite_edges(frames):
    graph = AtomGraph.from_ase(frames, 5.0)
    first, pair = undirected(graph)
    assert len(first) == graph.edges.shape[1] / 2
    assert torch.equal(pair[first], torch.arange(len(first)))
    assert torch.equal(torch.bincount(pair), torch.full_like(first, 2))
    one = first[pair]
    itself = one == torch.arange(len(one))
    torch.testing.assert_close(graph.vectors[one], torch.where(itself[:, None], graph.vectors, -graph.vectors))
    turned = torch.where(itself, graph.edges, graph.edges.flip(0))
    assert torch.equal(graph.edges[:, one], turned)


def test_pairs_survive_the_loss_of_one_direction():
    graph = AtomGraph.from_ase(molecule("CH3CH2OH"), 3.0)
    keep = torch.arange(graph.edges.shape[1]) != 7
    first, pair = undirected(
        AtomGraph(
            graph.positions,
            graph.species,
            graph.system,
            graph.cell,
            graph.pbc,
            graph.edges[:, keep],
            graph.shifts[keep],
            graph.cutoff,
        )
    )
    assert sorted(torch.bincount(pair).tolist())[:2] == [1, 2]
    assert len(first) == graph.edges.shape[1] / 2


def test_no_pairs_where_images_are_not_known():
    graph = AtomGraph.from_ase(bulk("Cu", "fcc", a=3.6), 5.0)
    known = {name: getattr(graph, name) for name in ("positions", "species", "system", "cell", "pbc", "edges")}
    given = _EdgeGraph(**known, shifts=torch.zeros_like(graph.shifts), cutoff=5.0, given=graph.vectors)
    assert undirected(given) is None

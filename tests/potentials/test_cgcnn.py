"""CGCNN: the published layer, and what this network does differently."""

import logging
import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from phystrain.derive import evaluate
from phystrain.graph import AtomGraph
from phystrain.layers.nearest import among_nearest
from phystrain.potentials import build
from phystrain.potentials._network import warn_of_truncation
from phystrain.statistics import Statistics

SMALL = {"kind": "cgcnn", "channels": 8, "layers": 2, "cutoff": 4.5}
PUBLISHED = {"envelope": "none", "aggregation": "sum"}


def structures() -> list[Atoms]:
    """A molecule, and a crystal with atoms that are neighbours of their own images."""
    ethanol = molecule("CH3CH2OH")
    carbide = bulk("SiC", "zincblende", a=3.6, cubic=True)
    for seed, atoms in enumerate((ethanol, carbide)):
        atoms.rattle(0.1, seed=seed)
    return [ethanol, carbide]


def made(settings, known=None):
    torch.manual_seed(0)
    return build(settings, known or Statistics.bare((1, 6, 8, 14))).double()


class Published(torch.nn.Module):
    """The network made of torch-geometric's layers, the distance features those of the authors' code."""

    def __init__(self, elements, channels, hidden, layers, count, cutoff):
        super().__init__()
        convolution = pytest.importorskip("torch_geometric.nn").CGConv
        self.register_buffer("centres", torch.linspace(0, cutoff, count, dtype=torch.float64))
        self.embedding = torch.nn.Linear(elements, channels)  # of one-hot vectors
        self.convolutions = torch.nn.ModuleList([convolution(channels, count, aggr="add") for _ in range(layers)])
        self.hidden, self.last = torch.nn.Linear(channels, hidden), torch.nn.Linear(hidden, 1)

    def forward(self, species, vectors, edges):
        distances = vectors.norm(dim=1)
        step = self.centres[1]
        features = torch.exp(-((distances[:, None] - self.centres) ** 2) / step**2)
        one_hot = torch.nn.functional.one_hot(species, self.embedding.in_features).double()
        x = torch.nn.functional.silu(self.embedding(one_hot))
        for layer in self.convolutions:
            x = layer(x, edges.flip(0), features)  # from neighbour to centre
        return self.last(torch.nn.functional.silu(self.hidden(x))).squeeze(1)


def test_cgcnn_equals_that_of_torch_geometric():
    torch.manual_seed(1)
    graph = AtomGraph.from_ase(structures(), 4.5)
    theirs = Published(elements=4, channels=8, hidden=6, layers=3, count=10, cutoff=4.5).double()
    sizes = {"channels": 8, "layers": 3, "radial_count": 10, "readout_channels": 6, "readout_layers": 1}
    ours = made({**SMALL, **sizes, **PUBLISHED})

    embedding = theirs.embedding
    weights = {"embedding.weight": (embedding.weight + embedding.bias[:, None]).T}
    for layer, convolution in enumerate(theirs.convolutions):
        for part in ("weight", "bias"):
            both = [getattr(linear, part) for linear in (convolution.lin_f, convolution.lin_s)]
            weights[f"messages.{layer}.linear.{part}"] = torch.cat(both)
    for name, linear in {"readout.0.0": theirs.hidden, "readout.1": theirs.last}.items():
        weights |= {f"{name}.{part}": value for part, value in linear.named_parameters()}
    assert set(weights) == {name for name, _ in ours.named_parameters()}
    ours.load_state_dict(weights, strict=False)

    positions = graph.positions.clone().requires_grad_()
    moved = AtomGraph.displaced(graph, positions - graph.positions)
    energies = theirs(ours.rows(graph.species), moved.vectors, graph.edges)
    (gradient,) = torch.autograd.grad(energies.sum(), positions)
    prediction = evaluate(ours, graph)
    expected = graph.sum_per_system(energies.detach())
    assert (prediction.energy - expected).abs().max() < 1e-12 * expected.abs().max()
    assert (prediction.forces + gradient).abs().max() < 1e-12 * gradient.abs().max()


def test_scaled_sums_are_those_over_the_mean_number_of_neighbours():
    """Counted to 4 Å there; as many more within 4.5 Å as there is more room."""
    known = Statistics(species=(1, 6, 8, 14), neighbours=20.0, cutoff=4.0)
    scaled, plain = made(SMALL, known), made({**SMALL, "aggregation": "sum"}, known)
    assert float(scaled.neighbours) == pytest.approx(20 * (4.5 / 4) ** 3)
    graph = AtomGraph.from_ase(structures(), 4.5)
    torch.testing.assert_close(scaled._decay(graph) * scaled.neighbours, plain._decay(graph))


def test_sizes_of_the_papers():
    elements = Statistics.bare(tuple(range(1, 101)))
    network = build({"kind": "cgcnn", "preset": "pretraining"}, elements)
    layers = 4 * 2 * (250 * 100 + 100)
    dense = 100 * 100 + (100 * 150 + 150) + 2 * (150 * 150 + 150) + 150 + 1
    assert sum(parameter.numel() for parameter in network.parameters()) == layers + dense
    at_deviation = network.basis(torch.tensor([0.2 * 8.0]))[0, 0]
    assert float(at_deviation) == pytest.approx(math.exp(-0.5), rel=1e-3)
    original = build({"kind": "cgcnn", "preset": "published"}, elements)
    assert float(original.basis(torch.tensor([0.2]))[0, 0]) == pytest.approx(math.exp(-1), rel=1e-3)
    assert sum(parameter.numel() for parameter in original.messages.parameters()) == 3 * 2 * (169 * 64 + 64)
    assert build({"kind": "cgcnn", "preset": "small"}, elements).config.channels == 32


@pytest.mark.parametrize("radial_basis", ["gaussian", "bessel"])
def test_every_parameter_matters(radial_basis):
    network = made({**SMALL, "embedding_layers": 2, "radial_basis": radial_basis})
    prediction = evaluate(network, AtomGraph.from_ase(structures(), 4.5), create_graph=True)
    (prediction.forces.square().sum() + prediction.energy.square().sum()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.any(), name


def test_nearest_neighbours_are_those_of_each_centre():
    rng = np.random.default_rng(0)
    centre, distances = torch.tensor(rng.integers(0, 6, 60)), torch.tensor(rng.random(60))
    for count in (1, 4, 100):
        found = among_nearest(centre, distances, count)
        for atom in range(6):
            own = (centre == atom).nonzero().squeeze(1)
            expected = own[distances[own].argsort()[:count]]
            assert set(own[found[own]].tolist()) == set(expected.tolist())
    assert among_nearest(centre[:0], distances[:0], 3).shape == (0,)


def test_a_limit_of_neighbours_is_warned_of(caplog):
    graph = AtomGraph.from_ase(structures(), 4.5)
    warn_of_truncation.cache_clear()
    with caplog.at_level(logging.WARNING):
        limited = made({**SMALL, "max_neighbours": 4})
    assert "not conserved" in caplog.text
    caplog.clear()
    assert (evaluate(limited, graph).energy != evaluate(made(SMALL), graph).energy).all()
    everyone = made({**SMALL, "max_neighbours": 1000})
    torch.testing.assert_close(evaluate(everyone, graph).energy, evaluate(made(SMALL), graph).energy)


def test_without_envelope_edges_end_at_the_cutoff():
    network, atoms = made({**SMALL, **PUBLISHED}), Atoms("CO", [[0, 0, 0], [0, 0, 4.52]])
    longer = evaluate(network, AtomGraph.from_ase(atoms, 4.54)).energy
    alone = evaluate(network, AtomGraph.from_ase([Atoms("C"), Atoms("O")], 4.5)).energy
    torch.testing.assert_close(longer, alone.sum()[None])
    atoms.positions[1, 2] = 4.49
    assert abs(float(evaluate(network, AtomGraph.from_ase(atoms, 4.5)).energy - longer)) > 1e-3

"""Small potentials whose behaviour under displacement is known exactly."""

import pytest
import torch
from torch import nn

from phystrain.graph import AtomGraph
from phystrain.labels import Batch, unlabelled


class Counted(nn.Module):
    """Counts the passes through it."""

    cutoff = 20.0

    def __init__(self):
        super().__init__()
        self.passes = 0

    def atomic_energies(self, graph):
        self.passes += 1
        return self.energies(graph)


class Linear(Counted):
    """E = sum of c . x: the first-order expansion is exact."""

    cutoff = 1.0

    def __init__(self, atoms):
        super().__init__()
        self.slope = nn.Parameter(torch.randn(atoms, 3, generator=torch.Generator().manual_seed(1)).double())

    def energies(self, graph):
        return (self.slope * graph.positions).sum(1)


class Quadratic(Counted):
    """E = x.A.x / 2 within each structure, A the same for structures of the same size."""

    cutoff = 1.0

    def __init__(self, atoms):
        super().__init__()
        matrix = torch.randn(3 * atoms, 3 * atoms, generator=torch.Generator().manual_seed(2)).double()
        self.matrix = nn.Parameter(matrix + matrix.T)

    def energies(self, graph):
        x = graph.positions.reshape(graph.n_systems, -1)
        return (x * (x @ self.matrix) / 2).reshape(-1, 3).sum(1)


class Morse(Counted):
    """Pairs bound by D ((1 - exp(-a (r - r0)))² - 1), each scaled by the elements; C2-smooth at the cut-off."""

    def __init__(self, cutoff=20.0, length=1.5):
        super().__init__()
        self.cutoff = cutoff
        self.depth = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
        self.stiffness = nn.Parameter(torch.tensor(1.8, dtype=torch.float64))
        self.length = nn.Parameter(torch.tensor(length, dtype=torch.float64))

    def pairs(self, graph):
        centre, neighbour = graph.edges
        x = (graph.distances / self.cutoff).clamp(max=1)
        envelope = 1 - 10 * x**3 + 15 * x**4 - 6 * x**5 if self.cutoff < 20 else 1.0
        elements = (graph.species[centre] * graph.species[neighbour]).to(x) ** 0.1
        well = (1 - torch.exp(-self.stiffness * (graph.distances - self.length))).square() - 1
        return self.depth * elements * envelope * well / 2

    def energies(self, graph):
        return graph.positions.new_zeros(graph.n_atoms).index_add(0, graph.edges[0], self.pairs(graph))


class MorseWithForceHead(Morse):
    """The same energies beside a force head that is ``bias`` away from their gradient."""

    def __init__(self, bias=0.0):
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(bias, dtype=torch.float64))

    def heads(self, graph):
        atomic = self.atomic_energies(graph)
        (slope,) = torch.autograd.grad(atomic.sum(), graph.positions, create_graph=True)
        return atomic, -slope + self.bias * torch.sin(7 * graph.positions)


def cluster_graph(generator, atoms=8):
    """A cube with an edge of 1.6 Å and 0.1 Å of disorder (or its first atoms); all pairs are edges."""
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.6], dtype=torch.float64)] * 3)[:atoms]
    positions = corners + 0.2 * (torch.rand(atoms, 3, generator=generator).double() - 0.5)
    pairs = torch.cartesian_prod(torch.arange(atoms), torch.arange(atoms))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]].T
    return AtomGraph(
        positions=positions,
        species=torch.ones(atoms, dtype=torch.int64),
        system=torch.zeros(atoms, dtype=torch.int64),
        cell=torch.zeros(1, 3, 3, dtype=torch.float64),
        pbc=torch.zeros(1, 3, dtype=torch.bool),
        edges=pairs,
        shifts=torch.zeros(pairs.shape[1], 3, dtype=torch.float64),
        cutoff=20.0,
    )


@pytest.fixture
def clusters():
    """Make unlabelled clusters: ``copies`` of the same one, or of the given sizes, each with its own key."""

    def make(copies=1, sizes=None):
        generator = torch.Generator().manual_seed(0)
        if sizes is None:
            graphs = [cluster_graph(generator)] * copies
        else:
            graphs = [cluster_graph(generator, size) for size in sizes]
        graph = AtomGraph.concatenate(graphs)
        return Batch(graph, unlabelled(graph), torch.arange(len(graphs)) + 17)

    return make


@pytest.fixture
def potentials():
    """The classes of this file by name."""
    return {kind.__name__: kind for kind in (Linear, Quadratic, Morse, MorseWithForceHead)}

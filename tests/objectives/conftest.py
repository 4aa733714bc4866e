"""Small potentials whose behaviour under displacement is known exactly."""

import pytest
import torch
from torch import nn

from phystrain.graph import AtomGraph
from phystrain.labels import Batch, unlabelled
from phystrain.testing import morse_cluster


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
    """The Morse pairs of the contract suite, passes counted."""

    def __init__(self, cutoff=20.0, length=1.5):
        super().__init__()
        self.morse = morse_cluster.Morse(cutoff, length)
        self.cutoff = cutoff

    def energies(self, graph):
        return self.morse.atomic_energies(graph)


class MorseWithForceHead(Morse):
    """The same energies beside a force head that is ``bias`` away from their gradient."""

    def __init__(self, bias=0.0):
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(bias, dtype=torch.float64))

    def heads(self, graph):
        atomic = self.atomic_energies(graph)
        (slope,) = torch.autograd.grad(atomic.sum(), graph.positions, create_graph=True)
        return atomic, -slope + self.bias * torch.sin(7 * graph.positions)


@pytest.fixture
def clusters():
    """Make unlabelled clusters: ``copies`` of the same one, or of the given sizes, each with its own key."""

    def make(copies=1, sizes=None):
        generator = torch.Generator().manual_seed(0)
        if sizes is None:
            graphs = [morse_cluster.cluster(generator)] * copies
        else:
            graphs = [morse_cluster.cluster(generator, size) for size in sizes]
        graph = AtomGraph.concatenate(graphs)
        return Batch(graph, unlabelled(graph), torch.arange(len(graphs)) + 17)

    return make


@pytest.fixture
def potentials():
    """The classes of this file by name."""
    return {kind.__name__: kind for kind in (Linear, Quadratic, Morse, MorseWithForceHead)}

"""A cluster and a potential whose weak losses are known: for tests and for the figures of the documentation."""

import torch
from torch import Tensor, nn

from phystrain.graph import AtomGraph


class Morse(nn.Module):
    """Pairs bound by D ((1 - exp(-a (r - r0)))² - 1), each scaled by the elements; C2-smooth at the cut-off.

    Args:
        cutoff: Å; without envelope from 20 Å on.
        length: Å, r0.
    """

    def __init__(self, cutoff: float = 20.0, length: float = 1.5) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.depth = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
        self.stiffness = nn.Parameter(torch.tensor(1.8, dtype=torch.float64))
        self.length = nn.Parameter(torch.tensor(length, dtype=torch.float64))

    def pairs(self, graph: AtomGraph) -> Tensor:
        """(edges,) eV, half the energy of the pair."""
        centre, neighbour = graph.edges
        x = (graph.distances / self.cutoff).clamp(max=1)
        envelope = 1 - 10 * x**3 + 15 * x**4 - 6 * x**5 if self.cutoff < 20 else 1.0
        elements = (graph.species[centre] * graph.species[neighbour]).to(x) ** 0.1
        well = (1 - torch.exp(-self.stiffness * (graph.distances - self.length))).square() - 1
        return self.depth * elements * envelope * well / 2

    def atomic_energies(self, graph: AtomGraph) -> Tensor:
        return graph.positions.new_zeros(graph.n_atoms).index_add(0, graph.edges[0], self.pairs(graph))


def cluster(generator: torch.Generator, atoms: int = 8) -> AtomGraph:
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

"""Small potentials whose behaviour is known, for tests that must not depend on a network."""

import pytest
import torch
from ase import Atoms
from ase.build import bulk
from torch import nn

from phystrain.data.structures import Structures
from phystrain.graph import AtomGraph
from phystrain.layers.pair import smooth_cutoff
from phystrain.noise import index_in_system


class SmallLennardJones(nn.Module):
    """12-6 pair potential, brought to zero smoothly; argon by default."""

    def __init__(self, epsilon: float = 0.0103, sigma: float = 3.4, cutoff: float = 6.5) -> None:
        super().__init__()
        self.epsilon = nn.Parameter(torch.tensor(epsilon, dtype=torch.float64))
        self.sigma = sigma
        self.cutoff = cutoff

    def pair_energy(self, r: torch.Tensor) -> torch.Tensor:
        sixth = (self.sigma / r) ** 6
        return 4 * self.epsilon.to(r.dtype) * (sixth * sixth - sixth) * smooth_cutoff(r, self.cutoff - 1.5, self.cutoff)

    def atomic_energies(self, graph: AtomGraph) -> torch.Tensor:
        energy = self.pair_energy(graph.distances) / 2
        energy = torch.where(graph.distances < self.cutoff, energy, 0.0)
        return energy.new_zeros(graph.n_atoms).index_add(0, graph.edges[0], energy)


class WithHole(SmallLennardJones):
    """The same, with a flat bottom where the wall should be, below 2.2 Å: the planted fault of many a network."""

    def pair_energy(self, r: torch.Tensor) -> torch.Tensor:
        hole = smooth_cutoff(r, 2.2, 2.6)
        return super().pair_energy(r) * (1 - hole) - 0.5 * hole


class NotConservative(SmallLennardJones):
    """A direct force head with a swirl about the z axis: no energy has these forces."""

    def heads(self, graph: AtomGraph) -> tuple[torch.Tensor, torch.Tensor]:
        atomic = self.atomic_energies(graph)
        (gradient,) = torch.autograd.grad(atomic.sum(), graph.positions, retain_graph=True)
        centre = graph.sum_per_system(graph.positions) / graph.atoms_per_system[:, None]
        arm = graph.positions - centre[graph.system]
        swirl = torch.stack([-arm[:, 1], arm[:, 0], torch.zeros_like(arm[:, 0])], dim=1)
        return atomic, -gradient + 8e-3 * swirl


class Einstein(nn.Module):
    """Each atom bound to its own site by a spring: every average is known."""

    cutoff = 3.0

    def __init__(self, sites: torch.Tensor, stiffness: float = 1.0) -> None:
        super().__init__()
        self.sites, self.stiffness = sites, stiffness

    def atomic_energies(self, graph: AtomGraph) -> torch.Tensor:
        site = self.sites[index_in_system(graph.system, graph.atoms_per_system)]
        return 0.5 * self.stiffness * (graph.positions - site).square().sum(dim=1)


@pytest.fixture
def lennard_jones() -> SmallLennardJones:
    return SmallLennardJones()


@pytest.fixture
def with_hole() -> WithHole:
    return WithHole()


@pytest.fixture
def not_conservative() -> NotConservative:
    return NotConservative()


@pytest.fixture
def einstein() -> type[Einstein]:
    return Einstein


@pytest.fixture
def argon() -> Atoms:
    """Crystal of 32 atoms."""
    return bulk("Ar", "fcc", a=5.3, cubic=True) * (2, 2, 2)


@pytest.fixture
def crystal(argon: Atoms) -> Structures:
    return Structures.from_ase([argon])

import pytest
import torch
from ase import Atoms
from torch import nn

from phystrain.data.structures import Structures
from phystrain.reliability.locality import Config
from phystrain.statistics import Statistics


class Charges(nn.Module):
    """Bare Coulomb energies of all pairs; an outsider that names no cut-off and needs no neighbour list."""

    cutoff = 0.0

    def atomic_energies(self, graph):
        charges = torch.where(graph.species == 11, 1.0, -1.0).to(graph.positions)
        vectors = graph.positions[:, None] - graph.positions[None]
        same = (graph.system[:, None] == graph.system[None]) & ~torch.eye(graph.n_atoms, dtype=torch.bool)
        distance = torch.where(same, vectors.square().sum(-1), 1.0).sqrt()
        pairs = 7.2 * charges[:, None] * charges[None] / distance
        return torch.where(same, pairs, 0.0).sum(dim=1) + self.offset(graph)

    def offset(self, graph):
        return 0.0


class Shifted(Charges):
    """And an energy for having company."""

    def offset(self, graph):
        return 0.01 * (graph.atoms_per_system[graph.system] - 1)


@pytest.fixture
def salt():
    return Structures.from_ase([Atoms("NaCl", [[0, 0, 0], [2.4, 0.1, 0]])])


def test_sound_potential_passes(lennard_jones, subject_of):
    result = Config()(subject_of(lennard_jones))
    assert result.passed
    assert result.grade == "safe"
    assert result.figures["two copies 100 Å apart less twice one, meV"] < 1e-9


def test_long_range_does_not_apply(subject_of, salt):
    result = Config()(subject_of(Charges(), start=salt, statistics=Statistics.bare((11, 17))))
    assert result.applies is False
    assert result.passed is None
    assert result.grade is None
    assert "Long-ranged" in result.sentence
    # two dipoles of 2.4 e Å side by side: -2 mu^2 k / r^3
    expected = 1000 * 2 * 2.4**2 * 14.4 / 102.4**3
    assert result.figures["two copies 100 Å apart less twice one, meV"] == pytest.approx(expected, rel=0.05)


def test_what_does_not_decay_fails_all_the_same(subject_of, salt):
    result = Config()(subject_of(Shifted(), start=salt, statistics=Statistics.bare((11, 17))))
    assert result.passed is False
    assert result.applies
    assert result.grade == "unsafe"


def test_lone_atoms_against_their_references(lennard_jones, subject_of):
    statistics = Statistics(species=(18,), reference_energies={18: -0.5}, reference_source="isolated")
    result = Config()(subject_of(lennard_jones, statistics=statistics))
    assert result.passed
    assert result.figures["lone Ar less its reference energy, meV"] == pytest.approx(500)
    assert result.conditions == ["energies of lone Ar are off by 0.5 eV, and so is all that dissociates to them"]
    fitted = statistics.model_copy(update={"reference_source": "fitted"})
    assert Config()(subject_of(lennard_jones, statistics=fitted)).conditions == []

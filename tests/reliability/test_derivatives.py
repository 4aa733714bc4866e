import pytest
from torch import nn

from phystrain.errors import UserError
from phystrain.reliability.derivatives import Config


def test_sound_potential_passes(lennard_jones, subject_of):
    result = Config()(subject_of(lennard_jones))
    assert result.passed
    assert result.figures["largest force error, meV/Å"] < 1e-4
    assert result.figures["largest stress error, GPa"] < 1e-6


def test_forces_without_an_energy_are_caught(not_conservative, subject_of):
    result = Config()(subject_of(not_conservative))
    assert result.passed is False
    assert 1 < result.figures["largest force error, meV/Å"] < 200
    assert "not the derivatives" in result.sentence


class WrongStress(nn.Module):
    """Takes the strain out of half of the pairs' vectors."""

    cutoff = 6.5

    def __init__(self, sound):
        super().__init__()
        self.sound = sound

    def atomic_energies(self, graph):
        graph.__dict__["vectors"] = graph.vectors + 0.1 * (graph.shifts[:, :1] != 0) * (
            graph.vectors.detach() - graph.vectors
        )
        return self.sound.atomic_energies(graph)


def test_wrong_stress_is_caught(lennard_jones, subject_of):
    assert Config()(subject_of(WrongStress(lennard_jones))).passed is False


def test_needs_a_structure(lennard_jones, subject_of):
    with pytest.raises(UserError, match="no structure"):
        Config()(subject_of(lennard_jones, start=None))

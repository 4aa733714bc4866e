import numpy as np
import pytest
import torch
from ase import Atoms

from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.reliability._static import jumps_of, noise_of
from phystrain.reliability.symmetry import Config, operations


def test_jump_and_noise_of_known_values():
    x = np.linspace(0, 1, 41)
    smooth = np.exp(-3 * x) + np.sin(4 * x)
    assert np.abs(jumps_of(smooth)).max() < 5e-6
    jumping = smooth + 0.5 * (x > 0.61)
    found = np.abs(jumps_of(jumping))
    assert found.max() == pytest.approx(0.5, abs=1e-5)
    assert x[found.argmax() + 2] < 0.61 < x[found.argmax() + 3]  # between the middle points of the six
    noise = 1e-3 * np.random.default_rng(0).normal(size=(41, 200))  # of many values at once, such as forces
    assert noise_of(smooth[:, None] + noise) == pytest.approx(1e-3, rel=0.1)
    assert noise_of(jumping) < 1e-5


def test_single_precision_passes_and_says_how_well(lennard_jones, subject_of):
    double = Config()(subject_of(lennard_jones))
    single = Config()(subject_of(lennard_jones.float()))
    assert double.passed
    assert single.passed
    name = "energy after rotation, meV/atom"
    assert double.figures[name] < 1e-10 < single.figures[name] < 1e-3


def test_every_operation_moves_the_atoms(crystal):
    made = list(operations(crystal, np.random.default_rng(0)))
    names = ["rotation", "rotation", "reflection", "translation", "permutation", "wrapping", "doubling the cell"]
    assert [operation.name for operation in made] == names
    for operation in made:
        assert operation.structure.positions.shape[0] in (32, 64)
        assert np.abs(operation.structure.positions[:32] - crystal.positions).max() > 1 or operation is made[-1]
    assert np.linalg.det(made[0].matrix) == pytest.approx(1)
    assert np.linalg.det(made[2].matrix) == pytest.approx(-1)
    assert abs(np.linalg.det(made[-1].structure.cell[0])) == pytest.approx(2 * 10.6**3)


def test_molecules_have_neither_images_nor_stress(lennard_jones, subject_of):
    molecule = Structures.from_ase([Atoms("Ar3", [[0, 0, 0], [3.8, 0, 0], [0, 3.9, 0]])])
    result = Config()(subject_of(lennard_jones, start=molecule))
    assert result.passed
    assert not any("wrapping" in name or "GPa" in name for name in result.figures)


class Ordered(torch.nn.Module):
    """The first atom of a structure counts twice."""

    cutoff = 6.5

    def __init__(self, sound):
        super().__init__()
        self.sound = sound

    def atomic_energies(self, graph):
        atomic = self.sound.atomic_energies(graph)
        first = torch.cat([graph.system.new_ones(1), graph.system.diff()])
        return atomic * (1 + first)


def test_numbering_that_matters(lennard_jones, subject_of):
    result = Config()(subject_of(Ordered(lennard_jones)))
    assert result.passed is False
    assert "permutation" in result.sentence
    assert "rotation" not in result.sentence


def test_needs_a_structure(lennard_jones, subject_of):
    with pytest.raises(UserError, match="symmetry: there is no structure"):
        Config()(subject_of(lennard_jones, start=None))

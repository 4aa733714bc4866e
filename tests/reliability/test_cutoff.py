import numpy as np
import pytest
import torch
from ase import Atoms
from torch import nn

from phystrain.data.structures import Structures
from phystrain.potentials import build
from phystrain.reliability.cutoff import Config
from phystrain.statistics import Statistics


class Step(nn.Module):
    """A pair that loses ``height`` eV at 4 Å, and nothing else but a weak spring of finite range.

    Args:
        height: eV.
        cutoff: Å, as named by the potential.
    """

    def __init__(self, height: float, cutoff: float = 4.0) -> None:
        super().__init__()
        self.height, self.cutoff = height, cutoff

    def atomic_energies(self, graph):
        inside = graph.distances < 4.0
        smooth = 0.05 * (1 - (graph.distances / 4.0) ** 2) ** 3
        energy = torch.where(inside, smooth + 0.5 * self.height, 0.0)
        return energy.new_zeros(graph.n_atoms).index_add(0, graph.edges[0], energy)


@pytest.fixture
def dimer():
    return {
        "start": Structures.from_ase([Atoms("Ar2", [[0, 0, 0], [2.0, 0, 0]])]),
        "statistics": Statistics.bare((18,)),
        "temperatures": (300.0,),
    }


def test_jump_is_measured_as_large_as_it_is(subject_of, dimer):
    """An atom carried to two others crosses the cut-off of the outer one alone."""
    result = Config()(subject_of(Step(3e-3), **dimer))
    assert result.passed is False
    assert result.figures["largest jump of the energy, meV"] == pytest.approx(3, rel=1e-3)
    assert "crosses the cut-off of 4 Å" in result.sentence
    assert result.grade == "limited"
    assert Config()(subject_of(Step(3e-1), **dimer)).grade == "unsafe"
    (curve,) = result.curves.values()
    assert np.ptp(curve.y) == pytest.approx(3, rel=0.1)


def test_small_jumps_are_none(subject_of, dimer):
    assert Config()(subject_of(Step(1e-4), **dimer)).passed  # 0.1 meV of the 0.26 allowed at 300 K
    assert Config()(subject_of(Step(0.0), **dimer)).passed
    assert Config(thermal=1e-3)(subject_of(Step(1e-4), **dimer)).passed is False


def test_jump_of_a_potential_that_names_no_cutoff(subject_of, dimer):
    """What looks for its neighbours by itself: the place is found all the same."""

    class Own(Step):
        def atomic_energies(self, graph):
            same = graph.system[:, None] == graph.system[None]
            apart = same & ~torch.eye(graph.n_atoms, dtype=torch.bool)
            vectors = graph.positions[:, None] - graph.positions[None]
            distance = torch.where(apart, vectors.square().sum(-1), 1.0).sqrt()
            energy = torch.where(distance < 4, 0.05 * (1 - (distance / 4.0) ** 2) ** 3 + 0.5 * self.height, 0.0)
            return torch.where(apart, energy, 0.0).sum(dim=1)

    result = Config()(subject_of(Own(3e-3, cutoff=0.0), **dimer))
    assert result.passed is False
    assert result.figures["cut-off, Å"] is None
    assert result.figures["largest jump of the energy, meV"] == pytest.approx(3, rel=0.01)
    assert Config()(subject_of(Own(0.0, cutoff=0.0), **dimer)).passed


def test_a_smeared_step_is_a_jump(subject_of, dimer):
    """Dynamics steps over a ten thousandth of an ångström as over none."""

    class Smeared(Step):
        def atomic_energies(self, graph):
            fallen = torch.sigmoid((4.0 - 1e-3 - graph.distances) / 2e-5)
            smooth = torch.where(graph.distances < 4.0, 0.05 * (1 - (graph.distances / 4.0) ** 2) ** 3, 0.0)
            energy = smooth + 0.5 * self.height * fallen
            return energy.new_zeros(graph.n_atoms).index_add(0, graph.edges[0], energy)

    assert Config()(subject_of(Smeared(17e-3), **dimer)).passed is False


def test_what_is_not_finite_fails(subject_of, dimer):
    class Broken(Step):
        def atomic_energies(self, graph):
            return super().atomic_energies(graph) * (float("nan") if bool((graph.distances < 3.9).any()) else 1.0)

    assert Config()(subject_of(Broken(0.0), **dimer)).passed is False


def test_onset_of_a_repulsion_is_no_jump(subject_of, dimer):
    """The wall's force bends where it begins, and beside no force at all even a bend looks large."""
    wall = build({"kind": "wall", "height": 100}, Statistics.bare((18,))).double()
    onset = float(wall.cutoff)
    pair = Structures.from_ase([Atoms("Ar2", [[0, 0, 0], [onset / 0.7, 0, 0]])])
    result = Config(rattle=0.0, compressed=0.7)(subject_of(wall, **dimer | {"start": pair}))
    assert result.passed, result.sentence
    assert 0 < result.figures["largest jump of a force, meV/Å"] < 0.1


def test_effort_is_limited(lennard_jones, subject_of):
    few = Config(atoms=32 * 40)(subject_of(lennard_jones))
    assert few.figures["points"] <= 3 * 40

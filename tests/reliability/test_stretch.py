import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from phystrain.data.structures import Structures
from phystrain.reliability._bonds import beyond, shortest_bonds
from phystrain.reliability.stretch import Config, roughness, wells
from phystrain.statistics import Statistics
from phystrain.testing.morse_cluster import Morse


class SecondWell(Morse):
    """A Morse bond with a second well, 0.6 eV deep, at 2.6 Å."""

    def pairs(self, graph):
        return super().pairs(graph) - 0.3 * torch.exp(-((graph.distances - 2.6) ** 2) / 0.02)


def test_minima_and_roughness_of_known_curves():
    x = np.linspace(-2, 2, 81)
    assert wells(x**2, 0.05) == [40]
    double = (x**2 - 1) ** 2
    assert wells(double, 0.05) == [20, 60]
    assert wells(double, 1.5) == [20]  # the barrier between them is one high
    assert wells(x, 0.05) == []
    assert roughness(-2 * x) == pytest.approx(0, abs=1e-9)
    step = -2 * x + 1.5 * (x > 0.51)
    assert roughness(step) == pytest.approx(1.5 / np.ptp(step))
    assert roughness(step, smallest=2.0) == 0


def test_halves_of_a_molecule():
    ethanol = Structures.from_ase([molecule("CH3CH2OH")])
    bonds = {bond.label: bond for bond in shortest_bonds(ethanol)}
    half = beyond(ethanol, bonds["C-O"])
    assert sorted([int(half.sum()), int((~half).sum())]) == [2, 7]
    ring = Structures.from_ase([molecule("C6H6")])
    assert beyond(ring, {bond.label: bond for bond in shortest_bonds(ring)}["C-C"]) is None
    crystal = Structures.from_ase([bulk("Si")])
    assert beyond(crystal, shortest_bonds(crystal)[0]) is None


@pytest.fixture
def nitrogen():
    return {
        "start": Structures.from_ase([Atoms("N2", [[0, 0, 0], [1.5, 0, 0]])]),
        "statistics": Statistics.bare((7,)),
        "temperatures": (300.0,),
    }


def test_single_well_passes(subject_of, nitrogen):
    result = Config()(subject_of(Morse(length=1.5), **nitrogen))
    assert result.passed, result.sentence
    assert result.figures["minima, N-N"] == 1
    (curve,) = result.curves.values()
    assert curve.x[0] == pytest.approx(0.75 * 1.5)
    assert curve.x[-1] == pytest.approx(2.5 * 1.5)


def test_second_well_is_found_where_it_is(subject_of, nitrogen):
    result = Config()(subject_of(SecondWell(length=1.5), **nitrogen))
    assert result.passed is False
    assert "further minimum at 2.5" in result.sentence or "further minimum at 2.6" in result.sentence
    (condition,) = result.conditions
    assert condition.startswith("N-N bonds above 2.")
    # a barrier of 0.9 eV: hot dynamics at twice 300 K climbs 1.03 eV, at twice 100 K a third of it
    assert result.grade == "unsafe"
    cold = Config()(subject_of(SecondWell(length=1.5), **(nitrogen | {"temperatures": (100.0,)})))
    assert cold.grade == "limited"


def test_atoms_that_are_not_bonded(lennard_jones, subject_of):
    assert Config()(subject_of(lennard_jones)).applies is False

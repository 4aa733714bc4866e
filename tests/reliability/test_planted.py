"""Faults that were put there are caught by the test that should catch them; sound potentials pass them all."""

from pathlib import Path

import pytest
import torch
from ase import Atoms
from ase.build import bulk
from torch import nn

from phystrain import registry
from phystrain.data.structures import Structures
from phystrain.graph import AtomGraph
from phystrain.layers.pair import smooth_cutoff
from phystrain.potentials import build
from phystrain.reliability import Result, Subject
from phystrain.reliability._suite import audit
from phystrain.statistics import Statistics

STATIC = ("derivatives", "dimers", "compression", "symmetry", "locality", "cutoff", "strain", "stretch", "coverage")
EAM = Path(__file__).parents[1] / "data_files" / "eam"


class Argon(nn.Module):
    """Lennard-Jones, and whatever a fault makes of it."""

    cutoff = 6.5

    def __init__(self) -> None:
        super().__init__()
        self.depth = nn.Parameter(torch.tensor(0.0103, dtype=torch.float64))

    def pair_energies(self, graph: AtomGraph) -> torch.Tensor:
        """(edges,) eV, half of each pair's."""
        sixth = (3.4 / graph.distances) ** 6
        envelope = smooth_cutoff(graph.distances, self.cutoff - 1.5, self.cutoff)
        return 2 * self.depth * (sixth * sixth - sixth) * envelope

    def atomic_energies(self, graph: AtomGraph) -> torch.Tensor:
        energy = torch.where(graph.distances < self.cutoff, self.pair_energies(graph), 0.0)
        return energy.new_zeros(graph.n_atoms).index_add(0, graph.edges[0], energy)


class HardCutoff(Argon):
    """No envelope: every pair loses 0.6 meV at once. No two atoms of the crystal are so far from each other."""

    cutoff = 6.9

    def pair_energies(self, graph):
        sixth = (3.4 / graph.distances) ** 6
        return 2 * self.depth * (sixth * sixth - sixth)


class Hole(Argon):
    """A flat bottom of half an eV where the wall should be, below 2.2 Å."""

    def pair_energies(self, graph):
        hole = smooth_cutoff(graph.distances, 2.2, 2.6)
        return super().pair_energies(graph) * (1 - hole) - 0.25 * hole


class DirectForces(Argon):
    """Forces that are right but for a factor that depends on the surroundings: symmetric, local and smooth."""

    def heads(self, graph):
        atomic = self.atomic_energies(graph)
        (gradient,) = torch.autograd.grad(atomic.sum(), graph.positions, retain_graph=True)
        return atomic, -gradient * (1.2 + atomic.detach()[:, None])


class SinglePrecision(Argon):
    """All-electron energies of 14,000 eV an atom, in single precision."""

    def atomic_energies(self, graph):
        return (super().atomic_energies(graph) - 14_000.0).to(torch.float32).to(torch.float64)


class Directed(Argon):
    """Pairs along z bind a little more."""

    def pair_energies(self, graph):
        return super().pair_energies(graph) * (1 + 0.2 * (graph.vectors[:, 2] / graph.distances) ** 2)


class WrongStress(Argon):
    """Right energies and forces; whatever is derived from the energy has the other sign."""

    def heads(self, graph):
        atomic = self.atomic_energies(graph)
        (gradient,) = torch.autograd.grad(atomic.sum(), graph.positions, retain_graph=True)
        return 2 * atomic.detach() - atomic, -gradient


class Capped(Argon):
    """Only the nearest neighbours count, and it matters in which directions they are.

    Args:
        most: how many. Of the 42 atoms within the cut-off 24 lie so near to it that they hardly count; but not so if
            the crystal is compressed.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def atomic_energies(self, graph):
        centre, distance = graph.edges[0], graph.distances.detach()
        order = torch.argsort(distance)
        order = order[torch.argsort(centre[order], stable=True)]
        first = torch.searchsorted(centre[order].contiguous(), torch.arange(graph.n_atoms))
        rank = torch.empty_like(centre)
        rank[order] = torch.arange(len(order)) - first[centre[order]]
        weight = smooth_cutoff(graph.distances, 5.0, self.cutoff) * (rank < self.most) / graph.distances
        polar = graph.vectors.new_zeros(graph.n_atoms, 3).index_add(0, centre, weight[:, None] * graph.vectors)
        return super().atomic_energies(graph) + 1e-3 * polar.square().sum(dim=1)


class Pooled(Argon):
    """The mean energy of the whole structure acts on every atom, as a global descriptor does."""

    def atomic_energies(self, graph):
        atomic = super().atomic_energies(graph)
        mean = graph.sum_per_system(atomic) / graph.atoms_per_system
        return atomic * (1 + mean[graph.system])


@pytest.fixture
def audited(crystal):
    def run(potential: nn.Module) -> dict[str, Result]:
        statistics = Statistics.bare((18,))
        subject = Subject("planted", potential.eval(), statistics, start=crystal, train=crystal, temperatures=(80.0,))
        return {result.test: result for result in audit(subject, dict.fromkeys(STATIC), progress=False)}

    return run


def failed(results: dict[str, Result]) -> set[str]:
    return {name for name, result in results.items() if result.passed is False}


def test_all_static_tests_are_here():
    """Those that need no dynamics and nothing to compare with, but for the errors on labelled structures."""
    found = {kind for kind in registry.kinds("reliability") if registry.find("reliability", kind).Config.level == 0}
    assert set(STATIC) == found


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_sound_potential_passes_all(audited, dtype):
    results = audited(Argon().to(dtype))
    assert not failed(results)
    assert {result.grade for result in results.values() if result.passed} == {"safe"}
    assert not any(result.conditions for name, result in results.items() if name != "coverage")
    for result in results.values():
        assert Result.model_validate_json(result.model_dump_json()) == result
        assert result.sentence.endswith(".")
        assert "nan" not in result.sentence
    assert not results["stretch"].applies  # atoms of argon are not bonded


@pytest.mark.parametrize(
    ("file", "atoms"),
    [
        ("Ag_u3.eam", bulk("Ag", cubic=True) * (2, 2, 2)),
        (
            "AlCu_Zhou2004.eam.alloy",
            Atoms("CuAlAlAl", [[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0]], cell=[4] * 3, pbc=True),
        ),
        ("MoW_FS1984.eam.fs", bulk("Mo", cubic=True) * (2, 2, 2)),
    ],
)
def test_sound_tables_pass_all(file, atoms):
    structures = Structures.from_ase([atoms])
    statistics = Statistics.bare(structures.elements)
    potential = build({"kind": "eam_table", "file": str(EAM / file)}, statistics).double()
    subject = Subject(file, potential, statistics, start=structures, train=structures)
    results = {result.test: result for result in audit(subject, dict.fromkeys(STATIC), progress=False)}
    assert not failed(results), [results[name].sentence for name in failed(results)]
    assert all(result.applies for result in results.values())


def test_discontinuity_at_the_cutoff(audited):
    results = audited(HardCutoff())
    assert failed(results) == {"cutoff"}
    assert "crosses the cut-off of 6.9 Å" in results["cutoff"].sentence
    sixth = (3.4 / 6.9) ** 6
    assert results["cutoff"].figures["largest jump of the energy, meV"] == pytest.approx(
        41.2 * (sixth - sixth**2), rel=0.01
    )
    assert results["cutoff"].grade == "limited"


def test_hole_at_short_range(audited):
    results = audited(Hole())
    assert {"dimers", "compression"} <= failed(results) <= {"dimers", "compression", "strain"}
    (condition,) = results["dimers"].conditions
    assert condition == "Ar-Ar below 2.48 Å is unsupported"
    assert results["compression"].conditions[0] == "Ar-Ar below 2.47 Å is unsupported"
    # the wall before the hole is 4 eV high, and hot dynamics at 160 K climbs 0.3 eV
    assert results["compression"].grade == "limited"


def test_forces_that_no_energy_has(audited):
    results = audited(DirectForces())
    assert failed(results) == {"derivatives"}
    assert results["derivatives"].grade == "unsafe"
    assert "Forces are not the derivatives" in results["derivatives"].sentence


def test_loss_of_precision(audited):
    results = audited(SinglePrecision())
    assert "symmetry" in failed(results)
    assert results["derivatives"].passed, results["derivatives"].sentence
    assert "loss of precision" in results["symmetry"].sentence
    # energies of 14,000 eV in steps of 2^-10 eV: those of independent atoms are rounded by a step over sqrt(12)
    expected = 1000 * 2**-10 / 12**0.5 / 32**0.5
    assert results["symmetry"].figures["rounding of the energy, meV/atom"] == pytest.approx(expected, rel=0.4)
    assert results["symmetry"].grade == "limited"


def test_broken_symmetry(audited):
    results = audited(Directed())
    assert failed(results) == {"symmetry"}
    assert "Broken symmetry: rotation and reflection" in results["symmetry"].sentence
    assert results["symmetry"].figures["energy after translation, meV/atom"] < 1e-6


def test_wrong_sign_of_the_stress(audited):
    results = audited(WrongStress())
    assert failed(results) == {"derivatives"}
    assert results["derivatives"].sentence.startswith("Wrong sign of stress")
    assert results["derivatives"].grade == "limited"  # dynamics in a fixed cell is as it was


@pytest.mark.parametrize("most", [16, 30])
def test_truncation_of_neighbours(audited, most):
    """Also with a cap that only the compressed crystal reaches."""
    results = audited(Capped(most))
    assert "cutoff" in failed(results)
    assert "a cap on neighbours?" in results["cutoff"].sentence
    assert failed(results) <= {"cutoff", "strain", "compression"}


def test_energy_that_is_not_extensive(audited):
    results = audited(Pooled())
    assert failed(results) == {"locality"}
    assert "does not decay" in results["locality"].sentence

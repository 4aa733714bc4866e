import numpy as np
import pytest
import torch
from ase import Atoms
from ase.optimize import FIRE
from torch import nn

from phystrain.data.structures import Structures
from phystrain.dynamics import replicate
from phystrain.dynamics.relax import relax
from phystrain.interfaces.ase import PhystrainCalculator
from phystrain.reliability.relaxation import Config


def shaken(argon, seed):
    atoms = argon.copy()
    atoms.rattle(0.15, seed=seed)
    return atoms


def test_agrees_with_ase_step_by_step(lennard_jones, argon):
    cluster = Atoms("Ar4", positions=[[0, 0, 0], [3.9, 0, 0], [0, 4.1, 0], [0.3, 0, 4.0]])
    frames = [shaken(argon, 1), cluster, shaken(argon, 2)]
    found = relax(lennard_jones, Structures.from_ase(frames), fmax=0.003, steps=300)
    for number, atoms in enumerate(frames):
        atoms.calc = PhystrainCalculator(lennard_jones)
        oracle = FIRE(atoms, logfile=None)
        converged = oracle.run(fmax=0.003, steps=300)
        assert (bool(found.converged[number]), int(found.steps[number])) == (converged, oracle.nsteps)
        np.testing.assert_allclose(found.final.to_ase(number).positions, atoms.positions, atol=1e-7)
        assert found.last[number] == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        assert found.last[number] < found.first[number]
    assert len(set(found.steps.tolist())) > 1  # each was stopped by itself


def test_sound_potential_relaxes(lennard_jones, subject_of):
    result = Config(fmax=0.005, replicas=3)(subject_of(lennard_jones))
    assert result.passed
    assert (result.grade, result.figures["converged"]) == ("safe", 1)
    assert 5 < result.figures["most steps"] < 200
    assert 0 < result.figures["largest drop, eV/atom"] < 0.05
    assert result.curves["steps"].y[-1] == 1


def test_too_few_steps_are_no_disaster(lennard_jones, subject_of):
    result = Config(fmax=0.005, replicas=2, steps=3)(subject_of(lennard_jones))
    assert result.passed is False
    assert result.grade == "limited"
    assert result.figures["not converged"] == 2
    assert "2 did not converge" in result.sentence


def test_hole_is_fallen_into(with_hole, subject_of, crystal):
    close = crystal.to_ase(0)
    close.positions[1] = close.positions[0] + [2.25, 0, 0]  # at the rim of the hole
    start = Structures.concatenate([crystal, Structures.from_ase([close])])
    result = Config(fmax=0.005, replicas=4, amplitude=0.02)(subject_of(with_hole, start=start))
    assert result.passed is False
    assert result.grade == "unsafe"
    assert result.figures["fell into a hole"] >= 1
    assert "hole" in result.sentence


class Repulsive(nn.Module):
    """Atoms that only push one another away."""

    cutoff = 8.0

    def atomic_energies(self, graph):
        energy = 5 * torch.exp(-graph.distances / 2) * (graph.distances < self.cutoff)
        return energy.new_zeros(graph.n_atoms).index_add(0, graph.edges[0], energy)


def test_atoms_that_fly_off_are_seen(subject_of):
    cluster = Atoms("Ar4", positions=[[0, 0, 0], [3.8, 0, 0], [0, 3.8, 0], [0, 0, 3.8]])
    result = Config(fmax=0.05, replicas=2)(subject_of(Repulsive(), start=Structures.from_ase([cluster])))
    assert result.figures["flew apart"] == 2
    assert result.grade == "unsafe"
    assert "2 flew apart" in result.sentence


def test_batch_equals_singles(lennard_jones, argon):
    frames = replicate(Structures.from_ase([shaken(argon, 3)]), 2)
    both = relax(lennard_jones, frames, fmax=0.01)
    one = relax(lennard_jones, frames.select([1]), fmax=0.01)
    np.testing.assert_allclose(both.final.positions[32:], one.final.positions, atol=1e-10)

"""Consistency of energy and stress under strain: orders, exact case, who counts, reserve of the neighbour list."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from phystrain.graph import AtomGraph
from phystrain.labels import Batch, unlabelled
from phystrain.neighbours import neighbour_list
from phystrain.objectives import Evaluator, energy, forces, stress
from phystrain.objectives.strain_consistency import Config, strains
from phystrain.testing.objectives import term
from phystrain.train.material import reserve
from phystrain.train.step import wants_stress


def crystals(copies=1, cutoff=4.0):
    atoms = bulk("Cu", "fcc", a=3.3, cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.set_cell(atoms.cell.array + 0.1 * np.random.default_rng(2).normal(size=(3, 3)), scale_atoms=True)
    graph = AtomGraph.concatenate([AtomGraph.from_ase(atoms, cutoff)] * copies)
    return Batch(graph, unlabelled(graph), torch.arange(copies))


def root_mean_square(objective, batch, potential):
    total, count = term(objective, batch, potential)
    return float((total / count).detach()) ** 0.5


@pytest.mark.parametrize(("k", "order"), [(0.0, 2), (0.3, 2), (0.5, 3)])
def test_order_in_the_strain(k, order, potentials):
    """Second order, third at k = 1/2, in a skew cell under stress."""
    batch, potential, sizes = crystals(30), potentials["Morse"](cutoff=3.5, length=2.2), [0.02, 0.01, 0.005, 0.0025]
    residuals = [root_mean_square(Config(k=k, strain=size), batch, potential) for size in sizes]
    assert np.polyfit(np.log(sizes), np.log(residuals), 1)[0] == pytest.approx(order, abs=0.15)


def test_exact_on_a_quadratic_potential(potentials):
    """E = x.A.x / 2 is quadratic along the path 1 + t e, so the trapezoidal rule is exact at any strain."""
    batch, potential = crystals(3), potentials["Quadratic"](4)
    assert root_mean_square(Config(strain=0.1), batch, potential) < 1e-12
    assert root_mean_square(Config(strain=0.1, k=0.4), batch, potential) > 1e-4


def test_sign_of_the_stress(potentials):
    """By finite differences: the residual at k = 0 is of second order only with the sign of units.py."""
    batch, potential = crystals(), potentials["Morse"](cutoff=3.5, length=2.2)
    small = Config(strain=1e-4, k=0, per_atom=False)
    strain = strains(batch.graph, batch.key, small.strain)
    model = Evaluator(potential, stress=True, create_graph=False)
    first = float((model.predict(batch.graph, ("stress",)).stress * strain).sum() * batch.graph.volumes[0])
    assert root_mean_square(small, batch, potential) < 0.01 * abs(first)


def test_strains():
    batch = crystals(2000)
    found = strains(batch.graph, batch.key, 0.02)
    torch.testing.assert_close(found, found.transpose(1, 2))
    assert found.abs().max() <= 0.02
    assert found.abs().amax(0).min() > 0.0199  # all components
    assert found.mean(0).abs().max() < 0.001
    assert torch.linalg.eigvalsh(found).abs().max() <= Config(strain=0.02).relative_reach


def test_only_crystals_count(potentials):
    """A molecule beside the crystal, and one that is periodic in one direction, add nothing: nor NaN to gradients."""
    wire = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.3]], cell=[0, 0, 4.6], pbc=[False, False, True])
    alone, potential = crystals(), potentials["Morse"](cutoff=3.5, length=2.2)
    graph = AtomGraph.concatenate([alone.graph, AtomGraph.from_ase([molecule("H2O"), wire], 4.0)])
    beside = Batch(graph, unlabelled(graph), torch.arange(3))
    (one, first), (other, second) = (term(Config(), batch, potential) for batch in (alone, beside))
    torch.testing.assert_close(one, other)
    assert first == second == 1
    gradients = torch.autograd.grad(other, list(potential.parameters()))
    assert all(torch.isfinite(gradient) for gradient in gradients)


def test_reserve_of_the_neighbour_list_is_enough(potentials):
    """With edges up to the cut-off plus the reserve, a compressed cell sees all that a list of its own would show."""
    potential, objective = potentials["Morse"](cutoff=3.6, length=2.3), Config(strain=0.05)

    def kept(extra):
        batch = crystals(200, potential.cutoff + extra)
        return batch.graph.strained(strains(batch.graph, batch.key, objective.strain))

    full, short = kept(reserve([objective], potential.cutoff)), kept(0.0)
    rebuilt = []
    for number in range(200):
        atoms = full.system == number
        positions, cell = full.positions[atoms].numpy(), full.cell[number].numpy()
        rebuilt.append(neighbour_list(positions, cell, full.pbc[number].numpy(), potential.cutoff)[0].shape[1])
    assert (full.distances < potential.cutoff).sum() == sum(rebuilt)
    assert (short.distances < potential.cutoff).sum() < sum(rebuilt)


def test_stress_is_asked_for_and_costs_one_pass(potentials):
    objectives = {"energy": energy.Config(), "forces": forces.Config(), "strain": Config()}
    assert wants_stress(objectives)
    assert not wants_stress({"energy": energy.Config()})
    batch, potential = crystals(), potentials["Morse"](cutoff=3.5)
    model = Evaluator(potential, stress=True)
    for objective in (*objectives.values(), stress.Config()):
        objective(batch, model)
    assert potential.passes == 2


def test_float32(potentials):
    batch, potential = crystals(4), potentials["Morse"](cutoff=3.5, length=2.2)
    exact = root_mean_square(Config(strain=0.03), batch, potential)
    single = root_mean_square(Config(strain=0.03), batch.to(dtype=torch.float32), potential.float())
    assert single == pytest.approx(exact, rel=1e-2)


def test_reserve_without_displacements():
    assert reserve([energy.Config()], 5.0) == 0
    assert reserve([], 5.0) == 0

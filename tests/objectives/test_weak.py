"""PITC and PISC: orders in the displacement, exact cases, cost, and what the random displacements are."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from pydantic import ValidationError

from phystrain.graph import AtomGraph
from phystrain.labels import Batch, unlabelled
from phystrain.neighbours import neighbour_list
from phystrain.objectives import Evaluator, energy, forces, pisc, pitc
from phystrain.objectives._displacement import displaced, displacements, step_term, weak_label
from phystrain.testing.objectives import examples, gradient, join, reorder_atoms, term

WEAK = pytest.mark.parametrize("loss", [pitc.Config, pisc.Config], ids=["pitc", "pisc"])


class Recorder(Evaluator):
    """Notes what is asked of which graph."""

    def __init__(self, potential):
        super().__init__(potential)
        self.asked = []

    def predict(self, graph, want):
        self.asked.append((graph, want))
        return super().predict(graph, want)


def root_mean_square(objective, batch, potential):
    total, count = term(objective, batch, potential)
    return float((total / count).detach()) ** 0.5


# --- the equations ----------------------------------------------------------------------------------------------


@WEAK
def test_exact_on_a_linear_potential_at_first_order(loss, clusters, potentials):
    assert root_mean_square(loss(k=0, displacement=0.2), clusters(3), potentials["Linear"](24)) < 1e-12


@WEAK
def test_exact_on_a_quadratic_potential_at_second_order(loss, clusters, potentials):
    potential = potentials["Quadratic"](8)
    assert root_mean_square(loss(k=0.5, displacement=0.2), clusters(3), potential) < 1e-12
    assert root_mean_square(loss(k=0.4, displacement=0.2), clusters(3), potential) > 1e-3  # not by accident


def test_first_order_leaves_half_the_curvature(clusters, potentials):
    """At k the residual on E = x.A.x/2 is (1/2 - k) d.A.d."""
    batch, potential = clusters(), potentials["Quadratic"](8)
    objective = pitc.Config(k=0.2, per_atom=False)
    d = displacements(batch.graph, batch.key, objective, 0).reshape(-1)
    expected = (0.3 * d @ potential.matrix @ d).square()
    torch.testing.assert_close(term(objective, batch, potential).total, expected, rtol=1e-9, atol=0)


def test_pisc_by_hand(clusters, potentials):
    """E(C) against the extrapolation from B, written out for one structure."""
    batch, potential = clusters(), potentials["Morse"]()
    objective = pisc.Config(k=0.25, per_atom=False)
    through, end = (batch.graph.positions + displacements(batch.graph, batch.key, objective, draw) for draw in (1, 0))
    first, last = (
        Evaluator(potential).predict(replace(batch.graph, positions=x), ("energy", "forces")) for x in (through, end)
    )
    work = ((end - through) * (0.75 * first.forces + 0.25 * last.forces)).sum()
    expected = (last.energy[0] - (first.energy[0] - work)).square()
    torch.testing.assert_close(term(objective, batch, potential).total, expected, rtol=1e-9, atol=0)


@WEAK
@pytest.mark.parametrize(("k", "order"), [(0.0, 2), (0.5, 3)])
def test_order_in_the_displacement(loss, k, order, clusters, potentials):
    """Residuals of a conservative Morse cluster, 40 draws."""
    deltas = [0.2, 0.1, 0.05, 0.025]
    batch, potential = clusters(40), potentials["Morse"]()
    residuals = [root_mean_square(loss(k=k, displacement=d, per_atom=False), batch, potential) for d in deltas]
    slopes = np.diff(np.log(residuals)) / np.diff(np.log(deltas))
    assert slopes[-1] == pytest.approx(order, abs=0.3)
    assert np.polyfit(np.log(deltas), np.log(residuals), 1)[0] == pytest.approx(order, abs=0.45)


def test_magnitudes(clusters, potentials):
    """Residuals of about the size found for another Morse cluster of 8 atoms, at a displacement of 0.05 Å."""
    batch, potential = clusters(40), potentials["Morse"]()
    for loss, k, expected in ((pitc, 0, 6.9e-2), (pitc, 0.5, 1.6e-3), (pisc, 0, 1.3e-1), (pisc, 0.5, 5.3e-3)):
        residual = root_mean_square(loss.Config(k=k, per_atom=False), batch, potential)
        assert expected / 4 < residual < expected * 4


def test_pisc_is_twice_pitc_at_first_order(clusters, potentials):
    """Its step is the difference of two independent displacements, so its mean square length is twice as large."""
    batch, potential = clusters(200), potentials["Morse"]()
    options = {"k": 0, "displacement": 0.025, "per_atom": False}
    one, other = (root_mean_square(loss(**options), batch, potential) for loss in (pitc.Config, pisc.Config))
    assert other / one == pytest.approx(2, rel=0.2)


def test_per_atom_divides_by_the_size(clusters, potentials):
    batch, potential = clusters(4), potentials["Morse"]()
    one, other = (root_mean_square(pitc.Config(per_atom=p), batch, potential) for p in (True, False))
    assert other / one == pytest.approx(8)


@WEAK
def test_batch_equals_singles(loss, clusters, potentials):
    """Work is summed within each structure. Summed over the batch, as if all were one, it would be far larger."""
    potential, objective = potentials["Morse"](), loss(k=0, per_atom=False)
    together = clusters(sizes=[8, 3, 5, 2])
    alone = [
        Batch(graph, unlabelled(graph), key[None]) for graph, key in zip(_split(together), together.key, strict=True)
    ]
    total = sum(term(objective, single, potential).total for single in alone)
    torch.testing.assert_close(term(objective, together, potential).total, total, rtol=1e-10, atol=0)


def _split(batch):
    """The structures of a batch as graphs of one."""
    graph = batch.graph
    for number in range(graph.n_systems):
        atoms, edges = graph.system == number, graph.system[graph.edges[0]] == number
        first = int(torch.nonzero(atoms)[0])
        yield AtomGraph(
            positions=graph.positions[atoms],
            species=graph.species[atoms],
            system=torch.zeros_like(graph.system[atoms]),
            cell=graph.cell[number : number + 1],
            pbc=graph.pbc[number : number + 1],
            edges=graph.edges[:, edges] - first,
            shifts=graph.shifts[edges],
            cutoff=graph.cutoff,
        )


def test_order_of_atoms(potentials):
    """With the displacements carried along, the order of the atoms does not matter."""
    potential, objective = potentials["Morse"](cutoff=3.0), pisc.Config()
    batch = join(examples(3.2))
    start, end = (displacements(batch.graph, batch.key, objective, draw) for draw in (1, 0))
    totals = []
    for which, reverse in ((batch, False), (reorder_atoms(batch), True)):
        moves = [_reversed(batch, move) if reverse else move for move in (start, end)]
        graphs = [which.graph.displaced(move) for move in moves]
        totals.append(step_term(which, Evaluator(potential), objective, *graphs).total)
    torch.testing.assert_close(*totals, rtol=1e-10, atol=1e-14)


def _reversed(batch, values):
    """Per-atom values in the order that reorder_atoms gives."""
    return reorder_atoms(batch._replace(labels=batch.labels._replace(forces=values))).labels.forces


def test_force_head(clusters, potentials):
    """A head equal to the gradient gives the conservative loss; a head that is off is seen by the loss."""
    batch, kind = clusters(3), potentials["MorseWithForceHead"]
    conservative = root_mean_square(pitc.Config(), batch, potentials["Morse"]())
    assert root_mean_square(pitc.Config(), batch, kind()) == pytest.approx(conservative, rel=1e-9)
    assert root_mean_square(pitc.Config(), batch, kind(bias=0.5)) > 5 * conservative


# --- gradients --------------------------------------------------------------------------------------------------


@WEAK
@pytest.mark.parametrize("k", [0.0, 0.5])
def test_gradient_against_finite_differences(loss, k, clusters, potentials):
    batch, potential, objective = clusters(2), potentials["Morse"](), loss(k=k, displacement=0.1)
    exact = gradient(objective, batch, potential)
    step, numeric = 1e-5, []
    for parameter in potential.parameters():
        ends = []
        for move in (step, -2 * step, step):  # there, to the other side, and back
            parameter.data += move
            ends.append(float(term(objective, batch, potential).total.detach()))
        numeric.append((ends[0] - ends[1]) / (2 * step))
    torch.testing.assert_close(exact, torch.tensor(numeric, dtype=torch.float64), rtol=1e-5, atol=1e-12)


def test_detach(clusters, potentials):
    """The value stays, and the gradient is that of the energy at the end alone."""
    batch, potential = clusters(2), potentials["Morse"]()
    free, held = pitc.Config(k=0, per_atom=False), pitc.Config(k=0, per_atom=False, detach=True)
    assert root_mean_square(free, batch, potential) == pytest.approx(root_mean_square(held, batch, potential))
    model = Evaluator(potential)
    end = displaced(batch, model, held, 0)
    energies = model.predict(end, ("energy",)).energy
    residual = (energies - weak_label(model, batch.graph, end, 0.0)).detach()
    expected = torch.stack(torch.autograd.grad((2 * residual * energies).sum(), list(potential.parameters())))
    torch.testing.assert_close(gradient(held, batch, potential), expected)
    assert not torch.allclose(gradient(free, batch, potential), expected, rtol=0.1)


def test_without_gradient_for_validation(clusters, potentials):
    batch, potential = clusters(2), potentials["Morse"]()
    model = Evaluator(potential, create_graph=False)
    totals = [objective(batch, model).total for objective in (pitc.Config(), pisc.Config())]
    assert not any(total.requires_grad for total in totals)
    for total, objective in zip(totals, (pitc.Config(), pisc.Config()), strict=True):
        torch.testing.assert_close(total, term(objective, batch, potential).total.detach())


# --- cost -------------------------------------------------------------------------------------------------------


def test_passes(potentials):
    """Energy, forces, PITC and PISC together cost three passes; the displaced copies are shared if alike."""
    supervised, batch = [energy.Config(), forces.Config()], join(examples(3.2))
    for objectives, passes in (
        ([pitc.Config()], 2),
        ([pisc.Config()], 2),
        ([*supervised, pitc.Config()], 2),
        ([*supervised, pitc.Config(), pisc.Config()], 3),
        ([*supervised, pitc.Config(k=0, weight=3), pisc.Config(detach=True)], 3),  # not part of the displacement
        ([*supervised, pitc.Config(), pisc.Config(displacement=0.02)], 4),
    ):
        potential = potentials["Morse"](cutoff=3.0)
        model = Evaluator(potential)
        for objective in objectives:
            objective(batch, model)
        assert potential.passes == passes


@pytest.mark.parametrize(("k", "asked"), [(0.0, {"energy"}), (0.5, {"energy", "forces"})])
def test_first_order_needs_no_forces_at_the_end(k, asked, clusters, potentials):
    batch, model = clusters(2), Recorder(potentials["Morse"]())
    pitc.Config(k=k)(batch, model)
    assert {name for graph, want in model.asked if graph is not batch.graph for name in want} == asked


def test_two_batches_in_one_step(clusters, potentials):
    """One evaluator may see two batches, labelled and replayed: each gets its own displaced copy."""
    first, second = clusters(2), clusters(sizes=[4, 6])
    potential = potentials["Morse"]()
    model = Evaluator(potential)
    for batch in (first, second):
        torch.testing.assert_close(pitc.Config()(batch, model).total, term(pitc.Config(), batch, potential).total)


# --- displacements ----------------------------------------------------------------------------------------------


def draw_many(atoms, copies=400, cutoff=4.0, draw=0, **settings):
    """(copies, atoms, 3) displacements of one structure, and the graph of a single copy."""
    single = AtomGraph.from_ase(atoms, cutoff)
    graph = AtomGraph.concatenate([single] * copies)
    moves = displacements(graph, torch.arange(copies), pitc.Config(**settings), draw)
    return moves.reshape(copies, len(atoms), 3), single


def test_uniform():
    moves, _ = draw_many(molecule("CH4"), copies=2000, centre=False, displacement=0.1)
    assert moves.abs().max() <= 0.1
    assert moves.abs().max() > 0.099
    assert abs(moves.mean()) < 0.002
    assert float(moves.square().sum(-1).mean()) ** 0.5 == pytest.approx(0.1, rel=0.02)
    correlation = torch.corrcoef(moves.reshape(2000, -1).T) - torch.eye(15)
    assert correlation.abs().max() < 0.1  # 4.5 standard deviations


def test_fixed_length():
    moves, _ = draw_many(molecule("CH4"), copies=2000, centre=False, displacement=0.1, distribution="fixed")
    torch.testing.assert_close(moves.norm(dim=-1), torch.full((2000, 5), 0.1, dtype=torch.float64))
    second = torch.einsum("sai,saj->ij", moves, moves) / (2000 * 5 * 0.1**2)
    torch.testing.assert_close(second, torch.eye(3, dtype=torch.float64) / 3, atol=0.02, rtol=0)
    assert abs(moves.mean()) < 0.002


@pytest.mark.parametrize("distribution", ["uniform", "fixed"])
def test_centre(distribution):
    moves, _ = draw_many(molecule("CH4"), distribution=distribution)
    assert moves.mean(dim=1).abs().max() < 1e-16
    free, _ = draw_many(molecule("CH4"), distribution=distribution, centre=False)
    torch.testing.assert_close(moves, free - free.mean(dim=1, keepdim=True))


@WEAK
def test_a_lone_atom_stays(loss, potentials):
    graph = AtomGraph.from_ase(Atoms("H"), 3.0)
    batch = Batch(graph, unlabelled(graph), torch.tensor([1]))
    total, count = term(loss(), batch, potentials["Morse"](cutoff=3.0))
    assert total == 0
    assert count == 1


@pytest.mark.parametrize("distribution", ["uniform", "fixed"])
@pytest.mark.parametrize("atoms", [Atoms("H2", [[0, 0, 0], [0, 0, 0.4]]), bulk("Cu")], ids=["short bond", "own image"])
def test_cap(atoms, distribution):
    """No atom moves by more than the cap times the shortest distance, which may be that to its own image."""
    settings = {"distribution": distribution, "centre": False, "displacement": 2.0}
    moves, graph = draw_many(atoms, cap=0.2, **settings)
    limit = 0.2 * float(graph.distances.min())
    assert moves.norm(dim=-1).max() <= limit * (1 + 1e-12)
    assert moves.norm(dim=-1).max() > 0.9 * limit


def test_cap_is_for_each_structure():
    """A short bond in one structure does not make the displacements of another smaller."""
    frames = [
        Atoms("H2", [[0, 0, 0], [0, 0, 0.1]]),
        Atoms("H2", [[0, 0, 0], [0, 0, 1.0]]),
        Atoms("H2", [[0] * 3, [0, 0, 9]]),
    ]
    graph = AtomGraph.from_ase(frames, 4.0)
    moves = displacements(graph, torch.tensor([5, 5, 5]), pitc.Config(displacement=0.05), 0).reshape(3, 2, 3)
    torch.testing.assert_close(moves[1], moves[2])  # neither is capped, the second has no edge at all
    torch.testing.assert_close(moves[0], moves[1] * 0.3 * 0.1 / math.sqrt(3) / 0.05)


def test_displacement_depends_on_structure_key_and_draw_alone():
    batch, settings = join(examples(4.0)), pitc.Config()
    together = displacements(batch.graph, batch.key, settings, 0)
    backwards = join(examples(4.0)[::-1])
    apart = [displacements(single.graph, single.key, settings, 0) for single in examples(4.0)]
    torch.testing.assert_close(together, torch.cat(apart), rtol=0, atol=0)
    torch.testing.assert_close(
        displacements(backwards.graph, backwards.key, settings, 0), torch.cat(apart[::-1]), rtol=0, atol=0
    )
    assert not torch.allclose(together, displacements(batch.graph, batch.key, settings, 1))
    assert not torch.allclose(together, displacements(batch.graph, batch.key + 1, settings, 0))


def test_no_gradient_into_positions(clusters):
    batch = clusters()
    graph = replace(batch.graph, positions=batch.graph.positions.requires_grad_())
    assert not displacements(graph, batch.key, pitc.Config(), 0).requires_grad


@pytest.mark.parametrize("distribution", ["uniform", "fixed"])
@pytest.mark.parametrize("centre", [True, False])
def test_reach(distribution, centre):
    """No pair distance changes by more than twice the reach, from the structure to either displaced copy."""
    settings = pisc.Config(distribution=distribution, centre=centre, displacement=0.1)
    for atoms in (molecule("H2"), molecule("CH4"), bulk("Cu", cubic=True)):
        graph = AtomGraph.concatenate([AtomGraph.from_ase(atoms, 4.0)] * 1000)
        for draw in (0, 1):
            moved = graph.displaced(displacements(graph, torch.arange(1000), settings, draw))
            change = (moved.distances - graph.distances).abs().max()
            assert change <= 2 * settings.reach
            assert change > 2 * 0.1 / math.sqrt(3)


@WEAK
def test_reserve_of_the_neighbour_list_is_enough(loss, potentials):
    """With edges up to the cut-off plus twice the reach, the copies see all that a list of their own would show."""
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.rattle(0.1, seed=2)
    potential, objective = potentials["Morse"](cutoff=3.6, length=2.3), loss(displacement=0.2)

    def kept(reserve):
        graph = AtomGraph.from_ase(atoms, potential.cutoff + reserve)
        return graph.displaced(displacements(graph, torch.tensor([3]), objective, 0))

    full, short = kept(2 * objective.reach), kept(0.0)
    edges, shifts = neighbour_list(full.positions.numpy(), atoms.cell.array, atoms.pbc, potential.cutoff)
    rebuilt = replace(full, edges=torch.from_numpy(edges), shifts=torch.from_numpy(shifts))
    energies = [Evaluator(potential).predict(graph, ("energy",)).energy for graph in (full, rebuilt)]
    torch.testing.assert_close(*energies, rtol=1e-12, atol=0)
    assert (full.distances < potential.cutoff).sum() == edges.shape[1]
    assert (short.distances < potential.cutoff).sum() < edges.shape[1]  # without the reserve something is missed


def test_single_precision(clusters, potentials):
    """Positions in float32: the residual is that of the rounded structures, at the noise of float32."""
    batch, potential = clusters(4), potentials["Morse"]()
    exact = root_mean_square(pitc.Config(displacement=0.1), batch, potential)
    single = root_mean_square(pitc.Config(displacement=0.1), batch.to(dtype=torch.float32), potential.float())
    assert single == pytest.approx(exact, rel=1e-2)


@pytest.mark.parametrize("wrong", [{"displacement": 0}, {"k": 0.6}, {"k": -0.1}, {"cap": 0.5}, {"distribution": "box"}])
def test_settings_are_checked(wrong):
    with pytest.raises(ValidationError):
        pitc.Config(**wrong)

"""Random and adversarial displacements: what they are, what they depend on, how far they go."""

import math
from dataclasses import replace

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from pydantic import ValidationError

from phystrain.graph import AtomGraph
from phystrain.labels import Batch, unlabelled
from phystrain.neighbours import neighbour_list
from phystrain.objectives import Evaluator, pisc, pitc
from phystrain.objectives._displacement import displaced, displacements
from phystrain.testing.objectives import examples, join, term, turn

WEAK = pytest.mark.parametrize("loss", [pitc.Config, pisc.Config], ids=["pitc", "pisc"])
RANDOM = ["uniform", "fixed", "structure"]
ADVERSARIAL = ["adversarial_force", "adversarial_gradient"]


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


@pytest.mark.parametrize("distribution", RANDOM)
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


def test_a_part_of_a_batch_has_the_adversarial_directions_of_its_own(potentials):
    """Also where energies and forces of the whole are known, from which those of the part could be read."""
    batch, settings = join(examples(4.0)), pitc.Config(distribution="adversarial_gradient")
    chosen = torch.tensor([True, False, False, True, False])
    part = batch.select(chosen)
    alone = displaced(part, Evaluator(potentials["Morse"](cutoff=3.0)), settings, draw=0)
    model = Evaluator(potentials["Morse"](cutoff=3.0))
    model.part_of(batch.graph, chosen, part.graph)
    model.predict(batch.graph, ("energy", "forces"))
    torch.testing.assert_close(displaced(part, model, settings, draw=0).positions, alone.positions)


@pytest.mark.parametrize("distribution", RANDOM)
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


@pytest.mark.parametrize("distribution", RANDOM)
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


def test_structure():
    """One vector over all atoms, of a length that makes every atom move by delta in the root mean square."""
    moves, _ = draw_many(molecule("CH4"), copies=2000, centre=False, displacement=0.1, distribution="structure")
    torch.testing.assert_close(moves.square().sum((1, 2)), torch.full((2000,), 5 * 0.1**2, dtype=torch.float64))
    assert moves.norm(dim=-1).max() > 0.17  # not every atom moves alike
    covariance = moves.reshape(2000, -1).T @ moves.reshape(2000, -1) / 2000
    torch.testing.assert_close(covariance, torch.eye(15).double() * 0.1**2 / 3, rtol=0, atol=0.1**2 / 3 * 0.15)


def test_one_atom_does_not_move_for_all():
    """A direction that is all in one atom of many is cut, so that the neighbour list stays long enough."""
    graph, settings = (
        AtomGraph.from_ase(bulk("Cu", cubic=True) * 2, 4.0),
        pitc.Config(distribution="structure", centre=False, displacement=0.1),
    )
    lean = torch.zeros_like(graph.positions)
    lean[3, 0] = 1e-6
    moves = displacements(graph, torch.tensor([1]), settings, 0, lean)
    assert float(moves[3, 0]) == pytest.approx(settings.reach) == pytest.approx(0.3)
    assert moves.norm() == moves[3].norm()


@pytest.mark.parametrize("distribution", RANDOM)
def test_fraction(distribution):
    """The chosen atoms move as far as before, the others not at all."""
    settings = {"distribution": distribution, "centre": False, "displacement": 0.1}
    moves, _ = draw_many(molecule("CH4"), copies=2000, fraction=0.3, **settings)
    moved = moves.norm(dim=-1) > 0
    assert float(moved.double().mean()) == pytest.approx(0.3, abs=0.02)
    assert moved.any(0).all()
    assert float(moves[moved].square().sum(-1).mean()) ** 0.5 == pytest.approx(0.1, rel=0.03)
    other, _ = draw_many(molecule("CH4"), copies=2000, fraction=0.3, draw=1, **settings)
    both = (moved & (other.norm(dim=-1) > 0)).double().mean()
    assert float(both) == pytest.approx(0.09, abs=0.015)  # chosen anew in every draw


def adversarial(batch, potential, distribution, create_graph=True, draw=0, **settings):
    """Displacements of a batch, before centring."""
    objective = pitc.Config(distribution=distribution, centre=False, **settings)
    model = Evaluator(potential, create_graph=create_graph)
    return (displaced(batch, model, objective, draw).positions - batch.graph.positions).detach()


def test_adversarial_force(potentials):
    """Against the error of the force, by delta; at random where there is no label."""
    batch, potential = join(examples(4.0)), potentials["Morse"](cutoff=3.0)
    moves = adversarial(batch, potential, "adversarial_force")
    forces = Evaluator(potential).predict(batch.graph, ("forces",)).forces
    error = batch.labels.forces - forces.detach()
    labelled = ~torch.isnan(error).any(1)
    assert labelled.sum() == 7
    expected = 0.05 * error / error.norm(dim=1, keepdim=True)
    torch.testing.assert_close(moves[labelled], expected[labelled])
    random = pitc.Config(distribution="fixed", centre=False)
    others = displacements(batch.graph, batch.key, random, 0)
    torch.testing.assert_close(moves[~labelled], others[~labelled])


@pytest.mark.parametrize("adversary", ["energy", "forces", "both"])
@pytest.mark.parametrize("create_graph", [True, False])
def test_adversarial_gradient(adversary, create_graph, potentials):
    """Along the gradient of the squared error, by finite differences; at random where there is no label."""
    single, potential = examples(4.0)[0], potentials["Morse"](cutoff=3.0)
    moves = adversarial(single, potential, "adversarial_gradient", create_graph, adversary=adversary)
    graph, labels = single.graph, single.labels

    def error(positions):
        found = Evaluator(potential).predict(replace(graph, positions=positions), ("energy", "forces"))
        total = float(((found.energy - labels.energy) / 3).square().detach()) if adversary != "forces" else 0.0
        return total + (
            float((found.forces - labels.forces).square().mean().detach()) if adversary != "energy" else 0.0
        )

    steps = 1e-5 * torch.eye(9, dtype=torch.float64).reshape(9, 3, 3)
    slope = torch.tensor(
        [error(graph.positions + s) - error(graph.positions - s) for s in steps], dtype=torch.float64
    ).reshape(3, 3)
    torch.testing.assert_close(moves, 0.05 * 3**0.5 * slope / slope.norm(), rtol=1e-5, atol=1e-7)
    blank = single._replace(labels=unlabelled(graph))
    random = displacements(graph, single.key, pitc.Config(distribution="structure", centre=False), 0)
    torch.testing.assert_close(adversarial(blank, potential, "adversarial_gradient", adversary=adversary), random)


@pytest.mark.parametrize("distribution", ADVERSARIAL)
def test_adversarial_directions_turn_with_the_structure(distribution, potentials):
    batch, potential = join(examples(4.0)[:2]), potentials["Morse"](cutoff=3.0)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(3)).double()).Q
    moves, turned = (adversarial(which, potential, distribution) for which in (batch, turn(batch, rotation)))
    torch.testing.assert_close(turned, moves @ rotation.T)


@pytest.mark.parametrize("distribution", ADVERSARIAL)
def test_only_the_first_displacement_is_adversarial(distribution, potentials):
    batch, potential = examples(4.0)[0], potentials["Morse"](cutoff=3.0)
    like = {"adversarial_force": "fixed", "adversarial_gradient": "structure"}[distribution]
    second = displacements(batch.graph, batch.key, pitc.Config(distribution=like, centre=False), 1)
    torch.testing.assert_close(adversarial(batch, potential, distribution, draw=1), second)


@pytest.mark.parametrize("distribution", ADVERSARIAL)
def test_adversarial_displacements_find_larger_residuals(distribution, potentials):
    """Where the potential is off, the Taylor step from the labels fails more than along a random direction."""
    batch, potential = join(examples(4.0)[:2]), potentials["Morse"](cutoff=3.0)
    options = {"anchor": "label", "displacement": 0.02, "k": 0}
    like = {"adversarial_force": "fixed", "adversarial_gradient": "structure"}[distribution]
    exact = Evaluator(potential, create_graph=False).predict(batch.graph, ("energy", "forces"))
    noise = torch.randn(batch.graph.positions.shape, generator=torch.Generator().manual_seed(1)).double()
    labels = batch.labels._replace(energy=exact.energy, forces=exact.forces + 5 * noise)
    aware, random = (
        term(pitc.Config(distribution=which, **options), batch._replace(labels=labels), potential).total
        for which in (distribution, like)
    )
    assert aware > 3 * random


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


@pytest.mark.parametrize(
    "wrong",
    [
        {"displacement": 0},
        {"k": 0.6},
        {"k": -0.1},
        {"cap": 0.5},
        {"distribution": "box"},
        {"fraction": 0},
        {"norm": "cubed"},
        {"anchor": "teacher"},
    ],
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValidationError):
        pitc.Config(**wrong)

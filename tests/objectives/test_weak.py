"""PITC and PISC: orders in the displacement, exact cases, cost, and what the random displacements are."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from phystrain.graph import AtomGraph
from phystrain.labels import Batch, unlabelled
from phystrain.objectives import Evaluator, antithetic, energy, forces, pisc, pitc
from phystrain.objectives._anchor import of_model
from phystrain.objectives._displacement import displaced, displacements
from phystrain.objectives._taylor import extrapolation
from phystrain.testing.objectives import examples, gradient, join, reorder_atoms, term, turn

CASES = ["A", "B", "C", "D", "A10"]  # A11 compares with labels
LOSSES = {"pitc": pitc.Config, **{f"pisc-{case}": partial(pisc.Config, case=case) for case in CASES}}
WEAK = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
ALL = pytest.mark.parametrize("loss", [*LOSSES.values(), antithetic.Config], ids=[*LOSSES, "antithetic"])


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


def test_antithetic_is_exact_on_a_quadratic_potential(clusters, potentials):
    """Also on a cubic one but for T[d, d, d] / 3, which the Morse cluster shows."""
    objective = antithetic.Config(displacement=0.2)
    assert root_mean_square(objective, clusters(3), potentials["Quadratic"](8)) < 1e-12


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


@pytest.mark.parametrize("case", ["B", "C", "D", "A10"])
def test_pisc_cases_by_hand(case, clusters, potentials):
    """Every case against its equation, at a share that makes no two of them equal."""
    batch, potential = clusters(), potentials["Morse"]()
    objective, k = pisc.Config(k=0.3, case=case, per_atom=False), 0.3
    places = [batch.graph.positions + displacements(batch.graph, batch.key, objective, draw) for draw in (0, 1, 2)]
    values = {
        name: (x, *Evaluator(potential).predict(replace(batch.graph, positions=x), ("energy", "forces"))[:2])
        for name, x in zip("SCBD", [batch.graph.positions, *places], strict=True)
    }

    def reached(start, end):
        (x, e, f), (y, _, g) = values[start], values[end]
        return e[0] - ((y - x) * ((1 - k) * f + k * g)).sum()

    residual = {
        "B": lambda: reached("B", "C") - reached("S", "C"),
        "C": lambda: values["B"][1][0] - reached("C", "B"),
        "D": lambda: reached("B", "C") - reached("D", "C"),
        "A10": lambda: values["S"][1][0] - reached("C", "S"),
    }[case]()
    torch.testing.assert_close(term(objective, batch, potential).total, residual.square(), rtol=1e-9, atol=0)


@pytest.mark.parametrize(("case", "same"), [("C", pisc.Config()), ("A10", pitc.Config())])
def test_backward_steps_add_nothing_at_second_order(case, same, clusters, potentials):
    """The trapezoidal rule is the same in both directions."""
    batch, potential = clusters(3), potentials["Morse"]()
    backward = term(pisc.Config(case=case), batch, potential).total
    torch.testing.assert_close(backward, term(same, batch, potential).total, rtol=1e-7, atol=0)
    one, other = (term(loss.model_copy(update={"k": 0.2}), batch, potential) for loss in (pisc.Config(case=case), same))
    assert float((one.total / other.total).detach()) != pytest.approx(1, rel=1e-2)


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


def test_third_order_coefficients(clusters, potentials):
    """PITC at k = 1/2 leaves -T[d, d, d] / 12, the antithetic step + T[d, d, d] / 3: minus four times as much."""
    batch, potential = clusters(20), potentials["Morse"]()
    options = {"displacement": 0.01, "per_atom": False}
    model = Evaluator(potential)
    copies = [displaced(batch, model, pitc.Config(**options), 0, sign) for sign in (1, -1)]
    ahead, behind = (model.predict(graph, ("energy", "forces")) for graph in copies)
    d, here = copies[0].positions - batch.graph.positions, model.predict(batch.graph, ("energy", "forces"))

    def work(force):
        return batch.graph.sum_per_system((d * force).sum(1))

    # T[d, d, d] from the second difference of the forces along d
    third = -work(ahead.forces + behind.forces - 2 * here.forces)
    trapezoid = ahead.energy - here.energy + work(here.forces + ahead.forces) / 2
    both_sides = ahead.energy - behind.energy + 2 * work(here.forces)
    size = float(third.detach().abs().max())
    torch.testing.assert_close(trapezoid, -third / 12, rtol=0, atol=0.05 * size / 12)  # and -Q[d, d, d, d] / 24
    torch.testing.assert_close(both_sides, third / 3, rtol=0, atol=0.002 * size / 3)  # no fourth order here
    for objective, residual in ((pitc.Config(**options), trapezoid), (antithetic.Config(**options), both_sides)):
        total = term(objective, batch, potential).total
        torch.testing.assert_close(total, residual.square().sum(), rtol=1e-8, atol=0)


def test_order_of_antithetic_steps(clusters, potentials):
    deltas = [0.2, 0.1, 0.05, 0.025]
    batch, potential = clusters(40), potentials["Morse"]()
    residuals = [root_mean_square(antithetic.Config(displacement=d), batch, potential) for d in deltas]
    assert np.polyfit(np.log(deltas), np.log(residuals), 1)[0] == pytest.approx(3, abs=0.3)
    smallest = root_mean_square(pitc.Config(displacement=0.025), batch, potential)
    assert residuals[-1] / smallest == pytest.approx(4, rel=0.05)


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


def test_absolute_norm(clusters, potentials):
    batch, potential = clusters(), potentials["Morse"]()
    squared, absolute = (term(pitc.Config(norm=norm), batch, potential).total for norm in ("squared", "absolute"))
    torch.testing.assert_close(absolute.square(), squared)


@ALL
def test_batch_equals_singles(loss, clusters, potentials):
    """Work is summed within each structure. Summed over the batch, as if all were one, it would be far larger."""
    potential, objective = potentials["Morse"](), loss(per_atom=False)
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


class Carried(Evaluator):
    """Displaces as another batch is displaced, with the displacements carried over."""

    def __init__(self, potential, original, settings, carry):
        super().__init__(potential)
        self.original, self.settings, self.carry = original, settings, carry

    def shared(self, name, make):
        _, graph, _, draw, sign = name
        moves = sign * displacements(self.original.graph, self.original.key, self.settings, draw)
        return super().shared(name, lambda: graph.displaced(self.carry(moves)))


@ALL
def test_order_of_atoms_and_orientation(loss, potentials):
    """With the displacements carried along, neither matters."""
    potential, objective, batch = potentials["Morse"](cutoff=3.0), loss(), join(examples(3.2))
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(3)).double()).Q

    def reverse(values):
        return reorder_atoms(batch._replace(labels=batch.labels._replace(forces=values))).labels.forces

    expected = term(objective, batch, potential).total
    for changed, carry in ((reorder_atoms(batch), reverse), (turn(batch, rotation), lambda d: d @ rotation.T)):
        total = objective(changed, Carried(potential, batch, objective, carry)).total
        torch.testing.assert_close(total, expected, rtol=1e-9, atol=1e-14)


def test_force_head(clusters, potentials):
    """A head equal to the gradient gives the conservative loss; a head that is off is seen by the loss."""
    batch, kind = clusters(3), potentials["MorseWithForceHead"]
    conservative = root_mean_square(pitc.Config(), batch, potentials["Morse"]())
    assert root_mean_square(pitc.Config(), batch, kind()) == pytest.approx(conservative, rel=1e-9)
    assert root_mean_square(pitc.Config(), batch, kind(bias=0.5)) > 5 * conservative


# --- gradients --------------------------------------------------------------------------------------------------


def test_detach(clusters, potentials):
    """The value stays, and the gradient is that of the energy at the end alone."""
    batch, potential = clusters(2), potentials["Morse"]()
    free, held = pitc.Config(k=0, per_atom=False), pitc.Config(k=0, per_atom=False, detach=True)
    assert root_mean_square(free, batch, potential) == pytest.approx(root_mean_square(held, batch, potential))
    model = Evaluator(potential)
    end = displaced(batch, model, held, 0)
    energies = model.predict(end, ("energy",)).energy
    label = extrapolation(of_model(model, batch.graph), of_model(model, end), 0.0)
    residual = (energies - label).detach()
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
        ([*supervised, pitc.Config(), pisc.Config(case="B")], 3),
        ([*supervised, pitc.Config(), pisc.Config(case="C", k=0)], 3),
        ([*supervised, pitc.Config(), pisc.Config(case="D")], 4),
        ([*supervised, pitc.Config(), pisc.Config(case="A10", k=0)], 2),
        ([pisc.Config(case="B", k=0)], 2),  # the energy at C is not used
        ([*supervised, pitc.Config(), antithetic.Config()], 3),
        ([pitc.Config(anchor="label")], 1),
        ([energy.Config(), forces.Config(), pitc.Config(distribution="adversarial_gradient"), pisc.Config()], 4),
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


def test_antithetic_energies_are_not_differentiated_by_positions(clusters, potentials, monkeypatch):
    """The displaced passes make the same loss, with nothing in them that asks for a derivative by positions."""
    batch, potential = clusters(2), potentials["Morse"]()
    expected = Evaluator(potential)
    for sign in (1, -1):  # the passes are there already, made with derivatives
        expected.predict(displaced(batch, expected, antithetic.Config(), draw=0, sign=sign), ("energy", "forces"))
    total = antithetic.Config()(batch, expected).total
    seen = []
    atomic_energies = type(potential).atomic_energies

    def noted(self, graph):
        seen.append(graph.positions.requires_grad)
        return atomic_energies(self, graph)

    monkeypatch.setattr(type(potential), "atomic_energies", noted)
    torch.testing.assert_close(antithetic.Config()(batch, Evaluator(potential)).total, total)
    assert sorted(seen) == [False, True], "both sides in one pass, the centre in another"

    seen.clear()
    monkeypatch.setattr("phystrain.objectives._JOINED_EDGES", {})  # as for larger batches
    found = antithetic.Config()(batch, Evaluator(potential)).total
    torch.testing.assert_close(found, total)
    assert sorted(seen) == [False, False, True]


def test_two_batches_in_one_step(clusters, potentials):
    """One evaluator may see two batches, labelled and replayed: each gets its own displaced copy."""
    first, second = clusters(2), clusters(sizes=[4, 6])
    potential = potentials["Morse"]()
    model = Evaluator(potential)
    for batch in (first, second):
        torch.testing.assert_close(pitc.Config()(batch, model).total, term(pitc.Config(), batch, potential).total)


def test_single_precision(clusters, potentials):
    """Positions in float32: the residual is that of the rounded structures, at the noise of float32."""
    batch, potential = clusters(4), potentials["Morse"]()
    exact = root_mean_square(pitc.Config(displacement=0.1), batch, potential)
    single = root_mean_square(pitc.Config(displacement=0.1), batch.to(dtype=torch.float32), potential.float())
    assert single == pytest.approx(exact, rel=1e-2)

"""Values of the supervised objectives, by hand."""

import pytest
import torch

from phystrain import objectives
from phystrain.testing.objectives import examples, join, term
from phystrain.units import GPA


@pytest.fixture
def potential(potentials):
    return potentials["Morse"](cutoff=3.0)


@pytest.fixture
def batch(potential):
    """Every structure labelled with what the potential predicts, and a weight of 2 on the second, the crystal."""
    singles = join(examples(3.0))
    model = objectives.Evaluator(potential, stress=True, create_graph=False)
    exact = model.predict(singles.graph, ("energy", "forces", "stress"))
    return singles._replace(labels=singles.labels._replace(**exact._asdict()))


def shifted(batch, **changes):
    """The labels moved by these amounts."""
    labels = batch.labels
    return batch._replace(labels=labels._replace(**{k: getattr(labels, k) + v for k, v in changes.items()}))


def mean(name, batch, potential):
    total, count = term(objectives.parse({name: {}})[name], batch, potential)
    return float(total.detach() / count)


@pytest.mark.parametrize("name", ["energy", "forces", "stress"])
def test_zero_when_exact(name, batch, potential):
    assert mean(name, batch, potential) < 1e-25


def test_energy_is_per_atom(batch, potential):
    off = shifted(batch, energy=0.1 * batch.graph.atoms_per_system)
    weight = float(batch.labels.weight.mean())
    assert mean("energy", off, potential) == pytest.approx(weight * 0.1**2)


def test_forces_count_components(batch, potential):
    off = shifted(batch, forces=0.1)
    weight = float(batch.labels.weight[batch.graph.system].mean())
    assert mean("forces", off, potential) == pytest.approx(weight * 0.1**2)


def test_stress_of_one_gigapascal(batch, potential):
    off = shifted(batch, stress=GPA)
    assert mean("stress", off, potential) == pytest.approx(2 * (10 * GPA) ** 2)
    assert mean("stress", off, potential) ** 0.5 / 2**0.5 == pytest.approx(0.0624, rel=1e-3)


def test_stress_does_not_depend_on_orientation(batch, potential):
    """All nine components are summed, so that turning label and prediction together changes nothing."""
    error = torch.tensor([[0.02, 0.01, 0.0], [0.01, -0.01, 0.03], [0.0, 0.03, 0.0]], dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(3)).double()).Q
    turned = mean("stress", shifted(batch, stress=turn @ error @ turn.T), potential)
    assert mean("stress", shifted(batch, stress=error), potential) == pytest.approx(turned)


def test_single_components_may_be_missing(batch, potential):
    forces = batch.labels.forces + 0.1
    forces[0, 1] = torch.nan
    part = batch._replace(labels=batch.labels._replace(forces=forces))
    objective = objectives.parse({"forces": {}})["forces"]
    assert term(objective, part, potential).count == forces.numel() - 1
    assert torch.isfinite(term(objective, part, potential).total)

"""Gradient consistency of potentials with a direct force head."""

import pytest
import torch

from phystrain.config import check
from phystrain.errors import UserError
from phystrain.objectives import Evaluator, gradient, pitc
from phystrain.testing.objectives import bare, examples, join, term
from phystrain.testing.objectives import gradient as slope


def test_value(clusters, potentials):
    """Nothing for a head that is the gradient; the square of what it is off by, component by component."""
    batch, kind = clusters(3), potentials["MorseWithForceHead"]
    objective = gradient.Config()
    assert float(term(objective, batch, kind()).total.detach()) < 1e-20
    total, count = term(objective, batch, kind(bias=0.3))
    off = 0.3 * torch.sin(7 * batch.graph.positions)
    torch.testing.assert_close(total.detach(), off.square().sum())
    assert count == 3 * batch.graph.n_atoms


def test_is_the_limit_of_pitc(clusters, potentials):
    """The mean squared residual of PITC over small random steps is that of the gradient, times their mean square."""
    potential, size = potentials["MorseWithForceHead"](bias=0.3), 1e-4
    batch = clusters(400)
    expected = float(term(gradient.Config(), clusters(1), potential).total.detach())
    settings = pitc.Config(k=0, displacement=size, centre=False, per_atom=False)
    found = float(term(settings, batch, potential).total.detach()) / len(batch.key)
    assert found == pytest.approx(expected * size**2 / 3, rel=0.2)  # a component has a third of the mean square


def test_anchors(potentials):
    """Labels where there are, the head elsewhere; a label is no function of the head."""
    potential, batch = potentials["MorseWithForceHead"](bias=0.3), join(examples(20.0))
    by = {
        anchor: term(gradient.Config(anchor=anchor), batch, potential) for anchor in ("auto", "model", "label", "guide")
    }
    labelled = ~torch.isnan(batch.labels.forces)
    assert by["label"].count == labelled.sum()
    assert by["guide"].count == (~torch.isnan(batch.labels.guide)).sum()
    assert by["auto"].count == by["model"].count == labelled.numel()
    rest = term(gradient.Config(), batch._replace(labels=_unless(batch, labelled)), potential).total
    torch.testing.assert_close(by["auto"].total, by["label"].total + rest)
    unlabelled = batch._replace(labels=bare(batch.graph))
    own = term(gradient.Config(), unlabelled, potential).total
    assert torch.equal(term(gradient.Config(anchor="auto"), unlabelled, potential).total, own)


def _unless(batch, labelled):
    """Weights of nothing where there are labels."""
    weight = batch.labels.weight.clone()
    weight[batch.graph.system[labelled.all(dim=1)].unique()] = 0
    return batch.labels._replace(weight=weight)


def test_detach(potentials):
    """The energy is told, the head is not."""
    batch, potential = join(examples(20.0)), potentials["MorseWithForceHead"](bias=0.3)
    free, held = (slope(gradient.Config(detach=on), batch, potential) for on in (False, True))
    names = [name for name, _ in potential.named_parameters()]
    assert free[names.index("bias")] != 0
    # the head of this potential is made of its gradient, so that with it held the slope is that of the energy alone
    model = Evaluator(potential)
    forces = model.predict(batch.graph, ("energy", "forces")).forces
    square = (model.gradient(batch.graph) + forces.detach()).square() * batch.labels.weight[batch.graph.system, None]
    parts = torch.autograd.grad(square.sum(), list(potential.parameters()), allow_unused=True)
    expected = torch.stack([torch.zeros(()).double() if part is None else part for part in parts])
    torch.testing.assert_close(held, expected)
    assert held[names.index("bias")] == 0


def test_no_pass_of_its_own(clusters, potentials):
    potential, batch = potentials["MorseWithForceHead"](), clusters(2)
    model = Evaluator(potential)
    model.predict(batch.graph, ("energy", "forces"))
    gradient.Config()(batch, model)
    assert potential.passes == 1


def test_refused_without_a_direct_head():
    settings = {
        "potential": {"kind": "painn"},
        "data": {"train": "a.xyz"},
        "stages": [{"name": "only", "objectives": {"energy": {}, "forces": {}, "gradient": {}}, "steps": 1}],
    }
    with pytest.raises(UserError, match="gradient is for a direct force head"):
        check(settings)
    settings["potential"]["head"] = "direct"
    assert check(settings).stages[0].objectives["gradient"].weight == "auto"
    settings["potential"] = {"kind": "sum", "terms": {"network": settings["potential"], "wall": {"kind": "zbl"}}}
    check(settings)

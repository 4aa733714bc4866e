"""Automatic weights: a fixed share of the gradient of the terms with labels."""

import csv

import pytest
import torch

from phystrain import config, datasets
from phystrain.config import Balance
from phystrain.data.graphs import GraphStore
from phystrain.data.read import read
from phystrain.errors import UserError
from phystrain.objectives import parse
from phystrain.potentials import build
from phystrain.statistics import Statistics
from phystrain.train.balance import Balancer
from phystrain.train.run import Run
from phystrain.train.step import Source, TrainingStep

LABELS = {"energy": {"weight": 10.0}, "forces": {}}


@pytest.fixture
def batch():
    return GraphStore(read(datasets.path("silica")).structures.select([0, 1]), 4.0).batch([0, 1], dtype=torch.float64)


@pytest.fixture
def network(batch):
    torch.manual_seed(0)
    statistics = Statistics.bare((8, 14))
    return build({"kind": "painn", "channels": 8, "layers": 1, "cutoff": 3.5}, statistics).double()


def gradient(network, objectives, batch, **options):
    step = TrainingStep(network, parse(objectives), **options)
    network.zero_grad()
    step(batch)[0].backward()
    return torch.cat([p.grad.reshape(-1) for p in network.parameters()]), step


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_gradient_of_the_term_is_the_share(network, batch, share):
    balance = Balance(share=share, largest=1e9)
    labels, _ = gradient(network, LABELS, batch)
    both, step = gradient(network, {**LABELS, "pitc": {"k": 0.0, "weight": "auto"}}, batch, balance=balance)
    assert float((both - labels).norm() / labels.norm()) == pytest.approx(share, rel=1e-6)
    assert step.balancer.weight("pitc") > 0
    _, step = gradient(network, {**LABELS, "pitc": {"k": 0.0, "weight": "auto"}}, batch, balance=Balance(largest=1e-6))
    assert step.balancer.weight("pitc") == 1e-6


def test_of_another_source_too(network, batch):
    source = Source("unlabelled", parse({"pitc": {"k": 0.0, "weight": "auto"}}), 0.5)
    step = TrainingStep(network, parse(LABELS), [source], balance=Balance(largest=1e9))
    labels, _ = gradient(network, LABELS, batch)
    network.zero_grad()
    step(batch, batch)[0].backward()
    both = torch.cat([p.grad.reshape(-1) for p in network.parameters()])
    assert float((both - labels).norm() / labels.norm()) == pytest.approx(0.5 * 0.1, rel=1e-6)
    assert list(step.balancer.state) == ["unlabelled_pitc"]


def test_measured_now_and_then_and_smoothed():
    parameter = torch.nn.Parameter(torch.ones(4, dtype=torch.float64))
    balancer = Balancer(Balance(share=0.1, every=5, smoothing=0.5))
    for step, size in ((0, 2.0), (5, 8.0)):
        assert balancer.due(["weak"], step) == ["weak"]
        balancer.measure(step, (size * parameter).sum(), {"weak": parameter.sum()}, [parameter])
        assert not any(balancer.due(["weak"], later) for later in range(step, step + 5))
    assert balancer.weight("weak") == pytest.approx((0.2 * 0.8) ** 0.5)
    # a batch without a label says nothing
    balancer.measure(10, 0 * parameter.sum(), {"weak": parameter.sum()}, [parameter])
    assert balancer.weight("weak") == pytest.approx(0.4)
    assert balancer.weight("other") == 0


def test_the_weight_is_logged(settings, tmp_path):
    settings["stages"] = [settings["stages"][2] | {"init_from": None, "replay": None, "steps": 4, "validate_every": 2}]
    settings["stages"][0] |= {"objectives": {**LABELS, "pitc": {"weight": "auto"}}, "balance": {"largest": 30.0}}
    Run(config.check(settings), tmp_path / "run", say=lambda line: None).train()
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert all(0 < float(row["weight_pitc"]) <= 30 for row in rows)
    terms = sum(
        weight * float(rows[-1][f"train_{name}"])
        for name, weight in (("energy", 10), ("forces", 1), ("pitc", float(rows[-1]["weight_pitc"])))
    )
    assert float(rows[-1]["loss"]) == pytest.approx(terms)


def test_weak_losses_are_balanced_unless_a_number_is_given():
    for kind in ("pitc", "pisc", "antithetic", "strain_consistency"):
        (plain,) = parse({kind: {}}).values()
        (given,) = parse({kind: {"weight": 2.0}}).values()
        assert (plain.weight, given.weight) == ("auto", 2.0)
    assert all(term.weight == 1.0 for term in parse({"energy": {}, "forces": {}, "jitter": {}}).values())


def test_balance_may_be_for_what_is_replayed(settings):
    """Its terms are those of the stage that is replayed, which may have automatic ones."""
    settings["stages"][1]["objectives"]["pitc"] = {}
    settings["stages"][2] |= {"objectives": {"energy": {}, "forces": {}}, "balance": {"share": 0.5}}
    settings["stages"][2]["replay"] = {"stage": "pretrain"}
    assert config.check(settings).stages[2].balance.share == 0.5


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"objectives": {"energy": {"weight": "auto"}}}, "energy.*for terms without labels"),
        ({"objectives": {"pitc": {"weight": "auto"}}}, "of which there is none: give a number"),
        ({"objectives": {"energy": {}}, "balance": {"share": 0.2}}, "leave it out, or set one"),
        ({"objectives": {"energy": {"weight": 0}, "pitc": {}}}, "pitc has weight: auto.*give a number"),
        ({"balance": {"share": -1}}, "greater than 0"),
        ({"balance": {"smothing": 0.5}}, "did you mean 'smoothing'"),
    ],
)
def test_nonsense_is_refused(settings, stage, message):
    settings["stages"][2] |= stage
    settings["stages"][2]["replay"] = None
    with pytest.raises(UserError, match=message):
        config.check(settings)

"""Every objective found by listing the folder keeps the contract, and so does every variant of the weak losses."""

from typing import ClassVar

import pytest
import torch

from phystrain import objectives, registry
from phystrain.potentials import build
from phystrain.statistics import Statistics
from phystrain.testing.objectives import (
    CHECKS,
    check_composition,
    check_gradient,
    check_permutation,
    check_unlabelled,
    examples,
)

VARIANTS = [
    *({"kind": kind} for kind in registry.kinds("objectives")),
    *({"kind": "pisc", "case": case, "k": 0.2} for case in ("A", "B", "C", "D", "A10", "A11")),
    *({"kind": "pitc", "anchor": anchor} for anchor in ("label", "auto", "guide", "guide_forces")),
    *({"kind": "antithetic", "anchor": anchor} for anchor in ("label", "auto", "guide")),
    {"kind": "pisc", "case": "A11", "anchor": "guide"},
    {"kind": "pisc", "case": "B", "anchor": "label"},
    {"kind": "pitc", "distribution": "structure", "fraction": 0.6},
    {"kind": "pitc", "norm": "absolute"},
    *({"kind": "gradient", "anchor": anchor} for anchor in ("label", "auto", "guide")),
    {"kind": "jitter", "quantity": "forces"},
    {"kind": "strain_consistency", "k": 0},
    {"kind": "denoise", "sigma_low": 0.02, "fraction": 0.6},
    {"kind": "denoise", "encode": False, "energy_weight": 0},
]
STOPPED = [
    {"kind": "pitc", "detach": True},
    {"kind": "gradient", "detach": True},
    {"kind": "pitc", "distribution": "adversarial_force"},
    {"kind": "pisc", "distribution": "adversarial_gradient"},
    {"kind": "antithetic", "distribution": "adversarial_gradient", "adversary": "forces", "fraction": 0.6},
    {"kind": "pitc", "distribution": "adversarial_gradient", "adversary": "energy"},
]
"""Variants with a stop-gradient."""


def name(settings):
    return "-".join(str(value) for value in settings.values())


@pytest.fixture
def parts(potentials, settings):
    """Structures with a reserve of 1 Å in their neighbour lists, and a potential that knows them."""
    special = {"denoise": {"denoise": True}, "gradient": {"head": "direct"}}
    if settings["kind"] not in special:
        return examples(4.0), potentials["Morse"](cutoff=3.0)
    torch.manual_seed(0)
    network = {"kind": "painn", "channels": 4, "radial_count": 4, "cutoff": 3.0, **special[settings["kind"]]}
    return examples(4.0), build(network, Statistics.bare((1, 6, 8, 29))).double()


@pytest.mark.parametrize("settings", [*VARIANTS, *STOPPED], ids=name)
def test_contract(settings, parts):
    for check in CHECKS:
        check(registry.parse("objectives", settings), *parts)


@pytest.mark.parametrize("settings", VARIANTS, ids=name)
def test_gradient(settings, parts):
    check_gradient(registry.parse("objectives", settings), *parts)


HEADED = [
    *({"kind": kind} for kind in ("energy", "forces", "pitc", "pisc", "antithetic", "gradient")),
    {"kind": "gradient", "anchor": "auto"},
    {"kind": "gradient", "detach": True},
]


@pytest.mark.parametrize("settings", HEADED, ids=name)
def test_contract_with_a_force_head(settings, potentials):
    potential = potentials["MorseWithForceHead"](bias=0.3)
    objective = registry.parse("objectives", settings)
    check_composition(objective, examples(potential.cutoff), potential)


def test_the_checks_can_fail(potentials):
    """An objective that sums the work over the whole batch and one that lets NaN through are both caught."""
    potential = potentials["Morse"](cutoff=3.0)

    class WholeBatch(objectives.Objective):
        kind: str = "whole_batch"

        def __call__(self, batch, model):
            prediction = model.predict(batch.graph, ("energy", "forces"))
            residual = prediction.energy - prediction.forces.square().sum()
            return objectives.masked_sum(residual.square(), batch.labels.weight, torch.ones_like(residual).bool())

    class Leaky(objectives.Objective):
        kind: str = "leaky"
        needs: ClassVar[frozenset[str]] = frozenset({"energy"})

        def __call__(self, batch, model):
            labelled = ~torch.isnan(batch.labels.energy)
            squared = (model.predict(batch.graph, ("energy",)).energy - batch.labels.energy).square()
            return objectives.masked_sum(squared, batch.labels.weight, labelled)

    class Ordered(objectives.Objective):
        kind: str = "ordered"

        def __call__(self, batch, model):
            forces = model.predict(batch.graph, ("forces",)).forces[:, 0]
            total = (torch.arange(len(forces)) * forces.square()).sum()
            return objectives.Term(total, torch.ones((), dtype=torch.float64))

    with pytest.raises(AssertionError, match="batch against singles"):
        check_composition(WholeBatch(), examples(3.0), potential)
    with pytest.raises(AssertionError, match="gradient"):
        check_unlabelled(Leaky(), examples(3.0), potential)
    with pytest.raises(AssertionError, match="permutation"):
        check_permutation(Ordered(), examples(3.0), potential)
    with pytest.raises(AssertionError, match="by differences"):
        check_gradient(registry.parse("objectives", STOPPED[0]), examples(4.0), potential)

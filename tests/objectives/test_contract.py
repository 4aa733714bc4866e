"""Every objective found by listing the folder keeps the contract."""

import pytest
import torch

from phystrain import objectives, registry
from phystrain.testing.objectives import CHECKS, check_composition, check_unlabelled, examples


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", registry.kinds("objectives"))
def test_contract(kind, check, potentials):
    objective = registry.parse("objectives", {"kind": kind})
    potential = potentials["Morse"](cutoff=3.0)
    check(objective, examples(potential.cutoff + 2 * objective.reach), potential)


@pytest.mark.parametrize("kind", ["energy", "forces", "pitc", "pisc"])
def test_contract_with_a_force_head(kind, potentials):
    potential = potentials["MorseWithForceHead"](bias=0.3)
    objective = registry.parse("objectives", {"kind": kind})
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
        needs = frozenset({"energy"})

        def __call__(self, batch, model):
            labelled = ~torch.isnan(batch.labels.energy)
            squared = (model.predict(batch.graph, ("energy",)).energy - batch.labels.energy).square()
            return objectives.masked_sum(squared, batch.labels.weight, labelled)

    with pytest.raises(AssertionError, match="batch against singles"):
        check_composition(WholeBatch(), examples(3.0), potential)
    with pytest.raises(AssertionError, match="gradient"):
        check_unlabelled(Leaky(), examples(3.0), potential)

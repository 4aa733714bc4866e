"""The noise baseline: plain losses of displaced copies."""

import pytest
import torch

from phystrain.objectives import Evaluator, energy, forces, jitter, pitc
from phystrain.objectives._displacement import displacements
from phystrain.testing.objectives import examples, join, term


@pytest.mark.parametrize(("quantity", "plain"), [("energy", energy.Config()), ("forces", forces.Config())])
def test_plain_loss_of_the_displaced_structure(quantity, plain, potentials):
    batch, potential = join(examples(4.0)), potentials["Morse"](cutoff=3.0)
    objective = jitter.Config(quantity=quantity)
    moved = batch._replace(graph=batch.graph.displaced(displacements(batch.graph, batch.key, objective, 0)))
    found, expected = term(objective, batch, potential), term(plain, moved, potential)
    torch.testing.assert_close(found, expected)
    assert objective.needs == {quantity}
    assert float((found.total / term(plain, batch, potential).total).detach()) != pytest.approx(1, rel=1e-3)


def test_one_pass(potentials):
    """Energy and forces of the copy, and PITC's end, are one pass."""
    batch, potential = join(examples(4.0)), potentials["Morse"](cutoff=3.0)
    model = Evaluator(potential)
    for objective in (jitter.Config(), jitter.Config(quantity="forces", weight=10), pitc.Config(anchor="label")):
        objective(batch, model)
    assert potential.passes == 1


def test_what_is_validated():
    """Errors against labels are; consistency is not, also where labels are its anchor."""
    assert jitter.Config().validated
    assert energy.Config().validated
    assert not pitc.Config().validated
    assert not pitc.Config(anchor="label").validated

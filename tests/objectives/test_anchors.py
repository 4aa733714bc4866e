"""Where energy and forces of the undisplaced structure come from: model, reference, guide."""

import pytest
import torch
from pydantic import ValidationError

from phystrain.errors import UserError
from phystrain.objectives import Evaluator, antithetic, pisc, pitc
from phystrain.objectives._displacement import displaced
from phystrain.testing.objectives import examples, join, term


@pytest.fixture
def potential(potentials):
    return potentials["Morse"](cutoff=3.0)


@pytest.fixture
def batch():
    """Energy and forces; energy, forces and guide; energy of a lone atom; energy and guide; nothing."""
    return join(examples(4.0))


def parts(objective, batch, potential):
    """What enters a step from S to S + d: energies and forces at both ends, and the work of forces."""
    model = Evaluator(potential)
    end = displaced(batch, model, objective, 0)
    here, there = (model.predict(graph, ("energy", "forces")) for graph in (batch.graph, end))
    d = end.positions - batch.graph.positions
    return here, there, lambda forces: batch.graph.sum_per_system((d * forces).sum(1))


ANCHORS = {
    "model": ([0, 1, 2, 3, 4], lambda labels, here: (here.energy, here.forces)),
    "label": ([0, 1], lambda labels, here: (labels.energy, labels.forces)),
    "guide": ([1, 3], lambda labels, here: (labels.energy, labels.guide)),
    "guide_forces": ([1, 3], lambda labels, here: (here.energy, labels.guide)),
}


@pytest.mark.parametrize("k", [0.0, 0.3])
@pytest.mark.parametrize("anchor", ANCHORS)
def test_pitc(anchor, k, batch, potential):
    """By hand, and only structures with all that the anchor consists of count."""
    counted, values = ANCHORS[anchor]
    objective = pitc.Config(anchor=anchor, k=k, per_atom=False)
    here, there, work = parts(objective, batch, potential)
    energy, forces = values(batch.labels, here)
    residual = there.energy - energy + (1 - k) * work(forces) + k * work(there.forces)
    expected = (batch.labels.weight * residual.square())[counted].sum()
    total, count = term(objective, batch, potential)
    torch.testing.assert_close(total, expected)
    assert count == len(counted)


def test_auto_takes_labels_where_there_are_both(batch, potential):
    options = {"per_atom": False, "k": 0.3}
    total, count = term(pitc.Config(anchor="auto", **options), batch, potential)
    alone = [term(pitc.Config(anchor="label", **options), batch, potential).total]
    rest = join(examples(4.0)[2:])  # without forces
    alone.append(term(pitc.Config(**options), rest, potential).total)
    torch.testing.assert_close(total, torch.stack(alone).sum())
    assert count == 5


def test_one_missing_component_takes_the_structure_out(batch, potential):
    forces = batch.labels.forces.clone()
    forces[1, 2] = torch.nan
    part = batch._replace(labels=batch.labels._replace(forces=forces))
    for objective in (pitc.Config(anchor="label"), antithetic.Config(anchor="label")):
        total, count = term(objective, part, potential)
        assert count == 1
        assert torch.isfinite(total)


def test_guide_forces_without_an_energy(batch, potential):
    """They count with the potential's own energy, and do not with the reference's."""
    energy = batch.labels.energy.clone()
    energy[3] = torch.nan
    part = batch._replace(labels=batch.labels._replace(energy=energy))
    counts = [int(term(pitc.Config(anchor=anchor), part, potential).count) for anchor in ("guide", "guide_forces")]
    assert counts == [1, 2]


def test_expansion_around_exact_labels_is_learned_from(batch, potential):
    """With labels that the potential gives itself, the label anchor is the model anchor: the loss is as small."""
    exact = Evaluator(potential, create_graph=False).predict(batch.graph, ("energy", "forces"))
    same = batch._replace(labels=batch.labels._replace(energy=exact.energy, forces=exact.forces))
    one, other = (term(pitc.Config(anchor=anchor), same, potential) for anchor in ("model", "label"))
    torch.testing.assert_close(one.total, other.total)
    assert one.count == other.count


@pytest.mark.parametrize(("anchor", "counted"), [("model", [0, 1, 2, 3]), ("label", [0, 1]), ("guide", [1, 3])])
def test_two_points_anchored_on_the_reference_energy(anchor, counted, batch, potential):
    """PISC A11: the label against the extrapolation back from the displaced structure."""
    objective, k = pisc.Config(case="A11", k=0.3, anchor=anchor, per_atom=False), 0.3
    here, there, work = parts(objective, batch, potential)
    forces = ANCHORS[anchor][1](batch.labels, here)[1]
    residual = batch.labels.energy - there.energy - (1 - k) * work(there.forces) - k * work(forces)
    expected = (batch.labels.weight * residual.square())[counted].sum()
    total, count = term(objective, batch, potential)
    torch.testing.assert_close(total, expected)
    assert count == len(counted)
    assert "energy" in objective.needs


@pytest.mark.parametrize(("anchor", "counted"), [("label", [0, 1]), ("guide", [1, 3])])
def test_antithetic(anchor, counted, batch, potential):
    """Only forces enter, so a missing energy is no reason not to count."""
    labels = batch.labels._replace(energy=batch.labels.energy * torch.nan)
    silent = batch._replace(labels=labels)
    objective = antithetic.Config(anchor=anchor, per_atom=False)
    _, there, work = parts(objective, silent, potential)
    model = Evaluator(potential)
    behind = model.predict(displaced(silent, model, objective, 0, -1), ("energy",)).energy
    residual = there.energy - behind + 2 * work(labels.forces if anchor == "label" else labels.guide)
    total, count = term(objective, silent, potential)
    torch.testing.assert_close(total, (labels.weight * residual.square())[counted].sum())
    assert count == len(counted)


@pytest.mark.parametrize(
    "objective", [pitc.Config(anchor="guide"), pitc.Config(anchor="guide_forces"), antithetic.Config(anchor="guide")]
)
def test_without_a_guide_there_is_an_error(objective, batch, potential):
    with pytest.raises(UserError, match="guide needs forces from outside"):
        term(objective, batch._replace(labels=batch.labels._replace(guide=None)), potential)


@pytest.mark.parametrize("case", ["A", "C", "D"])
def test_an_anchor_that_would_not_be_used_is_refused(case):
    with pytest.raises(ValidationError, match="does not look at the undisplaced structure"):
        pisc.Config(case=case, anchor="label")


def test_guide_moves_with_the_labels(batch):
    moved = batch.to(dtype=torch.float32).labels
    assert moved.guide.dtype == torch.float32
    assert batch.labels._replace(guide=None).to(dtype=torch.float32).guide is None

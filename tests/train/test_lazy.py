"""Terms that act now and then, or on some structures: the same loss on average, for less."""

import numpy as np
import pytest
import torch
from ase import Atoms

from phystrain import config, objectives
from phystrain.data.graphs import GraphStore
from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.labels import unlabelled
from phystrain.noise import mix
from phystrain.objectives import Evaluator, parse
from phystrain.train.lazy import drawn, factor, risen
from phystrain.train.step import Source, TrainingStep

CUTOFF = 7.0


@pytest.fixture
def store():
    random = np.random.default_rng(3)
    frames = [Atoms(f"Ar{n}", positions=random.uniform(-3, 3, (n, 3)) + 9 * np.eye(n, 3)) for n in (3, 5, 4, 6, 3, 4)]
    structures = Structures.from_ase(frames)
    energy, forces = random.normal(size=len(frames)), random.normal(size=structures.positions.shape)
    return GraphStore(structures.with_labels(energy, forces), CUTOFF, guide=forces)


@pytest.fixture
def batch(store):
    return store.batch(range(len(store)), mix(torch.arange(len(store)), 5), dtype=torch.float64)


class Recording(torch.nn.Module):
    """Keeps the number of atoms of every pass."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.cutoff, self.atoms = inner, inner.cutoff, []

    def atomic_energies(self, graph):
        self.atoms.append(graph.n_atoms)
        return self.inner.atomic_energies(graph)


@pytest.fixture
def apart(monkeypatch):
    """Every graph has a pass of its own, however small."""
    monkeypatch.setattr(objectives, "_JOINED_EDGES", {})


def gradient(step, *batches, at=0):
    step.zero_grad()
    loss, means = step(*batches, step=at)
    loss.backward()
    return torch.cat([p.grad.reshape(-1) for p in step.parameters()]), means


def test_a_selection_is_what_the_store_would_give(store, batch):
    mask = torch.tensor([True, False, True, True, False, False])
    part, right = batch.select(mask), store.batch([0, 2, 3], dtype=torch.float64)
    for name in ("positions", "species", "system", "cell", "pbc", "edges", "shifts"):
        assert torch.equal(getattr(part.graph, name), getattr(right.graph, name)), name
    for one, other in zip(part.labels, right.labels, strict=True):
        torch.testing.assert_close(one, other, equal_nan=True)
    assert torch.equal(part.key, batch.key[mask])
    assert batch.select(torch.zeros(6, dtype=torch.bool)).graph.n_atoms == 0


def test_when_a_term_acts():
    (term,) = parse({"pitc": {"weight": 1.0, "every": 3, "warmup": 2, "ramp": 4}}).values()
    assert [factor(term, step) for step in range(10)] == [0, 0, 0.75, 0, 0, 3, 0, 0, 3, 0]
    assert [risen(term, step) for step in range(7)] == [0, 0, 0.25, 0.5, 0.75, 1, 1]
    (plain,) = parse({"pitc": {"weight": 1.0}}).values()
    assert {factor(plain, step) for step in range(5)} == {1.0}


def test_a_lazy_term_has_the_same_gradient_over_its_cycle(batch, lennard_jones):
    plain, _ = gradient(TrainingStep(lennard_jones, parse({"energy": {}, "pitc": {"weight": 5.0}})), batch)
    lazy = TrainingStep(lennard_jones, parse({"energy": {}, "pitc": {"weight": 5.0, "every": 3}}))
    cycle = [gradient(lazy, batch, at=step) for step in range(3)]
    torch.testing.assert_close(sum(found for found, _ in cycle) / 3, plain, rtol=1e-10, atol=0)
    assert [set(means) for _, means in cycle] == [{"energy", "pitc"}, {"energy"}, {"energy"}]


@pytest.mark.usefixtures("apart")
def test_what_is_skipped_costs_no_pass(batch, lennard_jones):
    potential = Recording(lennard_jones)
    source = Source("unlabelled", parse({"pisc": {"every": 4}}))
    step = TrainingStep(potential, parse({"energy": {}, "forces": {}, "pitc": {"every": 2}}), [source])
    passes = []
    for at in range(4):
        potential.atoms.clear()
        step(batch, batch, step=at)
        passes.append(len(potential.atoms))
    assert passes == [4, 1, 2, 1]


def test_a_small_batch_and_its_copies_share_a_pass(batch, lennard_jones, monkeypatch):
    terms = parse({"energy": {}, "forces": {}, "pitc": {"weight": 2.0}, "pisc": {"weight": 3.0}, "jitter": {}})
    atoms, found = [], []
    for largest in (10_000, 0):
        monkeypatch.setattr(objectives, "_JOINED_EDGES", {"cpu": largest})
        potential = Recording(lennard_jones)
        found.append(gradient(TrainingStep(potential, terms), batch))
        atoms.append(potential.atoms)
    (together,), apart = atoms
    assert len(apart) == 3
    assert together == sum(apart)
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-10, atol=0)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-10, atol=0)


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize(("terms", "whole"), [({"energy": {}, "forces": {}}, 1), ({"energy": {}}, 2), ({}, 1)])
def test_a_part_costs_its_share(batch, lennard_jones, terms, whole):
    """The start of the step is read from the whole pass where that has the forces already; else it is a small pass."""
    potential = Recording(lennard_jones)
    weak = {"pitc": {"part": 0.5, "weight": 1.0}, "pisc": {"part": 0.5, "weight": 2.0}}
    found, _ = gradient(TrainingStep(potential, parse({**weak, **terms})), batch)
    chosen = batch.select(drawn(batch, 0.5))
    assert 0 < chosen.graph.n_systems < 6
    small = [n for n in potential.atoms if n == chosen.graph.n_atoms]
    assert len(small) == 2 + ("forces" not in terms)
    assert len(potential.atoms) - len(small) == bool(terms)
    direct, _ = gradient(TrainingStep(lennard_jones, parse({"pitc": {"weight": 1.0}, "pisc": {"weight": 2.0}})), chosen)
    if terms:
        direct = direct + gradient(TrainingStep(lennard_jones, parse(terms)), batch)[0]
    # six structures: that none is drawn has a probability of 2^-6 for the weak terms
    if not terms:
        found = found * (1 - 0.5**6)
        torch.testing.assert_close(found, direct, rtol=1e-9, atol=0)


def test_a_part_is_without_bias(store, lennard_jones):
    """Also where often no structure at all is drawn: three structures, each with a probability of 0.3."""
    batch = store.batch([0, 1, 2], dtype=torch.float64)
    with torch.no_grad():
        right, _ = TrainingStep(lennard_jones, parse({"energy": {}}))(batch)
        step = TrainingStep(lennard_jones, parse({"energy": {"part": 0.3}}))
        keys = mix(torch.arange(3)[None, :], torch.arange(1000)[:, None])
        found = torch.stack([step(batch._replace(key=key))[0] for key in keys])
    error = float(found.std()) / len(found) ** 0.5
    assert float(found.mean()) == pytest.approx(float(right), abs=4 * error)
    assert error < 0.05 * float(right)
    assert (found == 0).double().mean() == pytest.approx(0.7**3, abs=0.05)


def test_parts_are_nested_and_hang_on_the_key_alone(batch):
    small, large = drawn(batch, 0.3), drawn(batch, 0.8)
    assert (large | ~small).all()
    one = batch.select(torch.tensor([False, True, False, False, False, False]))
    assert drawn(one, 0.8)[0] == large[1]


def test_guide_forces_where_there_are_no_reference_forces(store, lennard_jones):
    batch = store.batch([0, 1, 2], dtype=torch.float64)
    known = torch.arange(batch.graph.n_atoms) < 3  # of the first structure
    forces = torch.where(known[:, None], batch.labels.forces, torch.nan)
    labels = batch.labels._replace(forces=forces)
    (term,) = parse({"forces": {"of": "guide"}}).values()

    def value(labels):
        return term(batch._replace(labels=labels), Evaluator(lennard_jones))

    assert value(labels).count == 3 * int((~known).sum())
    predicted = Evaluator(lennard_jones).predict(batch.graph, ("forces",)).forces
    right = (predicted - batch.labels.guide)[~known].square().sum()
    torch.testing.assert_close(value(labels).total, right)
    assert value(labels._replace(guide=None)).count == 0
    assert value(unlabelled(batch.graph)).total == 0


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ({"every": 0}, "greater than or equal to 1"),
        ({"part": 0.0}, "greater than 0"),
        ({"part": 1.5}, "less than or equal to 1"),
        ({"warmup": -1}, "greater than or equal to 0"),
        ({"ramp": 0.5}, "whole number"),
        ({"weight": "much"}, "be a number or 'auto'"),
        ({"evry": 2}, "did you mean 'every'"),
    ],
)
def test_nonsense_is_refused(settings, term, message):
    settings["stages"][2]["objectives"]["pitc"] = term
    with pytest.raises(UserError, match=message) as found:
        config.check(settings)
    assert "pitc" in str(found.value)
    assert "\n" not in str(found.value)

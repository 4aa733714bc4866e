"""Weights tested while they are trained, members and snapshots of the last stage."""

import csv

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from phystrain import config
from phystrain.data.graphs import GraphStore
from phystrain.data.loader import Loader
from phystrain.data.structures import Structures
from phystrain.dynamics import replicate
from phystrain.errors import UserError
from phystrain.layers.pair import smooth_cutoff
from phystrain.pipeline import without_physics
from phystrain.reliability import Result, Subject
from phystrain.reliability.errors import predict
from phystrain.reliability.survival import Config as Survival
from phystrain.saving import load_model, read_state
from phystrain.stages import Stage
from phystrain.statistics import Statistics
from phystrain.train.log import Metrics
from phystrain.train.loop import Interrupted, Training
from phystrain.train.material import Labelled
from phystrain.train.run import Run
from phystrain.train.selection import Selection, level_of
from phystrain.train.sources import Material
from phystrain.uncertainty.ensemble import load_ensemble
from phystrain.verdict.gate import judge, score_of


class Buckingham(nn.Module):
    """Argon whose undamped dispersion wins at short range: the more of it is learnt, the deeper the hole there."""

    cutoff = 6.5

    def __init__(self, dispersion: float, damped: bool = False) -> None:
        super().__init__()
        self.dispersion = nn.Parameter(torch.tensor(dispersion, dtype=torch.float64))
        self.damped = damped

    def atomic_energies(self, graph):
        r = graph.distances
        energy = 800 * torch.exp(-r / 0.3)
        dispersion = self.dispersion / r**6
        if self.damped:
            dispersion = dispersion * torch.exp(-((3.0 / r - 1).clamp(min=0) ** 2))
        energy = (energy - dispersion) * smooth_cutoff(r, 5.0, self.cutoff) / 2
        return energy.new_zeros(graph.n_atoms).index_add(0, graph.edges[0], energy)


@pytest.fixture
def frames(crystal):
    """Argon crystals with thermal motion, labelled by the damped form: none has a close pair."""
    many = replicate(crystal, 8)
    many.positions[:] += np.random.default_rng(1).normal(scale=0.08, size=many.positions.shape)
    return predict(Buckingham(60.0, damped=True), many)


def trained(frames: Structures, gate, tmp_path):
    """Training in which the error falls all the way, and the hole opens before the end."""
    stage = Stage.model_validate(
        {
            "name": "learn",
            "objectives": {"forces": {}},
            "steps": 28,
            "validate_every": 4,
            "average": 0,
            "optimiser": {"learning_rate": 2.2, "schedule": "constant"},
            "gate": gate,
        }
    )
    store = GraphStore(frames, 6.5)
    material = Material(Loader(store, 8, 0, dtype=torch.float64), store)
    data = Labelled(frames, frames, None, None, Statistics.bare((18,)), {})
    run = config.check(
        {
            "potential": {"kind": "morse"},
            "data": {"train": "argon.xyz"},
            "stages": [{"name": "learn", "objectives": {"forces": {}}, "steps": 1}],
            "reliability": {"temperatures": [1000]},
        }
    )
    metrics = Metrics(tmp_path / f"{bool(gate)}.csv")
    training = Training(
        Buckingham(10.0),
        stage,
        material,
        Fabric(accelerator="cpu", devices=1),
        metrics=metrics,
        gate=lambda potential: judge(potential, stage.gate, data, run),
    )
    return training.run()["dispersion"], metrics.rows


def test_of_weights_that_live_the_most_accurate_are_kept(frames, crystal, tmp_path):
    survival = {"multiples": [2.0], "replicas": 2, "picoseconds": 0.2, "timestep": 4}
    gate = {"every": 1, "tests": {"dimers": {"repulsive_below": 0.8}, "survival": survival}}
    blind, _ = trained(frames, None, tmp_path)
    chosen, rows = trained(frames, gate, tmp_path)
    errors = [float(row["valid_forces_mae"]) for row in rows]
    scores = [row["gate"] for row in rows]
    assert errors == sorted(errors, reverse=True)  # by the error alone the last would be taken, and is
    assert scores[0] == 1
    assert scores[-1] < 0.5
    assert float(blind) == pytest.approx(60, abs=1)
    last_sound = max(number for number, score in enumerate(scores) if score == 1)
    assert 0 < last_sound < len(scores) - 1
    assert 20 < float(chosen) < float(blind) - 10
    assert {"gate_dimers", "gate_survival", "gate_survival survived"} <= set(rows[0])
    alive = {}
    for name, weights in (("chosen", chosen), ("blind", blind)):  # other velocities, longer
        subject = Subject(name, Buckingham(float(weights)), Statistics.bare((18,)), start=crystal, seed=9)
        run = Survival(temperatures=(2000,), replicas=3, picoseconds=0.6, timestep=4).run(subject)
        alive[name] = run.survived.tolist()
    assert alive == {"chosen": [True] * 3, "blind": [False] * 3}


def test_selection_puts_life_before_error_and_remembers():
    best = Selection()
    assert not best.takes(float("nan"), 0)
    assert best.takes(3.0, 1, level_of(0.5, 0.05))
    assert best.takes(5.0, 2, level_of(0.9, 0.05))
    assert not best.takes(1.0, 3, level_of(0.5, 0.05))
    assert best.takes(4.0, 4, level_of(0.91, 0.05))  # as good within the tolerance
    assert not best.takes(4.0, 5, level_of(0.9, 0.05))
    for figure in (5.0, 4.0, 6.0, 5.0):
        best.note(figure)
    assert (best.waited, best.lowest, best.step) == (2, 4.0, 4)
    assert Selection.of(best.state()) == best
    assert Selection.of(Selection().state()) == Selection()


def test_scores():
    assert score_of(Result(test="a", title="", passed=True)) == 1
    assert score_of(Result(test="a", title="", passed=False, score=0.25)) == 0.25
    assert score_of(Result(test="a", title="")) is None
    assert score_of(Result(test="a", title="", passed=False, applies=False)) is None


@pytest.fixture
def gated(settings):
    """The last stage with a gate, snapshots and two members."""
    survival = {"temperatures": [300], "replicas": 1, "picoseconds": 0.004}
    settings["stages"] = [
        settings["stages"][0],
        settings["stages"][2]
        | {
            "init_from": None,
            "replay": None,
            "objectives": {"energy": {}, "forces": {}},
            "steps": 8,
            "validate_every": 2,
            "snapshots": 2,
            "members": 2,
            "gate": {"every": 2, "tests": {"dimers": {"points": 20}, "survival": survival}},
        },
    ]
    return settings


def train(settings, folder, gate=judge):
    lines = []
    return Run(config.check(settings), folder, say=lines.append, gate=gate).train(), lines


def rows_of(folder):
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_gate_and_snapshots_resume_bit_for_bit(gated, tmp_path, monkeypatch):
    whole, lines = train(gated, tmp_path / "whole")
    rows = rows_of(tmp_path / "whole")
    tested_at = [int(row["step"]) for row in rows if row["stage"] == "finetune" and row["gate"]]
    assert tested_at == [4, 8]
    assert any(line.startswith("spread of 6 models (seeds and snapshots): ") for line in lines)
    ensemble = load_ensemble(load_model(whole))
    assert len(ensemble.members) == 6
    assert ensemble.calibration.structures == 2

    one_step, count = Training._one_step, 0

    def counted(self):
        nonlocal count
        count += 1
        if count in (6 + 4, 6 + 8 + 4):  # between snapshots, in either member
            self._should_stop = lambda: True
        return one_step(self)

    monkeypatch.setattr(Training, "_one_step", counted)
    for _ in range(2):
        with pytest.raises(Interrupted):
            train(gated, tmp_path / "cut")
    cut, _ = train(gated, tmp_path / "cut")
    for name in ("model.safetensors", "model-ensemble.safetensors"):
        first, second = (read_state(file.with_name(name))[0] for file in (whole, cut))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert rows_of(tmp_path / "cut") == rows


def test_the_gate_changes_no_step(gated, tmp_path):
    gated["stages"][1] |= {"members": 1, "snapshots": 0, "select": "last"}
    first = read_state(train(gated, tmp_path / "gated")[0])[0]
    gated["stages"][1]["gate"] = None
    second = read_state(train(gated, tmp_path / "plain", gate=None)[0])[0]
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not (tmp_path / "plain" / "model" / "model-ensemble.safetensors").exists()


def test_what_is_refused(gated, tmp_path):
    with pytest.raises(ValueError, match="give Run what tests the weights"):
        train(gated, tmp_path / "run", gate=None)
    gated["data"]["valid_fraction"] = 0
    with pytest.raises(UserError, match="a gate chooses among validations"):
        train(gated, tmp_path / "run")
    gated["stages"][1]["snapshots"] = 5
    with pytest.raises(UserError, match="5 are too many for 8 steps"):
        config.check(gated)


def test_the_gate_asks_for_a_test_that_judges(gated, tmp_path):
    gated["stages"][1]["gate"] = {"tests": {"errors": {}}}
    with pytest.raises(UserError, match="stage finetune, gate: errors judge nothing"):
        train(gated, tmp_path / "run")


def test_the_run_without_physics_has_neither_gate_nor_company(gated):
    plain = without_physics(config.check(gated)).stages[-1]
    assert (plain.gate, plain.snapshots, plain.members) == (None, 0, 1)
    gated["stages"] = [gated["stages"][1] | {"gate": None}]
    assert without_physics(config.check(gated)) is None

import csv
import json
import sys

import pytest
import yaml

from phystrain import config, datasets
from phystrain.errors import UserError
from phystrain.train.loop import DivergedError, Interrupted, Training
from phystrain.tune.defaults import default_space
from phystrain.tune.space import Dimension, parse
from phystrain.tune.study import tune
from phystrain.tune.trial import Trials, figure, shared_stages

pytest.importorskip("optuna")

RATE = "stages.finetune.optimiser.learning_rate"
WEIGHT = "stages.finetune.objectives.energy.weight"


@pytest.fixture
def run_file(tmp_path, monkeypatch):
    """A teacher and a network on six silica frames: about a second."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    settings = {
        "potential": {"kind": "painn", "channels": 4, "layers": 1, "cutoff": 3.0},
        "data": {"train": str(datasets.path("silica")), "use": 6, "valid_fraction": 0.34},
        "stages": [
            {
                "name": "teacher",
                "potential": {"kind": "morse", "cutoff": 3.0},
                "objectives": {"forces": {}},
                "steps": 2,
                "batch_size": 2,
            },
            {
                "name": "finetune",
                "prior": "teacher",
                "objectives": {"energy": {"weight": 10.0}, "forces": {}},
                "steps": 6,
                "batch_size": 2,
                "validate_every": 2,
            },
        ],
        "tune": {"search": {RATE: "log:1e-4..1e-1", WEIGHT: "log:0.1..100"}, "trials": 3},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "run.yaml"


def search(run_file, **settings):
    lines = []
    return tune(run_file, run_file.parent / "search", settings=settings, say=lines.append), lines


def rows(run_file):
    return list(csv.DictReader((run_file.parent / "search" / "trials.csv").open()))


def test_a_search_finds_a_run_file_that_trains(run_file):
    best, lines = search(run_file, pruner="none")
    found = rows(run_file)
    assert [row["state"] for row in found] == ["complete"] * 3
    assert float(found[0][RATE]) == 1e-3  # as written in the run file, first
    assert float(found[0][WEIGHT]) == 10
    assert len({row[RATE] for row in found}) == 3
    # the best run file holds the values of the best trial, and nothing else is changed
    first = min(found, key=lambda row: float(row["energy_and_forces"]))
    settings = config.load(best)
    assert settings.stages[1].optimiser.learning_rate == float(first[RATE])
    assert settings.stages[1].objectives["energy"].weight == float(first[WEIGHT])
    assert settings.data == config.load(run_file).data
    assert settings.tune is None
    assert (run_file.parent / "search" / "trials.png").read_bytes().startswith(b"\x89PNG")
    # all trials were judged on the same frames, and weights were kept of the best alone
    folders = list((run_file.parent / "search" / "trials").iterdir())
    assert len({json.loads((folder / "data.json").read_text())["valid"] for folder in folders}) == 1
    assert sum((folder / "model").is_dir() for folder in folders) == 1
    assert any("trial 0" in line for line in lines)


def test_training_a_best_run_file_gives_its_figure(run_file, tmp_path):
    from phystrain.train.run import Run

    best, _ = search(run_file, trials=2)
    Run(config.load(best), tmp_path / "again", base=best.parent, say=lambda line: None).train()
    last = [row for row in csv.DictReader((tmp_path / "again" / "metrics.csv").open()) if row["stage"] == "finetune"]
    chosen = min(last, key=lambda row: float(row["valid_loss"]))
    expected = min(float(row["energy_and_forces"]) for row in rows(run_file) if row["state"] == "complete")
    assert figure(chosen, "energy_and_forces") == pytest.approx(expected, rel=1e-5)


def test_stages_before_what_is_searched_are_trained_once(run_file, monkeypatch):
    trained = []
    run = Training.run
    monkeypatch.setattr(Training, "run", lambda self: trained.append(self._stage.name) or run(self))
    search(run_file, trials=3)
    assert trained == ["teacher", "finetune", "finetune", "finetune"]


def test_an_interrupted_trial_is_gone_on_with(run_file, monkeypatch):
    steps = []
    one_step = Training._one_step

    def counted(self):
        steps.append(self._stage.name)
        if len(steps) == 2 + 6 + 3:  # the second trial, half-way
            self._should_stop = lambda: True
        return one_step(self)

    monkeypatch.setattr(Training, "_one_step", counted)
    with pytest.raises(Interrupted):
        search(run_file, trials=2, pruner="none")
    assert len(rows(run_file)) == 1
    _, lines = search(run_file, trials=2, pruner="none")
    assert "1 trials were there already" in lines
    assert len(steps) == 2 + 6 + 6  # no step was made twice
    assert [row["validations"] for row in rows(run_file)] == ["3", "3"]
    search(run_file, trials=2)
    assert len(steps) == 2 + 6 + 6  # nothing is left to do


def test_an_unpromising_trial_is_ended_early(run_file, monkeypatch):
    figures = iter([3.0, 2.0, 1.0] * 4 + [9.0] * 3)
    monkeypatch.setattr("phystrain.tune.trial.figure", lambda row, metric: next(figures))
    monkeypatch.setattr("phystrain.tune.trial.judged", lambda folder, settings, metric: 1.0)
    _, lines = search(run_file, trials=5)
    found = rows(run_file)
    assert [row["state"] for row in found] == ["complete"] * 4 + ["pruned"]
    assert int(found[-1]["validations"]) < 3
    assert any("ended early at 9" in line for line in lines)


def test_a_trial_that_diverges_is_told_and_the_search_goes_on(run_file, monkeypatch):
    train, count = Trials.train, []

    def diverges(self, values, report):
        count.append(1)
        if len(count) == 2:
            raise DivergedError("the loss is not finite")
        return train(self, values, report)

    monkeypatch.setattr(Trials, "train", diverges)
    search(run_file)
    assert [row["state"] for row in rows(run_file)] == ["complete", "diverged", "complete"]


def test_another_search_in_the_same_folder_is_refused(run_file):
    search(run_file, trials=1)
    with pytest.raises(UserError, match=r"another search \(metric differs"):
        search(run_file, trials=1, metric="forces_rmse")
    with pytest.raises(UserError, match=r"another search \(settings differs"):
        tune(run_file, run_file.parent / "search", overrides=["stages.finetune.steps=4"], say=lambda line: None)
    tune(run_file, run_file.parent / "search", settings={"trials": 1, "metric": "forces_mae"}, restart=True)
    assert "forces_mae" in rows(run_file)[0]


def test_what_is_searched_where_nobody_says(run_file):
    settings = yaml.safe_load(run_file.read_text())
    settings["stages"][1]["objectives"]["pitc"] = {"weight": 0.3}
    found = {
        dimension.path.removeprefix("stages.finetune."): dimension
        for dimension in default_space(config.check(settings))
    }
    assert set(found) == {
        "optimiser.learning_rate",
        "objectives.energy.weight",
        "objectives.pitc.weight",
        "objectives.pitc.displacement",
    }
    assert found["objectives.pitc.weight"].holds(0.3)
    settings["stages"][1]["objectives"]["pitc"] = {}
    automatic = {dimension.path: dimension for dimension in default_space(config.check(settings))}
    assert automatic["stages.finetune.balance.share"].holds(0.1)
    assert "stages.finetune.objectives.pitc.weight" not in automatic
    assert all(dimension.log for dimension in found.values())


def test_stages_share_only_what_does_not_depend_on_the_search(run_file):
    settings = config.load(run_file)
    assert shared_stages(settings, [Dimension(RATE, 1e-4, 1e-1)]) == ["teacher"]
    assert shared_stages(settings, [Dimension("stages.1.steps", 2, 4)]) == ["teacher"]
    assert shared_stages(settings, [Dimension("potential.channels", 4, 8)]) == []
    assert shared_stages(settings, [Dimension(RATE, 1e-4, 1), Dimension("stages.teacher.steps", 2, 4)]) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("log:1e-3..10", Dimension("stages.a.x", 1e-3, 10.0, log=True)),
        ("0.1 .. 0.5", Dimension("stages.a.x", 0.1, 0.5)),
        ("1..4", Dimension("stages.a.x", 1, 4)),
        ("log:8..256", Dimension("stages.a.x", 8, 256, log=True)),
        ("[16, 32]", Dimension("stages.a.x", choices=(16, 32))),
        ("cosine, plateau", Dimension("stages.a.x", choices=("cosine", "plateau"))),
        ([1, "1e-3"], Dimension("stages.a.x", choices=(1, 1e-3))),
    ],
)
def test_ranges_as_people_write_them(text, found):
    assert parse("stages.a.x", text) == found
    assert parse("stages.a.x", text).whole == isinstance(found.low, int)


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("stages.a.x", "2..1", "is empty"),
        ("stages.a.x", "log:0..1", "above zero"),
        ("stages.a.x", "5", "write low..high"),
        ("stages.a.x", "int:0.5..2", "write low..high"),
        ("stages.a.x", "a..b", "write low..high"),
        ("data.use", "1..4", "only settings of stages and potentials"),
        ("seed", "1..4", "only settings of stages and potentials"),
    ],
)
def test_ranges_that_cannot_be(path, text, words):
    with pytest.raises(UserError, match=words):
        parse(path, text)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"search": {"stages.finetune.objectives.pitcc.weight": "0.1..1"}}, "did you mean 'pitc'"),
        ({"search": {RATE: "-1..1"}}, "should be greater than 0"),
        ({"metric": "energi"}, "metric"),
        ({"metric": "stress_rmse"}, "stress"),
        ({"trials": 0}, "trials"),
    ],
)
def test_mistakes_are_refused_before_anything_is_trained(run_file, settings, words):
    with pytest.raises(UserError, match=words):
        search(run_file, **settings)
    assert not (run_file.parent / "search").exists()


def test_without_optuna_the_extra_is_named(run_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'phystrain\[tune\]'"):
        search(run_file)

"""Experiments: order of jobs, frames, tables from result files, and one whole small run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # benchmarks are no part of the installed package

from benchmarks.reproduce import experiment as experiments  # noqa: E402
from benchmarks.reproduce import material  # noqa: E402
from benchmarks.reproduce.__main__ import main  # noqa: E402
from benchmarks.reproduce.experiment import Starts, slug  # noqa: E402
from benchmarks.reproduce.job import choose_starts, subset  # noqa: E402
from benchmarks.reproduce.plots import mean_curve  # noqa: E402
from benchmarks.reproduce.results import Job, all_jobs, more_steps  # noqa: E402
from benchmarks.reproduce.tables import failure_rules, spread, write_tables  # noqa: E402
from benchmarks.reproduce.training import Clock  # noqa: E402
from phystrain import config as run_file  # noqa: E402
from phystrain.data.read import read  # noqa: E402
from phystrain.data.structures import Structures  # noqa: E402
from phystrain.dynamics.guards import Guards  # noqa: E402
from phystrain.errors import UserError  # noqa: E402

EXPERIMENT = """
title: Little silica
train: [silica/train.xyz.xz]
tests:
  all: {file: silica/test.xyz.xz, frames: 3}
  again: {file: silica/test.xyz.xz, frames: 2}
labels: 5
valid_fraction: 0.2
seeds: 2
potential: {kind: painn, channels: 8, layers: 1, cutoff: 4.0}
recipe: {steps: 6, pretrain_steps: 4, batch_size: 2}
temperatures: [1000]
starts: {count: 2}
reliability:
  dimers: {points: 30}
  compression: {structures: 1, points: 8}
  survival: {temperatures: [1000, 3000], replicas: 2, picoseconds: 0.02, timestep: 2, guards: {bond_stretch: 0.5}}
  heating: {replicas: 1, picoseconds: 0.02, timestep: 2}
variants:
  labels only, equal time: {equal_time: labels only}
  labels only:
  pretrained:
    about: with a teacher
    stages:
      - {name: teacher, potential: {kind: morse}, objectives: {energy: , forces: }, steps: 4}
      - name: pretrain
        data: {augment: {kind: pull_perturb, rounds: 1}, label_by: teacher}
        objectives: {energy: , forces: }
        steps: 4
      - {name: finetune, init_from: pretrain, objectives: {energy: , forces: }, steps: 6}
minutes: 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "experiments"
    place.mkdir()
    (place / "little.yaml").write_text(EXPERIMENT)
    (place / "_base.yaml").write_text("title: base")
    return place


def store(job: Job, results: Path, **content: object) -> None:
    result = {
        "seed": job.seed,
        "settings": job.experiment.settings(job.variant, job.seed),
        "steps": {"finetune": 6},
        "seconds": {"finetune": 10.0},
        "test_seconds": {"dimers": 2.0},
        "figures": {},
        "curves": {},
        **content,
    }
    file = job.file(results)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result))


def test_shipped_experiments_are_sound():
    assert experiments.names()
    for name in experiments.names():
        experiment = experiments.load(name)
        for variant in experiment.variants:
            settings = experiment.settings(variant, 0)
            config = run_file.check(settings["run"])
            assert config.stages[-1].name == "finetune"
            if experiment.variants[variant].equal_time is None and experiment.variants[variant].stages:
                assert len(config.stages) == len(experiment.variants[variant].stages)


def test_one_file_extends_another(folder):
    (folder / "more.yaml").write_text("extends: little\nlabels: 7\nrecipe: {steps: 9}\nvariants: {labels only: }\n")
    experiment = experiments.load("more", folder)
    assert experiment.labels == 7
    assert experiment.recipe == {"steps": 9, "pretrain_steps": 4, "batch_size": 2}
    assert list(experiment.variants) == ["labels only"]
    assert experiments.names(folder) == ["little", "more"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("labels: 1", "greater than 1"),
        ("variants: {pretraned: }", "did you mean 'pretrained'"),
        ("reliability: {dimer: }", "did you mean 'dimers'"),
        ("reliability: {errors: }", "every file of 'tests'"),
        ("variants: {x: {equal_time: y}}", "names no ordinary variant"),
        ("sedes: 2", "sedes"),
        ("extends: nothing", "no experiment 'nothing'"),
    ],
)
def test_mistakes_are_named(folder, change, message):
    text = change if change.startswith("extends") else f"extends: little\n{change}"
    (folder / "wrong.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        experiments.load("wrong", folder)


def test_whole_comparisons_come_first(folder):
    experiment = experiments.load("little", folder)
    order = [(job.seed, job.variant) for job in all_jobs([experiment])]
    names = ["labels only", "pretrained", "labels only, equal time"]
    assert order == [(seed, name) for seed in (0, 1) for name in names]


def test_equal_time_follows_the_slowest(folder, tmp_path):
    experiment = experiments.load("little", folder)
    longer = Job(experiment, "labels only, equal time", 0)
    assert [job.variant for job in longer.others()] == ["labels only", "pretrained"]
    store(Job(experiment, "labels only", 0), tmp_path)
    store(Job(experiment, "pretrained", 0), tmp_path, seconds={"teacher": 5.0, "finetune": 30.0})
    assert more_steps(longer, tmp_path) == 3.5
    assert Job(experiment, "pretrained", 0).others() == []


def test_changed_experiment_makes_results_out_of_date(folder, tmp_path, capsys):
    job = Job(experiments.load("little", folder), "labels only", 0)
    assert job.state(tmp_path) == "to do"
    store(job, tmp_path)
    assert job.state(tmp_path) == "done"
    (folder / "little.yaml").write_text(EXPERIMENT.replace("labels: 5", "labels: 6"))
    assert Job(experiments.load("little", folder), "labels only", 0).state(tmp_path) == "out of date"
    assert main(["plan", "--experiments", str(folder), "--results", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "1 to do, 1 out of date" in said
    assert "labels only                  1 to do, 1 out of date       0.2 min each" in said
    assert "left: 12 min of one thread, 6 min in 2" in said  # 2 x 0.2 and 4 x the experiment's guess of 3


def test_tables_from_files(folder, tmp_path):
    experiment = experiments.load("little", folder)
    results = tmp_path / "reproduce"
    curve = {"x": [0, 0.01, 0.01, 0.02], "y": [1, 1, 0.5, 0.5], "x_label": "time, ps", "y_label": "fraction"}
    for seed, error in ((0, 10.0), (1, 14.0)):
        figures = {
            "errors, all": {"energy MAE, meV/atom": error, "forces MAE, meV/Å": 10 * error, "structures": 3},
            "survival": {
                "survived at 3000 K": 0.5,
                "median survival at 3000 K, ps": None,
                "mean survival at 3000 K, ps": 1,
            },
            "compression": {"bonds with a hole": 1, "largest drop, bonds, eV": None if seed else 2.5},
        }
        store(Job(experiment, "labels only", seed), results, figures=figures, curves={"survival": {"3000 K": curve}})
    text = write_tables([experiment], results)
    assert (tmp_path / "reproduce.md").read_text() == text
    lines = text.splitlines()
    errors = lines[lines.index("### Errors") :][:7]
    assert errors[2] == "| variant | seeds | all: energy MAE, meV/atom | all: force MAE, meV/Å |"
    assert errors[4] == "| labels only | 2 | 12.0 ± 2.8 | 120.0 ± 28.3 |"  # first, as changes are against it
    assert errors[5] == "| labels only, equal time | not run |  |  |"
    assert "| labels only | 2 | 50 ± 0 | 1.00 ± 0.00 |" in lines
    (folder / "more.yaml").write_text("extends: little\nvariants: {pretrained: }\nbeside: {little: [labels only]}\n")
    more = experiments.load("more", folder)
    for seed, error in ((0, 9.0), (1, 14.0)):
        figures = {"errors, all": {"forces MAE, meV/Å": 10 * error}}
        store(Job(more, "pretrained", seed), results, figures=figures)
    beside = write_tables([more], tmp_path / "reproduce", folder)
    assert "| labels only (little) | 2 | 12.0 ± 2.8 | 120.0 ± 28.3 |" in beside
    assert "| pretrained | 2 | – | 115.0 ± 35.4 (-5 ± 7 %) |" in beside
    assert "| pretrained | 2 | 115 ± 35 (-5 ± 7 %) |" in beside
    assert "| labels only | 2 | 1.0 ± 0.0 | 2.50 (1 of 2) | 10 ± 0 | 6 ± 0 |" in lines
    assert "friction 0.01 per fs" in text
    assert "Maxwell-Boltzmann" in text
    assert "5 labelled frames (1 of them for validation)" in text
    assert "a bond is 0.5 Å longer or shorter" in text
    assert "* pretrained: with a teacher" in text
    assert "](reproduce/little/survival.svg)" in text
    assert (results / "little" / "survival.svg").read_text().count("<svg") == 1


@pytest.mark.parametrize(
    ("factor", "errors", "said"),
    [
        (3.0, (9.8, 97.0), "energy by -2 % and of forces by -3 %: it had converged."),
        (3.0, (9.8, 90.0), "by -10 %: *labels only, equal time* is what to compare with."),
        (1.5, (10.0, 100.0), "that is less than twice as many, and says little."),
    ],
)
def test_whether_a_baseline_had_converged(folder, tmp_path, factor, errors, said):
    experiment = experiments.load("little", folder)
    results = tmp_path / "reproduce"
    for variant, steps, (energy, forces) in (
        ("labels only", 100, (10.0, 100.0)),
        ("labels only, equal time", 100 * factor, errors),
    ):
        figures = {"errors, all": {"energy MAE, meV/atom": energy, "forces MAE, meV/Å": forces}}
        store(Job(experiment, variant, 0), results, figures=figures, steps={"finetune": steps})
    text = write_tables([experiment], results)
    assert f"{factor} times the steps change the errors of *labels only*" in text
    assert said in text


def test_changes_within_a_family(folder, tmp_path):
    names = {"schnet": 8.0, "painn": 4.0, "painn, PITC": 3.0}
    variants = json.dumps({name: {"recipe": "labels only"} for name in names})
    (folder / "two.yaml").write_text(f"extends: little\ncompare: own\nseeds: 1\nvariants: {variants}\n")
    experiment, results = experiments.load("two", folder), tmp_path / "reproduce"
    for name, error in names.items():
        store(Job(experiment, name, 0), results, figures={"errors, all": {"energy MAE, meV/atom": error}})
    text = write_tables([experiment], results, folder)
    assert "| painn | 1 | 4.0 |" in text
    assert "| painn, PITC | 1 | 3.0 (-25 %) |" in text


def test_spread_and_rules():
    assert spread([1.0, 3.0], 1, 2) == "2.0 ± 1.4"
    assert spread([2.0], 0, 1) == "2"
    assert spread([], 0, 1) == "–"
    assert spread([float("inf"), 1.0], 0, 2) == "infinite"
    assert failure_rules(Guards(contact=None, temperature_rise=None, temperature_jump=None)) == (
        "when energy or forces are not finite"
    )


def test_curves_of_seeds_are_averaged():
    first = {"x": [0, 1, 1, 4], "y": [1, 1, 0, 0]}
    second = {"x": [0, 4], "y": [1, 1]}
    grid, mean = mean_curve([first, second], points=5)
    assert grid.tolist() == [0, 1, 2, 3, 4]
    assert mean.tolist() == [1, 0.5, 0.5, 0.5, 0.5]


def test_frames_are_the_same_every_time():
    sizes = [3, 1, 2, 2, 5, 2, 4]
    structures = Structures.from_ase([Atoms(f"O{n}", positions=np.arange(3.0 * n).reshape(n, 3)) for n in sizes])
    smallest = choose_starts(structures, Starts(count=4))  # the single atom does not count
    assert smallest.sizes.tolist() == [2, 2, 2, 3]
    assert sorted(choose_starts(structures, Starts(count=9, atoms=3)).sizes.tolist()) == [2, 2, 2, 3]
    with pytest.raises(UserError, match="smallest structure has 2 atoms"):
        choose_starts(structures, Starts(atoms=1))
    assert subset(structures, 3).digest() == subset(structures, 3).digest()
    assert len(subset(structures, 3)) == 3
    assert subset(structures, 30) is structures


def test_clock_counts_every_session(tmp_path, monkeypatch):
    moments = iter([0.0, 1.0, 5.0, 7.0, 8.0, 100.0, 104.0])
    monkeypatch.setattr("benchmarks.reproduce.training.processor_seconds", lambda: next(moments))
    clock = Clock(tmp_path / "seconds.json")
    clock.note("stage teacher: eam, 9 parameters")
    clock.note("stage teacher: done")
    clock.note("read 5 structures")
    clock.note("stage finetune: painn")
    clock.stop()  # interrupted
    again = Clock(tmp_path / "seconds.json")
    again.note("stage finetune: done")
    assert again.seconds == {"teacher": 5.0, "finetune": 2 + 1 + 4}


def test_slug():
    assert slug("labels only, longer") == "labels-only-longer"


def test_missing_data_are_named(folder, tmp_path, capsys):
    command = ["run", "--data", str(tmp_path), "--experiments", str(folder), "--results", str(tmp_path / "r")]
    assert main(command) == 2
    assert "silica/train.xyz.xz" in capsys.readouterr().err


def test_frames_are_held_out_and_labels_withheld(folder, tmp_path):
    data = ROOT / "src" / "phystrain" / "datasets"
    (folder / "blind.yaml").write_text(
        "extends: little\ntests: {all: {file: silica/train.xyz.xz}}\nhold_out: 4\nwithhold: [forces]\n"
    )
    experiment = experiments.load("blind", folder)
    whole = read(data / "silica/train.xyz.xz").structures
    (file,) = material.training_files(experiment, data, tmp_path)
    seen, kept = read(file).structures, material.held_out("silica/train.xyz.xz", experiment, data)
    assert (len(kept), len(seen)) == (4, len(whole) - 4)
    assert sorted([*seen.energy, *kept.energy]) == sorted(whole.energy)
    assert not seen.labelled("forces").any()
    assert kept.labelled("forces").all()
    assert len(material.held_out("silica/test.xyz.xz", experiment, data)) == len(
        read(data / "silica/test.xyz.xz").structures
    )
    plain = experiments.load("little", folder)
    assert material.training_files(plain, data, tmp_path) == [str((data / "silica/train.xyz.xz").resolve())]
    assert "hold_out" not in plain.settings("labels only", 0)  # so that older results stay valid
    assert experiment.settings("labels only", 0)["hold_out"] == 4


def test_variants_start_from_models(folder, tmp_path, monkeypatch):
    (folder / "from.yaml").write_text(
        """extends: little
models:
  cheap:
    train: [silica/train.xyz.xz]
    labels: 4
    stages: [{name: cheap, objectives: {energy: , forces: }, steps: 2}]
variants:
  alone: {stages: [{name: finetune, objectives: {energy: }, steps: 2}]}
  from: {stages: [{name: finetune, init_from: "{cheap}", guide: "{cheap}", objectives: {energy: }, steps: 2}]}
"""
    )
    experiment = experiments.load("from", folder)
    assert experiment.models_of("alone") == {}
    assert "models" not in experiment.settings("alone", 0)
    assert experiment.settings("from", 0)["models"]["cheap"]["labels"] == 4
    trained = []

    def train(config, folder, times, say):
        trained.append((config.data.use, config.seed))
        return {"cheap": 3.0}

    monkeypatch.setattr("benchmarks.reproduce.material.train", train)
    data = ROOT / "src" / "phystrain" / "datasets"
    models = material.start_models(experiment, "from", 1, data=data, work=tmp_path, say=print)
    assert trained == [(4, 1)]
    file, seconds = models["cheap"]
    assert seconds == 3.0
    stages = material.with_models(experiment.variants["from"].stages, models)
    assert stages[0]["init_from"] == stages[0]["guide"] == str(file.resolve())
    assert material.start_models(experiment, "alone", 1, data=data, work=tmp_path, say=print) == {}


@pytest.mark.slow
def test_whole_run(folder, tmp_path):
    (folder / "little.yaml").write_text(EXPERIMENT.replace("seeds: 2", "seeds: 1"))
    results = tmp_path / "results"
    command = [sys.executable, "-m", "benchmarks.reproduce", "run", f"--experiments={folder}", f"--results={results}"]
    command += [f"--work={tmp_path / 'work'}", f"--data={ROOT / 'src' / 'phystrain' / 'datasets'}"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    logs = "\n".join(file.read_text() for file in (tmp_path / "work").glob("*/*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    experiment = experiments.load("little", folder)
    jobs = all_jobs([experiment])
    assert [job.state(results) for job in jobs] == ["done"] * 3
    found = {job.variant: job.load(results) for job in jobs}
    longer = found["labels only, equal time"]
    assert longer["steps"]["finetune"] > 6
    assert set(found["pretrained"]["seconds"]) == {"teacher", "pretrain", "finetune"}
    wanted = {"errors, all", "errors, again", "dimers", "compression", "survival", "heating"}
    for result in found.values():
        assert set(result["figures"]) == wanted
        assert "forces MAE hottest 25 %, meV/Å" in result["figures"]["errors, all"]
        assert set(result["curves"]["survival"]) == {"1000 K", "3000 K"}
        assert str(tmp_path) not in json.dumps(result)
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 0
    assert again.stdout == ""  # nothing left to do
    assert "| pretrained | 1 |" in write_tables([experiment], results)


def test_variants_can_be_left_out(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "{train: [a.xyz], labels: 4, potential: {kind: painn}, tests: {t: {file: b.xyz}}, "
        "variants: {labels only: {}, prior: {}}}"
    )
    (tmp_path / "short.yaml").write_text("extends: base\nleave_out: [prior]\n")
    assert list(experiments.load("short", tmp_path).variants) == ["labels only"]
    (tmp_path / "wrong.yaml").write_text("extends: base\nleave_out: [priors]\n")
    with pytest.raises(UserError, match="no variant 'priors'"):
        experiments.load("wrong", tmp_path)
    (tmp_path / "more.yaml").write_text("extends: short\nadd: {all physics: }\n")
    assert list(experiments.load("more", tmp_path).variants) == ["labels only", "all physics"]
    (tmp_path / "other.yaml").write_text("extends: more\nvariants: {prior: }\n")
    assert list(experiments.load("other", tmp_path).variants) == ["prior"]

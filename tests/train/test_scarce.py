"""Where labels are scarce: structures without any, energies alone, mixed files, guides, lower levels of theory."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from phystrain import config, datasets
from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.saving import load_model, read_state
from phystrain.train.guide import difference, guide_forces
from phystrain.train.loop import Interrupted, Training
from phystrain.train.run import Run

LABELS = {"energy": {}, "forces": {"weight": 10.0}}


def train(settings, folder, say=lambda line: None):
    return Run(config.check(settings), folder, say=say).train()


def rows(folder):
    return list(csv.DictReader((folder / "metrics.csv").open()))


def only(settings, **stage):
    """A run of one stage."""
    short = {"name": "only", "objectives": LABELS, "steps": 4, "batch_size": 2, "validate_every": 2}
    return settings | {"stages": [short | stage]}


def silica(count, forces=None, energy=None):
    """Frames with energies as they are or as given by a function, forces in the first ``forces`` of them."""
    frames = list(read(datasets.path("silica"), f":{count}"))
    for number, frame in enumerate(frames):
        labels = {"energy": frame.get_potential_energy() if energy is None else energy(frame)}
        if forces is None or number < forces:
            labels["forces"] = frame.get_forces()
        frame.calc = SinglePointCalculator(frame, **labels)
    return frames


@pytest.fixture
def frames_without_labels(tmp_path):
    frames = list(read(datasets.path("silica"), "6:11"))
    for frame in frames:
        frame.calc = None
    alone = frames[0][:1]
    alone.set_pbc(False)
    write(tmp_path / "more.xyz", [*frames, alone])
    return tmp_path / "more.xyz"


def test_structures_without_labels(settings, tmp_path, frames_without_labels):
    settings["data"]["unlabelled"] = str(frames_without_labels)
    lines = []
    settings = only(settings, unlabelled={"objectives": {"pitc": {"weight": 3.0}}, "ratio": 1.5})
    train(settings, tmp_path / "run", lines.append)
    assert any("5 unlabelled structures, 3 a step" in line for line in lines)
    assert all(float(row["train_unlabelled_pitc"]) > 0 for row in rows(tmp_path / "run"))
    assert "train_pitc" not in rows(tmp_path / "run")[0]
    frames = read(frames_without_labels, ":")
    frames[0].positions += 0.1 * np.eye(len(frames[0]), 3)
    write(frames_without_labels, frames)
    with pytest.raises(UserError, match="the unlabelled structures have changed"):
        train(settings, tmp_path / "run")


def test_structures_that_are_made_without_a_teacher(settings, tmp_path):
    made = {"augment": {"kind": "rattle", "amplitude": 0.1, "copies": 2}, "objectives": {"pisc": {"every": 2}}}
    lines = []
    train(only(settings, unlabelled=made), tmp_path / "run", lines.append)
    assert any("8 unlabelled structures, 2 a step" in line for line in lines)
    assert float(rows(tmp_path / "run")[-1]["train_unlabelled_pisc"]) > 0


def test_elements_that_nothing_labels(settings, tmp_path):
    write(tmp_path / "other.xyz", read(datasets.path("aspirin"), ":2"))
    settings["data"]["unlabelled"] = str(tmp_path / "other.xyz")
    with pytest.raises(UserError, match="in the unlabelled structures but in no training structure"):
        train(only(settings, unlabelled={"objectives": {"pitc": {}}}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("unlabelled", "message"),
    [
        ({"objectives": {"energy": {}}}, "objective 'energy' needs energy, which unlabelled structures lack"),
        ({"objectives": {}}, "not be empty"),
        ({"objectives": {"pitc": {}}}, "give data.unlabelled a file"),
        ({"objectives": {"pitc": {}}, "ratio": 1.0, "batch_size": 2}, "either batch_size or ratio"),
        ({"objectives": {"pitc": {}}, "augment": {"kind": "hot_md"}}, "runs dynamics of a teacher"),
        ({"objectives": {"forces": {"of": "guide"}}, "augment": {"kind": "rattle"}}, "give guide"),
        ({"objectives": {"pitc": {}}, "files": "x.xyz"}, "unknown field"),
    ],
)
def test_unlabelled_sections_that_make_no_sense(settings, unlabelled, message):
    with pytest.raises(UserError, match=message):
        config.check(only(settings, unlabelled=unlabelled))


def test_a_file_that_no_stage_uses_is_refused(settings):
    settings["data"]["unlabelled"] = "more.xyz"
    with pytest.raises(UserError, match="used by no stage"):
        config.check(settings)


def test_a_mixed_file_says_what_it_counts(settings, tmp_path):
    write(tmp_path / "mixed.xyz", silica(6, forces=3))
    settings["data"] = {"train": str(tmp_path / "mixed.xyz"), "valid_fraction": 0.0}
    lines = []
    train(only(settings, batch_size=1), tmp_path / "run", lines.append)
    assert any("6 structures (6 energies, 3 forces)" in line for line in lines)
    assert {bool(row["train_forces"]) for row in rows(tmp_path / "run")} <= {True, False}
    assert all(row["train_energy"] for row in rows(tmp_path / "run"))


def test_a_term_that_never_acted_leaves_its_column_empty(settings, tmp_path):
    train(only(settings, objectives={**LABELS, "pitc": {"warmup": 2}}), tmp_path / "run")
    assert [bool(row.get("train_pitc")) for row in rows(tmp_path / "run")] == [False, True]


def test_forces_of_a_guide(settings, tmp_path):
    """A stage of the run tells the slope between energies; the term is learnt."""
    write(tmp_path / "train.xyz", silica(4, forces=0))
    settings["data"] = {"train": str(tmp_path / "train.xyz"), "valid_fraction": 0.0}
    settings["stages"][0] |= {"objectives": {"energy": {}}, "steps": 2}
    taught = {"energy": {}, "slope": {"kind": "forces", "of": "guide", "weight": 10.0}}
    stage = {"name": "network", "objectives": taught, "guide": "teacher", "steps": 40, "batch_size": 4}
    stage |= {"validate_every": 10, "optimiser": {"learning_rate": 2e-2}}
    lines = []
    train(settings | {"stages": [settings["stages"][0], stage]}, tmp_path / "run", lines.append)
    found = [float(row["train_slope"]) for row in rows(tmp_path / "run") if row["stage"] == "network"]
    assert found[-1] < 0.9 * found[0]
    assert any("guide forces of 4 structures" in line for line in lines)


def test_a_committee_is_the_mean_of_its_members(lennard_jones):
    """Made of potentials; where one has no answer there is none."""
    structures = Structures.from_ase([bulk("Ar", a=5.3, cubic=True), bulk("Ar", a=5.6, cubic=True)])
    structures.positions[0] += 0.1
    other = type(lennard_jones)(epsilon=0.0309)
    members = {"one": lennard_jones, "other": other}
    one, two, mean = (
        guide_forces(structures, specs, lambda spec: (members[spec], True), progress=False)
        for specs in (["one"], ["other"], ["one", "other"])
    )
    assert np.abs(one).max() > 1e-3
    np.testing.assert_allclose(two, 3 * one, atol=1e-12)
    np.testing.assert_allclose(mean, 2 * one, atol=1e-12)
    assert difference(mean, structures) is None
    assert difference(mean, structures.with_labels(forces=one)) == pytest.approx(1.0)


def test_the_averaged_weights_as_guide(settings, tmp_path):
    write(tmp_path / "train.xyz", silica(4, forces=0))
    settings["data"] = {"train": str(tmp_path / "train.xyz"), "valid_fraction": 0.0}
    terms = {"energy": {}, "mean_teacher": {"kind": "forces", "of": "guide"}}
    train(only(settings, objectives=terms, guide="average"), tmp_path / "run")
    assert all(0 < float(row["train_mean_teacher"]) < 1 for row in rows(tmp_path / "run"))


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"guide": "gfn2-xtb"}, "no term of the loss uses the guide"),
        ({"objectives": {"forces": {"of": "guide"}}}, "give guide, such as"),
        ({"objectives": {"forces": {"of": "guide"}}, "guide": []}, "guide"),
        ({"objectives": {"forces": {"of": "guide"}}, "guide": ["average", "gfn2-xtb"]}, "stands alone"),
        ({"objectives": {"forces": {"of": "guide"}}, "guide": "average", "average": 0.0}, "set average above 0"),
        ({"objectives": {"forces": {"of": "guide"}}, "guide": "only"}, "no earlier stage"),
        ({"objectives": {"forces": {"of": "guides"}}, "guide": "only"}, "'labels' or 'guide'"),
    ],
)
def test_guides_that_make_no_sense(settings, stage, message):
    with pytest.raises(UserError, match=message):
        config.check(only(settings, **stage))


def test_a_guide_that_is_not_there_is_refused_before_training(settings, tmp_path):
    from phystrain.pipeline import run

    stage = {"objectives": {"energy": {}, "forces": {"of": "guide"}}, "guide": ["nowhere"]}
    with pytest.raises(UserError, match="guide: 'nowhere' is neither"):
        run(config.check(only(settings, **stage)), tmp_path / "run", say=lambda line: None)
    assert not (tmp_path / "run").exists()


def test_a_higher_level_of_theory_with_energies_alone(settings, tmp_path):
    """What a model has learnt stays: the first loss on other reference energies is that of the old labels."""
    settings["data"] = {"train": str(datasets.path("silica")), "use": 6, "valid_fraction": 0.34}
    train(only(settings, steps=60, optimiser={"learning_rate": 3e-3}), tmp_path / "low")
    last = float(rows(tmp_path / "low")[-1]["train_energy"])
    shift = {"Si": -7000.0, "O": -2000.0}
    higher = silica(6, 0, lambda f: f.get_potential_energy() + sum(shift[s] for s in f.get_chemical_symbols()))
    write(tmp_path / "high.xyz", higher)
    settings["data"] = {
        "train": str(tmp_path / "high.xyz"),
        "valid_fraction": 0.0,
        "reference_energies": {"Si": -7003.0, "O": -2001.0},
    }
    stage = {"objectives": {"energy": {}}, "init_from": str(tmp_path / "low"), "batch_size": 6, "validate_every": 1}
    lines = []
    train(only(settings, **stage), tmp_path / "high", lines.append)
    assert float(rows(tmp_path / "high")[0]["train_energy"]) < max(2 * last, 1e-3)
    assert any("to meet the labels" in line for line in lines)
    assert load_model(tmp_path / "high").potential.terms["reference"].energies.min() < -6000


@pytest.fixture
def everything(settings, frames_without_labels):
    """A run with all of it: lazy terms, unlabelled structures, a guide, automatic weights."""
    settings["data"]["unlabelled"] = str(frames_without_labels)
    settings["stages"][2] |= {
        "guide": "teacher",
        "objectives": {
            **LABELS,
            "guided": {"kind": "forces", "of": "guide", "weight": 0.1, "ramp": 4},
            "pitc": {"weight": "auto", "every": 2},
            "pisc": {"part": 0.5, "warmup": 3},
        },
        "unlabelled": {
            "augment": {"kind": "rattle", "amplitude": 0.05, "copies": 1},
            "objectives": {"pitc": {"weight": "auto"}, "forces": {"of": "guide", "every": 3}},
            "batch_size": 3,
        },
        "balance": {"every": 3},
    }
    return settings


def weights(path):
    return read_state(path)[0]


@pytest.mark.parametrize("stop_at", [16, 19])  # before and after a measurement of the weights
def test_a_stopped_run_with_all_of_it_resumes_bit_for_bit(everything, tmp_path, monkeypatch, stop_at):
    whole = weights(train(everything, tmp_path / "whole"))
    count = 0
    one_step = Training._one_step

    def counted(self):
        nonlocal count
        count += 1
        if count == stop_at:
            self._should_stop = lambda: True
        return one_step(self)

    monkeypatch.setattr(Training, "_one_step", counted)
    with pytest.raises(Interrupted):
        train(everything, tmp_path / "cut")
    monkeypatch.setattr(Training, "_one_step", one_step)
    resumed = weights(train(everything, tmp_path / "cut"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    one, two = (rows(tmp_path / name) for name in ("whole", "cut"))
    assert [row | {"seconds": ""} for row in one] == [row | {"seconds": ""} for row in two]
    last = one[-1]
    assert all(float(last[name]) > 0 for name in ("weight_pitc", "weight_unlabelled_pitc", "train_unlabelled_forces"))


def test_two_processes_train_as_one(everything, tmp_path):
    everything["precision"] = "float64"
    found = []
    for processes in (1, 2):
        file = tmp_path / f"{processes}.yaml"
        file.write_text(yaml.safe_dump(everything | {"processes": processes, "device": "cpu"}))
        command = [sys.executable, "-m", "phystrain.cli", "train", file, "--output", tmp_path / str(processes)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        folder = tmp_path / str(processes)
        found.append((weights(folder / "model" / "model.safetensors"), rows(folder)[-1]))
    (one, first), (two, second) = found
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-6, atol=1e-9, msg=name)
    assert float(first["weight_pitc"]) == pytest.approx(float(second["weight_pitc"]), rel=1e-6)

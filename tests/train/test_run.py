import csv
import json

import numpy as np
import pytest
import torch
import yaml
from ase.io import read, write

from phystrain import config, datasets
from phystrain.errors import UserError
from phystrain.saving import load_model, read_state
from phystrain.train.loop import Interrupted, Training
from phystrain.train.made import soften
from phystrain.train.run import Run


def train(run_config, folder, **options):
    return Run(run_config, folder, say=lambda line: None, **options).train()


def weights(path):
    return read_state(path)[0]


def test_the_whole_road(run_config, tmp_path):
    model = train(run_config, tmp_path / "run")
    saved = load_model(tmp_path / "run")
    assert saved.path == model
    assert {14, 8} == set(saved.statistics.species)
    names = {path.name for path in (tmp_path / "run" / "model").iterdir()}
    assert names == {"teacher.safetensors", "pretrain.safetensors", "finetune.safetensors", "model.safetensors"}
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    finetune = [row for row in rows if row["stage"] == "finetune"]
    assert [int(row["step"]) for row in finetune] == [4, 8, 12]
    assert all(float(row["valid_forces_mae"]) > 0 and float(row["train_replay_forces"]) > 0 for row in finetune)
    record = json.loads((tmp_path / "run" / "data.json").read_text())
    assert len(record["indices"]["train"]) == 4
    assert not set(record["indices"]["train"]) & set(record["indices"]["valid"])
    assert config.load(tmp_path / "run" / "config.yaml") == run_config


def test_same_seed_same_result_and_another_seed_another(run_config, tmp_path):
    first, second = (weights(train(run_config, tmp_path / name)) for name in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = weights(train(run_config.model_copy(update={"seed": 1}), tmp_path / "c"))
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("stop_at", [3, 9, 15, 21, 25])
def test_a_stopped_run_resumes_bit_for_bit(run_config, tmp_path, monkeypatch, stop_at):
    whole = weights(train(run_config, tmp_path / "whole"))
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
        train(run_config, tmp_path / "cut")
    monkeypatch.setattr(Training, "_one_step", one_step)
    resumed = weights(train(run_config, tmp_path / "cut"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    metrics = [
        [
            {k: v for k, v in row.items() if k != "seconds"}
            for row in csv.DictReader((tmp_path / n / "metrics.csv").open())
        ]
        for n in ("whole", "cut")
    ]
    assert metrics[0] == metrics[1]


def test_other_settings_in_the_same_folder_are_refused(run_config, tmp_path):
    train(run_config, tmp_path / "run")
    other = run_config.model_copy(update={"seed": 5})
    with pytest.raises(UserError, match="other settings"):
        train(other, tmp_path / "run")
    train(other, tmp_path / "run", restart=True)


def test_a_run_begun_by_an_earlier_version_goes_on(run_config, tmp_path):
    train(run_config, tmp_path / "run")
    file = tmp_path / "run" / "config.yaml"
    recorded = yaml.safe_load(file.read_text())
    for stage in recorded["stages"]:
        del stage["snapshots"], stage["compiled"]
    file.write_text(yaml.safe_dump(recorded))
    assert train(run_config, tmp_path / "run") == tmp_path / "run" / "model" / "model.safetensors"
    recorded["stages"][0]["snapshots"] = 2
    file.write_text(yaml.safe_dump(recorded))
    with pytest.raises(UserError, match=r"stages\.0\.snapshots differs"):
        train(run_config, tmp_path / "run")


def test_a_folder_of_something_else_is_left_alone(run_config, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="holds no run"):
        train(run_config, tmp_path / "mine", restart=True)
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_labels_of_an_ase_calculator(settings, tmp_path):
    teacher = {"calculator": "ase.calculators.lj:LennardJones", "sigma": 2.0, "epsilon": 0.1, "rc": 4.0}
    settings["stages"] = settings["stages"][1:]
    settings["stages"][0]["data"]["label_by"] = teacher
    train(config.check(settings), tmp_path / "run")


def test_a_split_that_the_file_names(settings, tmp_path):
    frames = list(read(datasets.path("silica"), ":6"))
    for frame, part in zip(frames, ["train", "test", "train", "valid", "train", "test"], strict=True):
        frame.info["part"] = part
    write(tmp_path / "data.xyz", frames)
    settings["data"] = {"train": str(tmp_path / "data.xyz"), "split_key": "part"}
    settings["stages"] = settings["stages"][:1]
    run = Run(config.check(settings), tmp_path / "run", say=lambda line: None)
    run.train()
    assert run.labelled.indices == {"train": [0, 2, 4], "valid": [3], "test": [1, 5]}
    assert len(run.labelled.test) == 2


def test_early_stopping_ends_a_stage(settings, tmp_path):
    settings["stages"] = [
        settings["stages"][0] | {"steps": 400, "validate_every": 1, "early_stopping": {"patience": 3}}
    ]
    settings["stages"][0]["optimiser"] = {"learning_rate": 1e-9}
    settings["stages"][0]["early_stopping"]["minimum_gain"] = 0.01
    train(config.check(settings), tmp_path / "run")
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert len(rows) == 4


def test_training_lowers_the_error(settings, tmp_path):
    settings["stages"] = [settings["stages"][2] | {"steps": 80, "init_from": None, "replay": None}]
    train(config.check(settings), tmp_path / "run")
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert float(rows[-1]["valid_forces_mae"]) < 0.8 * float(rows[0]["valid_forces_mae"])


def test_energies_alone(settings, tmp_path):
    stage = {"name": "energies", "objectives": {"energy": {}, "pitc": {}}, "steps": 3}
    settings["stages"] = [stage]
    train(config.check(settings), tmp_path / "run")


def test_an_objective_without_labels_is_refused_before_training(settings, tmp_path):
    settings["stages"][2]["objectives"]["stress"] = {}
    with pytest.raises(UserError, match=r"objective 'stress' needs stress"):
        train(config.check(settings), tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()


def test_weights_of_another_potential_are_refused(settings, tmp_path):
    settings["stages"][1]["potential"] = {"kind": "painn", "channels": 4, "layers": 1, "cutoff": 3.5}
    with pytest.raises(UserError, match="belong to another potential"):
        train(config.check(settings), tmp_path / "run")


def test_changed_data_are_not_taken_for_the_old_ones(settings, tmp_path):
    frames = list(read(datasets.path("silica"), ":6"))
    write(tmp_path / "data.xyz", frames)
    settings["data"] = {"train": str(tmp_path / "data.xyz"), "valid_fraction": 0.34}
    settings["stages"] = settings["stages"][:1]
    train(config.check(settings), tmp_path / "run")
    frames[0].positions[0, 0] += 0.01
    write(tmp_path / "data.xyz", frames)
    with pytest.raises(UserError, match="have changed"):
        train(config.check(settings), tmp_path / "run")


def test_a_stage_that_nothing_can_select_is_refused(settings, tmp_path):
    frames = list(read(datasets.path("silica"), ":6"))
    write(tmp_path / "data.xyz", frames)
    for frame in frames:
        frame.calc.results.pop("forces")
    write(tmp_path / "valid.xyz", frames[:2])
    settings["data"] = {"train": str(tmp_path / "data.xyz"), "valid": str(tmp_path / "valid.xyz")}
    with pytest.raises(UserError, match="needs forces, which no structure of the validation structures has"):
        train(config.check(settings), tmp_path / "run")


def test_unlabelled_structures_are_never_kept_back(settings, tmp_path):
    frames = list(read(datasets.path("silica"), ":6"))
    for frame in frames[2:]:
        frame.calc = None
    write(tmp_path / "data.xyz", frames)
    settings["data"] = {"train": str(tmp_path / "data.xyz"), "valid_fraction": 0.2}
    run = Run(config.check(settings), tmp_path / "run", say=lambda line: None)
    assert run.labelled.valid.labelled("energy").all()
    assert len(run.labelled.train) == 5


def test_steep_structures_count_relatively():
    from phystrain.data.read import read as read_labelled

    structures = read_labelled(datasets.path("silica")).structures.select([0, 1])
    steep = structures.with_labels(
        structures.energy, structures.forces * np.where(structures.system == 0, 1, 100)[:, None]
    )
    softened = soften(steep, 50.0)
    largest = [np.linalg.norm(part, axis=1).max() for part in np.split(steep.forces, structures.offsets[1:-1])]
    assert largest[0] < 50 < largest[1]
    np.testing.assert_allclose(softened.weight, [1.0, (50 / largest[1]) ** 2])


def test_every_weak_loss_trains(settings, tmp_path):
    """From a run file: anchors, an adversary, antithetic steps, strains with their stress, jitter that is validated."""
    terms = {
        "energy": {},
        "forces": {"weight": 10.0},
        "taylor": {"kind": "pitc", "anchor": "label"},
        "adversary": {"kind": "pitc", "distribution": "adversarial_force"},
        "pisc": {"case": "A11"},
        "antithetic": {"anchor": "auto"},
        "strain_consistency": {},
        "jitter": {"quantity": "forces"},
    }
    settings["stages"] = [{"name": "one", "objectives": terms, "steps": 3, "batch_size": 2, "validate_every": 3}]
    train(config.check(settings), tmp_path / "run")
    row = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))[-1]
    assert all(float(row[f"train_{name}"]) > 0 for name in terms)


def test_denoising_trains(settings, tmp_path):
    """Before the labels and beside them; the model that is saved predicts as any other."""
    settings["potential"]["denoise"] = True
    short = {"energy": {}, "forces": {"weight": 10.0}}
    common = {"batch_size": 2, "steps": 4, "validate_every": 4}
    settings["stages"] = [
        {"name": "first", "objectives": {"denoise": {"encode": False, "energy_weight": 0}}, **common},
        {"name": "second", "init_from": "first", "objectives": {**short, "denoise": {"part": 0.7}}, **common},
    ]
    train(config.check(settings), tmp_path / "run")
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert [row["stage"] for row in rows] == ["first", "second"]
    assert all(float(row["train_denoise"]) > 0 for row in rows)
    assert load_model(tmp_path / "run").potential.denoises


def test_an_adversary_without_labels_is_refused(settings, tmp_path):
    """It would be random without saying so."""
    frames = list(read(datasets.path("silica"), ":6"))
    for frame in frames:
        frame.calc.results.pop("forces", None)
    write(tmp_path / "energies.xyz", frames)
    terms = {"energy": {}, "pitc": {"distribution": "adversarial_force"}}
    settings["data"] = {"train": str(tmp_path / "energies.xyz"), "valid_fraction": 0.34}
    settings["stages"] = [{"name": "one", "objectives": terms, "steps": 2}]
    with pytest.raises(UserError, match="objective 'pitc' needs forces"):
        train(config.check(settings), tmp_path / "run")

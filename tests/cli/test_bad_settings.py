"""Run files with mistakes, and folders that hold another run: exit code 2 and nothing half-written."""

import pytest
import torch

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4


MISSPELT = {
    "potential.kind=pain": "unknown kind 'pain': did you mean 'painn'?",
    "potental.channels=8": "unknown field 'potental': did you mean 'potential'?",
    "potential.chanels=8": "unknown field 'potential.chanels': did you mean 'channels'?",
    "stages.finetune.stepz=8": "unknown field 'stages.finetune.stepz': did you mean 'steps'?",
    "stages.0.stepz=8": "unknown field 'stages.finetune.stepz': did you mean 'steps'?",
    "stages.fintune.steps=8": "did you mean 'finetune'?",
    "stages.finetune.objectives.pitc.displacment=0.1": (
        "unknown field 'stages.finetune.objectives.pitc.displacment': did you mean 'displacement'?"
    ),
    "stages.finetune.objectives.pict={}": "unknown kind 'pict': did you mean 'pitc'?",
    "stages.finetune.optimiser.learnin_rate=1": "did you mean 'learning_rate'?",
    "stages.finetune.metric=force_mae": "did you mean 'forces_mae'?",
    "stages.finetune.init_from=fintune": "did you mean 'finetune'?",
    "data.trian=x": "unknown field 'data.trian': did you mean 'train'?",
    "data.keys.enrgy=x": "unknown field 'data.keys.enrgy': did you mean 'energy'?",
    "reliability.replica=3": "unknown field 'reliability.replica': did you mean 'replicas'?",
    "reliability.tests.survivl={}": "unknown kind 'survivl': did you mean 'survival'?",
    "reliability.tests.survival.replica=2": "'reliability.tests.survival.replica': did you mean 'replicas'?",
    "stages.finetune.data={augment: {kind: ratle}, label_by: finetune}": "unknown kind 'ratle': did you mean 'rattle'?",
    "stages.finetune.data={augment: [{kind: ratle}], label_by: finetune}": "unknown kind 'ratle': did you mean 'ra",
}

WRONG = {
    "potential.channels": "has no '='",
    "=3": "has no field before the '='",
    "potential.channels=[": "not valid YAML",
    "seed.x=3": "seed should be a whole number",
    "potential=painn": "potential should be a group of settings, got 'painn'",
    "potential.channels=many": "potential.channels should be a whole number, got 'many'",
    "potential.channels=0": "potential.channels should be greater than or equal to 2, got 0",
    "stages=3": "stages should be a list",
    "stages=[]": "stages should not be empty",
    "stages.9.steps=3": "choose from finetune",
    "stages.finetune.epochs=3": "stages.finetune: give either epochs or steps",
    "stages.finetune.optimiser.schedule=cosin": "should be 'cosine', 'constant' or 'plateau', got 'cosin'",
    "stages.finetune.optimiser.learning_rate=.inf": "should be a finite number",
    "stages.finetune.replay={stage: x}": "stages.finetune.replay.stage: 'x' is no earlier stage",
    "stages.finetune.init_from=finetune": "'finetune' is no earlier stage; there is none before it",
    "stages.finetune.init_from=nosuch": "neither an earlier stage nor a model file or run folder",
    "stages.finetune.data={augment: {kind: rattle}, label_by: nosuch}": "neither an earlier stage nor a model file",
    "stages.finetune.data={augment: {kind: rattle}, label_by: 'nosuch.module:Thing'}": "cannot import nosuch.module",
    "data.reference_energies=ft": "data.reference_energies should be 'auto', 'isolated', 'fit' or 'zero', got 'ft'",
    "data.reference_energies={Si: x}": "data.reference_energies.Si should be a number, got 'x'",
    "data.reference_energies={Xx: 3}": "'Xx' is no element",
    "data.reference_energies={Si: 3}": "names no energy of O",
    "data.group_by=config": "no structure has 'config' to group by",
    "reliability.temperatures=[]": "reliability.temperatures should not be empty",
    "reliability.temperatures=[-3]": "should be greater than 0, got -3",
    "reliability={}": "reliability: {temperatures: [300]}",
    "precision=float16": "precision should be 'float32' or 'float64', got 'float16'",
    "device=gpu": "device should be 'auto', 'cpu' or 'cuda', got 'gpu'",
}


@pytest.mark.parametrize("override", [*MISSPELT, *WRONG])
def test_a_wrong_setting(refuse, run_file, tmp_path, override):
    refuse("train", run_file, "--output", "new", override, words=(MISSPELT | WRONG)[override])
    assert not (tmp_path / "new").exists()


def test_several_wrong_settings_are_counted(refuse, run_file):
    refuse("train", run_file, "--output", "new", "data.trian=x", "sead=3", "potential.channels=x", words="(and 2 more)")


def test_the_same_mistake_in_the_file_itself(refuse, run_file, tmp_path):
    run_file.write_text(run_file.read_text().replace("channels:", "chanels:"))
    refuse("train", run_file, words=("run.yaml", "did you mean 'channels'?"))
    assert not (tmp_path / "runs").exists()


NO_RUN_FILES = {
    "nosuch.yaml": (None, "'phystrain init DATA' writes one"),
    "list.yaml": (b"- 1\n", "does not hold settings"),
    "empty.yaml": (b"", "does not hold settings"),
    "broken.yaml": (b"potential: [1\n", "line 2: not valid YAML"),
    "binary.yaml": (PNG, "not a text file"),
}


@pytest.mark.parametrize("name", NO_RUN_FILES)
def test_no_run_file(refuse, tmp_path, name):
    content, words = NO_RUN_FILES[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    refuse("train", name, words=(name, words))
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there(refuse, run_file, tmp_path):
    refuse("train", run_file, "--output", "new", "device=cuda", words=("device=auto", "device=cpu"))
    assert not (tmp_path / "new").exists()


def test_errors_asked_for_without_held_out_structures(refuse, run_file, tmp_path):
    refuse(
        "train", run_file, "--output", "new", "data.valid_fraction=0", "reliability={tests: {errors: {}}}",
        words=("needs held-out structures", "data.valid_fraction"),
    )  # fmt: skip
    assert not (tmp_path / "new").exists()


def test_training_that_leads_nowhere(refuse, run_file, tmp_path):
    refuse("train", run_file, "--output", "new", "potential.channels=100000000", words=("out of memory", "Lower"))
    explosive = ["stages.finetune.optimiser={learning_rate: 1.0e+30, clip: null}", "stages.finetune.steps=9"]
    refuse("train", run_file, "--output", "new", *explosive, words=("not finite at step", "Lower its learning_rate"))
    assert not (tmp_path / "new").exists()


def test_a_run_folder_with_other_settings(refuse, call, run_file, tmp_path, files_below):
    assert call("train", run_file, "--output", "new").code == 0
    before = files_below(tmp_path / "new")
    refuse("train", run_file, "--output", "new", "potential.channels=8", words=("other settings", "--restart"))
    for command in (["evaluate", "new", "good.xyz"], ["audit", "new"], ["compare", "new"]):
        refuse(*command, "--output", "new", words=("a run folder", "another --output"))
    assert files_below(tmp_path / "new") == before


def test_settings_that_were_mended_are_taken(refuse, call, run_file, tmp_path):
    refuse("train", run_file, "data.train=goood.xyz", words="no such file")
    assert call("train", run_file).code == 0
    assert (tmp_path / "runs" / "run" / "model" / "model.safetensors").is_file()


def test_a_folder_of_something_else(refuse, run_file, tmp_path, files_below):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("x")
    before = files_below(tmp_path)
    refuse("train", run_file, "--output", "thesis", words=("holds no run", "another --output"))
    refuse("train", run_file, "--output", "good.xyz", words=("holds no run", "another --output"))
    for command in ("info", "evaluate", "audit"):
        more = ["good.xyz"] if command == "evaluate" else []
        refuse(command, "thesis", *more, words=("no run folder", "phystrain train"))
    refuse("compare", "thesis", words=("no results.json", "finished"))
    assert files_below(tmp_path) == before

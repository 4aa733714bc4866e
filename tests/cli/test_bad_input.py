"""What a person can do wrong: exit code 2, a line or two that name the mend, and nothing half-written."""

import contextlib
import errno
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from phystrain import files
from phystrain.data.write import write
from phystrain.saving import load_model, read_state, write_state
from phystrain.train.loop import Training

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4
HYDRIDE = """2
Lattice="6 0 0 0 6 0 0 0 6" Properties=species:S:1:pos:R:3:forces:R:3 energy=-1
N 0 0 0 0 0 0
H 1 0 0 0 0 0
"""


def files_below(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def bent(data, old, new):
    """``data`` with a piece of its text replaced once."""
    text = data.read_text()
    assert old in text
    path = data.with_name("bent.xyz")
    path.write_text(text.replace(old, new, 1))
    return path


# ---- files of structures

NOT_STRUCTURES = {
    "empty.xyz": (b"", "is empty"),
    "picture.xyz": (PNG, "not a text file"),
    "picture.png": (PNG, "extended XYZ"),
    "notes.xyz": (b"dear diary\ntoday\n", "not an XYZ file"),
    "notes.txt": (b"dear diary\ntoday\n", "extended XYZ"),
    "binary": (bytes(range(256)), "extended XYZ"),
}


@pytest.mark.parametrize("name", NOT_STRUCTURES)
@pytest.mark.parametrize("command", ["check", "init", "fit", "train"])
def test_a_file_that_holds_no_structures(refuse, run_file, tmp_path, command, name):
    content, words = NOT_STRUCTURES[name]
    (tmp_path / name).write_bytes(content)
    before = files_below(tmp_path)
    arguments = {
        "check": [name],
        "init": [name, "--output", "new.yaml"],
        "fit": [name, "--output", "new"],
        "train": [run_file, "--output", "new", f"data.train={name}"],
    }
    refuse(command, *arguments[command], words=(name, words))
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("command", ["check", "init", "train", "evaluate", "md", "augment"])
def test_no_such_file(refuse, run_file, model, tmp_path, command):
    before = files_below(tmp_path)
    arguments = {
        "check": ["goood.xyz"],
        "init": ["goood.xyz", "--output", "new.yaml"],
        "train": [run_file, "--output", "new", "data.train=goood.xyz"],
        "evaluate": [model, "goood.xyz", "--output", "new"],
        "md": [model, "goood.xyz", "--temperature", "300"],
        "augment": ["goood.xyz", "--teacher", model],
    }
    refuse(command, *arguments[command], words=("no such file", "did you mean 'good.xyz'?"))
    assert files_below(tmp_path) == before


BROKEN_FRAMES = {
    "not-a-number energy": ("REF_energy=-7.804", "REF_energy=nan", "frame 0", "REF_energy holds nan"),
    "forces of two columns": ("REF_forces:R:3", "REF_forces:R:2", "frame 0", "have 2 columns where three are needed"),
    "a line that is cut": (None, None, "frame 7", "cut"),
    "positions that are words": ("\nSi 0.0 0.0 0.0", "\nSi 0.0 here 0.0", "frame 0", "which is no number"),
    "an unknown element": ("\nSi ", "\nSl ", "frame 0", "unknown element 'Sl'"),
}


@pytest.mark.parametrize("what", BROKEN_FRAMES)
def test_a_broken_frame(refuse, run_file, data, tmp_path, what):
    old, new, *words = BROKEN_FRAMES[what]
    path = data.with_name("bent.xyz")
    path.write_text(data.read_text()[:-40]) if old is None else bent(data, old, new)
    refuse("train", run_file, "--output", "new", "data.train=bent.xyz", words=("bent.xyz", *words))
    assert not (tmp_path / "new").exists()
    refuse("check", path, words=("bent.xyz", *words))


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("column", [1, 4])
def test_values_that_are_not_finite(refuse, run_file, data, tmp_path, value, column):
    lines = data.read_text().splitlines()
    words = lines[6].split()
    lines[6] = " ".join([*words[:column], value, *words[column + 1 :]])
    (tmp_path / "bent.xyz").write_text("\n".join(lines) + "\n")
    name = "positions" if column < 4 else "REF_forces"
    refuse(
        "train", run_file, "--output", "new", "data.train=bent.xyz",
        words=("frame 1", f"{name} of atom 0 holds {value}"),
    )  # fmt: skip
    assert not (tmp_path / "new").exists()


def test_coincident_atoms_are_refused(refuse, run_file, data, tmp_path):
    structures = _moved(data, 3, [0.0, 0.0, 0.0])
    write(structures, tmp_path / "bent.xyz")
    refuse("train", run_file, "--output", "new", "data.train=bent.xyz", words=("frame 3", "atoms 0 and 1", "remove it"))
    assert not (tmp_path / "new").exists()


def test_close_atoms_are_remarked_upon(call, run_file, data, tmp_path):
    write(_moved(data, 3, [0.4, 0.0, 0.0]), tmp_path / "bent.xyz")
    outcome = call("train", run_file, "--output", "new", "data.train=bent.xyz")
    assert outcome.code == 0, outcome
    assert "nearest: frame 3" in outcome.out
    assert "atoms 0 and 1 (Si, O) are 0.4 Å apart" in outcome.out
    assert (tmp_path / "new" / "model" / "model.safetensors").is_file()


def _moved(data, index, position):
    from phystrain.data.read import read

    structures = read(data).structures
    structures.positions[structures.offsets[index] + 1] = structures.positions[structures.offsets[index]] + position
    return structures


# ---- labels


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("init", ["good.xyz", "--output", "new.yaml", "--energy", "REF_enrgy"]),
        ("check", ["good.xyz", "--energy", "REF_enrgy"]),
        ("train", ["run.yaml", "--output", "new", "data.keys.energy=REF_enrgy"]),
        ("fit", ["good.xyz", "--output", "new", "--energy", "REF_enrgy"]),
        ("evaluate", ["model.safetensors", "good.xyz", "--output", "new", "--energy", "REF_enrgy"]),
    ],
)
def test_a_label_key_that_is_not_there(refuse, run_file, model, tmp_path, command, arguments):
    refuse(command, *arguments, words=("no frame has 'REF_enrgy'", "did you mean 'REF_energy'? In the file:"))
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "new.yaml").exists()


@pytest.mark.parametrize("objective", ["stress", "forces"])
def test_an_objective_without_labels(refuse, run_file, data, tmp_path, objective):
    from phystrain.data.read import read

    structures = read(data).structures
    write(structures.with_labels(energy=structures.energy), tmp_path / "energies.xyz")
    refuse(
        "train", run_file, "--output", "new", "data.train=energies.xyz",
        "stages.finetune.objectives={energy: {}, " + objective + ": {}}",
        words=(f"objective '{objective}' needs {objective}", "Remove the objective", f"data.keys.{objective}"),
    )  # fmt: skip
    assert not (tmp_path / "new").exists()


def test_nothing_to_compare_with(refuse, model, data, tmp_path):
    from phystrain.data.read import read

    write(read(data).structures.without_labels(), tmp_path / "bare.xyz")
    refuse("evaluate", model, "bare.xyz", "--output", "new", words=("neither energies nor forces", "--energy"))
    refuse("init", "bare.xyz", "--output", "new", words=("0 structures with energies", "--energy"))
    assert not (tmp_path / "new").exists()


def test_nothing_but_isolated_atoms(refuse, tmp_path):
    (tmp_path / "atoms.xyz").write_text("1\nenergy=-1\nSi 0 0 0\n1\nenergy=-2\nO 0 0 0\n")
    refuse("init", "atoms.xyz", "--output", "new", words="0 structures with energies besides isolated atoms")


def test_more_structures_than_there_are(refuse, run_file, tmp_path):
    refuse("train", run_file, "--output", "new", "data.use=1000", words=("data.use is 1000", "only 8", "lower it"))
    assert not (tmp_path / "new").exists()


def test_a_test_file_with_another_element(refuse, run_file, data, tmp_path):
    (tmp_path / "nh.xyz").write_text(HYDRIDE)
    refuse("train", run_file, "--output", "new", "data.test=nh.xyz", words=("is in the test structures", "leave"))
    refuse("init", data, "--test", "nh.xyz", "--output", "new", words=("is in the test structures", "leave"))
    assert not (tmp_path / "new").exists()


# ---- run files

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


# ---- run folders


def test_a_run_folder_with_other_settings(refuse, call, run_file, tmp_path):
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


def test_a_folder_of_something_else(refuse, run_file, tmp_path):
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


# ---- model files


def test_a_damaged_model(refuse, model, data, tmp_path):
    content = model.read_bytes()
    random = np.random.default_rng(0).bytes(len(content))
    for damaged in (b"", content[:50], content[:-100], random, content[:4] + b"\xff" * 8 + content[12:], PNG):
        model.write_bytes(damaged)
        for command in (["info", model], ["evaluate", model, data], ["md", model, data, "--temperature", "300"]):
            refuse(*command, words=("model.safetensors", "damaged", "Use another copy"))
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "good.xyz"}


def _renamed_kind(header):
    header["config"]["terms"]["model"]["kind"] = "quantumnet"


def _newer_field(header):
    header["config"]["terms"]["model"]["novel"] = 1
    header["version"] = "99.0"


HEADERS = {
    "newer": (lambda header: header.update(format=99), ("has format 99", "upgrade phystrain")),
    "older than any": (lambda header: header.update(format=0), ("format 0", "Use another copy")),
    "no number": (lambda header: header.update(format="x"), ("format x", "Use another copy")),
    "checkpoint": (lambda header: header.update(type="checkpoint"), ("training checkpoint", "give the run folder")),
    "unknown kind": (_renamed_kind, ("use another copy", "'quantumnet'")),
    "field of a newer version": (_newer_field, ("written by phystrain 99.0", "use that version", "novel")),
    "no statistics": (lambda header: header.update(statistics=None), ("is damaged", "use another copy")),
    "no settings": (lambda header: header.update(config=3), ("is damaged", "use another copy")),
    "no provenance": (lambda header: header.update(meta=3), ("is damaged", "use another copy")),
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_model_with_another_header(refuse, model, data, what):
    change, words = HEADERS[what]
    tensors, header = read_state(model)
    header = json.loads(json.dumps(header))
    change(header)
    write_state(model, tensors, header)
    refuse("info", model, words=("model.safetensors", *words))
    refuse("augment", data, "--teacher", model, words=("model.safetensors", *words))


def test_a_model_without_some_of_its_weights(refuse, model):
    tensors, header = read_state(model)
    tensors.pop(next(name for name in tensors if name.startswith("terms.model")))
    write_state(model, tensors, header)
    refuse("info", model, words=("is damaged", "use another copy", "Missing key"))


def test_a_foreign_safetensors_file(refuse, tmp_path):
    save_file({"w": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    refuse("info", "foreign.safetensors", words=("not written by phystrain", "phystrain train"))
    save_file({"w": torch.zeros(3)}, tmp_path / "odd.safetensors", metadata={"phystrain": "[1, 2]"})
    refuse("info", "odd.safetensors", words=("damaged", "Use another copy"))


def test_a_checkpoint_of_training(refuse, call, run_file, tmp_path, monkeypatch):
    monkeypatch.setattr(Training, "_finished_early", _stop_after(1))
    assert call("train", run_file, "--output", "new").code == 130
    refuse("info", "new/checkpoints/last.safetensors", words=("training checkpoint", "give the run folder"))
    refuse("info", "new", words=("not finished", "phystrain train"))
    refuse("compare", "new", words="results.json")


def _stop_after(steps):
    """In place of ``_finished_early``: asks to stop once so many steps have been made."""

    def asked(self):
        self._should_stop = lambda: self.step >= steps
        return False

    return asked


@pytest.mark.parametrize("command", ["evaluate", "md", "audit", "augment"])
def test_an_element_that_the_model_never_saw(refuse, model, tmp_path, command):
    (tmp_path / "nh.xyz").write_text(HYDRIDE)
    arguments = {
        "evaluate": [model, "nh.xyz", "--output", "new"],
        "md": [model, "nh.xyz", "--temperature", "300", "--output", "new.xyz"],
        "audit": [model, "--start", "nh.xyz", "--temperature", "300", "--output", "new"],
        "augment": ["nh.xyz", "--teacher", model, "--output", "new.xyz"],
    }
    refuse(command, *arguments[command], words=("the potential knows O, Si, not H, N", "Train it on data with H, N"))
    assert not list(tmp_path.glob("new*"))


# ---- arguments


def test_audit_does_not_guess_the_temperature(refuse, model, data, tmp_path):
    words = ("temperature of the data", "not known", "--temperature 300")
    refuse("audit", model, "--start", data, "--output", "new", words=words)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--temperature", "-3"], "temperature should be greater than or equal to 0, got -3"),
        (["--temperature", "hot"], "hot"),
        (["--temperature", "300", "--ensemble", "npt"], "ensemble should be 'nvt' or 'nve', got 'npt'"),
        (["--temperature", "300", "--timestep", "0"], "timestep should be greater than 0"),
        (["--temperature", "300", "--picoseconds", "-1"], "picoseconds should be greater than 0"),
        (["--temperature", "300", "--replicas", "0"], "replicas should be 1 or more"),
        (["--temperature", "300", "--every", "0"], "every should be 1 or more"),
        (["--temperature", "300", "--output", "new.traj"], "let the name end in .xyz"),
        (["--temperature", "300", "--output", "good.xyz"], "is the file to read"),
        ([], "--temperature"),
    ],
)
def test_dynamics_that_cannot_be(refuse, model, data, tmp_path, arguments, words):
    before = files_below(tmp_path)
    refuse("md", model, data, *arguments, words=words)
    assert files_below(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--temperature", "-3"], "should be greater than 0, got -3"),
        (["--minutes", "0"], "minutes should be greater than 0"),
        (["--timestep", "0"], "timestep should be greater than 0"),
        (["--replicas", "0"], "replicas should be greater than 0"),
    ],
)
def test_audits_that_cannot_be(refuse, model, data, tmp_path, arguments, words):
    refuse("audit", model, "--start", data, "--output", "new", *arguments, words=words)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--teacher", "model.safetensors", "--kind", "ratle"], "did you mean 'rattle'?"),
        (["--teacher", "model.safetensors", "--kind", "rattle", "--rounds", "3"], "no augmentation 'pull_perturb'"),
        (["--teacher", "model.safetensors", "--rounds", "0"], "rounds should be greater than or equal to 1, got 0"),
        (["--teacher", "model.safetensors", "--output", "new.csv"], "let the name end in .xyz"),
        (["--teacher", "model.safetensors", "--output", "good.xyz"], "is the file to read"),
        (["--teacher", "nosuch"], "no such model file or run folder: nosuch"),
        (["--teacher", "nosuch.module:Thing"], "Install the package"),
        (["--teacher", "ase.calculators.lj:LennardJone"], "check the spelling"),
        (["--teacher", "ase.calculators.emt:EMT"], "labelled none of the"),
        (["--teacher", "os:getcwd"], "makes no calculator of ASE"),
        ([], "--teacher"),
    ],
)
def test_augmentations_that_cannot_be(refuse, model, data, tmp_path, arguments, words):
    before = files_below(tmp_path)
    refuse("augment", data, *arguments, words=words)
    assert files_below(tmp_path) == before


def test_fits_that_cannot_be(refuse, data, tmp_path):
    refuse("fit", data, "--output", "new", "--kind", "emm", words="did you mean 'eam'?")
    refuse("fit", data, "--output", "new", "--kind", "painn", words=("painn is a network", "phystrain init"))
    refuse("fit", data, "--output", "new", "--starts", "0", words="starts should be greater than")
    refuse("fit", data, "--output", "new", "--kind", "eam,sum", words="sum needs settings of its own")
    assert not (tmp_path / "new").exists()


def test_nothing_to_compare(refuse, tmp_path):
    refuse("compare", words="name at least one run folder")
    refuse("compare", "nosuch", words="no results.json")
    (tmp_path / "damaged").mkdir()
    for content in ("{", "[]", '{"name": "x", "results": []}', '{"name": "x", "results": [{"test": 3}]}'):
        (tmp_path / "damaged" / "results.json").write_text(content)
        refuse("compare", "damaged", words=("damaged", "again"))
    assert not (tmp_path / "comparison").exists()


def test_init_replaces_nothing_unasked(refuse, call, run_file, data, tmp_path):
    before = files_below(tmp_path)
    refuse("init", data, words=("run.yaml exists", "--output", "--force"))
    refuse("init", data, "--output", data, "--force", words="is the file to read")
    assert files_below(tmp_path) == before
    assert call("init", data, "--force").code == 0
    assert run_file.read_text() != before["run.yaml"].decode()


def test_unknown_commands_and_options(refuse, run_file):
    refuse("trian", run_file, words=("Unknown command", 'Did you mean "train"?', "'phystrain --help'"))
    refuse("train", run_file, "--outptu", "x", words=("--outptu", "Did you mean --output?", "'phystrain train --help'"))
    refuse("train", words=("--run-file", "'phystrain train --help'"))
    refuse("md", "model", words="'phystrain md --help'")
    refuse("info", words="--kinds")


# ---- places that cannot be written to


def test_an_output_below_a_file(refuse, run_file, model, data, tmp_path):
    before = files_below(tmp_path)
    for command in (
        ["init", data, "--output", data / "run.yaml"],
        ["train", run_file, "--output", data / "run"],
        ["fit", data, "--output", data / "run"],
        ["evaluate", model, data, "--output", data / "page"],
        ["audit", model, "--output", data / "page"],
        ["md", model, data, "--temperature", "300", "--output", data / "frames.xyz"],
        ["augment", data, "--teacher", model, "--output", data / "frames.xyz"],
    ):
        refuse(*command, words=("cannot write", "rite elsewhere"))
    assert files_below(tmp_path) == before


@pytest.fixture
def disk(tmp_path):
    """Mounts a small disk of its own; gives its folder. Skips where that is not permitted."""
    folder = tmp_path / "disk"
    mounted = []

    def mount(options):
        folder.mkdir()
        if (
            os.geteuid() != 0
            or subprocess.run(
                ["mount", "-t", "tmpfs", "-o", options, "none", folder], capture_output=True, check=False
            ).returncode
        ):
            pytest.skip("mounting is not permitted")
        mounted.append(folder)
        return folder

    yield mount
    for place in mounted:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_read_only_disk(refuse, disk, run_file, model, data):
    place = disk("ro,size=100k")
    for command in (
        ["init", data, "--output", place / "run.yaml"],
        ["train", run_file, "--output", place / "run"],
        ["evaluate", model, data, "--output", place / "page"],
        ["audit", model, "--output", place / "page"],
        ["md", model, data, "--temperature", "300", "--output", place / "frames.xyz"],
        ["augment", data, "--teacher", model, "--output", place / "frames.xyz"],
        ["compare", model.parent, "--output", place / "page"],
    ):
        refuse(*command, words=("ead-only", "rite elsewhere"))
    assert not list(place.iterdir())


def test_a_full_disk_in_training(refuse, call, disk, run_file, tmp_path, monkeypatch):
    """A real one: the checkpoint before survives, and with some space the run goes on from it."""
    place = disk("size=2m")
    arguments = ("train", run_file, "--output", place / "run", "stages.finetune.steps=6", "checkpoint_seconds=0")
    finished = Training._finished_early
    monkeypatch.setattr(Training, "_finished_early", _stop_after(3))
    assert call(*arguments).code == 130
    monkeypatch.setattr(Training, "_finished_early", finished)
    checkpoint = place / "run" / "checkpoints" / "last.safetensors"
    before = checkpoint.read_bytes()
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 1000)
    refuse(*arguments, words=("No space left", "Free some space"))
    assert checkpoint.read_bytes() == before
    assert read_state(checkpoint)[1]["step"] == 3
    assert not list(checkpoint.parent.glob(".*"))
    filler.unlink()
    assert call(*arguments).code == 0
    load_model(place / "run")


@pytest.mark.parametrize("broken", [2, 4])
def test_a_disk_that_fills_while_saving(refuse, call, run_file, tmp_path, monkeypatch, broken):
    checkpoint = tmp_path / "new" / "checkpoints" / "last.safetensors"
    arguments = ("train", run_file, "--output", "new", "stages.finetune.steps=6", "checkpoint_seconds=0")
    count = 0
    replace = Path.replace

    def full(self, target):
        nonlocal count
        count += Path(target).resolve() == checkpoint
        if count == broken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return replace(self, target)

    monkeypatch.setattr(files.Path, "replace", full)
    refuse(*arguments, words=("last.safetensors", "No space left", "previous file is untouched", "Free some space"))
    assert read_state(checkpoint)[1]["step"] == broken - 1
    assert [path.name for path in checkpoint.parent.iterdir() if path.name.startswith(".")] == []
    monkeypatch.setattr(files.Path, "replace", replace)
    assert call(*arguments).code == 0


@pytest.mark.parametrize("command", ["init", "md", "augment"])
def test_a_disk_that_is_full_at_the_end(refuse, model, data, tmp_path, monkeypatch, command):
    (tmp_path / "old.xyz").write_text("precious")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    arguments = {
        "init": [data, "--output", "old.xyz", "--force"],
        "md": [model, data, "--temperature", "300", "--picoseconds", "0.002", "--output", "old.xyz"],
        "augment": [data, "--teacher", model, "--rounds", "1", "--output", "old.xyz"],
    }
    refuse(command, *arguments[command], words=("cannot write old.xyz", "untouched", "Free some space"))
    assert (tmp_path / "old.xyz").read_text() == "precious"
    assert not list(tmp_path.glob(".old*"))


# ---- as a process


def test_exit_codes_in_the_shell(shell, run_file, data, tmp_path):
    """All of it once more where nothing is patched and nothing is caught."""
    commands = [
        ["train", run_file, "potential.chanels=8"],
        ["train", run_file, "data.train=nosuch.xyz", "--output", "new"],
        ["trian"],
    ]
    started = [shell(*command) for command in commands]
    for process, words in zip(started, ("did you mean 'channels'?", "no such file", "Unknown command"), strict=True):
        out, err = process.communicate(timeout=120)
        assert process.returncode == 2, err
        assert words in err
        assert len(err.strip().splitlines()) <= 2
        assert "Traceback" not in out + err
    assert not (tmp_path / "new").exists()

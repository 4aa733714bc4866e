"""Model files that are damaged, foreign or of another version, and elements that a model never saw: exit code 2."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from phystrain.saving import read_state, write_state
from phystrain.train.loop import Training

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4


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


def test_a_checkpoint_of_training(refuse, call, run_file, tmp_path, monkeypatch, stop_after):
    monkeypatch.setattr(Training, "_finished_early", stop_after(1))
    assert call("train", run_file, "--output", "new").code == 130
    refuse("info", "new/checkpoints/last.safetensors", words=("training checkpoint", "give the run folder"))
    refuse("info", "new", words=("not finished", "phystrain train"))
    refuse("compare", "new", words="results.json")


@pytest.mark.parametrize("command", ["evaluate", "md", "audit", "augment"])
def test_an_element_that_the_model_never_saw(refuse, model, tmp_path, command, hydride):
    arguments = {
        "evaluate": [model, hydride, "--output", "new"],
        "md": [model, hydride, "--temperature", "300", "--output", "new.xyz"],
        "audit": [model, "--start", hydride, "--temperature", "300", "--output", "new"],
        "augment": [hydride, "--teacher", model, "--output", "new.xyz"],
    }
    refuse(command, *arguments[command], words=("the potential knows O, Si, not H, N", "Train it on data with H, N"))
    assert not list(tmp_path.glob("new*"))

"""Places that cannot be written to and disks that fill: exit code 2, and what was there is untouched."""

import contextlib
import errno
import os
import subprocess
from pathlib import Path

import pytest

from phystrain import files
from phystrain.saving import load_model, read_state
from phystrain.train.loop import Training


@pytest.fixture
def writing(run_file, model, data):
    """Commands that write into a folder."""

    def commands(place):
        return [
            ["init", data, "--output", place / "run.yaml"],
            ["train", run_file, "--output", place / "run"],
            ["evaluate", model, data, "--output", place / "page"],
            ["audit", model, "--output", place / "page"],
            ["md", model, data, "--temperature", "300", "--output", place / "frames.xyz"],
            ["augment", data, "--teacher", model, "--output", place / "frames.xyz"],
        ]

    return commands


def test_an_output_below_a_file(refuse, writing, data, tmp_path, files_below):
    before = files_below(tmp_path)
    for command in (*writing(data), ["fit", data, "--output", data / "run"]):
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


def test_a_read_only_disk(refuse, disk, writing, model):
    place = disk("ro,size=100k")
    for command in (*writing(place), ["compare", model.parent, "--output", place / "page"]):
        refuse(*command, words=("ead-only", "rite elsewhere"))
    assert not list(place.iterdir())


def test_a_full_disk_in_training(refuse, call, disk, run_file, tmp_path, monkeypatch, stop_after):
    """A real one: the checkpoint before survives, and with some space the run goes on from it."""
    place = disk("size=2m")
    arguments = ("train", run_file, "--output", place / "run", "stages.finetune.steps=6", "checkpoint_seconds=0")
    finished = Training._finished_early
    monkeypatch.setattr(Training, "_finished_early", stop_after(3))
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

"""The run folder: what it holds, and whether what it holds is this run."""

import json
import os
import platform
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import phystrain
from phystrain import config as run_file
from phystrain.config import RunConfig
from phystrain.errors import UserError
from phystrain.files import write_text
from phystrain.train.material import Labelled

_FREE = ("reliability", "checkpoint_seconds", "device", "processes", "nodes", "tune")
"""Settings that may change between a run and its resumption: what is trained stays the same job."""

_OWN = (
    "config.yaml",
    "metrics.csv",
    "train.log",
    "data.json",
    "report.html",
    "results.json",
    "failed.xyz",
    "covered.json",
)


def prepare(folder: Path, config: RunConfig, labelled: Labelled, *, base: Path, restart: bool) -> None:
    """Make the folder and record what the result depends on, or check that the folder holds the same run.

    Args:
        folder: of the run.
        config: settings.
        labelled: the data, already read: a mistake there must not cost the old run.
        base: folder that relative paths in the settings start from.
        restart: forget an old run.

    Raises:
        UserError: other settings or other data than recorded, or a folder of something else.
    """
    recorded = folder / "config.yaml"
    if restart and recorded.is_file():
        for name in ("checkpoints", "model", "plots", "tables", "baseline"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in _OWN:
            (folder / name).unlink(missing_ok=True)
    if recorded.is_file():
        _same_settings(folder, config)
        _same_data(folder, labelled)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and holds no run of phystrain: give another --output")
    for leftover in folder.glob("*/.*.safetensors*"):  # of a process that was killed while it wrote
        leftover.unlink()
    run_file.save(config, recorded)
    _record(folder, config, labelled, base)


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    return {
        "phystrain": phystrain.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
    }


def _same_settings(folder: Path, config: RunConfig) -> None:
    file = folder / "config.yaml"
    present = yaml.safe_load(file.read_text(encoding="utf-8"))
    with suppress(UserError):  # a run begun by an earlier version lacks the fields that have come since
        present = run_file.load(file).model_dump(mode="json")
    wanted = config.model_dump(mode="json")
    for name in _FREE:
        present.pop(name, None)
        wanted.pop(name, None)
    if place := _difference(present, wanted):
        raise UserError(
            f"{folder} holds a run with other settings ({place} differs; see its config.yaml). "
            f"Give another --output, or --restart to forget it"
        )


def _difference(first: Any, second: Any, place: str = "") -> str:
    """Dotted path of the first place where two settings differ; empty if they are the same."""
    if isinstance(first, dict) and isinstance(second, dict):
        if first.get("sha256") is not None and first.get("sha256") == second.get("sha256"):
            first, second = ({**settings, "file": ""} for settings in (first, second))  # the same file elsewhere
        for name in [*first, *(name for name in second if name not in first)]:
            if found := _difference(first.get(name), second.get(name), f"{place}.{name}".lstrip(".")):
                return found
        return ""
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for number, pair in enumerate(zip(first, second, strict=True)):
            if found := _difference(*pair, f"{place}.{number}"):
                return found
        return ""
    return "" if first == second else place


def _same_data(folder: Path, labelled: Labelled) -> None:
    file = folder / "data.json"
    if not file.is_file():
        return
    present = json.loads(file.read_text(encoding="utf-8"))
    for part, digest in digests(labelled).items():
        if part != "test" and present.get(part) != digest:
            raise UserError(
                f"the {part} structures have changed since the run in {folder} began. "
                f"Give another --output, or --restart to forget it"
            )


def digests(labelled: Labelled) -> dict[str, str | None]:
    """Hash of the structures and labels of each part."""
    parts = {"train": labelled.train, "valid": labelled.valid, "test": labelled.test}
    found = {name: None if part is None else part.digest() for name, part in parts.items()}
    return found if labelled.unlabelled is None else found | {"unlabelled": labelled.unlabelled.digest()}


def _record(folder: Path, config: RunConfig, labelled: Labelled, base: Path) -> None:
    """Write what the result depends on: data, split, seed and versions."""
    content = {
        **digests(labelled),
        "indices": labelled.indices,
        "statistics": labelled.statistics.model_dump(mode="json"),
        "seed": config.seed,
        "base": os.path.relpath(base, folder),  # relative, so that a project can be moved as a whole
        "versions": versions(),
    }
    write_text(folder / "data.json", json.dumps(content, indent=1) + "\n")

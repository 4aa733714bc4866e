"""What a job trains on and starts from, where that is not simply a file: held-out frames, withheld labels, models."""

import fcntl
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.reproduce.experiment import Experiment, slug
from benchmarks.reproduce.training import train
from phystrain import config as run_file
from phystrain.data.read import read
from phystrain.data.structures import Structures
from phystrain.data.write import write
from phystrain.files import write_text

LABELS = ("energy", "forces", "stress")


def training_files(experiment: Experiment, data: Path, folder: Path) -> list[str]:
    """Files to train on: those of the data folder, or cut copies of them in ``folder``."""
    if not experiment.cuts:
        return [str((data / name).resolve()) for name in experiment.train]
    made = []
    for name in experiment.train:
        kept, _ = split(read(data / name).structures, experiment)
        shown = {label: getattr(kept, label) for label in LABELS if label not in experiment.withhold}
        file = folder / f"{slug(name.removesuffix('.xyz'))}.xyz"
        file.parent.mkdir(parents=True, exist_ok=True)
        write(kept.with_labels(**shown), file)
        made.append(str(file.resolve()))
    return made


def held_out(name: str, experiment: Experiment, data: Path) -> Structures:
    """Structures of a test file: all, or those held out if it is a file that is trained on."""
    structures = read(data / name).structures
    return split(structures, experiment)[1] if experiment.hold_out and name in experiment.train else structures


def split(structures: Structures, experiment: Experiment) -> tuple[Structures, Structures]:
    """Frames of a file to train on and held-out ones: the same for every variant and seed."""
    order = np.random.default_rng(0).permutation(len(structures))
    cut = len(structures) - experiment.hold_out
    return structures.select(np.sort(order[:cut])), structures.select(np.sort(order[cut:]))


def start_models(
    experiment: Experiment, variant: str, seed: int, *, data: Path, work: Path, say: Callable[[str], None]
) -> dict[str, tuple[Path, float]]:
    """Models that a variant starts from, trained if they are not there yet, with their processor time.

    Jobs of the same experiment, and of others that describe a model in the same way, share it: the first one trains
    it while the others wait.
    """
    found = {}
    for name, model in experiment.models_of(variant).items():
        settings: dict[str, Any] = {
            "potential": experiment.potential,
            "data": {"train": model.train, "use": model.labels, "valid_fraction": experiment.valid_fraction},
            "stages": model.stages,
            "seed": seed,
            "reliability": {"enabled": False},
        }
        key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        folder = work / "models" / f"{name}-{seed}-{key}"
        folder.mkdir(parents=True, exist_ok=True)
        settings["data"]["train"] = [str((data / file).resolve()) for file in model.train]
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            write_text(folder / "run.yaml", yaml.safe_dump(settings, sort_keys=False))
            seconds = train(run_file.load(folder / "run.yaml"), folder / "run", folder / "seconds.json", say)
        found[name] = (folder / "run" / "model" / "model.safetensors", sum(seconds.values()))
    return found


def with_models(stages: list[dict[str, Any]], models: dict[str, tuple[Path, float]]) -> list[dict[str, Any]]:
    """Stages in which ``{NAME}`` of a model stands for its file."""
    text = json.dumps(stages)
    for name, (file, _) in models.items():
        text = text.replace(f'"{{{name}}}"', json.dumps(str(file.resolve())))
    return list(json.loads(text))

"""How well a spread between models tells errors of forces: snapshots of one training beside trainings from other seeds.

Usage: python benchmarks/uncertainty.py --work WORK [--output benchmarks/results/uncertainty.json]

Silica frames that ship with the package. Some framework topologies are kept out of training: frames of the others at
later times are the first test, frames of the unseen ones the second. Four trainings from different starts, each with
eight snapshots; every training in turn is the model, with its own snapshots or with the other trainings as company.
Calibrated on validation frames of the seen topologies. Then dynamics, with the limit that ``auto`` stands for.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from phystrain import config, datasets
from phystrain.data.read import read
from phystrain.data.structures import Structures
from phystrain.data.write import write
from phystrain.dynamics import Settings, simulate
from phystrain.dynamics.guards import Guards
from phystrain.files import write_text
from phystrain.saving import load_model
from phystrain.train.run import Run
from phystrain.train.spread import snapshots_of
from phystrain.uncertainty.calibration import calibrate, quality
from phystrain.uncertainty.ensemble import Ensemble, with_weights

UNSEEN = ("afi", "jry", "jsn")
"""Topologies that training does not see."""

LARGEST = 72  # atoms: the run is to take minutes
MEMBERS, SNAPSHOTS = 4, 8
STEPS = 400
TEMPERATURES = (300.0, 1000.0, 2000.0)
PICOSECONDS = 0.5


def parts() -> dict[str, Structures]:
    """Training, validation and the two tests."""
    every = Structures.concatenate([read(datasets.path("silica", part)).structures for part in ("train", "test")])
    every = every.select(every.sizes <= LARGEST)
    unseen = np.isin(every.info["topology"], UNSEEN)
    seen = np.random.default_rng(0).permutation(np.flatnonzero(~unseen))
    return {
        "train": every.select(seen[:16]),
        "valid": every.select(seen[16:24]),
        "seen": every.select(seen[24:]),
        "unseen": every.select(unseen),
    }


def trained(work: Path, data: dict[str, Structures]) -> Path:
    """A run with members and snapshots."""
    work.mkdir(parents=True, exist_ok=True)
    for name in ("train", "valid"):
        write(data[name], work / f"{name}.xyz")
    stage = {
        "name": "finetune",
        "objectives": {"energy": {"weight": 10}, "forces": {}},
        "steps": STEPS,
        "batch_size": 4,
        "validate_every": 50,
        "optimiser": {"learning_rate": 3e-3},
        "members": MEMBERS,
        "snapshots": SNAPSHOTS,
    }
    settings = {
        "potential": {"kind": "painn", "channels": 24, "layers": 2, "cutoff": 4.0},
        "data": {"train": str(work / "train.xyz"), "valid": str(work / "valid.xyz")},
        "stages": [stage],
        "reliability": {"enabled": False},
    }
    Run(config.check(settings), work / "run").train()
    return work / "run"


def ensembles(run: Path) -> dict[str, list[Ensemble]]:
    """By kind of company, one for every member as the model."""
    names = ["finetune", *(f"finetune.{number}" for number in range(2, MEMBERS + 1))]
    models = [load_model(run / "model" / f"{name}.safetensors").potential for name in names]
    kept = [
        [with_weights(m, w) for w in snapshots_of(run / "checkpoints", n)] for m, n in zip(models, names, strict=True)
    ]
    others = [[other for other in models if other is not model] for model in models]
    return {
        "8 snapshots": [Ensemble((m, *own), "snapshots") for m, own in zip(models, kept, strict=True)],
        "4 snapshots": [Ensemble((m, *own[1::2]), "snapshots") for m, own in zip(models, kept, strict=True)],
        "4 seeds": [Ensemble((m, *rest), "seeds") for m, rest in zip(models, others, strict=True)],
        "2 seeds": [Ensemble((m, rest[0]), "seeds") for m, rest in zip(models, others, strict=True)],
    }


def judged(plain: list[Ensemble], data: dict[str, Structures]) -> tuple[list[Ensemble], dict[str, Any]]:
    """Calibrated on validation frames; figures on the others, mean and standard deviation over the models."""
    calibrated = [Ensemble(e.members, e.source, calibrate(e.observe(data["valid"]))) for e in plain]
    found: dict[str, Any] = {
        "scale": _mean([e.scale for e in calibrated]),
        "limit, eV/Å": _mean([e.calibration.limit for e in calibrated if e.calibration]),
    }
    for part in ("seen", "unseen"):
        observed = [e.observe(data[part]) for e in calibrated]
        each = [quality(one) for one in observed]
        found[part] = {name: _mean([one[name] for one in each]) for name in each[0]}
        likely = [
            quality(o._replace(spread=o.spread * _likely(e, data["valid"])))
            for o, e in zip(observed, calibrated, strict=True)
        ]
        found[part] |= {"miscalibration area by likelihood": _mean([one["miscalibration area"] for one in likely])}
    return calibrated, found


def _likely(calibrated: Ensemble, valid: Structures) -> float:
    """By what the scaled spread would be multiplied to have the scale of maximum likelihood."""
    observed = calibrated.observe(valid).known()
    freedom = 3 * (len(calibrated.members) - 1)
    return float(np.sqrt((freedom - 2) / freedom * np.mean((observed.error / observed.spread[:, None]) ** 2)))


def dynamics(ensemble: Ensemble, start: Structures) -> dict[str, object]:
    """Dynamics with the guard's other rules first, the spread only noted; and what looking at it costs."""
    assert ensemble.calibration is not None
    found: dict[str, object] = {}
    for kelvin in TEMPERATURES:
        guards = Guards(spread=ensemble.calibration.limit, spread_stops=False)
        settings = Settings(temperature=kelvin, picoseconds=PICOSECONDS, guards=guards, compiled=False)
        run = simulate(ensemble.members[0], start, settings, spread=ensemble.spread)
        assert run.spread is not None
        found[f"{kelvin:g} K"] = {
            "largest spread, eV/Å": [round(float(value), 3) for value in run.spread],
            "warned": list(run.warnings),
            "failed": list(run.sentences),
        }
    short = Settings(temperature=300, picoseconds=0.05, compiled=False)
    seconds = {0: _seconds(ensemble, start, short)}
    for interval in (1, 10):
        limits = Guards(spread=1e6, spread_interval=interval)
        seconds[interval] = _seconds(ensemble, start, short.model_copy(update={"guards": limits}))
    found["cost of a step, times"] = {f"every {n}": round(seconds[n] / seconds[0], 2) for n in (1, 10)}
    return found


def _seconds(ensemble: Ensemble, start: Structures, settings: Settings) -> float:
    best = float("inf")
    look = ensemble.spread if settings.guards.spread else None
    for _ in range(3):
        began = time.process_time()
        simulate(ensemble.members[0], start, settings, spread=look)
        best = min(best, time.process_time() - began)
    return best


def _mean(values: list[float]) -> list[float]:
    return [round(float(np.mean(values)), 3), round(float(np.std(values, ddof=1)), 3)]


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    data = parts()
    began = time.process_time()
    run = trained(options.work, data)
    content: dict[str, object] = {
        "structures": {name: len(part) for name, part in data.items()},
        "steps": STEPS,
        "training, s": round(time.process_time() - began),
    }
    start = data["seen"].select(np.argsort(data["seen"].sizes, kind="stable")[:2])
    for name, plain in ensembles(run).items():
        calibrated, found = judged(plain, data)
        content[name] = found | (
            {"dynamics": dynamics(calibrated[0], start)} if name in ("8 snapshots", "4 seeds") else {}
        )
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    print(text)
    if options.output:
        write_text(options.output, text)


if __name__ == "__main__":
    main()

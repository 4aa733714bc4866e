"""What the levels of tests cost: wall time, for which the machine must be quiet."""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers

from benchmarks.reproduce.job import of_known_elements
from benchmarks.reproduce.training import train
from benchmarks.verdicts.results import RESULTS, store
from phystrain import config as run_file
from phystrain import registry
from phystrain.data.read import read
from phystrain.data.structures import Structures
from phystrain.data.write import write
from phystrain.reliability import Result
from phystrain.saving import load_model
from phystrain.verdict.audited import audit_saved, smallest

FIVE = ("Al", "Ca", "Mg", "O", "Si")
"""The five elements of most frames of ``mptrj-random-1k``, all of them together or some."""

LEVEL_TIMES = {  # file, elements or size that are chosen, temperature in K, levels, what is asked for in s
    "five elements": ("mattersim_bench/mptrj-random-1k.xyz", 0, 300.0, (0,), 60),
    "molecule": ("3bpa/train_300K.xyz", 27, 300.0, (0, 1), 900),
    "cell": ("si_zeo22/train.xyz", 72, 1000.0, (0, 1), 900),
}


def times(options: argparse.Namespace) -> None:
    """What the levels of tests cost on this machine."""
    for name, (file, size, kelvin, levels, limit) in LEVEL_TIMES.items():
        if options.only and name not in options.only:
            continue
        structures = read(options.data / file).structures
        if size:
            structures = structures.select(structures.sizes == size)
        else:
            structures = of_known_elements(structures, tuple(atomic_numbers[symbol] for symbol in FIVE))
        folder = options.work / f"times-{name.replace(' ', '-')}-{options.steps}"
        folder.mkdir(parents=True, exist_ok=True)
        write(structures, folder / "data.xyz")
        settings = {
            "potential": {"kind": "painn", "preset": "small"},
            "data": {"train": [str((folder / "data.xyz").resolve())], "use": min(100, len(structures))},
            "stages": [
                {"name": "teacher", "potential": {"kind": "wall"}, "fit": {}},
                {
                    "name": "finetune",
                    "prior": "teacher",
                    "objectives": {"energy": {}, "forces": {"weight": 10}},
                    "steps": options.steps,
                    "batch_size": 4,
                    "optimiser": {"learning_rate": 0.002},
                },
            ],
            "reliability": {"enabled": False, "temperatures": [kelvin]},
        }
        train(run_file.check(settings), folder / "run", folder / "seconds.json", print)
        store(
            RESULTS / "times" / f"{name.replace(' ', '-')}.json",
            {"name": name, "limit": limit, "steps": options.steps, "minutes": options.minutes}
            | _level_times(folder, structures, kelvin, levels, options.minutes),
        )


def _level_times(
    folder: Path, structures: Structures, kelvin: float, levels: Sequence[int], minutes: float
) -> dict[str, Any]:
    """Wall time of the tests of these levels, one by one and together, in the time that a user would give them."""
    model = load_model(folder / "run")
    kinds = [
        kind for kind in registry.kinds("reliability") if registry.find("reliability", kind).Config.level in levels
    ]
    given: dict[str, Any] = {"enabled": True, "temperatures": [kelvin], "tests": {kind: {} for kind in kinds}}
    settings = run_file.Reliability(**given | ({"minutes": minutes} if 1 in levels else {}))
    kinds_of_atoms = [len(set(frame.numbers)) for frame in structures.frames()]
    start = smallest(structures.select(np.flatnonzero(np.equal(kinds_of_atoms, max(kinds_of_atoms)))))
    marks: list[tuple[str, float]] = []

    def mark(result: Result) -> Result:
        marks.append((result.test, time.perf_counter()))
        return result

    began = time.perf_counter()
    results, _ = audit_saved(
        model,
        settings,
        name=folder.name,
        test=None,
        start=start,
        train=structures,
        note=mark,
        say=print,
    )
    total = time.perf_counter() - began
    spans = {}
    for (test, at), before in zip(marks, [began, *(at for _, at in marks)], strict=False):
        spans[test] = round(at - before, 1)
    survival = next((result for result in results if result.test == "survival"), None)
    assert start is not None
    return {
        "levels": list(levels),
        "atoms": start.sizes.tolist(),
        "elements": len(model.statistics.species),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "seconds": round(total, 1),
        "tests": spans,
        "survival": "" if survival is None else survival.sentence,
    }

"""The main job on data that ships with the package: one network, the same few labels, four ways of training.

Each way is an ordinary run file that the demo writes and trains with ``phystrain train``, so that a user can read it,
change it and run it again. They train side by side, one thread each, on as many cores as there are.
"""

import csv
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from phystrain import config, datasets, recipes
from phystrain.data.read import read
from phystrain.errors import UserError
from phystrain.files import write_text
from phystrain.parallel import cores
from phystrain.progress import bar
from phystrain.report.comparison import Comparison, Variant, comparison_table, summary, with_material
from phystrain.report.page import write_report
from phystrain.verdict.audited import load_results

VARIANTS = ("labels only", "weak losses", "prior", "all physics")
LABELS = 10
STAGES: dict[str, Any] = {"steps": 600, "pretrain_steps": 500, "batch_size": 2, "families": ["born_mayer_angles"]}
SURVIVAL = {"temperatures": [1000.0, 2000.0, 3000.0], "replicas": 6, "picoseconds": 2.0, "timestep": 2.0}
INTRO = """\
Ten frames of silica zeolites with energies and forces (PBE-D3, molecular dynamics at 298 to 1000 K; CC0) train the
same small network, a PaiNN with 64 channels and 2 layers, four ways. "Labels only" is what any trainer does. "Weak
losses" adds PITC and PISC, which ask that the energy surface agrees with itself between the labels. "Prior" first fits
a classical potential for ionic solids to the same ten frames and adds it, unchanged, to the network, which learns what
it leaves. "All physics" fits an EAM, pulls and perturbs the frames, and pretrains on its labels; those stay in the
loss at a small weight during fine-tuning, and so do both weak losses.

All four are tested on 28 frames that none of them saw, and in Langevin dynamics at 1000, 2000 and 3000 K: six runs of
2 ps each, stopped when two atoms come closer than 0.6 of the sum of their covalent radii. One seed is an example, not
a proof: benchmarks/results holds comparisons over several seeds, with a longer training on labels only beside them."""


def run_files(seed: int) -> dict[str, dict[str, Any]]:
    """Settings of the runs.

    Args:
        seed: of the choice of frames, the network and the dynamics.
    """
    return {
        variant: {
            "potential": {"kind": "painn", "channels": 64, "layers": 2, "cutoff": 4.5},
            "data": {"train": "train.xyz.xz", "test": "test.xyz.xz", "use": LABELS, "valid_fraction": 0.0},
            "stages": recipes.stages(variant, **STAGES),
            "reliability": {
                "temperatures": SURVIVAL["temperatures"],
                "teacher": False,  # the ways stand beside one another
                "tests": {"errors": {}, "dimers": {}, "derivatives": {}, "survival": SURVIVAL},
            },
            "seed": seed,
        }
        for variant in VARIANTS
    }


def run_demo(folder: Path, *, seed: int = 0, say: Callable[[str], None] = print) -> list[Variant]:
    """Train, test and compare; about five minutes on two cores. What is there already is not done again.

    Args:
        folder: for run files, models, plots and ``report.html``.
        seed: of the choice of frames, the networks and the dynamics.
        say: told what happens.

    Returns:
        The variants with their results.

    Raises:
        UserError: the folder holds something else, or a run failed.
        KeyboardInterrupt: stopped; the same call goes on from there.
    """
    began = time.monotonic()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: give another --output")
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "test"):
        shutil.copyfile(datasets.path("silica", part), folder / f"{part}.xyz.xz")
    files = {}
    for variant, settings in run_files(seed).items():
        config.check(settings)
        files[variant] = folder / f"{variant.replace(' ', '-')}.yaml"
        text = f"# {recipes.VARIANTS[variant]}\n" + yaml.safe_dump(settings, sort_keys=False, default_flow_style=None)
        if files[variant].is_file() and files[variant].read_text(encoding="utf-8") != text:
            raise UserError(f"{folder} holds a demo with other settings: give another --output")
        write_text(files[variant], text)
    ways = len(VARIANTS)
    say(f"{LABELS} labelled silica frames, {ways} ways of training; run files, models and report go to {folder}")
    _train(files, say)
    variants = []
    for variant, file in files.items():
        found = with_material(load_results(file.with_suffix("")), file.with_suffix(""))
        variants.append(replace(found, name=variant, description=recipes.VARIANTS[variant]))
    run_file = files["all physics"].read_text(encoding="utf-8")
    digest = read(folder / "train.xyz.xz").structures.digest()
    comparison = Comparison("phystrain demo: silica from ten labels", variants, INTRO, run_file, digest)
    page = write_report(comparison, folder)
    say("")
    say(comparison_table(variants, width=max(100, shutil.get_terminal_size().columns)))
    for line in summary(variants):
        say(line)
    say(f"\n{time.monotonic() - began:.0f} s. Report: {page}")
    return variants


def _train(files: dict[str, Path], say: Callable[[str], None]) -> None:
    """Run ``phystrain train`` on each file, as many at a time as there are cores."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    # The longest first, so that it does not run alone at the end.
    unfinished = [variant for variant, file in files.items() if not (file.with_suffix("") / "results.json").is_file()]
    waiting = sorted(unfinished, key=lambda variant: -VARIANTS.index(variant))
    going: dict[str, subprocess.Popen[bytes]] = {}
    try:
        with bar() as display:
            tasks = {name: display.add_task(name, total=_steps(files[name]), note="") for name in unfinished}
            while waiting or going:
                while waiting and len(going) < cores():
                    variant = waiting.pop(0)
                    going[variant] = _start(files[variant], environment)
                time.sleep(0.5)
                for variant, process in list(going.items()):
                    done, note = _progress(files[variant])
                    display.update(tasks[variant], completed=done, note=note)
                    if process.poll() is not None:
                        del going[variant]
                        _check(process.returncode, files[variant])
                        display.update(tasks[variant], completed=_steps(files[variant]), note="done")
                        say(f"{variant}: trained and tested")
    finally:
        for process in going.values():
            if process.poll() is None:
                process.terminate()
        for process in going.values():
            process.wait()


def _start(file: Path, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "phystrain.cli", "train", str(file), "--output", str(file.with_suffix(""))]
    with file.with_suffix(".log").open("ab") as log:
        # A session of its own: Ctrl-C reaches only the demo, which asks each run once to end with a checkpoint.
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def _check(code: int, file: Path) -> None:
    if code == 130:
        raise KeyboardInterrupt
    if code:
        lines = file.with_suffix(".log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise UserError(f"{file.stem} failed: {lines[-1] if lines else 'no message'}\nSee {file.with_suffix('.log')}")


def _steps(file: Path) -> int:
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    return int(np.sum([stage.get("steps", 0) for stage in settings["stages"]]))


def _progress(file: Path) -> tuple[int, str]:
    """Steps done, and the stage, from the metrics that the run writes."""
    metrics = file.with_suffix("") / "metrics.csv"
    if not metrics.is_file():
        return 0, "starting"
    with metrics.open(newline="", encoding="utf-8") as rows:
        reached = {row["stage"]: int(row["step"]) for row in csv.DictReader(rows)}
    total = sum(reached.values())
    return total, "testing in hot dynamics" if total == _steps(file) else list(reached)[-1] if reached else "starting"

"""What physics adds where labels are few: errors and survival in hot dynamics, several seeds.

Usage:
  python benchmarks/physics.py run --data DIR [--only EXPERIMENT ...] [--processes 2] [--work FOLDER]
  python benchmarks/physics.py table

DIR holds si_zeo22/ and rmd17_aspirin/ with their extended-XYZ files. ``run`` trains every variant of
phystrain.recipes for every seed, in processes of one thread each, and leaves one small JSON file per training in
benchmarks/results/physics/; what is there already is not run again, and an interrupted training resumes. ``table``
makes benchmarks/results/physics.md from those files alone.

Training frames are redrawn for each seed, at random over the whole file. Dynamics is Langevin NVT (friction 0.01 per
fs) with Maxwell-Boltzmann start. A run ends when two atoms come closer than 0.6 of the sum of their covalent radii,
when the temperature runs away, or, for the molecule, when a bond is 0.5 Å longer or shorter than at the start.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from phystrain import config, recipes
from phystrain.data.read import read
from phystrain.data.structures import Structures
from phystrain.data.write import write
from phystrain.files import write_text
from phystrain.verdict.audited import load_results

RESULTS = Path(__file__).parent / "results" / "physics"
TESTED = 56
OURS = [variant for variant in recipes.VARIANTS if variant != "prior"]
NETWORK = {"kind": "painn", "channels": 64, "layers": 2}
SILICA = {
    "files": ("si_zeo22/train.xyz", "si_zeo22/test_id.xyz"),
    "cutoff": 4.5,
    "stages": {"steps": 600, "pretrain_steps": 500, "batch_size": 2},
    "survival": {"temperatures": [1000, 2000, 3000], "replicas": 6, "picoseconds": 2.0, "timestep": 2.0},
}
EXPERIMENTS = {
    "silica-10": {**SILICA, "labels": 10, "seeds": 5},
    "silica-40": {**SILICA, "labels": 40, "seeds": 3},
    "aspirin-50": {
        "files": ("rmd17_aspirin/train.xyz", "rmd17_aspirin/test.xyz"),
        "labels": 50,
        "seeds": 3,
        "cutoff": 5.0,
        "stages": {"steps": 600, "pretrain_steps": 500, "batch_size": 4},
        "survival": {
            "temperatures": [500, 1000, 1500],
            "replicas": 6,
            "picoseconds": 1.0,
            "timestep": 0.5,
            "guards": {"bond_stretch": 0.5},
        },
    },
}


def settings(experiment: str, variant: str, seed: int, data: Path) -> dict:
    """The run file of one training."""
    recipe = EXPERIMENTS[experiment]
    survival = recipe["survival"]
    return {
        "potential": {**NETWORK, "cutoff": recipe["cutoff"]},
        "data": {
            "train": str((data / recipe["files"][0]).resolve()),
            "test": str((data / f"{experiment}-test.xyz").resolve()),
            "use": recipe["labels"],
            "valid_fraction": 0.0,
        },
        "stages": recipes.stages(variant, **recipe["stages"]),
        "reliability": {
            "temperatures": survival["temperatures"],
            "tests": {"errors": {}, "dimers": {}, "survival": survival},
        },
        "seed": seed,
    }


def test_frames(experiment: str, data: Path, work: Path) -> Path:
    """A random part of the test file: its errors are known to 5 % and it takes seconds."""
    file = work / f"{experiment}-test.xyz"
    if not file.is_file():
        structures = read(data / EXPERIMENTS[experiment]["files"][1]).structures
        order = np.random.default_rng(0).permutation(len(structures))
        write(Structures.select(structures, np.sort(order[:TESTED])), file)
    return file


def collect(folder: Path, run: dict) -> dict:
    """The figures of a finished run folder."""
    with (folder / "metrics.csv").open() as file:
        seconds = {row["stage"]: float(row["seconds"]) for row in csv.DictReader(file)}
    figures = {result.test: result.figures for result in load_results(folder).results}
    keep = {"energy MAE, meV/atom", "forces MAE, meV/Å", "energy RMSE, meV/atom", "forces RMSE, meV/Å"}
    return {
        "settings": run,
        "seconds": seconds,
        "errors": {name: value for name, value in figures["errors"].items() if name in keep},
        "survival": figures["survival"],
        "dimers": figures["dimers"],
    }


def run_all(options: argparse.Namespace) -> None:
    """Keep the given number of trainings going until none is left."""
    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    tasks = []
    for experiment in options.only or EXPERIMENTS:
        test = test_frames(experiment, options.data, work)
        for seed in range(EXPERIMENTS[experiment]["seeds"]):
            for variant in OURS:
                name = f"{variant.replace(',', '').replace(' ', '-')}-{seed}"
                result = RESULTS / experiment / f"{name}.json"
                if result.is_file():
                    continue
                run = settings(experiment, variant, seed, options.data)
                run["data"]["test"] = str(test.resolve())
                tasks.append((work / experiment / name, run, result))
    going: list[tuple[subprocess.Popen, Path, dict, Path]] = []
    while tasks or going:
        while tasks and len(going) < options.processes:
            folder, run, result = tasks.pop(0)
            folder.parent.mkdir(parents=True, exist_ok=True)
            file = folder.with_suffix(".yaml")
            config.save(config.check(run), file)
            command = [sys.executable, "-m", "phystrain.cli", "train", str(file), "--output", str(folder)]
            log = folder.with_suffix(".log").open("w")
            threads = os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(work / "cache")}
            process = subprocess.Popen(command, env=threads, stdout=log, stderr=subprocess.STDOUT)
            going.append((process, folder, run, result))
        time.sleep(1)
        for entry in [entry for entry in going if entry[0].poll() is not None]:
            going.remove(entry)
            process, folder, run, result = entry
            if process.returncode:
                print(f"{folder}: exit code {process.returncode}, see {folder.with_suffix('.log')}", flush=True)
                continue
            run["data"] |= {"train": Path(run["data"]["train"]).name, "test": Path(run["data"]["test"]).name}
            write_text(result, json.dumps(collect(folder, run), indent=1) + "\n")
            print(f"{result.relative_to(RESULTS)} done; {len(tasks)} to start", flush=True)


def spread(values: list[float], digits: int = 1) -> str:
    """Mean and standard deviation over seeds."""
    if not values:
        return "–"
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def table(_: argparse.Namespace) -> None:
    """Write and print the tables."""
    lines = [
        "Made by `python benchmarks/physics.py table` from the files in `physics/`. Mean ± standard deviation;",
        "training frames are redrawn for each seed. Training time is the median wall time on one thread; two trainings",
        "ran side by side on a machine that did other work too, so only large ratios of it mean anything.",
        "",
        "These results are of version 0.1.0 at commit 0b8ab82, where teachers were trained by gradient descent.",
        "Teachers are fitted now: `python -m benchmarks.reproduce` repeats the comparison with them.",
        "",
    ]
    for experiment, recipe in EXPERIMENTS.items():
        kelvin = recipe["survival"]["temperatures"]
        lines += [f"## {experiment}", ""]
        lines += [
            f"{recipe['labels']} labelled frames, PaiNN of 64 channels and 2 layers, cut-off {recipe['cutoff']} Å, "
            f"{recipe['stages']['steps']} steps on the labels; {TESTED} test frames; dynamics: "
            f"{recipe['survival']['replicas']} runs of {recipe['survival']['picoseconds']} ps at each temperature.",
            "",
        ]
        head = ["variant", "seeds", "energy MAE, meV/atom", "force MAE, meV/Å"]
        head += [f"survived at {t} K, %" for t in kelvin] + [f"mean survival at {t} K, ps" for t in kelvin]
        head += ["faulty dimers", "training, s"]
        lines += ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
        for variant in OURS:
            pattern = f"{variant.replace(',', '').replace(' ', '-')}-[0-9].json"
            found = [json.loads(file.read_text()) for file in sorted((RESULTS / experiment).glob(pattern))]
            if not found:
                lines.append(f"| {variant} | not run |" + " |" * (len(head) - 2))
                continue
            cells = [variant, str(len(found))]
            cells += [spread([f["errors"][n] for f in found]) for n in ("energy MAE, meV/atom", "forces MAE, meV/Å")]
            cells += [spread([100 * f["survival"][f"survived at {t} K"] for f in found], 0) for t in kelvin]
            cells += [spread([f["survival"][f"mean survival at {t} K, ps"] for f in found], 2) for t in kelvin]
            cells += [spread([f["dimers"]["faulty pairs"] for f in found])]
            cells += [f"{statistics.median(sum(f['seconds'].values()) for f in found):.0f}"]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    text = "\n".join(lines)
    write_text(RESULTS.with_suffix(".md"), text)
    print(text)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run")
    run.add_argument("--data", type=Path, required=True)
    run.add_argument("--only", nargs="*", choices=list(EXPERIMENTS))
    run.add_argument("--processes", type=int, default=2)
    run.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "phystrain-physics")
    run.set_defaults(do=run_all)
    commands.add_parser("table").set_defaults(do=table)
    options = parser.parse_args()
    options.do(options)


if __name__ == "__main__":
    main()

"""Accuracy after equal time: ``python -m benchmarks.peers.race {run,table}``.

    python -m benchmarks.peers environments --folder ENVS --only nequip
    OMP_NUM_THREADS=1 python -m benchmarks.peers.race run --folder ENVS --data DIR
    python -m benchmarks.peers.race table

1000 frames of rMD17 aspirin train our small presets and NequIP's preset S, all of them compiled, each for the
same processor time of one thread (see :mod:`benchmarks.peers.racer`). Each network has the learning rate that serves it
best on the first draw in the shortest time, by the test frames that are reported, tried from below until a higher one
is worse; then come three draws of the frames at every time. DIR holds rmd17_aspirin. Results are kept one by one, and
what is there is not made again.
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import ase.io

from phystrain.files import write_text
from phystrain.progress import track

RESULTS = Path(__file__).parents[1] / "results" / "race.json"
RACER = Path(__file__).with_name("racer.py")
NETWORKS = {
    "phystrain painn": None,
    "phystrain tensornet": None,
    "nequip S": "nequip",
}
"""By name the environment, of which ours needs none."""

SECONDS, RATES, DRAWS, LABELS, TESTED = (100, 200), (0.001, 0.002, 0.005, 0.01, 0.02, 0.05), 3, 1000, 300


def frames(data: Path, draw: int, folder: Path) -> list[str]:
    """Files of frames to train with and to test on."""
    files = []
    for name, count in (("train", LABELS), ("test", TESTED)):
        source = ase.io.read(data / "rmd17_aspirin" / f"{name}.xyz", ":")
        files.append(str(folder / f"{name}-{draw}.xyz"))
        ase.io.write(files[-1], random.Random(draw).sample(source, count))
    return files


def raced(python: str, network: str, files: list[str], seconds: int, rate: float, draw: int) -> dict[str, Any]:
    """One training, in a process of its own."""
    command = [python, str(RACER), network, *files, str(seconds), str(rate), str(draw)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    found = {name: value if math.isfinite(value) else None for name, value in found.items()}  # trainings may diverge
    return {"network": network, "seconds": seconds, "rate": rate, "draw": draw, **found}


def run(options: argparse.Namespace) -> None:
    """Train what is not in the result file yet."""
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.is_file() else []

    def make(network: str, seconds: int, rate: float, draw: int) -> None:
        names = ("network", "seconds", "rate", "draw")
        if any(tuple(row[name] for name in names) == (network, seconds, rate, draw) for row in rows):
            return
        environment = NETWORKS[network]
        python = sys.executable if environment is None else str(options.folder / environment / "bin" / "python")
        rows.append(raced(python, network, frames(options.data, draw, folder), seconds, rate, draw))
        print(rows[-1], flush=True)
        threads = os.environ.get("OMP_NUM_THREADS", "all")
        write_text(RESULTS, json.dumps({"threads": threads, "rows": rows}, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for network in NETWORKS:
            for rate in RATES:
                make(network, SECONDS[0], rate, 0)
                if best(rows, network) < rate:  # from here on it becomes worse
                    break
        jobs = [(network, seconds, draw) for draw in range(DRAWS) for seconds in SECONDS for network in NETWORKS]
        for network, seconds, draw in track(jobs, "trainings"):
            make(network, seconds, best(rows, network), draw)


def best(rows: list[dict[str, Any]], network: str) -> float:
    """Learning rate that serves a network best on the first draw in the shortest time."""
    tried = [row for row in rows if (row["network"], row["seconds"], row["draw"]) == (network, SECONDS[0], 0)]
    return float(min(tried, key=lambda row: math.inf if row["forces"] is None else row["forces"])["rate"])


def table(options: argparse.Namespace) -> None:  # noqa: ARG001
    """Print the table in Markdown."""
    rows = json.loads(RESULTS.read_text())["rows"]
    print("| network | parameters | rate | step, ms | time, s | energy, meV/atom | forces, meV/Å |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for seconds in SECONDS:
        for network in NETWORKS:
            rate = best(rows, network)
            of = [row for row in rows if (row["network"], row["seconds"], row["rate"]) == (network, seconds, rate)]
            if not of:
                continue
            ms = statistics.median(row["ms"] for row in of)
            shown = [spread([row[name] for row in of], digits) for name, digits in (("energy", 2), ("forces", 1))]
            print(f"| {network} | {of[0]['parameters']:,} | {rate:g} | {ms:.0f} | {seconds} | {' | '.join(shown)} |")


def spread(values: list[float | None], digits: int) -> str:
    """Mean and standard deviation, with so many digits behind the point."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return f"diverged {len(values) - len(known)} of {len(values)}"
    if len(known) == 1:
        return f"{known[0]:.{digits}f} (one draw)"
    return f"{statistics.mean(known):.{digits}f} ± {statistics.stdev(known):.{digits}f}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.race", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for name, action in (("run", run), ("table", table)):
        command = commands.add_parser(name, help=action.__doc__)
        command.set_defaults(do=action)
        if name == "run":
            command.add_argument("--folder", type=Path, required=True, help="of the environments")
            command.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    options.do(options)


if __name__ == "__main__":
    main()

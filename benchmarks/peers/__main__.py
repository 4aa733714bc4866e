"""Beside peers: ``python -m benchmarks.peers {environments,run,table}``.

    python -m benchmarks.peers environments --folder ENVS
    OMP_NUM_THREADS=1 python -m benchmarks.peers run --folder ENVS --data DIR
    python -m benchmarks.peers table

A round makes one step of ours and one of the peer's in turn, each in a process of its own that was warmed up; the ratio
is the median over rounds of the ratio of processor times within a round. DIR holds 3bpa/train_300K.xyz.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import ase.io

from benchmarks.step import molecules, quartz
from phystrain.files import write_text
from phystrain.progress import track

RESULTS = Path(__file__).parents[1] / "results" / "peers.json"
WORKER = Path(__file__).with_name("worker.py")

ENVIRONMENTS = {
    "schnetpack": (["graph-pes==1.0.2", "matscipy"], ["schnetpack==2.1.1"]),
    "nequip": (["nequip==0.19.1", "matscipy"], []),
}
"""By name of the environment: packages, and packages that are installed without what they ask for."""

PAIRS = [
    (ours, peer, environment)
    for environment, package in (("schnetpack", "schnetpack"), ("schnetpack", "graph-pes"))
    for kind in ("painn", "schnet")
    for ours, peer in (
        (f"phystrain {kind}", f"{package} {kind}"),
        (f"phystrain {kind}, compiled", f"{package} {kind}"),
    )
]


def environments(options: argparse.Namespace) -> None:
    """Make them."""
    for name, (packages, alone) in ENVIRONMENTS.items():
        if options.only and name not in options.only:
            continue
        pip = [str(options.folder / name / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([sys.executable, "-m", "venv", str(options.folder / name)], check=True)
        subprocess.run([*pip, "torch==2.13.0"], check=True)
        subprocess.run([*pip, *packages], check=True)
        if alone:
            subprocess.run([*pip, "--no-deps", *alone], check=True)


class Worker:
    """A process that makes steps.

    Args:
        python: its interpreter.
        network: see :mod:`benchmarks.peers.worker`.
        file: structures.
        work: ``train`` or ``forces``.
    """

    def __init__(self, python: str, network: str, file: Path, work: str) -> None:
        command = [python, str(WORKER), network, str(file), work]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.parameters = int(self._line().split()[1])

    def step(self) -> tuple[float, float]:
        """Processor and wall time, ms."""
        assert self._process.stdin is not None
        print("step", file=self._process.stdin, flush=True)
        cpu, wall = map(float, self._line().split())
        return cpu, wall

    def end(self) -> None:
        """Let it go."""
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            sys.exit(f"{self._process.args}: ended; its message is above")
        return line


def run(options: argparse.Namespace) -> None:
    """Measure every pair that is not in the result file yet."""
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() and not options.redo else {"rows": []}
    done = {(row["system"], row["ours"], row["peer"], row["work"]) for row in found["rows"]}
    systems = {"8 molecules of 27": molecules(options.data), "4 quartz cells of 72": quartz()}
    jobs = [
        (system, frames, *pair, work)
        for system, frames in systems.items()
        for pair in PAIRS
        for work in ("train", "forces")
        if (system, pair[0], pair[1], work) not in done
    ]
    for system, frames, ours, peer, environment, work in track(jobs, "pairs"):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "frames.xyz"
            bare = [frame.copy() for frame in frames]
            ase.io.write(file, bare)
            workers = [
                Worker(sys.executable, ours, file, work),
                Worker(str(options.folder / environment / "bin" / "python"), peer, file, work),
            ]
            times = [[worker.step() for worker in workers] for _ in range(options.rounds)]
            for worker in workers:
                worker.end()
        ratios = [mine[0] / theirs[0] for mine, theirs in times]
        row = {
            "system": system,
            "work": work,
            "ours": ours,
            "peer": peer,
            "parameters": [worker.parameters for worker in workers],
            "ms": [round(statistics.median(pair[n][0] for pair in times), 1) for n in (0, 1)],
            "wall_ms": [round(statistics.median(pair[n][1] for pair in times), 1) for n in (0, 1)],
            "ratio": round(statistics.median(ratios), 3),
        }
        print("{system:21s} {work:7s} {ours:28s} {peer:20s} {ratio:6.3f}".format(**row), row["ms"], flush=True)
        found["rows"].append(row)
        facts = {"threads": os.environ.get("OMP_NUM_THREADS", "all"), "machine": platform.processor()}
        write_text(RESULTS, json.dumps(found | facts | {"rounds": options.rounds}, indent=1) + "\n")


def table(options: argparse.Namespace) -> None:  # noqa: ARG001
    """Print the table in Markdown."""
    rows = json.loads(RESULTS.read_text())["rows"]
    print("| work | system | ours | peer | ours, ms | peer, ms | ratio |\n| --- | --- | --- | --- | --- | --- | --- |")
    names = {"train": "training step", "forces": "energy and forces"}
    for row in sorted(rows, key=lambda row: (row["work"] != "train", row["peer"], row["system"], row["ours"])):
        mine, theirs = row["ms"]
        print(
            f"| {names[row['work']]} | {row['system']} | {row['ours'].removeprefix('phystrain ')} | {row['peer']} "
            f"| {mine} | {theirs} | {row['ratio']:.2f} |"
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for name, action in (("environments", environments), ("run", run), ("table", table)):
        command = commands.add_parser(name, help=action.__doc__)
        command.set_defaults(do=action)
        if name != "table":
            command.add_argument("--folder", type=Path, required=True, help="of the environments")
        if name == "environments":
            command.add_argument("--only", nargs="*", default=[], help="names; all if not given")
        if name == "run":
            command.add_argument("--data", type=Path, required=True)
            command.add_argument("--rounds", type=int, default=15)
            command.add_argument("--redo", action="store_true")
    options = parser.parse_args()
    options.do(options)


if __name__ == "__main__":
    main()

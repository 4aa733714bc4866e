"""Beside peers: ``python -m benchmarks.peers {environments,run,table}``.

    python -m benchmarks.peers environments --folder ENVS
    OMP_NUM_THREADS=1 python -m benchmarks.peers run --folder ENVS --data DIR
    python -m benchmarks.peers table

A round makes one step of ours and one of the peer's in turn, each in a process of its own that was warmed up; the ratio
is the median over rounds of the ratio of processor times within a round. Pairs that are in the result file stay. DIR
holds 3bpa/train_300K.xyz.
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

from benchmarks.step import molecules, quartz, quartz_cell
from phystrain.files import write_text
from phystrain.progress import track

RESULTS = Path(__file__).parents[1] / "results" / "peers.json"
WORKER = Path(__file__).with_name("worker.py")

ENVIRONMENTS = {
    "schnetpack": (["graph-pes==1.0.2", "matscipy"], ["schnetpack==2.1.1"]),
    "nequip": (["nequip==0.19.1", "matscipy"], []),
    "matgl": (["matgl==4.1.2", "matscipy"], []),
    "torchmd-net": (["torchmd-net==3.1.0", "ase", "matscipy"], []),
    "mace": (["mace-torch==0.3.16", "matscipy"], []),
}
"""By name of the environment: packages, and packages that are installed without what they ask for."""

STEPS, MOVES = ("train", "forces"), ("cell", "md")
PAIRS = [
    (f"phystrain {kind}{how}", peer, environment, works)
    for kind, peer, environment, works in (
        ("painn", "schnetpack painn", "schnetpack", (*STEPS, *MOVES)),
        ("schnet", "schnetpack schnet", "schnetpack", STEPS),
        ("painn", "graph-pes painn", "schnetpack", STEPS),
        ("schnet", "graph-pes schnet", "schnetpack", STEPS),
        ("m3gnet", "matgl m3gnet", "matgl", STEPS),
        ("torchmd_et", "torchmd-net torchmd_et", "torchmd-net", STEPS),
        ("tensornet", "torchmd-net tensornet", "torchmd-net", STEPS),
        ("painn", "nequip S", "nequip", (*STEPS, *MOVES)),
        ("painn", "nequip S, compiled", "nequip", ("train",)),
        ("painn", "mace small", "mace", ("train", "md")),
    )
    for how in ("", ", compiled")
]
"""Ours, the peer, its environment, and what they do."""


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
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"rows": []}
    if options.redo:
        again = {
            (ours, peer) for ours, peer, environment, _ in PAIRS if not options.only or environment in options.only
        }
        found["rows"] = [row for row in found["rows"] if (row["ours"], row["peer"]) not in again]
    done = {(row["system"], row["ours"], row["peer"], row["work"]) for row in found["rows"]}
    batches = {"8 molecules of 27": molecules(options.data), "4 quartz cells of 72": quartz()}
    works = {
        **dict.fromkeys(STEPS, batches),
        "cell": {"quartz, 1,512 atoms": [quartz_cell((7, 6, 4))]},
        "md": {"molecule of 27": molecules(options.data)[:1]},
    }
    jobs = [
        (system, frames, ours, peer, environment, work)
        for ours, peer, environment, does in PAIRS
        for work in does
        if not options.work or work in options.work
        for system, frames in works[work].items()
        if (system, ours, peer, work) not in done and (not options.only or environment in options.only)
    ]
    for system, frames, ours, peer, environment, work in track(jobs, "pairs"):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "frames.xyz"
            bare = [frame.copy() for frame in frames]
            ase.io.write(file, bare)
            does = "forces" if work == "cell" else work
            workers = [
                Worker(sys.executable, ours, file, does),
                Worker(str(options.folder / environment / "bin" / "python"), peer, file, does),
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
        facts = {
            "threads": os.environ.get("OMP_NUM_THREADS", "all"),
            "machine": platform.processor() or platform.machine(),
        }
        write_text(RESULTS, json.dumps(found | facts | {"rounds": options.rounds}, indent=1) + "\n")


def table(options: argparse.Namespace) -> None:  # noqa: ARG001
    """Print the table in Markdown."""
    rows = json.loads(RESULTS.read_text())["rows"]
    print("| work | system | ours | peer | ours, ms | peer, ms | ratio |\n| --- | --- | --- | --- | --- | --- | --- |")
    names = dict(zip((*STEPS, *MOVES), ("training step", *2 * ("energy and forces",), "step of dynamics"), strict=True))
    for row in sorted(rows, key=lambda row: ([*names].index(row["work"]), row["peer"], row["system"], row["ours"])):
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
            command.add_argument("--only", nargs="*", default=[], help="names of environments; all if not given")
        if name == "run":
            command.add_argument("--data", type=Path, required=True)
            command.add_argument("--rounds", type=int, default=15)
            command.add_argument("--redo", action="store_true")
            command.add_argument("--work", nargs="*", default=[], choices=(*STEPS, *MOVES), help="all if not given")
    options = parser.parse_args()
    options.do(options)


if __name__ == "__main__":
    main()

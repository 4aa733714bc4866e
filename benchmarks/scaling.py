"""How training scales with processes: two of them measured on this machine, 64 GPUs estimated.

Usage: python benchmarks/scaling.py run [--rounds 5] [--steps 20] [--output benchmarks/results/scaling/cpu.json]
       python benchmarks/scaling.py table [--output benchmarks/results/scaling.md]

PaiNN with 128 channels, 3 layers and a cut-off of 5 Å, energies and forces, float32, one thread a process, on data sets
that ship with the package. A round measures one process, then two of them: on the same global batch (strong scaling)
and on the same batch each (weak scaling), and the all-reduce of as many bytes as gradients have. Medians over rounds of
medians over steps. The estimate is a model, whose assumptions stand in the table.
"""

import argparse
import json
import math
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from phystrain import datasets, objectives
from phystrain.allocator import keep_memory
from phystrain.data.deal import deal
from phystrain.data.graphs import GraphStore
from phystrain.data.loader import Loader
from phystrain.data.read import read
from phystrain.files import write_text
from phystrain.potentials import build
from phystrain.statistics import Statistics
from phystrain.train.step import TrainingStep

CUTOFF = 5.0
WARM_UP = 3
SYSTEMS = {"aspirin": 8, "silica": 4}
"""Data sets, and how many of their structures make the batch of one process."""

BYTES = [1 << power for power in range(10, 27, 4)]
FOLDER = Path(__file__).parent / "results" / "scaling"

NODES = (1, 2, 4, 8, 16, 32, 64)
LATENCY = 20e-6
"""Seconds for a message between two machines: an assumption."""
BANDWIDTHS = (2.5e9, 10e9)
"""Bytes a second each way: 25 Gbit/s Ethernet, 100 Gbit/s InfiniBand with some overhead: assumptions."""
STEPS = (0.01, 0.03, 0.1)
"""Seconds of a step on one GPU: assumptions, to be replaced by a measured one."""
DRAWS = 500
"""Batches drawn at random for the edges of the fullest share."""
SMALL = 2
"""All-reduces of a few numbers a step, besides that of the gradients: counts of the terms, and whether to stop."""


def timed(work: Any, repeats: int) -> list[float]:
    """Seconds of each repetition."""
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return found


def stores() -> dict[str, GraphStore]:
    """The data sets with their neighbour lists."""
    return {name: GraphStore(read(datasets.path(name)).structures, CUTOFF) for name in SYSTEMS}


def worker(processes: int, steps: int, output: Path) -> None:
    """Measure as one of so many processes; the first one writes."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "Grad strides do not match")  # of weights of shape (1, n)
    keep_memory()
    fabric = Fabric(accelerator="cpu", devices=processes, strategy="ddp" if processes > 1 else "auto")
    fabric.launch()
    found: dict[str, Any] = {"processes": processes, "systems": {}, "all_reduce": {}}
    for name, store in stores().items():
        batches = {"strong": SYSTEMS[name], "weak": SYSTEMS[name] * processes}
        found["systems"][name] = {
            scaling: one_setting(fabric, store, batch, steps, found)
            for scaling, batch in batches.items()
            if processes > 1 or scaling == "weak"
        }
    if processes > 1:
        for size in [*BYTES, found["gradient_bytes"]]:
            values = torch.ones(size // 4)
            seconds = timed(lambda values=values: torch.distributed.all_reduce(values), WARM_UP + steps)
            found["all_reduce"][size] = statistics.median(seconds[WARM_UP:])
    if fabric.is_global_zero:
        write_text(output, json.dumps(found))
    fabric.barrier()


def one_setting(fabric: Fabric, store: GraphStore, batch: int, steps: int, found: dict[str, Any]) -> dict[str, float]:
    """Median seconds of a step with a global batch."""
    torch.manual_seed(0)
    settings = {"kind": "painn", "channels": 128, "layers": 3, "cutoff": CUTOFF}
    potential = build(settings, Statistics.bare(store.structures.elements))
    found["gradient_bytes"] = 4 * sum(parameter.numel() for parameter in potential.parameters())
    step = TrainingStep(potential, objectives.parse({"energy": {}, "forces": {"weight": 10.0}}))
    module, optimiser = fabric.setup(step, torch.optim.Adam(potential.parameters(), lr=1e-4))
    loader = Loader(store, batch, seed=1, rank=fabric.global_rank, world_size=fabric.world_size)
    number = iter(range(steps + WARM_UP))

    def one() -> None:
        index = next(number)
        optimiser.zero_grad()
        loss, _ = module(loader.batch(index), step=index)
        fabric.backward(loss)
        optimiser.step()

    seconds = statistics.median(timed(one, steps + WARM_UP)[WARM_UP:])
    return {"batch": batch, "seconds": seconds, "structures_per_second": batch / seconds}


def measure(processes: int, steps: int) -> dict[str, Any]:
    """Start so many workers and read what they found."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "found.json"
        command = [sys.executable, __file__, "worker", str(processes), str(steps), str(output)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        running = [
            subprocess.Popen(command, env=environment | {"LOCAL_RANK": str(rank), "NODE_RANK": "0"})
            for rank in range(processes)
        ]
        codes = [process.wait() for process in running]
        if any(codes):
            raise SystemExit("a worker failed")
        return dict(json.loads(output.read_text(encoding="utf-8")))


def run(rounds: int, steps: int, output: Path) -> None:
    """Measure one process and two in turn."""
    found: list[dict[str, Any]] = []
    for number in range(rounds):
        for processes in (1, 2):
            found.append(measure(processes, steps))
            print(f"round {number + 1} of {rounds}, {processes} processes: {found[-1]['systems']}", flush=True)
    facts = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "torch": torch.__version__,
        "rounds": rounds,
        "steps": steps,
        "imbalance": {name: imbalance(store, SYSTEMS[name]) for name, store in stores().items()},
        "measured": found,
    }
    write_text(output, json.dumps(facts, indent=1) + "\n")


def imbalance(store: GraphStore, batch: int) -> dict[str, dict[int, float]]:
    """Edges of the fullest share over the mean, by number of processes: dealt by edges, and in turn."""
    random, edges = np.random.default_rng(0), store.edge_counts
    found: dict[str, dict[int, float]] = {"dealt by edges": {}, "dealt in turn": {}}
    for count in NODES:
        fullest: dict[str, list[float]] = {"dealt by edges": [], "dealt in turn": []}
        for _ in range(DRAWS):
            drawn = random.choice(edges, count * batch)
            fullest["dealt by edges"].append(max(drawn[share].sum() for share in deal(drawn, count)) / drawn.mean())
            fullest["dealt in turn"].append(drawn.reshape(batch, count).sum(axis=0).max() / drawn.mean())
        for way, values in fullest.items():
            found[way][count] = round(float(np.mean(values)) / batch, 4)
    return found


def communication(gradient_bytes: int, count: int, bandwidth: float) -> float:
    """Seconds of the all-reduces of a step: ring or tree for the gradients, trees for a few bytes."""
    if count == 1:
        return 0.0
    up_and_down = 2 * math.log2(count) * LATENCY
    ring = 2 * (count - 1) / count * gradient_bytes / bandwidth + 2 * (count - 1) * LATENCY
    tree = 2 * gradient_bytes / bandwidth + up_and_down
    return min(ring, tree) + SMALL * up_and_down


def table(folder: Path) -> str:
    """Markdown made from all result files."""
    lines = ["# Scaling", "", "Made by `python benchmarks/scaling.py table` from the files in `results/scaling/`.", ""]
    for file in sorted(folder.glob("*.json")):
        facts = json.loads(file.read_text(encoding="utf-8"))
        one = [found for found in facts["measured"] if found["processes"] == 1]
        two = [found for found in facts["measured"] if found["processes"] == 2]
        lines += [
            f"## {file.stem}",
            "",
            f"{facts['cores']} cores, one thread a process, torch {facts['torch']}; medians of {facts['rounds']} "
            f"rounds of {facts['steps']} steps. Speed-up: structures per second over those of one process; "
            f"efficiency: that over the number of processes.",
            "",
            "| data | processes | batch | step, ms | structures per s | speed-up | efficiency |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for name in SYSTEMS:
            alone = middle(one, name, "weak")
            rows = [(1, alone), (2, middle(two, name, "strong")), (2, middle(two, name, "weak"))]
            for count, row in rows:
                gain = row["structures_per_second"] / alone["structures_per_second"]
                kind = "" if count == 1 else " (strong)" if row["batch"] == alone["batch"] else " (weak)"
                lines.append(
                    f"| {name} | {count}{kind} | {row['batch']} | {1000 * row['seconds']:.0f} | "
                    f"{row['structures_per_second']:.1f} | {gain:.2f} | {gain / count:.2f} |"
                )
        gradient_bytes = two[0]["gradient_bytes"]
        lines += ["", "All-reduce over two processes (gloo, shared memory of one machine):", ""]
        lines += ["| bytes | ms |", "| --- | --- |"]
        for size in sorted({int(size) for size in two[0]["all_reduce"]}):
            seconds = statistics.median(found["all_reduce"][str(size)] for found in two)
            mark = " (the gradients)" if size == gradient_bytes else ""
            lines.append(f"| {size:,}{mark} | {1000 * seconds:.2f} |")
        lines += ["", *estimate(facts["imbalance"], gradient_bytes)]
    return "\n".join(lines) + "\n"


def middle(found: list[dict[str, Any]], name: str, scaling: str) -> dict[str, float]:
    """Medians over the rounds."""
    rows = [part["systems"][name][scaling] for part in found]
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def estimate(imbalances: dict[str, dict[str, dict[str, float]]], gradient_bytes: int) -> list[str]:
    """Weak scaling on paper: the step of the fullest share, then all-reduces in a ring that hide behind nothing."""
    lines = [
        f"Weak scaling to {NODES[-1]} GPUs, estimated. Efficiency = t / (t · imbalance + communication), with t the "
        f"step of one GPU. Communication, hidden behind nothing: the gradients ({gradient_bytes / 1e6:.1f} MB) in a "
        f"ring, 2 (n - 1) / n · bytes / bandwidth + 2 (n - 1) · {1e6 * LATENCY:g} µs, or a tree, 2 · bytes / bandwidth "
        f"+ 2 log2 n · {1e6 * LATENCY:g} µs, whichever is shorter, and {SMALL} trees of a few bytes. Imbalance: edges "
        f"of the fullest share over the mean of {DRAWS} random batches. Step times, bandwidths and latency are "
        f"assumptions; the size of the gradients and the imbalance are those of the runs above.",
        "",
        "| data | dealt | step of one GPU, ms | GB/s | " + " | ".join(f"{count}" for count in NODES) + " |",
        "| --- | --- | --- | --- | " + " | ".join("---" for _ in NODES) + " |",
    ]
    for name, ways in imbalances.items():
        for way, found in ways.items():
            numbers = " | ".join(f"{found[str(count)]:.2f}" for count in NODES)
            lines.append(f"| {name} | {way.removeprefix('dealt ')} | imbalance | | {numbers} |")
            for step in STEPS:
                for bandwidth in BANDWIDTHS:
                    values = [
                        step / (step * found[str(count)] + communication(gradient_bytes, count, bandwidth))
                        for count in NODES
                    ]
                    numbers = " | ".join(f"{value:.2f}" for value in values)
                    how = way.removeprefix("dealt ")
                    lines.append(f"| {name} | {how} | {1000 * step:g} | {bandwidth / 1e9:g} | {numbers} |")
    return lines


def main() -> None:
    """Measure, or make the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    running = verbs.add_parser("run")
    running.add_argument("--rounds", type=int, default=5)
    running.add_argument("--steps", type=int, default=20)
    running.add_argument("--output", type=Path, default=FOLDER / "cpu.json")
    making = verbs.add_parser("table")
    making.add_argument("--folder", type=Path, default=FOLDER)
    making.add_argument("--output", type=Path, default=FOLDER.with_suffix(".md"))
    working = verbs.add_parser("worker")
    working.add_argument("processes", type=int)
    working.add_argument("steps", type=int)
    working.add_argument("output", type=Path)
    options = parser.parse_args()
    if options.verb == "worker":
        worker(options.processes, options.steps, options.output)
    elif options.verb == "run":
        run(options.rounds, options.steps, options.output)
    else:
        text = table(options.folder)
        write_text(options.output, text)
        print(text)


if __name__ == "__main__":
    main()

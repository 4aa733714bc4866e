"""What a training step must cost: multiplications and memory traffic, beside the time it takes plain and compiled.

Usage: OMP_NUM_THREADS=1 python -m benchmarks.floor run --data DIR [--output FILE]
       python -m benchmarks.floor table

Schnet and painn as in benchmarks/step.py (128 channels, 3 layers, 5 Å, float32), energies and forces, loss to
optimiser. Matrix products are counted in a step by torch's own counter; traffic is every tensor that an operation of a
plain step reads or writes, views left out. Both are set against what this machine does at best: the rate of a product
of two matrices of 1,024, and the bandwidth of adding two arrays that fit no cache. The sum of the two is a floor for
plain steps whose tensors come from memory (those of small batches come from the cache and may be faster); compiled
steps fuse operations, so that theirs lies between the products alone and that sum. DIR holds 3bpa/train_300K.xyz.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.step import LABELS, NETWORKS, PERIOD, molecules, quartz, stepper
from phystrain.allocator import keep_memory
from phystrain.files import write_text
from phystrain.potentials import build
from phystrain.statistics import Statistics

RESULTS = Path(__file__).parent / "results" / "floor.json"
ROUNDS = 7


class Traffic(TorchDispatchMode):
    """Bytes that operations read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.is_view or "empty" in func.name():
            return result
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        self.operations += 1
        return result


def best(run: Callable[[], object], rounds: int = 9) -> float:
    """Shortest processor time, s."""
    run()
    times = []
    for _ in range(rounds):
        began = time.process_time()
        run()
        times.append(time.process_time() - began)
    return min(times)


def machine() -> dict[str, float]:
    """What it does at best, one thread."""
    one, other = torch.randn(1024, 1024), torch.randn(1024, 1024)
    long, far, out = (torch.randn(2**25) for _ in range(3))
    return {
        "GFLOP/s": round(2 * 1024**3 / best(lambda: one @ other) / 1e9, 1),
        "GB/s": round(3 * 4 * 2**25 / best(lambda: torch.add(long, far, out=out)) / 1e9, 2),
    }


def main() -> None:
    """Measure, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run")
    run.add_argument("--data", type=Path, required=True)
    run.add_argument("--output", type=Path, default=RESULTS)
    verbs.add_parser("table")
    options = parser.parse_args()
    if options.verb == "table":
        print(table(json.loads(RESULTS.read_text())))
        return
    torch.set_num_threads(1)
    keep_memory()
    able, rows = machine(), []
    for system, frames in (("8 molecules of 27", molecules(options.data)), ("4 quartz cells of 72", quartz())):
        for kind in ("schnet", "painn"):
            torch.manual_seed(0)
            species = sorted({int(number) for frame in frames for number in frame.numbers})
            settings = {**NETWORKS[kind], "channels": 128, "layers": 3, "cutoff": 5.0}
            potential = build(settings, Statistics.bare(tuple(species)))
            plain, _ = stepper(potential, LABELS, frames)
            fast, _ = stepper(potential, LABELS, frames, compiled=True)
            plain(), plain(), fast(), fast()
            with FlopCounterMode(display=False) as flops:
                plain()
            with Traffic() as traffic:
                plain()
            times = [(plain(), fast()) for _ in range(ROUNDS)]
            row = {
                "system": system,
                "network": kind,
                "GFLOP": round(flops.get_total_flops() / PERIOD / 1e9, 3),
                "GB": round(traffic.bytes / PERIOD / 1e9, 3),
                "operations": traffic.operations // PERIOD,
                "plain, ms": round(statistics.median(each[0] for each in times), 1),
                "compiled, ms": round(statistics.median(each[1] for each in times), 1),
            }
            rows.append(row)
            print(row)
    facts = {"torch": torch.__version__, "machine": platform.processor() or platform.machine(), **able}
    write_text(options.output, json.dumps({**facts, "rows": rows}, indent=1) + "\n")


def table(results: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| system | network | products | their floor | operations | traffic | its floor | plain | compiled |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in results["rows"]:
        products, moved = 1000 * row["GFLOP"] / results["GFLOP/s"], 1000 * row["GB"] / results["GB/s"]
        lines.append(
            f"| {row['system']} | {row['network']} | {row['GFLOP']:.2f} GFLOP | {products:.0f} ms "
            f"| {row['operations']:,} | {row['GB']:.2f} GB | {moved:.0f} ms | {row['plain, ms']:.0f} ms "
            f"| {row['compiled, ms']:.0f} ms |"
        )
    return "\n".join([*lines, "", f"This machine: {results['GFLOP/s']:.0f} GFLOP/s, {results['GB/s']:.1f} GB/s."])


if __name__ == "__main__":
    main()

"""How long it takes to read, check and build graphs of a data set, beside a plain ase.io.read of the same file.

Usage: python benchmarks/load.py --data DIR [--output benchmarks/results/load.json]

DIR holds nbmotaw/train.xyz (800 frames, 16,828 atoms).
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from ase.io import read as ase_read

from phystrain.data.check import check
from phystrain.data.graphs import GraphStore
from phystrain.data.read import read
from phystrain.files import write_text

ROUNDS = 5
CUTOFF = 5.0


def timed(work):
    """Seconds, and what the work returned."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    file = options.data / "nbmotaw" / "train.xyz"
    times: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        seconds, _frames = timed(lambda: ase_read(file, ":"))
        times.setdefault("ase.io.read", []).append(seconds)
        seconds, found = timed(lambda: read(file))
        times.setdefault("phystrain read, with its checks", []).append(seconds)
        seconds, store = timed(lambda found=found: GraphStore(found.structures, CUTOFF))
        times.setdefault(f"neighbour lists to {CUTOFF:g} Å", []).append(seconds)
        seconds, _batch = timed(lambda store=store: store.batch(range(len(store))))
        times.setdefault("one batch of everything", []).append(seconds)
        seconds, _report = timed(lambda found=found: check(found))
        times.setdefault("phystrain check", []).append(seconds)
    rows = {name: round(statistics.median(values), 3) for name, values in times.items()}
    facts = {"file": file.name, "frames": len(store), "edges": int(store.edge_counts.sum()), "seconds": rows}
    for name, seconds in rows.items():
        print(f"{name:34s} {seconds:7.3f} s")
    print(f"{len(store)} frames, {facts['edges']:,} edges; medians of {ROUNDS}")
    if options.output:
        write_text(options.output, json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()

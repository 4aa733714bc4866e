"""Whether large sets take time in proportion and memory that stays: conversion, opening, statistics, an epoch.

Usage: OMP_NUM_THREADS=1 python benchmarks/scale.py run --work WORK [--sizes 1000 10000 100000] [--million]
       OMP_NUM_THREADS=1 python benchmarks/scale.py lists [--structures 2000]
       python benchmarks/scale.py table

Structures of 30 atoms are made by perturbing those of the packaged silica, streamed to extended XYZ in WORK, and
removed afterwards. Every part runs in a process of its own, whose peak memory is that of the kernel (getrusage) and,
without the mapped files, the largest RssAnon that is seen every 20 ms. Times are processor times, of all threads, and
wall times, which say little on a busy machine. `lists` compares building neighbour lists with reading them from files.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from phystrain import datasets
from phystrain.config import DataConfig
from phystrain.data.convert import convert
from phystrain.data.graphs import WORKERS, GraphStore
from phystrain.data.loader import Loader
from phystrain.data.packing import Budget
from phystrain.data.read import read
from phystrain.data.structures import Structures
from phystrain.data.write import write
from phystrain.files import write_text
from phystrain.train.material import load_labelled

RESULTS = Path(__file__).parent / "results" / "scale"
PARTS = ("convert", "open", "statistics", "epoch")
SIZES = (1_000, 10_000, 100_000)
ATOMS, CUTOFF, BATCH_ATOMS = 30, 5.0, 960
SPREAD = 0.03
"""Å, of the perturbation."""
PIECE = 1_000
"""Structures that are made at a time."""


def main() -> None:
    """Measure, or print the table of what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run")
    run.add_argument("--work", type=Path, required=True)
    run.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    run.add_argument("--million", action="store_true", help="10^6 too: about half an hour and 6 GB of disk")
    lists = verbs.add_parser("lists")
    lists.add_argument("--structures", type=int, default=2_000)
    part = verbs.add_parser("part", help="one measurement, in this process")
    part.add_argument("name", choices=PARTS)
    part.add_argument("work", type=Path)
    verbs.add_parser("table")
    options = parser.parse_args()
    match options.verb:
        case "run":
            for size in (*options.sizes, *[1_000_000] * options.million):
                measure(size, options.work)
            print_table()
        case "lists":
            compare_lists(options.structures)
        case "part":
            print(json.dumps(measured(options.name, options.work)))
        case "table":
            print_table()


def measure(size: int, work: Path) -> None:
    """All parts at one size, to a result file."""
    folder = work / f"scale-{size}"
    folder.mkdir(parents=True, exist_ok=True)
    write(perturbed(size), folder / "made.xyz")
    facts = {
        "structures": size,
        "atoms": ATOMS * size,
        "text_bytes": (folder / "made.xyz").stat().st_size,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "threads": WORKERS,
        "parts": {},
    }
    for name in PARTS:
        command = [sys.executable, __file__, "part", name, folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        facts["parts"][name] = json.loads(done.stdout.splitlines()[-1])
        print(f"{size:>9,} {name:10s} {facts['parts'][name]}", flush=True)
    facts["store_bytes"] = sum(file.stat().st_size for file in (folder / "made.store").iterdir())
    write_text(RESULTS / f"{size}.json", json.dumps(facts, indent=1) + "\n")
    for file in (*(folder / "made.store").iterdir(), folder / "made.xyz"):
        file.unlink()
    (folder / "made.store").rmdir()
    folder.rmdir()


def perturbed(size: int):
    """Structures of the packaged silica with displaced atoms; labels stay, which is all the same here."""
    silica = read(datasets.path("silica")).structures
    base = silica.select(silica.sizes == ATOMS)
    random = np.random.default_rng(0)
    for first in range(0, size, PIECE):
        chosen = base.select(random.integers(len(base), size=min(PIECE, size - first)))
        moved = chosen.positions + SPREAD * random.normal(size=chosen.positions.shape)
        fields = {name: getattr(chosen, name) for name in ("species", "offsets", "cell", "pbc", "weight")}
        yield Structures(
            positions=moved, energy=chosen.energy, forces=chosen.forces, stress=chosen.stress, info={}, **fields
        )


def measured(name: str, folder: Path) -> dict[str, float]:
    """Time and memory of one part, and what it says besides."""
    before = memory()
    watch = Watch()
    began, processor = time.perf_counter(), time.process_time()
    extra = globals()[f"part_{name}"](folder)
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    return {
        "seconds": round(seconds, 4),
        "processor_seconds": round(processor, 4),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "anonymous_mb": round(watch.stop(), 1),
        "anonymous_at_start_mb": round(before, 1),
        **extra,
    }


def part_convert(folder: Path) -> dict[str, float]:
    convert([folder / "made.xyz"], folder / "made.store", say=lambda _: None)
    return {}


def part_open(folder: Path) -> dict[str, float]:
    """Opening, and then reading frames here and there."""
    began = time.perf_counter()
    structures = read(folder / "made.store").structures
    opened = time.perf_counter() - began
    times = []
    for number in np.random.default_rng(1).integers(len(structures), size=300).tolist():
        began = time.perf_counter()
        atoms = slice(structures.offsets[number], structures.offsets[number + 1])
        structures.positions[atoms].sum() + structures.forces[atoms].sum() + structures.energy[number]
        times.append(time.perf_counter() - began)
    return {"open_ms": round(1e3 * opened, 2), "frame_us": round(1e6 * statistics.median(times), 1)}


def part_statistics(folder: Path) -> dict[str, float]:
    """What training does before its first step: split, references, statistics, hash."""
    data = DataConfig(train="made.store", valid_fraction=0.1)
    labelled = load_labelled(data, cutoff=CUTOFF, seed=0, base=folder, say=lambda _: None)
    return {"neighbours": labelled.statistics.neighbours, "digest": labelled.train.digest()[:8]}


def part_epoch(folder: Path) -> dict[str, float]:
    """Every batch of an epoch, lists built on the way."""
    structures = read(folder / "made.store").structures
    count = len(structures)
    part = structures.part(np.random.default_rng(0).permutation(count)[: -(-9 * count // 10)])
    began = time.process_time()
    loader = Loader(GraphStore(part, CUTOFF, lists="built"), Budget(atoms=BATCH_ATOMS), 0)
    loader.indices(0)
    order = time.process_time() - began
    systems = edges = 0
    for step in range(loader.steps_per_epoch):
        batch = loader.batch(step)
        systems, edges = systems + batch.graph.n_systems, edges + batch.graph.edges.shape[1]
    assert systems == len(part)
    return {"steps": loader.steps_per_epoch, "edges": edges, "order_seconds": round(order, 4)}


def compare_lists(count: int) -> None:
    """Lists built, in one thread, beside lists held in memory and read from mapped files."""
    structures = Structures.concatenate(list(perturbed(count)))
    numbers = np.random.default_rng(0).permutation(count).reshape(-1, 40)
    built, held = GraphStore(structures, CUTOFF, lists="built"), GraphStore(structures, CUTOFF, lists="held")
    with tempfile.TemporaryDirectory() as folder:
        lists = held._all
        for name in ("edges", "shifts"):
            np.ascontiguousarray(getattr(lists, name)).tofile(Path(folder) / name)
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        mapped = GraphStore(structures, CUTOFF, lists="built")
        mapped.held, mapped._edge_offsets = True, held._edge_offsets
        mapped._all = lists._replace(
            **{
                name: np.asarray(
                    np.memmap(Path(folder) / name, getattr(lists, name).dtype, "r", shape=getattr(lists, name).shape)
                )
                for name in ("edges", "shifts")
            }
        )
        rows = {"built": [], "held": [], "mapped": []}
        for _ in range(5):
            for name, store in (("built", built), ("held", held), ("mapped", mapped)):
                began = time.process_time()
                for batch in numbers:
                    store._lists(batch)
                rows[name].append(1e6 * (time.process_time() - began) / count)
    facts = {
        "structures": count,
        "atoms": ATOMS,
        "cutoff": CUTOFF,
        "edges_per_structure": len(lists.shifts) / count,
        "file_bytes_per_structure": size / count,
        "store_bytes_per_structure": ATOMS * 56 + 8 + 72 + 3 + 8 + 72 + 8,
        "processor_us_per_structure": {name: round(statistics.median(values), 2) for name, values in rows.items()},
    }
    write_text(RESULTS / "lists.json", json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts, indent=1))


def memory() -> float:
    """MB that are not files."""
    text = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("RssAnon")) / 1024


class Watch:
    """Looks at the memory of this process now and then."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._peak = memory()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            self._peak = max(self._peak, memory())

    def stop(self) -> float:
        """The peak, MB."""
        self._ended.set()
        self._thread.join()
        return max(self._peak, memory())


def print_table() -> None:
    """The table of the result files, to results/scale.md too."""
    files = sorted((file for file in RESULTS.glob("*.json") if file.stem.isdigit()), key=lambda file: int(file.stem))
    rows = [json.loads(file.read_text()) for file in files]
    lines = [
        f"Structures of {ATOMS} atoms, lists to {CUTOFF:g} Å, batches of at most {BATCH_ATOMS} atoms; made by",
        "`benchmarks/scale.py table` from `results/scale/`. Microseconds of processor time a structure (all threads),",
        "and the peak of memory that is not files, above that of the imports. Blocks fill up to 10,000 structures;",
        "what grows beyond is bookkeeping: numbers of the parts of the set, flags, energies, the order of an epoch.",
        "",
        "| structures | text, store | conversion | opening | a frame | split and statistics | an epoch's batches |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        parts, cells = row["parts"], []
        for name in ("convert", "statistics", "epoch"):
            part = parts[name]
            each = 1e6 * part["processor_seconds"] / row["structures"]
            cells.append(f"{each:.0f} µs, {part['anonymous_mb'] - part['anonymous_at_start_mb']:.0f} MB")
        sizes = f"{row['text_bytes'] / 1e6:,.0f}, {row['store_bytes'] / 1e6:,.0f} MB"
        opened = f"{parts['open']['open_ms']:.1f} ms | {parts['open']['frame_us']:.0f} µs"
        lines.append(f"| {row['structures']:,} | {sizes} | {cells[0]} | {opened} | {cells[1]} | {cells[2]} |")
    text = "\n".join(lines) + "\n"
    write_text(RESULTS.with_suffix(".md"), text)
    print(text)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

"""What a training step costs: energy and forces, the same with the weak losses; plain and compiled.

Usage: OMP_NUM_THREADS=1 python benchmarks/step.py --data DIR [--rounds 12] [--output benchmarks/results/step.json]

DIR holds 3bpa/train_300K.xyz (27-atom molecules); the quartz cells are built here. Schnet and painn have 128 channels,
3 layers and a cut-off of 5 Å, in float32. A round times three steps of every kind, in turn, so that what acts on every
third step counts as often as it acts; medians of processor time over the rounds are printed, and ratios to the steps of
energy and forces of the same round that are compiled, or not, as they are.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.io import read
from ase.spacegroup import crystal

from phystrain import objectives
from phystrain.allocator import keep_memory
from phystrain.data.graphs import GraphStore
from phystrain.data.structures import Structures
from phystrain.files import write_text
from phystrain.labels import Batch
from phystrain.potentials import build
from phystrain.statistics import Statistics
from phystrain.train.step import TrainingStep

LABELS = {"energy": {}, "forces": {"weight": 10.0}}
BOTH = {"pitc": {"weight": 1.0}, "pisc": {"weight": 1.0}}
PERIOD = 3
RARELY = {"weight": 1.0, "every": PERIOD}
KINDS = {
    "energy + forces": LABELS,
    "+ PITC": {**LABELS, "pitc": {"weight": 1.0}},
    "+ PITC + PISC": {**LABELS, **BOTH},
    "+ PITC + PISC, every third step": {**LABELS, "pitc": RARELY, "pisc": RARELY},
    "+ antithetic": {**LABELS, "antithetic": {"weight": 1.0}},
    "+ antithetic, every third step": {**LABELS, "antithetic": RARELY},
}
DIRECT = {
    "+ gradient": {**LABELS, "gradient": {"weight": 1.0}},
    "+ gradient, every third step": {**LABELS, "gradient": RARELY},
}
"""For networks with a direct force head."""
NETWORKS = {
    "schnet": {"kind": "schnet"},
    "painn": {"kind": "painn"},
    "painn, direct": {"kind": "painn", "head": "direct"},
}


def molecules(folder: Path) -> list[Atoms]:
    """Eight molecules of 27 atoms."""
    return read(folder / "3bpa" / "train_300K.xyz", ":8")


def quartz() -> list[Atoms]:
    """Four rattled cells of alpha-quartz with 72 atoms."""
    cells = [quartz_cell((2, 2, 2), seed) for seed in range(4)]
    assert all(len(cell) == 72 for cell in cells)
    return cells


def quartz_cell(repeats: tuple[int, int, int], seed: int = 0) -> Atoms:
    """A rattled cell of alpha-quartz of nine atoms times the repeats."""
    unit = crystal(
        ["Si", "O"],
        [(0.4697, 0.0, 1 / 3), (0.4135, 0.2669, 0.7858)],
        spacegroup=152,
        cellpar=[4.916, 4.916, 5.405, 90, 90, 120],
    )
    cell = unit.repeat(repeats)
    cell.rattle(0.05, seed=seed)
    return cell


def labelled(frames: list[Atoms], reach: float, cutoff: float) -> Batch:
    """A batch with made-up labels: only the time matters."""
    rng = np.random.default_rng(0)
    structures = Structures.from_ase(frames).without_labels()
    structures = structures.with_labels(
        energy=rng.normal(size=len(frames)), forces=rng.normal(size=structures.positions.shape)
    )
    return GraphStore(structures, cutoff + 2 * reach).batch(range(len(frames)))


def stepper(potential: torch.nn.Module, terms: dict, frames: list[Atoms], *, compiled: bool = False):
    """A function that makes a period of steps, each loss, gradient, optimiser, and returns ms of one; and the edges."""
    parsed = objectives.parse(terms)
    batch = labelled(frames, max(term.reach for term in parsed.values()), potential.cutoff)
    module = TrainingStep(potential, parsed)
    if compiled:
        module.compile_passes()
    optimiser = torch.optim.Adam(potential.parameters(), lr=1e-6)

    def steps() -> float:
        began = time.process_time()
        for number in range(PERIOD):
            optimiser.zero_grad()
            module(batch, step=number)[0].backward()
            optimiser.step()
        return 1000 * (time.process_time() - began) / PERIOD

    return steps, batch.graph.edges.shape[1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    keep_memory()
    rows = []
    for system, frames in (("8 molecules of 27", molecules(options.data)), ("4 quartz cells of 72", quartz())):
        for network, kind in NETWORKS.items():
            torch.manual_seed(0)
            species = sorted({int(number) for frame in frames for number in frame.numbers})
            settings = {**kind, "channels": 128, "layers": 3, "cutoff": 5.0}
            potential = build(settings, Statistics.bare(tuple(species)))
            steps = {
                (name, compiled): stepper(potential, terms, frames, compiled=compiled)
                for compiled in (False, True)
                for name, terms in (KINDS | DIRECT if "head" in kind else KINDS).items()
            }
            for step, _ in steps.values():
                step(), step()
            times = {key: [] for key in steps}
            for _ in range(options.rounds):
                for key, (step, _) in steps.items():
                    times[key].append(step())
            for (name, compiled), (_, edges) in steps.items():
                bare = times["energy + forces", compiled]
                ratio = statistics.median(t / p for t, p in zip(times[name, compiled], bare, strict=True))
                row = {"system": system, "network": network, "step": name, "compiled": compiled, "edges": edges}
                row |= {"ms": round(statistics.median(times[name, compiled]), 1), "ratio": round(ratio, 2)}
                rows.append(row)
                print("{system:21s} {network:14s} {step:32s} {compiled!s:6s}{ms:8.1f} ms {ratio:5.2f}x".format(**row))
    if options.output:
        facts = {
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "machine": platform.processor() or platform.machine(),
        }
        write_text(options.output, json.dumps({**facts, "rounds": options.rounds, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

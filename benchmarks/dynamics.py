"""Molecular dynamics of eight replicas of a molecule in one batch, beside one ASE run after another.

Usage: OMP_NUM_THREADS=1 python benchmarks/dynamics.py --data DIR [--rounds 7] [--output FILE]

DIR holds 3bpa/train_300K.xyz (27-atom molecules). All ways run the same network, trained for a minute so that the
molecules hold together, in the same process, from the same frames, at 300 K with 0.5 fs, with a neighbour list that is
kept as long as it holds: ours with all its guards, as it is and compiled as runs of more than a minute are (compiling
itself, half a minute once, is not counted), ASE's with the ASE calculator of the same potential. A round times each way
once, in turn; steps are added over the replicas. Medians over the rounds of wall time and of processor time, and of
their ratios within a round.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.io import read
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet

from phystrain import compiled, objectives
from phystrain.allocator import keep_memory
from phystrain.data.graphs import GraphStore
from phystrain.data.structures import Structures
from phystrain.dynamics import Settings, simulate
from phystrain.files import write_text
from phystrain.interfaces.ase import PhystrainCalculator
from phystrain.potentials import build
from phystrain.statistics import Statistics
from phystrain.train.step import TrainingStep

REPLICAS, TIMESTEP, KELVIN = 8, 0.5, 300.0
NETWORKS = ("schnet", "painn")


def trained(kind: str, frames: list[Atoms], steps: int = 150) -> torch.nn.Module:
    """The small preset, taught forces until the molecules hold together."""
    torch.manual_seed(0)
    structures = Structures.from_ase(frames)
    potential = build({"kind": kind, "preset": "small"}, Statistics.bare(structures.elements))
    store = GraphStore(structures, potential.cutoff)
    module = TrainingStep(potential, objectives.parse({"forces": {}}))
    optimiser = torch.optim.Adam(potential.parameters(), lr=3e-3)
    random = np.random.default_rng(0)
    for _ in range(steps):
        optimiser.zero_grad()
        module(store.batch(random.integers(len(frames), size=4)))[0].backward()
        torch.nn.utils.clip_grad_norm_(potential.parameters(), 1.0)
        optimiser.step()
    return potential.eval().requires_grad_(False)


def in_a_batch(potential: torch.nn.Module, frames: list[Atoms], ensemble: str, steps: int) -> None:
    """All replicas side by side."""
    settings = Settings(
        ensemble=ensemble,
        temperature=KELVIN,
        timestep=TIMESTEP,
        picoseconds=steps * TIMESTEP / 1000,
        compiled=False,
    )
    run = simulate(potential, Structures.from_ase(frames), settings)
    assert run.survived.all(), run.sentences


def one_by_one(potential: torch.nn.Module, frames: list[Atoms], ensemble: str, steps: int) -> None:
    """The same number of steps of each, by ASE."""
    for frame in frames:
        atoms = Atoms(frame.numbers, frame.positions)
        atoms.calc = PhystrainCalculator(potential, skin=Settings().skin)
        thermalize_momenta(atoms, temperature_K=KELVIN)
        if ensemble == "nve":
            runner = VelocityVerlet(atoms, TIMESTEP * units.fs)
        else:
            options = {"temperature_K": KELVIN, "friction": 0.01 / units.fs, "fixcm": False}
            runner = Langevin(atoms, TIMESTEP * units.fs, **options)
        runner.run(steps)


def timed(way: Callable[[int], None], steps: int) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    way(steps)
    return time.perf_counter() - wall, time.process_time() - processor


def measured(
    potential: torch.nn.Module, frames: list[Atoms], ensemble: str, rounds: int, steps: int
) -> dict[str, object]:
    """Steps per second of every way, added over the replicas, and their ratios to ASE's."""
    fast = compiled.faster(potential)
    ways = {
        "batch": lambda count: in_a_batch(potential, frames, ensemble, count),
        "compiled batch": lambda count: in_a_batch(fast, frames, ensemble, count),
        "ase": lambda count: one_by_one(potential, frames, ensemble, count),
    }
    for way in ways.values():
        way(4)  # whatever is done once
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(timed(way, steps))
    row: dict[str, object] = {}
    for column, clock in enumerate(("wall", "processor")):
        for name, times in found.items():
            median = statistics.median(each[column] for each in times)
            row[f"{name}, steps per second ({clock})"] = round(steps * len(frames) / median, 1)
        for name in ("batch", "compiled batch"):
            ratios = [ase[column] / batch[column] for ase, batch in zip(found["ase"], found[name], strict=True)]
            row[f"{name} over ase ({clock})"] = round(statistics.median(ratios), 2)
            row[f"{name} over ase ({clock}), range"] = [round(min(ratios), 2), round(max(ratios), 2)]
    return row


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    keep_memory()
    frames = read(options.data / "3bpa" / "train_300K.xyz", f":{REPLICAS}")
    rows = []
    for name in NETWORKS:
        potential = trained(name, read(options.data / "3bpa" / "train_300K.xyz", ":100"))
        for ensemble in ("nvt", "nve"):
            row = {"network": f"{name}, small", "ensemble": ensemble}
            row |= measured(potential, frames, ensemble, options.rounds, options.steps)
            rows.append(row)
            print(json.dumps(row, ensure_ascii=False))
    if options.output:
        facts = {
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "machine": platform.processor() or platform.machine(),
            "load at the end": round(os.getloadavg()[0], 1),
            "replicas": REPLICAS,
            "atoms": len(frames[0]),
            "steps": options.steps,
            "rounds": options.rounds,
        }
        write_text(options.output, json.dumps({**facts, "rows": rows}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

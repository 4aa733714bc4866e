"""Molecular dynamics of eight replicas of a molecule in one batch, beside one ASE run after another.

Usage: OMP_NUM_THREADS=1 python benchmarks/dynamics.py --data DIR [--rounds 7] [--output FILE]

DIR holds 3bpa/train_300K.xyz (27-atom molecules). Both ways run the same untrained network (weights do not change the
time) in the same process, without compiling, from the same frames, 300 K, Langevin, 0.5 fs, with a neighbour list that
is kept as long as it holds: ours with all its guards, ASE's with its calculator of the same potential. A round times
each way once, in turn; steps are added over the replicas. Medians over the rounds of wall time and of processor time,
and of their ratios within a round.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from ase import Atoms, units
from ase.io import read
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet

from phystrain.allocator import keep_memory
from phystrain.data.structures import Structures
from phystrain.dynamics import Settings, simulate
from phystrain.files import write_text
from phystrain.interfaces.ase import PhystrainCalculator
from phystrain.potentials import build
from phystrain.statistics import Statistics

REPLICAS, TIMESTEP, KELVIN = 8, 0.5, 300.0
NETWORKS = {
    "schnet, small": {"kind": "schnet", "preset": "small"},
    "painn, small": {"kind": "painn", "preset": "small"},
    "painn, 64 channels": {"kind": "painn", "channels": 64, "layers": 2, "cutoff": 5.0},
}


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
        MaxwellBoltzmannDistribution(atoms, temperature_K=KELVIN)
        if ensemble == "nve":
            runner = VelocityVerlet(atoms, TIMESTEP * units.fs)
        else:
            runner = Langevin(atoms, TIMESTEP * units.fs, temperature_K=KELVIN, friction=0.01 / units.fs)
        runner.run(steps)


def timed(way: Callable[[], None]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    way()
    return time.perf_counter() - wall, time.process_time() - processor


def measured(
    potential: torch.nn.Module, frames: list[Atoms], ensemble: str, rounds: int, steps: int
) -> dict[str, float]:
    """Steps per second of both ways, added over the replicas, and their ratio."""
    ways = {"batch": in_a_batch, "ase": one_by_one}
    for way in ways.values():
        way(potential, frames, ensemble, 4)  # whatever is done once
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(timed(lambda way=way: way(potential, frames, ensemble, steps)))
    row = {}
    for column, clock in enumerate(("wall", "processor")):
        for name, times in found.items():
            row[f"{name}, steps per second, {clock}"] = round(
                steps * len(frames) / statistics.median(t[column] for t in times), 1
            )
        ratios = [ase[column] / batch[column] for ase, batch in zip(found["ase"], found["batch"], strict=True)]
        row[f"ratio, {clock}"] = round(statistics.median(ratios), 2)
        row[f"ratio, {clock}, lowest and highest"] = [round(min(ratios), 2), round(max(ratios), 2)]
    return row


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    keep_memory()
    frames = read(options.data / "3bpa" / "train_300K.xyz", f":{REPLICAS}")
    species = tuple(sorted({int(number) for frame in frames for number in frame.numbers}))
    rows = []
    for name, settings in NETWORKS.items():
        torch.manual_seed(0)
        potential = build(settings, Statistics.bare(species)).eval()
        for ensemble in ("nvt", "nve"):
            row = {"network": name, "ensemble": ensemble}
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

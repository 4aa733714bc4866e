"""Dynamics and single evaluations of 27, 1,512 and 12,096 atoms: through ASE, in a batch, compiled; memory kept or not.

Usage: OMP_NUM_THREADS=1 python -m benchmarks.inference run --data DIR [--output benchmarks/results/inference.json]
       python -m benchmarks.inference table

DIR holds 3bpa/train_300K.xyz (27-atom molecules); the quartz cells are built here. Small presets as they are built,
not trained, at 0.05 fs, so that nothing happens but the work: constant energy, neighbour lists reused under a skin,
single precision with energies summed in double precision. A batch holds eight molecules or two cells of 1,512 atoms,
and counts steps of all of them. Processor time, the median over rounds in which every way is timed in turn; first with
memory that the process keeps, then, in another process, with the C library's defaults.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from ase import Atoms, units
from ase.io import read
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet

from benchmarks.step import quartz_cell
from phystrain import compiled
from phystrain.allocator import keep_memory
from phystrain.data.structures import Structures
from phystrain.dynamics import Settings, simulate
from phystrain.dynamics.guards import Guards
from phystrain.files import write_text
from phystrain.interfaces.ase import PhystrainCalculator
from phystrain.potentials import build
from phystrain.statistics import Statistics

RESULTS = Path(__file__).parent / "results" / "inference.json"
NETWORKS = {
    "schnet": {"kind": "schnet", "preset": "small"},
    "painn": {"kind": "painn", "preset": "small"},
    "painn, direct": {"kind": "painn", "preset": "small", "head": "direct"},
}
SYSTEMS = {27: (8, 40), 1512: (2, 4), 12096: (1, 2)}
"""By number of atoms: how many in a batch, and steps that are timed."""
TIMESTEP, KELVIN, ROUNDS = 0.05, 300.0, 3
UNGUARDED = Guards(contact=None, temperature_rise=None, temperature_jump=None)


def frames_of(atoms: int, folder: Path) -> list[Atoms]:
    """As many as a batch holds."""
    if atoms == 27:
        return read(folder / "3bpa" / "train_300K.xyz", f":{SYSTEMS[atoms][0]}")
    repeats = {1512: (4, 6, 7), 12096: (8, 12, 14)}[atoms]
    return [quartz_cell(repeats, seed) for seed in range(SYSTEMS[atoms][0])]


def by_ase(potential: torch.nn.Module, frame: Atoms) -> Callable[[int], None]:
    """Steps of one structure."""
    atoms = frame.copy()
    atoms.calc = PhystrainCalculator(potential, skin=Settings().skin)
    thermalize_momenta(atoms, temperature_K=KELVIN)
    return VelocityVerlet(atoms, TIMESTEP * units.fs).run


def in_a_batch(potential: torch.nn.Module, frames: list[Atoms]) -> Callable[[int], None]:
    """Steps of all of them."""
    structures = Structures.from_ase(frames)

    def run(steps: int) -> None:
        settings = Settings(
            ensemble="nve",
            temperature=KELVIN,
            timestep=TIMESTEP,
            picoseconds=steps * TIMESTEP / 1000,
            guards=UNGUARDED,
            compiled=False,
            batch_atoms=20_000,
        )
        assert simulate(potential, structures, settings).survived.all()

    return run


def seconds(run: Callable[[int], None], steps: int) -> float:
    """Of processor time for one step: that of a longer run less that of a shorter one, without what is done once."""
    taken = []
    for count in (steps, 3 * steps):
        began = time.process_time()
        run(count)
        taken.append(time.process_time() - began)
    return (taken[1] - taken[0]) / (2 * steps)


def measured(folder: Path, networks: tuple[str, ...]) -> list[dict[str, object]]:
    """A row for each network, size and way."""
    rows = []
    for name in networks:
        for atoms, (copies, steps) in SYSTEMS.items():
            frames = frames_of(atoms, folder)
            torch.manual_seed(0)
            potential = build(NETWORKS[name], Statistics.bare(Structures.from_ase(frames).elements))
            potential = potential.to(torch.float32).eval().requires_grad_(False)
            fast = compiled.faster(potential)
            ways = {
                ("ASE", False): (by_ase(potential, frames[0]), 1),
                ("ASE", True): (by_ase(fast, frames[0]), 1),
            }
            if copies > 1:
                ways[f"batch of {copies}", False] = (in_a_batch(potential, frames), copies)
                ways[f"batch of {copies}", True] = (in_a_batch(fast, frames), copies)
            found: dict[tuple[str, bool], list[float]] = {way: [] for way in ways}
            for run, _ in ways.values():
                run(2)
            for _ in range(ROUNDS):
                for way, (run, many) in ways.items():
                    found[way].append(seconds(run, steps) / many)
            for (way, fused), times in found.items():
                row = {"network": name, "atoms": atoms, "way": way, "compiled": fused}
                rows.append(row | {"ms": round(1000 * statistics.median(times), 3)})
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def table(results: dict[str, object]) -> str:
    """Markdown."""
    kept, default = ({tuple(row.values())[:4]: row["ms"] for row in results[key]} for key in ("kept", "default"))
    lines = [
        "| network | atoms | way | steps a second | compiled | ms a step | ms compiled | plain, C library's defaults |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (network, atoms, way, fused), ms in kept.items():
        if fused:
            continue
        fast, slow = kept[network, atoms, way, True], default.get((network, atoms, way, False))
        figures = " | ".join(_short(figure) for figure in (1000 / ms, 1000 / fast, ms, fast))
        without = f"{slow / ms:.2f} times as long" if slow else ""
        lines.append(f"| {network} | {atoms:,} | {way} | {figures} | {without} |")
    return "\n".join(lines)


def _short(number: float) -> str:
    """Three digits."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def main() -> None:
    """Measure, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run")
    run.add_argument("--data", type=Path, required=True)
    run.add_argument("--output", type=Path, default=RESULTS)
    part = verbs.add_parser("part")  # what `run` starts
    part.add_argument("memory", choices=("kept", "default"))
    part.add_argument("--data", type=Path, required=True)
    verbs.add_parser("table")
    options = parser.parse_args()
    if options.verb == "table":
        print(table(json.loads(RESULTS.read_text())))
    elif options.verb == "part":
        if options.memory == "kept":
            keep_memory()
        # the library's defaults are shown for one network: they are of tensors, not of architectures
        print(json.dumps(measured(options.data, tuple(NETWORKS) if options.memory == "kept" else ("painn",))))
    else:
        results: dict[str, object] = {
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "machine": platform.processor() or platform.machine(),
            "load at the start": round(os.getloadavg()[0], 1),
        }
        for memory in ("kept", "default"):
            command = [sys.executable, "-m", "benchmarks.inference", "part", memory, "--data", str(options.data)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            results[memory] = json.loads(done.stdout)
        write_text(options.output, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

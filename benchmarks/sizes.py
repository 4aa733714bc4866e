"""What energies and forces cost against the number of atoms, and an EAM table beside matscipy's calculator.

Usage: OMP_NUM_THREADS=1 python benchmarks/sizes.py --table FILE.eam.fs [--matscipy PYTHON]
       [--output benchmarks/results/sizes.json]

FILE is an eam/fs table that holds molybdenum; PYTHON is the interpreter of an environment with matscipy, which is run
with the same crystals. Rattled bcc crystals of 10^3 to 10^5 atoms (networks: to 10^4), neighbour lists included, in
processor time, the median of several evaluations after the first one. The exponent is that of a power law through the
ends.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from ase import Atoms
from ase.build import bulk

from phystrain.allocator import keep_memory
from phystrain.derive import evaluate
from phystrain.files import write_text
from phystrain.graph import AtomGraph
from phystrain.potentials import build
from phystrain.statistics import Statistics

REPEATS = (8, 17, 37)
"""Conventional cells along each side: 1,024, 9,826 and 101,306 atoms."""

ROUNDS = 3

MATSCIPY = """
import json, statistics, sys, time
from ase.io import read
from matscipy.calculators.eam import EAM
table, *files = sys.argv[1:]
found = []
for file in files:
    atoms = read(file)
    atoms.calc = EAM(table, kind="eam/fs")
    times = []
    for _ in range({rounds} + 1):
        atoms.positions[0, 0] += 1e-4
        began = time.process_time()
        atoms.get_forces()
        times.append(time.process_time() - began)
    found.append([statistics.median(times[1:]), atoms.get_potential_energy()])
print(json.dumps(found))
"""


def crystal(repeats: int) -> Atoms:
    """A rattled crystal of molybdenum."""
    atoms = bulk("Mo", "bcc", a=3.147, cubic=True).repeat((repeats,) * 3)
    atoms.rattle(0.05, seed=0)
    return atoms


def seconds(potential: torch.nn.Module, atoms: Atoms) -> tuple[float, float]:
    """Processor time of energy and forces with the neighbour list, and the last energy (eV)."""
    atoms = atoms.copy()
    dtype = torch.float64 if not list(potential.parameters()) else torch.float32
    times = []
    for _ in range(ROUNDS + 1):
        atoms.positions[0, 0] += 1e-4
        began = time.process_time()
        found = evaluate(potential, AtomGraph.from_ase(atoms, potential.cutoff, dtype=dtype))
        times.append(time.process_time() - began)
    return statistics.median(times[1:]), float(found.energy[0])


def beside_matscipy(python: str, table: Path, crystals: list[Atoms], folder: Path) -> list[list[float]]:
    """The same of matscipy, in a process of its own."""
    files = []
    for atoms in crystals:
        files.append(str(folder / f"{len(atoms)}.traj"))
        atoms.write(files[-1])
    command = [python, "-c", MATSCIPY.replace("{rounds}", str(ROUNDS)), str(table), *files]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--matscipy", metavar="PYTHON")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    keep_memory()
    torch.manual_seed(0)
    bare = Statistics.bare((42,))
    kinds = {
        "eam_table": ({"kind": "eam_table", "file": str(options.table)}, REPEATS),
        "eam": ({"kind": "eam"}, REPEATS),
        "schnet, small": ({"kind": "schnet", "preset": "small", "cutoff": 5.0}, REPEATS[:2]),
        "painn, small": ({"kind": "painn", "preset": "small", "cutoff": 5.0}, REPEATS[:2]),
    }
    rows = []
    for name, (settings, repeats) in kinds.items():
        potential = build(settings, bare)
        found = [(len(atoms), *seconds(potential, atoms)) for atoms in map(crystal, repeats)]
        rows.append(row(name, found))
    if options.matscipy:
        import tempfile

        crystals = list(map(crystal, REPEATS))
        with tempfile.TemporaryDirectory() as folder:
            theirs = beside_matscipy(options.matscipy, options.table.resolve(), crystals, Path(folder))
        rows.append(row("matscipy's EAM", [(len(a), *pair) for a, pair in zip(crystals, theirs, strict=True)]))
        mine = rows[0]
        for one, other in zip(mine["energies"], rows[-1]["energies"], strict=True):
            if abs(one - other) > 1e-6 * abs(one):
                sys.exit(f"the energies differ: {one} and {other} eV")
    if options.output:
        facts = {"threads": torch.get_num_threads(), "torch": torch.__version__, "rounds": ROUNDS}
        write_text(options.output, json.dumps({**facts, "rows": rows}, indent=1) + "\n")


def row(name: str, found: list[tuple[int, float, float]]) -> dict:
    """One line of the table, printed too."""
    sizes, times, energies = zip(*found, strict=True)
    exponent = math.log(times[-1] / times[0]) / math.log(sizes[-1] / sizes[0])
    each = [round(1e6 * took / size, 2) for size, took in zip(sizes, times, strict=True)]
    print(f"{name:16s} {'  '.join(f'{s:,} atoms: {e} µs' for s, e in zip(sizes, each, strict=True))}  ^{exponent:.2f}")
    return {
        "kind": name,
        "atoms": sizes,
        "us_per_atom": each,
        "exponent": round(exponent, 2),
        "energies": energies,
    }


if __name__ == "__main__":
    main()

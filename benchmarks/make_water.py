"""Sample water molecules and pairs of them, the geometries of the set in benchmarks/data/water.

Usage: python benchmarks/make_water.py OUTPUT.xyz

Langevin dynamics by GFN2-xTB: 45 frames of a molecule at 600 K and 10 of a pair at 300 K, 100 and 400 fs apart. A pair
that drifts apart beyond 5 Å (O-O) starts again from its minimum. 'phystrain label' makes the labels: see the README of
the set. The two atoms alone come last: the composition of water fixes no energies of hydrogen and oxygen.
"""

import sys

import numpy as np
from ase import Atoms, units
from ase.io import write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import BFGS
from tblite.ase import TBLite

# Near the minimum: a molecule, and a pair with one hydrogen bond along x.
MONOMER = Atoms("OH2", [[0, 0, 0], [0.76, 0, 0.59], [-0.76, 0, 0.59]])
DIMER = Atoms(
    "OH2OH2",
    [[0, 0, 0], [0.97, 0, 0], [-0.24, 0.93, 0], [2.9, 0, 0], [3.2, 0.4, 0.78], [3.2, 0.4, -0.78]],
)


def sample(start: Atoms, name: str, kelvin: float, count: int, spacing: int) -> list[Atoms]:
    """Frames of dynamics, ``spacing`` steps of 0.5 fs apart, after as many to begin with."""
    random = np.random.default_rng(0)
    atoms = start.copy()
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    BFGS(atoms, logfile=None).run(fmax=0.01, steps=200)
    minimum = atoms.positions.copy()
    MaxwellBoltzmannDistribution(atoms, temperature_K=kelvin, rng=random)
    dynamics = Langevin(atoms, 0.5 * units.fs, temperature_K=kelvin, friction=0.02 / units.fs, rng=random)
    frames: list[Atoms] = []
    while len(frames) < count:
        dynamics.run(spacing)
        if len(atoms) == 6 and atoms.get_distance(0, 3) > 5.0:
            atoms.positions = minimum
            continue
        frame = Atoms(atoms.numbers, atoms.positions - atoms.get_center_of_mass(), info={"config_type": name})
        frames.append(frame)
    return frames


def main() -> None:
    """Write the geometries."""
    frames = sample(MONOMER, "monomer", 600, 45, 200) + sample(DIMER, "dimer", 300, 10, 800)
    frames += [Atoms(symbol, [[0, 0, 0]], info={"config_type": "atom"}) for symbol in "HO"]
    write(sys.argv[1], frames, format="extxyz")


if __name__ == "__main__":
    main()

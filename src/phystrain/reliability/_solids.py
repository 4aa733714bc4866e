"""Crystals at rest, for tests that run no dynamics."""

import numpy as np
from ase.filters import FrechetCellFilter
from ase.optimize import LBFGS
from torch import nn

from phystrain.data.structures import Structures
from phystrain.interfaces.ase import PhystrainCalculator


def relaxed(potential: nn.Module, structures: Structures, number: int, force: float, steps: int) -> Structures | None:
    """A periodic structure without forces and stress, by ASE's LBFGS; ``None`` if it does not come to rest.

    Args:
        potential: in double precision, if small forces are wanted.
        structures: to take it from.
        number: which one.
        force: eV/Å, largest left over (of the cell: of the derivative by the logarithm of its deformation, per atom).
        steps: most steps.
    """
    atoms = structures.to_ase(number)
    atoms.calc = PhystrainCalculator(potential)
    optimiser = LBFGS(FrechetCellFilter(atoms), logfile=None)
    try:
        arrived = optimiser.run(fmax=force, steps=steps)
    except (ValueError, FloatingPointError, np.linalg.LinAlgError):  # a cell that collapsed on the way
        return None
    volume = atoms.get_volume() / abs(np.linalg.det(structures.cell[number]))
    if not arrived or not np.isfinite(atoms.positions).all() or not 0.3 < volume < 3:
        return None
    atoms.calc = None
    return Structures.from_ase([atoms])


def smallest_crystal(*sources: Structures | None) -> Structures | None:
    """The smallest structure that is periodic in three directions, from the first source that has one."""
    for structures in sources:
        if structures is not None and structures.pbc.all(axis=1).any():
            periodic = np.flatnonzero(structures.pbc.all(axis=1))
            return structures.select([periodic[structures.sizes[periodic].argmin()]]).without_labels()
    return None

"""Predictions and relaxation of structures, for tests that run no dynamics."""

import copy
from typing import cast

import numpy as np
from ase.filters import FrechetCellFilter
from ase.optimize import LBFGS
from torch import nn

from phystrain.data.graphs import GraphStore
from phystrain.data.structures import Structures, ragged
from phystrain.derive import Potential, evaluate, placement
from phystrain.interfaces.ase import PhystrainCalculator


def predicted(potential: nn.Module, structures: Structures, *, stress: bool = False, batch: int = 2000) -> Structures:
    """The same structures with the potential's energies, forces and, if asked for, stresses as labels.

    Args:
        potential: a :class:`phystrain.derive.Potential`, on its device and in its precision.
        structures: any; with ``stress`` periodic in three directions.
        stress: predict it too.
        batch: atoms evaluated at a time.
    """
    device, dtype = placement(potential)
    model = cast(Potential, potential)
    energy = np.empty(len(structures))
    forces = np.empty_like(structures.positions)
    stresses = np.full_like(structures.cell, np.nan)
    group = (structures.offsets[1:] - 1) // batch
    for indices in np.split(np.arange(len(structures)), np.flatnonzero(np.diff(group)) + 1):
        if not len(indices):
            continue
        # lists are made batch by batch: those of all structures at once may not fit into memory
        graph = GraphStore(structures.select(indices), model.cutoff).graph(np.arange(len(indices)), dtype).to(device)
        found = evaluate(model, graph, ("energy", "forces", "stress") if stress else ("energy", "forces"))
        assert found.energy is not None and found.forces is not None  # noqa: PT018
        energy[indices] = found.energy.cpu().numpy()
        forces[ragged(structures.offsets, indices)] = found.forces.cpu().numpy()
        if found.stress is not None:
            stresses[indices] = found.stress.cpu().numpy()
    return structures.with_labels(energy, forces, stresses)


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


def precise(potential: nn.Module) -> nn.Module:
    """A copy in double precision, for differences of small numbers."""
    return copy.deepcopy(potential).double()


def smallest_crystal(*sources: Structures | None) -> Structures | None:
    """The smallest structure that is periodic in three directions, from the first source that has one."""
    for structures in sources:
        if structures is not None and structures.pbc.all(axis=1).any():
            periodic = np.flatnonzero(structures.pbc.all(axis=1))
            return structures.select([periodic[structures.sizes[periodic].argmin()]]).without_labels()
    return None

"""Small structures of given elements whose distances fit a cut-off, always the same ones."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.data import covalent_radii
from scipy.spatial.transform import Rotation
from torch import nn

CLOSEST = 0.35
"""Shortest distance in the disordered structures, in units of the cut-off."""


def scale_of(potential: nn.Module) -> float:
    """Å, the cut-off, or a length like it for a potential without."""
    cutoff: float = potential.cutoff  # type: ignore[assignment]
    return cutoff if cutoff > 0 else 4.0


def rotation(seed: int) -> npt.NDArray[np.float64]:
    """(3, 3) random rotation."""
    matrix: npt.NDArray[np.float64] = Rotation.random(random_state=seed).as_matrix()
    return matrix


def _elements(species: Sequence[int], count: int) -> list[int]:
    """``count`` elements, all of ``species`` in turn, the smallest atoms first."""
    ordered = sorted(set(species), key=lambda number: (covalent_radii[number], number))
    return [ordered[i % len(ordered)] for i in range(count)]


def lone(number: int) -> Atoms:
    """One atom in vacuum."""
    return Atoms([number], [[0.3, -0.2, 0.1]])


def pair_apart(species: Sequence[int], scale: float) -> Atoms:
    """Two atoms that are no neighbours."""
    return Atoms(_elements(species, 2), [[0, 0, 0], [0, 0, 1.2 * scale]])


def chain(species: Sequence[int], scale: float) -> Atoms:
    """Three atoms on a line, where angles and normals are not defined."""
    return Atoms(_elements(species, 3), [[0, 0, 0], [0, 0, 0.4 * scale], [0, 0, 0.8 * scale]])


def molecule(species: Sequence[int], scale: float, count: int = 5, seed: int = 0) -> Atoms:
    """Atoms at random, no two closer than :data:`CLOSEST`, some further apart than the cut-off."""
    random = np.random.default_rng(seed)
    positions = np.zeros((1, 3))
    while len(positions) < count:
        trial = random.uniform(-0.6, 0.6, 3)
        if np.linalg.norm(positions - trial, axis=1).min() > CLOSEST:
            positions = np.vstack([positions, trial])
    return Atoms(_elements(species, count), scale * positions)


def crystal(species: Sequence[int], scale: float) -> Atoms:
    """Three atoms in a skew periodic cell about as wide as the cut-off, with no symmetry."""
    cell = scale * np.array([[0.80, 0.05, -0.10], [0.12, 0.75, 0.07], [-0.06, 0.15, 0.85]])
    fractions = [[0.02, 0.05, 0.01], [0.48, 0.55, 0.04], [0.03, 0.46, 0.52]]
    return Atoms(_elements(species, 3), scaled_positions=fractions, cell=cell, pbc=True)


def dense(species: Sequence[int], scale: float) -> Atoms:
    """Body-centred cubic cell of half the width of the cut-off: symmetric, each atom a neighbour of its images."""
    return Atoms(_elements(species, 2), scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[0.5 * scale] * 3, pbc=True)


def mixture(species: Sequence[int], scale: float) -> list[Atoms]:
    """What a batch may hold: lone atom, atoms without neighbours, molecules, crystals, symmetric and not."""
    return [
        lone(min(species)),
        molecule(species, scale),
        crystal(species, scale),
        pair_apart(species, scale),
        dense(species, scale),
        chain(species, scale),
    ]

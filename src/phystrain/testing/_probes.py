"""Ways of looking at a potential: noise on weights, predictions of ASE structures, comparisons, differences, jumps."""

import copy
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from ase import Atoms
from torch import Tensor, nn

from phystrain.derive import Potential, Prediction, evaluate
from phystrain.graph import AtomGraph
from phystrain.testing._structures import scale_of

TIGHT = 1e-10
"""Relative tolerance for what holds exactly but for rounding, float64."""

BOTH = ("energy", "forces")
ALL = ("energy", "forces", "stress")

_SMALL = 1e-3
"""eV, eV/Å or eV/Å³ that rounding is held against where a small untrained network gives even less."""


class Values(NamedTuple):
    """A :class:`phystrain.derive.Prediction` in which nothing is missing; what was not asked for is empty."""

    energy: Tensor
    forces: Tensor
    stress: Tensor


def perturbed(potential: nn.Module, amount: float = 0.1, seed: int = 0) -> nn.Module:
    """A copy in float64 with noise on every parameter.

    Layers that start at zero would otherwise make most checks vacuous.

    Args:
        potential: left as it is.
        amount: of the noise, relative to the spread of each parameter's entries (to one where there is no spread).
        seed: of the noise.
    """
    made = copy.deepcopy(potential).to(torch.float64)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            spread = float(parameter.std()) if parameter.numel() > 1 else 0.0
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_((amount * (spread or 1.0) * noise).to(parameter))
    return made


def as_potential(module: nn.Module) -> Potential:
    """``module``, which must have a cut-off and atomic energies."""
    assert isinstance(module, Potential), "a potential has 'cutoff' and 'atomic_energies(graph)'"
    return module


def is_conservative(potential: nn.Module) -> bool:
    """Whether forces are the gradient of the energy: there is no direct force head."""
    return not hasattr(potential, "heads")


def reaches(potential: nn.Module) -> bool:
    """Whether atoms can feel one another at all; reference energies have no cut-off."""
    return as_potential(potential).cutoff > 0


def graph_of(potential: nn.Module, atoms: Atoms | Sequence[Atoms]) -> AtomGraph:
    """Graph with a reserve for small displacements."""
    return AtomGraph.from_ase(atoms, scale_of(potential) + 0.01)


def values(potential: nn.Module, graph: AtomGraph, want: Iterable[str] = BOTH, *, create_graph: bool = False) -> Values:
    """Prediction for a graph; differentiable if ``create_graph``."""
    prediction: Prediction = evaluate(as_potential(potential), graph, want, create_graph=create_graph)
    return Values(*(torch.empty(0) if value is None else value for value in prediction))


def predict(potential: nn.Module, atoms: Atoms | Sequence[Atoms], want: Iterable[str] = BOTH) -> Values:
    """Prediction for structures."""
    return values(potential, graph_of(potential, atoms), want)


def assert_equal(found: Tensor, expected: Tensor, what: str, tolerance: float = TIGHT, least: float = 1.0) -> None:
    """Raise if the largest difference exceeds ``tolerance`` times the largest expected magnitude, or ``least``."""
    scale = max(least, float(expected.abs().max())) if expected.numel() else least
    worst = float((found - expected).abs().max()) if found.numel() else 0.0
    assert worst <= tolerance * scale, f"{what}: off by {worst:.2e}, of {scale:.2e}; allowed {tolerance * scale:.1e}"


def central_differences(potential: nn.Module, graphs: Sequence[AtomGraph], step: float) -> Tensor:
    """(half as many,) derivatives from energies of graphs that come in pairs, forward and backward by ``step``."""
    energy = values(potential, AtomGraph.concatenate(graphs), ("energy",)).energy
    return (energy[0::2] - energy[1::2]) / (2 * step)


def assert_turned(
    potential: nn.Module, atoms: Atoms, matrix: npt.NDArray[np.float64], what: str, tolerance: float
) -> None:
    """Raise unless energy, forces and stress follow the orthogonal ``matrix`` that is applied to the structure."""
    turned = atoms.copy()
    turned.positions = atoms.positions @ matrix.T
    turned.cell = atoms.cell.array @ matrix.T
    before, after = predict(potential, atoms, ALL), predict(potential, turned, ALL)
    q = torch.from_numpy(matrix)
    assert_equal(after.energy, before.energy, f"energy after a {what}", tolerance, _SMALL)
    assert_equal(after.forces, before.forces @ q.T, f"forces after a {what}", tolerance, _SMALL)
    if atoms.pbc.all():
        assert_equal(after.stress, q @ before.stress @ q.T, f"stress after a {what}", tolerance, _SMALL)


class Jump(NamedTuple):
    """Difference of something across the cut-off, and its magnitude there."""

    size: float
    scale: float


def jumps(potential: nn.Module, numbers: tuple[int, int, int], radius: float, h: float) -> tuple[Jump, Jump, Jump]:
    """Differences of energy, force and its derivative between just inside and just outside the cut-off.

    The first atom is fixed, the second moves away from it along x, the third sits aside as a neighbour of both.

    Args:
        potential: conservative if force and derivative are to mean anything.
        numbers: the three elements.
        radius: Å, the cut-off.
        h: Å, how far inside and outside to look.
    """
    places = radius + h * np.array([-2.0, -1.0, 1.0, 2.0])
    aside = [0.45 * radius, 0.3 * radius, 0.0]
    frames = [Atoms(numbers, [[0, 0, 0], [x, 0, 0], aside]) for x in places]
    prediction = values(potential, AtomGraph.from_ase(frames, radius + 3 * h))
    energy, force = prediction.energy.numpy(), prediction.forces[1::3, 0].numpy()
    slope_inside, slope_outside = (force[1] - force[0]) / h, (force[3] - force[2]) / h
    return (
        Jump(abs(float(energy[2] - energy[1])), float(np.abs(energy).max())),
        Jump(abs(float(force[2] - force[1])), float(np.abs(force).max())),
        Jump(abs(float(slope_outside - slope_inside)), abs(float(slope_inside))),
    )

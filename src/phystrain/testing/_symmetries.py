"""Checks of potentials: the same matter, looked at in another way, has the same energy."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from ase.build import make_supercell
from torch import nn

from phystrain.testing._probes import (
    ALL,
    TIGHT,
    as_potential,
    assert_equal,
    assert_turned,
    graph_of,
    is_conservative,
    predict,
)
from phystrain.testing._structures import crystal, dense, mixture, molecule, rotation, scale_of


def check_rotation(potential: nn.Module, species: Sequence[int], tolerance: float = TIGHT) -> None:
    """A rotation leaves the energy alone and turns forces and stress.

    Args:
        potential, species: as everywhere.
        tolerance: relative; wider for architectures whose equivariance is approximate by design.
    """
    for atoms in (molecule(species, scale_of(potential)), crystal(species, scale_of(potential))):
        assert_turned(potential, atoms, rotation(seed=3), "rotation", tolerance)


def check_reflection(potential: nn.Module, species: Sequence[int], tolerance: float = TIGHT) -> None:
    """A reflection leaves the energy alone and turns forces and stress.

    Args:
        potential, species: as everywhere.
        tolerance: relative; wider for architectures whose equivariance is approximate by design.
    """
    mirror = rotation(seed=4) @ np.diag([1.0, 1.0, -1.0])
    for atoms in (molecule(species, scale_of(potential)), crystal(species, scale_of(potential))):
        assert_turned(potential, atoms, mirror, "reflection", tolerance)


def check_translation(potential: nn.Module, species: Sequence[int]) -> None:
    """Moving everything changes nothing; forces of a conservative potential add up to zero."""
    for atoms in (molecule(species, scale_of(potential)), crystal(species, scale_of(potential))):
        moved = atoms.copy()
        moved.positions += [3.7, -1.3, 11.9]
        before, after = predict(potential, atoms), predict(potential, moved)
        assert_equal(after.energy, before.energy, "energy after a translation")
        assert_equal(after.forces, before.forces, "forces after a translation")
        if is_conservative(potential):
            assert_equal(before.forces.sum(0), torch.zeros(3, dtype=torch.float64), "sum of the forces")


def check_permutation(potential: nn.Module, species: Sequence[int]) -> None:
    """Another order of the atoms gives the same energy and the forces in that order."""
    for atoms in (molecule(species, scale_of(potential)), crystal(species, scale_of(potential))):
        order = np.random.default_rng(5).permutation(len(atoms))
        before, after = predict(potential, atoms), predict(potential, atoms[order])
        assert_equal(after.energy, before.energy, "energy after a permutation")
        assert_equal(after.forces, before.forces[order], "forces after a permutation")


def check_wrapping(potential: nn.Module, species: Sequence[int]) -> None:
    """It does not matter which periodic image of an atom is given."""
    atoms = crystal(species, scale_of(potential))
    away = atoms.copy()
    away.positions += np.random.default_rng(6).integers(-3, 4, (len(atoms), 3)) @ atoms.cell.array
    want = ALL
    for before, after in zip(predict(potential, atoms, want), predict(potential, away, want), strict=True):
        assert_equal(after, before, "unwrapped coordinates")


def check_batching(potential: nn.Module, species: Sequence[int]) -> None:
    """A batch gives what its structures give by themselves, whatever lies side by side."""
    structures = mixture(species, scale_of(potential))
    singles = [predict(potential, atoms, ALL) for atoms in structures]
    batch = predict(potential, structures, ALL)
    assert_equal(batch.energy, torch.cat([single.energy for single in singles]), "energies in a batch")
    assert_equal(batch.forces, torch.cat([single.forces for single in singles]), "forces in a batch")
    stress, expected = batch.stress, torch.cat([single.stress for single in singles])
    known = torch.isfinite(expected)
    assert torch.equal(torch.isfinite(stress), known), "stress is finite where it should not be, or the other way round"
    assert_equal(stress[known], expected[known], "stress in a batch")


def check_separation(potential: nn.Module, species: Sequence[int]) -> None:
    """The energy of a structure has no gradient with respect to the atoms of another one in the batch."""
    graph = graph_of(potential, mixture(species, scale_of(potential)))
    for system in range(graph.n_systems):
        positions = graph.positions.clone().requires_grad_()
        atomic = as_potential(potential).atomic_energies(replace(graph, positions=positions))
        energy = graph.sum_per_system(atomic)[system]
        if not energy.requires_grad:
            continue
        (gradient,) = torch.autograd.grad(energy, positions, allow_unused=True)
        if gradient is not None:
            assert not gradient[graph.system != system].any(), "a structure pulls at atoms of another structure"


def check_extensivity(potential: nn.Module, species: Sequence[int]) -> None:
    """A supercell has the energy of its cells and the same forces and stress, also turned to no axis at all."""
    atoms = crystal(species, scale_of(potential))
    large = make_supercell(atoms, np.diag([2, 1, 2]))
    turn = rotation(seed=7)
    large.set_cell(large.cell.array @ turn.T, scale_atoms=True)
    one, many = predict(potential, atoms, ("energy", "stress")), predict(potential, large, ("energy", "stress"))
    assert_equal(many.energy, 4 * one.energy, "energy of a supercell")
    turned = torch.from_numpy(turn)
    assert_equal(many.stress, turned @ one.stress @ turned.T, "stress of a supercell")


def check_thin_cell(potential: nn.Module, species: Sequence[int]) -> None:
    """A cell thinner than the cut-off, where an atom meets its own images, is the same crystal as its supercell."""
    atoms = dense(species, scale_of(potential))
    large = atoms * (3, 2, 1)
    one, many = predict(potential, atoms), predict(potential, large)
    assert_equal(many.energy, 6 * one.energy, "energy of a cell thinner than the cut-off")
    assert_equal(many.forces, one.forces.repeat(6, 1), "forces in a cell thinner than the cut-off")

"""Checks of potentials: forces and stress are derivatives of an energy that is smooth and ends at the cut-off."""

from collections.abc import Sequence
from itertools import combinations_with_replacement

import torch
from ase import Atoms
from torch import nn

from phystrain.graph import AtomGraph
from phystrain.testing._probes import (
    ALL,
    TIGHT,
    assert_equal,
    central_differences,
    graph_of,
    is_conservative,
    jumps,
    predict,
    reaches,
    values,
)
from phystrain.testing._structures import crystal, lone, mixture, molecule, scale_of
from phystrain.units import VELOCITY

DIFFERENCES = 1e-6
"""Relative tolerance of derivatives against central differences."""

STEP = 1e-4
"""Å, or strain: half the width of central differences."""


def check_forces(potential: nn.Module, species: Sequence[int]) -> None:
    """Conservative forces are minus the central difference of the energy, in a molecule and in a crystal."""
    if not is_conservative(potential):
        return
    for atoms in (molecule(species, scale_of(potential)), crystal(species, scale_of(potential))):
        graph = graph_of(potential, atoms)
        displaced = []
        for number in range(3 * len(atoms)):
            step = torch.zeros(3 * len(atoms), dtype=torch.float64)
            step[number] = STEP
            displaced += [graph.displaced(step.reshape(-1, 3)), graph.displaced(-step.reshape(-1, 3))]
        numerical = -central_differences(potential, displaced, STEP).reshape(-1, 3)
        assert_equal(values(potential, graph).forces, numerical, "forces against finite differences", DIFFERENCES)


def check_stress(potential: nn.Module, species: Sequence[int]) -> None:
    """Stress is the central difference of the energy with respect to strain over the volume, and symmetric."""
    graph = graph_of(potential, crystal(species, scale_of(potential)))
    strained = []
    for number in range(9):
        strain = torch.zeros(9, dtype=torch.float64)
        strain[number] = STEP
        strained += [graph.strained(strain.reshape(1, 3, 3)), graph.strained(-strain.reshape(1, 3, 3))]
    stress = values(potential, graph, ("stress",)).stress[0]
    assert_equal(
        stress, central_differences(potential, strained, STEP).reshape(3, 3) / graph.volumes, "stress", DIFFERENCES
    )
    assert_equal(stress, stress.T, "symmetry of the stress")


def check_isolated_atoms(potential: nn.Module, species: Sequence[int]) -> None:
    """Two atoms at the cut-off or beyond have the energies of lone atoms, and no forces."""
    radius = scale_of(potential)
    for first, second in combinations_with_replacement(sorted(set(species)), 2):
        single = predict(potential, [lone(first), lone(second)])
        assert not single.forces.abs().max(), "a lone atom feels a force"
        for distance, tolerance in ((radius * (1 - 1e-3), 1e-5), (radius, TIGHT), (1.5 * radius, TIGHT)):
            dimer = predict(potential, Atoms([first, second], [[0, 0, 0], [0, 0, distance]]))
            assert_equal(dimer.energy[0], single.energy.sum(), f"energy of two atoms {distance:.3f} Å apart", tolerance)
        assert_equal(dimer.forces, torch.zeros_like(dimer.forces), "forces on two atoms far apart")


def check_locality(potential: nn.Module, species: Sequence[int]) -> None:
    """Edges longer than the cut-off have no effect."""
    for atoms in (molecule(species, scale_of(potential)), crystal(species, scale_of(potential))):
        short = AtomGraph.from_ase(atoms, scale_of(potential))
        long = AtomGraph.from_ase(atoms, scale_of(potential) + 1.0)
        for before, after in zip(values(potential, short), values(potential, long), strict=True):
            assert_equal(after, before, "edges beyond the cut-off", 1e-10)


def check_smoothness(potential: nn.Module, species: Sequence[int], derivatives: int = 2) -> None:
    """Energy, force and its derivative do not jump when an atom crosses the cut-off of another, a third one near.

    What is compared are differences across the cut-off over two distances: those of a continuous function shrink.

    Args:
        potential, species: as everywhere.
        derivatives: how many of the energy are continuous; 2, or 1 for a published cosine cut-off.
    """
    if not is_conservative(potential):
        derivatives = 0
    radius = scale_of(potential)
    for first, second in combinations_with_replacement(sorted(set(species)), 2):
        wide, narrow = (jumps(potential, (first, second, min(species)), radius, h * radius) for h in (0.02, 0.005))
        for order in range(derivatives + 1):
            floor = 1e-8 * (1 + wide[order].scale)
            assert narrow[order].size <= 0.5 * wide[order].size + floor, (
                f"derivative {order} of the energy jumps by {narrow[order].size:.2e} at the cut-off"
            )


def check_second_derivatives(potential: nn.Module, species: Sequence[int]) -> None:
    """A loss of energies, forces and stress has finite gradients, also at symmetric places and without neighbours."""
    parameters = [parameter for parameter in potential.parameters() if parameter.requires_grad]
    if not parameters:
        return
    graph = graph_of(potential, mixture(species, scale_of(potential)))
    prediction = values(potential, graph, ALL, create_graph=True)
    stress = prediction.stress[torch.isfinite(prediction.stress)]
    loss = prediction.forces.square().mean() + prediction.energy.square().mean() + stress.square().mean()
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    known = [gradient for gradient in gradients if gradient is not None]
    assert all(bool(torch.isfinite(gradient).all()) for gradient in known), "a gradient of the loss is not finite"
    assert any(bool(gradient.any()) for gradient in known), "no parameter changes the loss"


def check_energy_conservation(potential: nn.Module, species: Sequence[int], steps: int = 200) -> None:
    """In free dynamics the energy is kept, and its fluctuation falls with the square of the time step.

    The same molecule runs twice side by side with velocity Verlet, at 0.5 and 0.25 fs, from rest and all masses 40 u.

    Args:
        potential, species: as everywhere.
        steps: of both; what is compared is the time that the shorter one covers.
    """
    if not is_conservative(potential) or not reaches(potential):
        return
    atoms = molecule(species, scale_of(potential))
    graph = AtomGraph.from_ase([atoms, atoms], 3 * scale_of(potential))
    step = torch.tensor([0.5, 0.25], dtype=torch.float64) * VELOCITY
    mass = 40.0
    dt = step[graph.system][:, None]
    prediction = values(potential, graph)
    velocity, total, start = torch.zeros_like(graph.positions), [], prediction.energy
    lowest = start
    for _ in range(steps):
        velocity = velocity + prediction.forces / mass * dt / 2
        graph = graph.displaced(velocity * dt)
        prediction = values(potential, graph)
        velocity = velocity + prediction.forces / mass * dt / 2
        total.append(prediction.energy + graph.sum_per_system(mass / 2 * velocity.square().sum(1)) - start)
        lowest = torch.minimum(lowest, prediction.energy)
    errors = torch.stack(total).abs()
    given = float((start - lowest)[0])
    coarse, fine = float(errors[: steps // 2, 0].max()), float(errors[:, 1].max())
    assert float(errors[:, 0].max()) <= 0.02 * given + 1e-9, (
        f"energy drifts by {errors[:, 0].max():.2e} of {given:.2e} eV"
    )
    assert fine <= 0.4 * coarse + 1e-9, f"halving the time step takes the error from {coarse:.2e} to {fine:.2e} eV only"

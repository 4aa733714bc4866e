"""What every potential must satisfy, as functions that raise ``AssertionError``.

For a test of one's own potential::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_contract(check):
        potential = perturbed(MyPotential())
        check(potential, species=(8, 14))

or all at once, ``check_potential(MyPotential(), species=(8, 14))``. A check is given a potential in float64 and
elements that it knows, and makes structures of them whose distances fit the potential's cut-off. Checks that presume
forces to be the gradient of the energy do nothing for a potential with a direct force head.
"""

import copy
import io
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from itertools import combinations_with_replacement

import numpy as np
import torch
from ase import Atoms
from ase.build import make_supercell
from ase.data import chemical_symbols
from torch import nn

from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.testing._probes import (
    ALL,
    as_potential,
    assert_equal,
    assert_turned,
    central_differences,
    graph_of,
    is_conservative,
    jumps,
    predict,
    reaches,
    values,
)
from phystrain.testing._structures import crystal, dense, lone, mixture, molecule, rotation, scale_of
from phystrain.units import VELOCITY

TIGHT = 1e-9
"""Relative tolerance for what holds exactly but for rounding, float64."""

DIFFERENCES = 1e-6
"""Relative tolerance of derivatives against central differences."""

STEP = 1e-4
"""Å, or strain: half the width of central differences."""


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


def check_potential(potential: nn.Module, species: Sequence[int]) -> None:
    """All of :data:`CHECKS` on a perturbed copy.

    Args:
        potential: any potential, left as it is.
        species: atomic numbers that it knows.
    """
    potential = perturbed(potential)
    for check in CHECKS:
        check(potential, species)


def check_not_constant(potential: nn.Module, species: Sequence[int]) -> None:
    """The examples of the other checks are within reach of the potential: energies and forces differ from zero."""
    prediction = predict(potential, molecule(species, scale_of(potential)))
    assert torch.isfinite(prediction.energy).all(), "the energy is not finite"
    assert torch.isfinite(prediction.forces).all(), "the forces are not finite"
    if reaches(potential):
        assert prediction.forces.abs().max() > 1e-6, "no forces on the example: every other check would be vacuous"


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


def check_inputs_kept(potential: nn.Module, species: Sequence[int]) -> None:
    """Neither graph nor parameters are changed by a prediction, and a second one gives the same."""
    graph = graph_of(potential, mixture(species, scale_of(potential)))
    tensors = {field.name: getattr(graph, field.name) for field in fields(graph) if field.name != "cutoff"}
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    weights = {name: tensor.clone() for name, tensor in potential.state_dict().items()}
    first, second = values(potential, graph), values(potential, graph)
    for name, tensor in tensors.items():
        assert torch.equal(tensor, before[name]), f"{name} of the graph was changed"
        assert not tensor.requires_grad, f"{name} of the graph was made to require a gradient"
    for name, tensor in potential.state_dict().items():
        assert torch.equal(tensor, weights[name]), f"{name} of the potential was changed by a prediction"
    assert torch.equal(first.energy, second.energy), "two predictions of the same differ in energy"
    assert torch.equal(first.forces, second.forces), "two predictions of the same differ in forces"


def check_state(potential: nn.Module, species: Sequence[int]) -> None:
    """``state_dict`` holds all that was learned: loaded into a copy with other weights, it gives the same potential."""
    atoms = mixture(species, scale_of(potential))
    file = io.BytesIO()
    torch.save(potential.state_dict(), file)
    other = perturbed(potential, seed=8)
    trained = any(parameter.requires_grad for parameter in potential.parameters())
    if trained:
        same = torch.equal(predict(other, atoms).energy, predict(potential, atoms).energy)
        assert not same, "noise on the parameters changes no energy"
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    before, after = predict(potential, atoms), predict(other, atoms)
    assert torch.equal(after.energy, before.energy), "energies differ after saving and loading"
    assert torch.equal(after.forces, before.forces), "forces differ after saving and loading"


def check_precision(potential: nn.Module, species: Sequence[int]) -> None:
    """Single precision agrees with double precision to four digits."""
    graph = graph_of(potential, mixture(species, scale_of(potential)))
    single = copy.deepcopy(potential).to(torch.float32)
    low, high = values(single, graph.to(dtype=torch.float32)), values(potential, graph)
    assert_equal(low.energy, high.energy, "energies in single precision", 1e-4)
    assert_equal(low.forces.double(), high.forces, "forces in single precision", 1e-4)


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


def check_unknown_element(potential: nn.Module, species: Sequence[int]) -> None:
    """An element the potential was not made for is refused by name."""
    unknown = next(number for number in (86, 85, 84, 61) if number not in species)
    message = ""
    try:
        predict(potential, lone(unknown))
    except UserError as error:
        message = str(error)
    assert chemical_symbols[unknown] in message, f"no complaint that names {chemical_symbols[unknown]}: {message!r}"


def check_compiled(potential: nn.Module, species: Sequence[int]) -> None:
    """``torch.compile`` gives the energies of the eager potential. Slow, and not among :data:`CHECKS`."""
    compiled = torch.compile(as_potential(potential).atomic_energies, dynamic=True)
    for atoms in (molecule(species, scale_of(potential)), crystal(species, scale_of(potential))):
        graph = graph_of(potential, atoms)
        with torch.no_grad():
            energies = compiled(graph)
            assert_equal(
                energies, as_potential(potential).atomic_energies(graph_of(potential, atoms)), "energies, compiled"
            )


CHECKS: tuple[Callable[[nn.Module, Sequence[int]], None], ...] = (
    check_not_constant,
    check_forces,
    check_stress,
    check_rotation,
    check_reflection,
    check_translation,
    check_permutation,
    check_wrapping,
    check_batching,
    check_separation,
    check_isolated_atoms,
    check_locality,
    check_smoothness,
    check_extensivity,
    check_thin_cell,
    check_second_derivatives,
    check_inputs_kept,
    check_state,
    check_precision,
    check_energy_conservation,
    check_unknown_element,
)
"""Everything but what is slow."""

"""Checks of potentials as modules: what they keep, store, refuse and compile to."""

import copy
import io
from collections.abc import Sequence
from dataclasses import fields

import torch
from ase.data import chemical_symbols
from torch import nn

from phystrain.errors import UserError
from phystrain.testing._probes import as_potential, assert_equal, graph_of, perturbed, predict, reaches, values
from phystrain.testing._structures import crystal, lone, mixture, molecule, scale_of


def check_not_constant(potential: nn.Module, species: Sequence[int]) -> None:
    """The examples of the other checks are within reach of the potential: energies and forces differ from zero."""
    prediction = predict(potential, molecule(species, scale_of(potential)))
    assert torch.isfinite(prediction.energy).all(), "the energy is not finite"
    assert torch.isfinite(prediction.forces).all(), "the forces are not finite"
    if reaches(potential):
        assert prediction.forces.abs().max() > 1e-6, "no forces on the example: every other check would be vacuous"


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

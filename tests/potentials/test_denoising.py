"""Networks with a noise head."""

import pytest
import torch
from ase.build import molecule
from scipy.spatial.transform import Rotation

from phystrain import config
from phystrain.derive import evaluate
from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.objectives import Evaluator
from phystrain.potentials import build
from phystrain.statistics import Statistics

SMALL = {"kind": "painn", "channels": 8, "layers": 2, "radial_count": 6, "cutoff": 4.0}
KNOWN = Statistics(species=(1, 6, 8), force_rms=1.7, energy_mean=-0.3)
each_head = pytest.mark.parametrize("head", ["conservative", "direct"])


def made(**settings):
    torch.manual_seed(0)
    return build(SMALL | settings, KNOWN).double()


def ethanol(turn=None):
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.1, seed=0)
    if turn is not None:
        atoms.positions = atoms.positions @ turn.T
    return AtomGraph.from_ase(atoms, 4.5)


def forces_on(graph):
    return torch.randn(graph.n_atoms, 3, generator=torch.Generator().manual_seed(3)).double()


@each_head
def test_the_rest_is_as_without(head):
    """Same weights from the same seed, same names, same energies and forces to the last bit."""
    plain, denoising = made(head=head), made(head=head, denoise=True)
    assert not plain.denoises
    assert denoising.denoises
    own, more = plain.state_dict(), denoising.state_dict()
    assert {name for name in more if name not in own} == {name for name in more if name.startswith("noise.")} != set()
    assert all(torch.equal(value, more[name]) for name, value in own.items())
    for one, other in zip(evaluate(plain, ethanol()), evaluate(denoising, ethanol()), strict=True):
        assert one is other is None or torch.equal(one, other)


@each_head
def test_noise_turns_with_structure_and_forces(head):
    network = made(head=head, denoise=True)
    for seed in range(3):
        turn = torch.from_numpy(Rotation.random(random_state=seed).as_matrix())
        turn = turn if seed else -turn  # a rotation with inversion too
        graph, turned = ethanol(), ethanol(turn.numpy())
        forces = forces_on(graph)
        found = network.denoised(graph, forces, graph)
        after = network.denoised(turned, forces @ turn.T, turned)
        assert found.noise.abs().max() > 1e-3
        torch.testing.assert_close(after.noise, found.noise @ turn.T, rtol=0, atol=1e-12)
        torch.testing.assert_close(after.energy, found.energy, rtol=0, atol=1e-12)
        if head == "direct":
            torch.testing.assert_close(after.forces, found.forces @ turn.T, rtol=0, atol=1e-12)
        assert (found.forces is None) == (head == "conservative")


def test_encoded_forces_are_seen_in_units_of_the_data():
    graph, forces = ethanol(), forces_on(ethanol())
    network, zero = made(denoise=True), torch.zeros_like(forces)
    told, silent = network.denoised(graph, forces, graph), network.denoised(graph, zero, graph)
    assert (told.noise - silent.noise).abs().max() > 1e-3
    assert (told.energy - silent.energy).abs().max() > 1e-3
    torch.testing.assert_close(silent.energy, network.atomic_energies(graph))
    network.unit.scale *= 2
    assert torch.equal(network.denoised(graph, 2 * forces, graph).noise, told.noise)


def test_other_terms_of_a_sum_look_at_the_original():
    terms = {"model": SMALL | {"denoise": True}, "prior": {"kind": "morse", "cutoff": 4.0}, "references": {}}
    terms["references"] = {"kind": "reference_energy", "energies": {1: -3.0, 6: -5.0, 8: -7.0}}
    torch.manual_seed(0)
    total = build({"kind": "sum", "terms": terms}, KNOWN).double()
    graph = ethanol()
    corrupted, forces = graph.displaced(0.1 * torch.randn_like(graph.positions)), forces_on(graph)
    found = total.denoised(corrupted, forces, graph)
    network = total.terms["model"].denoised(corrupted, forces, graph)
    rest = total.atomic_energies(graph) - total.terms["model"].atomic_energies(graph)
    torch.testing.assert_close(found.energy, network.energy + rest)
    assert torch.equal(found.noise, network.noise)
    with pytest.raises(UserError, match="only one term"):
        build({"kind": "sum", "terms": {"one": terms["model"], "other": terms["model"]}}, KNOWN)


def test_a_missing_head_is_named_before_training_and_in_it():
    graph = ethanol()
    for potential in (made(), build({"kind": "sum", "terms": {"model": SMALL}}, KNOWN)):
        with pytest.raises(UserError, match="denoise: true"):
            Evaluator(potential).denoised(graph, graph.positions, graph)
    run = {"potential": SMALL, "data": {"train": "any.xyz"}}
    run["stages"] = [{"name": "only", "objectives": {"denoise": {}}, "steps": 1}]
    with pytest.raises(UserError, match=r"stages\.only: denoise needs .* 'denoise: true'"):
        config.check(run)
    config.check(run | {"potential": SMALL | {"denoise": True}})

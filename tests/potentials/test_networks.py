"""What is particular to networks and to sums of potentials; the general contract is in test_contract."""

import copy

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from pydantic import ValidationError
from scipy.spatial.transform import Rotation

from phystrain import registry
from phystrain.derive import evaluate
from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.layers.cutoffs import cosine, polynomial
from phystrain.layers.radial import radial_basis
from phystrain.layers.species import SpeciesRows
from phystrain.potentials import build
from phystrain.potentials._network import NetworkConfig, warn_of_reach
from phystrain.statistics import Statistics

KNOWN = Statistics.bare((1, 6, 8, 14))
SMALL = {"channels": 8, "layers": 2, "radial_count": 6, "cutoff": 4.0}
NETWORKS = [{"kind": "schnet", **SMALL}, {"kind": "painn", **SMALL}, {"kind": "painn", "head": "direct", **SMALL}]
DIRECT = NETWORKS[2]
each_network = pytest.mark.parametrize("settings", NETWORKS, ids=["schnet", "painn", "painn-direct"])


def made(settings, statistics=KNOWN, seed=0):
    torch.manual_seed(seed)
    return build(settings, statistics).double()


def ethanol(seed=0):
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.1, seed=seed)
    return atoms


def derivatives(function, at, count):
    """Value and derivatives of a function of one number, at each entry of ``at``."""
    x = at.clone().requires_grad_()
    found = [function(x)]
    for _ in range(count):
        found.append(torch.autograd.grad(found[-1].sum(), x, create_graph=True)[0])
    return [value.detach() for value in found]


@pytest.mark.parametrize(("function", "smooth"), [(polynomial, 2), (cosine, 1)])
def test_envelope_ends_smoothly_and_stays_zero(function, smooth):
    cutoff, gap = 5.0, 1e-6
    ends = torch.tensor([0.0, cutoff - gap, cutoff, cutoff + gap, 2 * cutoff], dtype=torch.float64)
    found = derivatives(lambda r: function(r, cutoff), ends, 3)
    assert found[0][0] == 1
    assert not any(bool(value[3:].any()) for value in found), "not exactly zero beyond the cut-off"
    assert found[0][2] == 0
    for order, value in enumerate(found[: smooth + 2]):
        assert (value[1].abs() < 1e-4) == (order <= smooth), f"derivative {order} at the cut-off: {value[1]}"


def test_polynomial_of_power_three_is_the_quintic():
    x = torch.linspace(0, 1, 21, dtype=torch.float64)
    torch.testing.assert_close(polynomial(3 * x, 3.0, power=3), 1 - x**3 * (6 * x**2 - 15 * x + 10))


@pytest.mark.parametrize("kind", ["bessel", "gaussian"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_radial_basis_is_finite_with_two_derivatives(kind, dtype):
    basis = radial_basis(kind, 20, 5.0).to(dtype)
    distances = torch.tensor([1e-30, 1e-10, 1e-3, 0.5, 5.0, 9.0], dtype=dtype)
    for value in derivatives(lambda r: basis(r).sum(1), distances, 2):
        assert torch.isfinite(value).all()


def test_bessel_functions_are_orthogonal_on_the_sphere():
    r = torch.linspace(0, 5.0, 4001, dtype=torch.float64)[1:]
    values = radial_basis("bessel", 5, 5.0).double()(r) * r[:, None]
    torch.testing.assert_close(values.T @ values * 5.0 / 4000, 2.5 * torch.eye(5, dtype=torch.float64))


def test_unknown_elements_are_named():
    rows = SpeciesRows((14, 8))
    assert rows(torch.tensor([14, 8, 8])).tolist() == [1, 0, 0]
    with pytest.raises(UserError, match=r"knows O, Si, not Fe, Cu\."):
        rows(torch.tensor([29, 8, 26]))


@each_network
def test_long_neighbour_lists_change_nothing(settings):
    network, atoms = made(settings), bulk("Si", "diamond", a=5.4, cubic=True)
    atoms.rattle(0.1, seed=1)
    short, slightly_longer, longer = (
        evaluate(network, AtomGraph.from_ase(atoms, reach), ("energy", "forces", "stress")) for reach in (4.0, 4.5, 8.0)
    )
    for other in (slightly_longer, longer):
        for found, expected in zip(other, short, strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@each_network
def test_units_come_from_the_statistics(settings):
    graph = AtomGraph.from_ase([ethanol(), Atoms("O")], 4.0)
    plain = evaluate(made(settings), graph)
    scaled = evaluate(made(settings, KNOWN.model_copy(update={"force_rms": 3.0, "energy_mean": -2.0})), graph)
    atoms = graph.atoms_per_system.double()
    torch.testing.assert_close(scaled.energy, 3 * plain.energy - 2 * atoms)
    torch.testing.assert_close(scaled.forces, 3 * plain.forces)


@each_network
def test_every_parameter_matters(settings):
    network, graph = made(settings), AtomGraph.from_ase(ethanol(), 4.0)
    prediction = evaluate(network, graph, create_graph=True)
    (prediction.forces.square().sum() + prediction.energy.square().sum()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@each_network
def test_batches_of_one_atom_keep_their_shape(settings):
    prediction = evaluate(made(settings), AtomGraph.from_ase(Atoms("C"), 4.0), create_graph=True)
    assert prediction.energy.shape == (1,)
    assert prediction.forces.shape == (1, 3)
    assert not prediction.forces.any()


def test_force_constants_do_not_depend_on_the_step_at_symmetric_sites():
    """Vectors vanish at a site with inversion symmetry; the root of their square must not make a cusp there."""
    atoms = bulk("Si", "fcc", a=3.6, cubic=True)
    network, graph = made({"kind": "painn", **SMALL}), AtomGraph.from_ase(atoms, 4.0)
    constants = []
    for length in (1e-4, 1e-2):
        displacement = torch.zeros_like(graph.positions)
        displacement[0, 0] = length
        constants.append(float(evaluate(network, graph.displaced(displacement)).forces[0, 0]) / length)
    assert constants[0] == pytest.approx(constants[1], rel=0.05)


def test_direct_forces_turn_with_the_structure_and_are_not_the_gradient():
    network, atoms = made(DIRECT), ethanol()
    turn = Rotation.random(random_state=2).as_matrix() * -1.0  # a rotation and an inversion
    turned = Atoms(atoms.numbers, atoms.positions @ turn.T)
    graph = AtomGraph.from_ase(atoms, 4.0)
    before, after = evaluate(network, graph), evaluate(network, AtomGraph.from_ase(turned, 4.0))
    torch.testing.assert_close(after.forces, before.forces @ torch.from_numpy(turn).T)
    network.heads = None  # what evaluate differentiates
    assert (evaluate(network, graph).forces - before.forces).abs().max() > 1e-3


def test_preset_gives_way_to_what_is_written():
    config = registry.parse("potentials", {"kind": "schnet", "preset": "piwsl", "channels": 128})
    assert (config.channels, config.filters, config.layers, config.cutoff) == (128, 256, 5, 6.0)
    assert registry.parse("potentials", config.model_dump()) == config
    with pytest.raises(ValidationError, match="unknown preset 'big'; choose from small, piwsl"):
        registry.parse("potentials", {"kind": "painn", "preset": "big"})


ENERGIES = {"H": -13.587222780835477, 6: -1029.4130611112233, "8": -2041.8396277138045}


KINDS = [
    kind for kind in registry.kinds("potentials") if issubclass(registry.find("potentials", kind).Config, NetworkConfig)
]


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_very_long_cutoff_is_warned_of_and_once(kind, caplog):
    config = registry.find("potentials", kind).Config
    warn_of_reach.cache_clear()
    for preset in ("", *config.presets):
        config(preset=preset)
    config(cutoff=12.0)
    assert not caplog.records
    config(cutoff=50.0)
    config(cutoff=50.0, layers=3)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{kind}: with a cut-off of 50 Å an atom of a solid has about 31,416 neigh")


def test_reference_energies_keep_their_digits():
    potential = build({"kind": "reference_energy", "energies": ENERGIES}, Statistics.bare((1, 6, 8)))
    network = {"kind": "schnet", **SMALL}
    both = build(
        {"kind": "sum", "terms": {"atoms": {**potential_settings(), "trainable": True}, "net": network}}, KNOWN
    )
    graph = AtomGraph.from_ase(ethanol(), 4.0).to(dtype=torch.float32)
    expected = sum(ENERGIES[key] * count for key, count in (("H", 6), (6, 2), ("8", 1)))
    for cast in (lambda module: module.float(), lambda module: module.to(torch.bfloat16), lambda module: module.half()):
        assert float(evaluate(cast(copy.deepcopy(potential)), graph).energy) == pytest.approx(expected, rel=1e-15)
    both.float()
    assert both.terms["atoms"].energies.dtype == torch.float64
    assert both.terms["net"].embedding.weight.dtype == torch.float32
    alone = both.terms["net"].atomic_energies(graph).double().sum()
    assert float(evaluate(both, graph).energy) == pytest.approx(expected + float(alone.detach()), rel=1e-14)


def potential_settings():
    return {"kind": "reference_energy", "energies": {**ENERGIES, "Si": -7890.0}}


def test_reference_energies_come_from_the_data():
    statistics = KNOWN.model_copy(update={"reference_energies": {1: -1.0, 6: -2.0, 8: -3.0, 14: -4.0}})
    graph = AtomGraph.from_ase([ethanol(), Atoms("Si")], 4.0)
    potential = build({"kind": "reference_energy"}, statistics)
    assert evaluate(potential, graph).energy.tolist() == [-13.0, -4.0]
    assert not evaluate(potential, graph).forces.any()
    with pytest.raises(UserError, match="not Fe"):
        evaluate(potential, AtomGraph.from_ase(Atoms("Fe"), 4.0))


@pytest.mark.parametrize(
    ("energies", "error", "message"),
    [
        ({"H": -1.0}, UserError, "no energy for C, O, Si"),
        ({"Xx": 0.0}, ValidationError, "'Xx' is not a chemical symbol"),
        ({300: 0.0}, ValidationError, "300 is not an atomic number"),
    ],
)
def test_wrong_reference_energies_are_refused(energies, error, message):
    with pytest.raises(error, match=message):
        build({"kind": "reference_energy", "energies": energies}, KNOWN)


def sum_of(**terms):
    return {"kind": "sum", "terms": terms}


def test_a_sum_is_the_sum_of_its_terms():
    terms = {"short": {"kind": "zbl"}, "network": NETWORKS[1], "longer": {**NETWORKS[0], "cutoff": 6.0}}
    potential = made(sum_of(**terms))
    assert potential.cutoff == 6.0
    graph = AtomGraph.from_ase(ethanol(), 6.0)
    whole = evaluate(potential, graph)
    parts = [evaluate(term, graph) for term in potential.terms.values()]
    torch.testing.assert_close(whole.energy, sum(part.energy for part in parts))
    torch.testing.assert_close(whole.forces, sum(part.forces for part in parts))


def test_a_sum_with_direct_forces_has_those():
    potential = made(sum_of(network=DIRECT, atoms=potential_settings()))
    graph = AtomGraph.from_ase(ethanol(), 4.0)
    whole, part = (evaluate(one, graph) for one in (potential, potential.terms["network"]))
    assert torch.equal(whole.forces, part.forces)
    assert float(whole.energy - part.energy) == pytest.approx(float(evaluate(potential.terms["atoms"], graph).energy))
    torch.testing.assert_close(potential.atomic_energies(graph), potential.heads(graph)[0])


@pytest.mark.parametrize(
    ("terms", "error", "message"),
    [
        ({"network": DIRECT, "prior": {"kind": "zbl"}}, UserError, "network has forces of its own.* those of prior"),
        ({"one": DIRECT, "two": DIRECT}, UserError, "one has forces of its own.* those of two"),
        ({"items": DIRECT}, ValidationError, "'items' cannot be the name of a term"),
        ({"network": {"kind": "pain"}}, UserError, "did you mean 'painn'"),
        ({"network": {"kind": "painn", "chanels": 3}}, ValidationError, "chanels"),
        ({}, ValidationError, "at least 1"),
    ],
)
def test_wrong_sums_are_refused(terms, error, message):
    with pytest.raises(error, match=message):
        build(sum_of(**terms), KNOWN)


def test_settings_of_a_sum_survive_storage():
    config = registry.parse("potentials", sum_of(network=DIRECT, atoms=potential_settings()))
    assert registry.parse("potentials", config.model_dump(mode="json")).build(KNOWN).direct == "network"

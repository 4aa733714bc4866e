"""What eSCN and Equiformer v2 have in common beyond the contract."""

import logging
import sys

import numpy as np
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
from phystrain.potentials import _spherical, build
from phystrain.potentials._network import warn_of_truncation
from phystrain.statistics import Statistics
from phystrain.testing.potentials import check_rotation, perturbed

KNOWN = Statistics.bare((1, 6, 8, 14)).model_copy(update={"neighbours": 8.0})
SIZES = {"channels": 6, "layers": 3, "radial_count": 6, "cutoff": 4.0, "lmax": 2, "mmax": 2, "edge_channels": 6}
NETWORKS = [
    {"kind": "escn", **SIZES, "hidden": 5},
    {"kind": "equiformer_v2", **SIZES, "hidden": 4, "attention_heads": 2, "alpha_channels": 4, "feed_forward": 7},
]
each_network = pytest.mark.parametrize("settings", NETWORKS, ids=[one["kind"] for one in NETWORKS])


def made(settings, **more):
    torch.manual_seed(0)
    return perturbed(build(settings | more, KNOWN))


def ethanol(seed=0):
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.1, seed=seed)
    return atoms


def spread(network, atoms, cutoff=4.0):
    """Standard deviations of energy and forces over rotations, relative to the forces."""
    energies, forces = [], []
    for seed in range(5):
        turn = Rotation.random(random_state=seed).as_matrix()
        found = evaluate(network, AtomGraph.from_ase(Atoms(atoms.numbers, atoms.positions @ turn.T), cutoff))
        energies.append(float(found.energy))
        forces.append(found.forces.numpy() @ turn)
    size = np.sqrt(np.mean(np.square(forces)))
    return np.std(energies) / size, np.std(forces, axis=0).max() / size


@each_network
@pytest.mark.parametrize("activation", ["gate", "grid"])
def test_what_is_left_out_did_not_matter(settings, activation):
    """The conservative network, cut down, gives the energies of the whole one."""
    if activation == "grid":
        pytest.importorskip("e3nn")
    settings = settings | {"activation": activation, "chiral": True}
    whole, cut = made(settings, head="direct"), made(settings)
    weights = whole.state_dict()
    if activation == "grid":  # scalars have a first map of their own, the only one in the last layer that is cut down
        for part in ("weight", "bias"):
            ours, name = (f"blocks.2.feed_forward.{place}.{part}" for place in ("first", "scalars"))
            if name in weights:
                weights[ours] = weights[name].T[None] if part == "weight" else weights[name]
    cut.load_state_dict(
        {name: weights[name][tuple(map(slice, value.shape))] for name, value in cut.state_dict().items()}
    )
    count = [sum(parameter.numel() for parameter in network.parameters()) for network in (cut, whole)]
    graph = AtomGraph.from_ase([ethanol(), bulk("SiC", "zincblende", a=3.6)], 4.0)
    torch.testing.assert_close(cut.atomic_energies(graph), whole.atomic_energies(graph), rtol=1e-10, atol=1e-10)
    assert count[0] < count[1]


@each_network
def test_chiral_weights_turn_and_do_not_reflect(settings):
    chiral, plain, atoms = made(settings, chiral=True), made(settings), ethanol()
    check_rotation(chiral, (8, 14))
    image = Atoms(atoms.numbers, atoms.positions * [1, 1, -1])
    for network, same in ((plain, True), (chiral, False)):
        energy, mirrored = (evaluate(network, AtomGraph.from_ase(one, 4.0)).energy for one in (atoms, image))
        assert (abs(float(energy - mirrored)) < 1e-10) == same


@each_network
def test_published_activation_is_nearly_equivariant(settings):
    pytest.importorskip("e3nn")
    energy, forces = spread(made(settings, activation="grid"), ethanol())
    assert 1e-9 < energy < 0.1
    assert 1e-9 < forces < 0.1
    assert max(spread(made(settings), ethanol())) < 1e-11


@each_network
def test_every_parameter_matters(settings):
    for more in ({}, {"head": "direct"}, {"chiral": True}):
        network, graph = made(settings, **more), AtomGraph.from_ase(ethanol(), 4.0)
        prediction = evaluate(network, graph, create_graph=True)
        (prediction.forces.square().sum() + prediction.energy.square().sum()).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name


@each_network
def test_gates_need_no_e3nn(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "e3nn", None)
    graph = AtomGraph.from_ase(ethanol(), 4.0)
    assert torch.isfinite(evaluate(made(settings), graph).forces).all()
    with pytest.raises(UserError, match="install"):
        made(settings, activation="grid")


@each_network
def test_an_abrupt_cutoff_is_the_smooth_one_far_from_it(settings):
    """And no edge beyond it counts, nor does an atom without others."""
    network = made(settings, smooth_cutoff=False)
    atoms = bulk("Si", "diamond", a=5.4, cubic=True)
    atoms.rattle(0.1, seed=1)
    short, long = (evaluate(network, AtomGraph.from_ase([atoms, Atoms("C")], reach)) for reach in (4.0, 4.03))
    torch.testing.assert_close(long.energy, short.energy, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(long.forces, short.forces, rtol=1e-12, atol=1e-12)
    pair = [Atoms("Si2", [[0, 0, 0], [0, 0, z]]) for z in (3.9999, 4.0001)]
    found = evaluate(network, AtomGraph.from_ase(pair, 4.02)).energy
    assert abs(float(found[0] - found[1])) > 1e-4
    smooth = evaluate(made(settings), AtomGraph.from_ase(pair, 4.02)).energy
    assert abs(float(smooth[0] - smooth[1])) < 1e-9


@each_network
def test_neighbours_beyond_a_number_are_left_out_with_a_warning(settings, caplog):
    warn_of_truncation.cache_clear()
    with caplog.at_level(logging.WARNING):
        few, many = (made(settings, max_neighbours=count) for count in (2, 50))
    assert caplog.text.count("max_neighbours") == 1
    assert not few.edgewise
    graph, plain = AtomGraph.from_ase(ethanol(), 4.0), made(settings)
    assert plain.edgewise
    assert torch.equal(evaluate(many, graph).energy, evaluate(plain, graph).energy)
    kept = _spherical.nearest(graph, 2)
    assert torch.bincount(kept.edges[0]).tolist() == [2] * 9
    for atom in range(9):
        expected = graph.distances[graph.edges[0] == atom].sort().values[:2]
        torch.testing.assert_close(kept.distances[kept.edges[0] == atom].sort().values, expected)
    torch.testing.assert_close(evaluate(few, graph).energy, evaluate(few, kept).energy)


@pytest.mark.parametrize("kind", ["escn", "equiformer_v2"])
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"mmax": 3}, "mmax is 3, more than lmax"),
        ({"lmax": 4, "grid_resolution": 8}, "lmax 4 needs 10"),
        ({"grid_resolution": 15}, "multiple of 2"),
    ],
)
def test_wrong_settings_are_refused(kind, more, message):
    with pytest.raises(ValidationError, match=message):
        registry.parse("potentials", {"kind": kind, **more})


PARAMETERS = {
    "escn": {"small": 77217, "piwsl": 48021760},
    "equiformer_v2": {"small": 71577, "piwsl": 30186881},
}


@pytest.mark.parametrize(("kind", "preset"), [(kind, preset) for kind, sizes in PARAMETERS.items() for preset in sizes])
def test_presets_build(kind, preset):
    if preset != "small":
        pytest.importorskip("e3nn")
    network = build({"kind": kind, "preset": preset}, KNOWN)
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[kind][preset]


def test_dropout_is_for_training_alone():
    network, graph = made(NETWORKS[1], dropout=0.5), AtomGraph.from_ase(ethanol(), 4.0)
    drawn = [float(evaluate(network.train(), graph).energy) for _ in range(2)]
    assert drawn[0] != drawn[1]
    assert torch.equal(evaluate(network.eval(), graph).energy, evaluate(made(NETWORKS[1]), graph).energy)

"""What is particular to torchmd_et; the contract is in test_contract, parity in test_parity_torchmd_net."""

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from pydantic import ValidationError

from phystrain.derive import evaluate
from phystrain.graph import AtomGraph
from phystrain.potentials import build, torchmd_et
from phystrain.statistics import Statistics

KNOWN = Statistics.bare((1, 6, 8, 14))
SMALL = {"kind": "torchmd_et", "channels": 8, "layers": 2, "heads": 2, "radial_count": 6, "cutoff": 4.0}


def made(**settings):
    torch.manual_seed(0)
    network = build({**SMALL, **settings}, KNOWN).double()
    with torch.no_grad():
        for parameter in network.parameters():  # biases begin at zero, which would hide a mistake
            parameter.add_(0.2 * torch.randn_like(parameter))
    return network


def count(settings):
    return sum(parameter.numel() for parameter in build(settings, KNOWN).parameters())


def ethanol():
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.1, seed=0)
    return atoms


@pytest.mark.parametrize("readout", ["gated", "scalars"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_every_parameter_matters(readout, layers):
    network = made(readout=readout, layers=layers)
    prediction = evaluate(network, AtomGraph.from_ase(ethanol(), 4.0), create_graph=True)
    (prediction.forces.square().sum() + prediction.energy.square().sum()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("settings", [{}, {"vector_cutoff": False}, {"readout": "scalars"}])
def test_long_neighbour_lists_change_nothing(settings):
    network, atoms = made(**settings), bulk("Si", "diamond", a=5.4, cubic=True)
    atoms.rattle(0.1, seed=1)
    want = ("energy", "forces", "stress")
    short = evaluate(network, AtomGraph.from_ase(atoms, 4.0), want)
    for reach in (4.03, 4.5):  # within what is kept of a list, and beyond
        for found, expected in zip(evaluate(network, AtomGraph.from_ase(atoms, reach), want), short, strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_vectors_without_cutoff_make_the_energy_jump(caplog):
    def jump(network):
        graphs = [
            AtomGraph.from_ase(Atoms("OSiC", [[0, 0, 0], [0, 0, far], [0, 1.5, 0]]), 4.0) for far in (3.9999, 4.0001)
        ]
        inside, outside = (float(evaluate(network, graph, ["energy"]).energy) for graph in graphs)
        return abs(inside - outside)

    assert jump(made()) < 1e-9
    assert not caplog.records
    assert jump(made(vector_cutoff=False)) > 1e-5
    assert "the energy jump" in caplog.text


@pytest.mark.parametrize("frames", [[ethanol(), Atoms("O")], [bulk("SiC", "zincblende", a=4.2)]])
def test_both_ways_to_sum_over_neighbours_agree(frames, monkeypatch):
    network, graph = made(), AtomGraph.from_ase(frames, 4.0)
    few = evaluate(network, graph)
    monkeypatch.setattr(torchmd_et, "FEW", 0)
    many = evaluate(network, graph)
    torch.testing.assert_close(many.energy, few.energy)
    torch.testing.assert_close(many.forces, few.forces)


def test_force_constants_do_not_depend_on_the_step_at_symmetric_sites():
    """Vectors vanish at a site with inversion symmetry; their norms must not make a cusp there."""
    atoms = bulk("Si", "fcc", a=3.6, cubic=True)
    network, graph = made(), AtomGraph.from_ase(atoms, 4.0)
    constants = []
    for length in (1e-4, 1e-2):
        displacement = torch.zeros_like(graph.positions)
        displacement[0, 0] = length
        constants.append(float(evaluate(network, graph.displaced(displacement)).forces[0, 0]) / length)
    assert constants[0] == pytest.approx(constants[1], rel=0.05)


def test_presets_have_the_published_sizes():
    sizes = {"kind": "torchmd_et", "channels": 128, "layers": 4, "radial_count": 32}
    # 943,106 in torchmd-net, which counts two embeddings of 100 elements, has weights in its first layer that only
    # meet zero vectors (of values, filters, outputs and vectors), and a vector output that an energy does not use
    unused = (128 * 128 + 128) + (32 * 128 + 128) + 2 * (128 * 128 + 128) + 3 * 128 * 128 + (64 + 64 + 1)
    assert count(sizes) == 943_106 - 96 * 2 * 128 - unused
    network = build({"kind": "torchmd_et", "preset": "pretraining"}, KNOWN)
    assert (len(network.attention), network.cutoff) == (8, 8.0)
    assert [part.out_features for part in network.readout if hasattr(part, "out_features")] == [128, 128, 1]
    assert count({"kind": "torchmd_et", "preset": "small"}) < count(sizes)


def test_heads_divide_the_channels():
    with pytest.raises(ValidationError, match=r"channels \(10\) must be a multiple of heads \(4\)"):
        build({**SMALL, "channels": 10, "heads": 4}, KNOWN)

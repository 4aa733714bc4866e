"""What is particular to TensorNet; the general contract is in test_contract, parity in test_parity_torchmd_net."""

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from phystrain.derive import evaluate
from phystrain.graph import AtomGraph
from phystrain.layers.cartesian import CartesianBasis, product, squared_norm
from phystrain.layers.radial import radial_basis
from phystrain.potentials import build, tensornet
from phystrain.statistics import Statistics

KNOWN = Statistics.bare((1, 6, 8, 14))
SMALL = {"kind": "tensornet", "channels": 8, "layers": 2, "radial_count": 6, "cutoff": 4.0}


def made(**settings):
    torch.manual_seed(0)
    return build({**SMALL, **settings}, KNOWN).double()


def ethanol():
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.1, seed=0)
    return atoms


def random_matrices(seed):
    return torch.randn(3, 3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_components_are_those_of_an_orthonormal_basis():
    basis = CartesianBasis().double()  # made in single precision first, as networks are
    tensors, matrices = basis.tensors(), random_matrices(1)
    torch.testing.assert_close(tensors @ tensors.T, torch.eye(9, dtype=torch.float64), rtol=0, atol=1e-15)
    components = basis.decompose(matrices)
    torch.testing.assert_close(basis.compose(components), matrices)
    torch.testing.assert_close(squared_norm(components), matrices.square().sum((0, 1)))
    trace = torch.einsum("iinc->nc", matrices)
    torch.testing.assert_close(components[0] * 3**0.5, trace)
    antisymmetric = basis.compose(torch.cat([0 * components[:1], components[1:4], 0 * components[4:]]))
    torch.testing.assert_close(antisymmetric, (matrices - matrices.transpose(0, 1)) / 2)


def test_components_of_directions():
    basis = CartesianBasis().double()
    n = torch.nn.functional.normalize(torch.randn(4, 3, dtype=torch.float64), dim=1)
    zero = torch.zeros(4, dtype=torch.float64)
    cross = torch.stack([zero, -n[:, 2], n[:, 1], n[:, 2], zero, -n[:, 0], -n[:, 1], n[:, 0], zero], dim=1).view(
        4, 3, 3
    )
    identity = torch.eye(3, dtype=torch.float64)
    expected = identity + cross + n[:, :, None] * n[:, None] - identity / 3
    found = basis.compose(basis.of_directions(n).T[:, :, None])[..., 0].permute(2, 0, 1)
    torch.testing.assert_close(found, expected)


def test_products_are_those_of_matrices():
    first, second = random_matrices(2), random_matrices(3)
    expected = (first.permute(2, 3, 0, 1) @ second.permute(2, 3, 0, 1)).permute(2, 3, 0, 1)
    torch.testing.assert_close(product(first, second), expected)


def test_exp_normal_functions():
    """Equation 7 of arXiv:1902.08408 with centres from exp(-cutoff) to 1."""
    r = torch.linspace(0, 6, 13, dtype=torch.float64)
    first = torch.exp(torch.tensor(-5.0, dtype=torch.float64))
    centres = first + (1 - first) * torch.linspace(0, 1, 7, dtype=torch.float64)
    expected = torch.exp(-((torch.exp(-r)[:, None] - centres) ** 2) / (2 / 7 * (1 - first)) ** 2)
    torch.testing.assert_close(radial_basis("exp_normal", 7, 5.0).double()(r), expected)


@pytest.mark.parametrize("frames", [[ethanol(), Atoms("O")], [bulk("SiC", "zincblende", a=4.2)]])
def test_both_ways_to_sum_over_neighbours_agree(frames, monkeypatch):
    network, graph = made(), AtomGraph.from_ase(frames, 4.0)
    few = evaluate(network, graph)
    monkeypatch.setattr(tensornet, "FEW", 0)
    many = evaluate(network, graph)
    torch.testing.assert_close(many.energy, few.energy)
    torch.testing.assert_close(many.forces, few.forces)


def test_every_parameter_matters():
    network = made()
    prediction = evaluate(network, AtomGraph.from_ase(ethanol(), 4.0), create_graph=True)
    (prediction.forces.square().sum() + prediction.energy.square().sum()).backward()
    for name, parameter in network.named_parameters():
        # silicon does not occur
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_presets_have_the_published_sizes():
    network = build({"kind": "tensornet", "preset": "published"}, KNOWN)
    # 766,337 in torchmd-net, which counts embeddings of 100 elements
    assert sum(parameter.numel() for parameter in network.parameters()) == 766_337 - 96 * 128
    assert (network.cutoff, len(network.interactions)) == (4.5, 2)
    assert sum(parameter.numel() for parameter in build({"kind": "tensornet", "preset": "small"}, KNOWN).parameters())

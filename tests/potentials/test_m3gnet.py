"""M3GNet: the published network, and what pins its equations."""

import json
import os
import subprocess
import venv
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from pydantic import ValidationError
from scipy.special import eval_legendre, spherical_jn

from phystrain.derive import evaluate
from phystrain.graph import AtomGraph
from phystrain.layers.harmonics import spherical_harmonics
from phystrain.layers.spherical_bessel import SmoothBessel, SphericalBessel
from phystrain.layers.triplets import triplets
from phystrain.potentials import build
from phystrain.statistics import Statistics

SCRIPT = Path(__file__).with_name("parity_matgl.py")
SMALL = {"kind": "m3gnet", "channels": 8, "layers": 2, "cutoff": 4.5}


def structures() -> list[Atoms]:
    """A molecule, and a crystal with atoms that are neighbours of their own images."""
    ethanol = molecule("CH3CH2OH")
    carbide = bulk("SiC", "zincblende", a=3.6, cubic=True)
    for seed, atoms in enumerate((ethanol, carbide)):
        atoms.rattle(0.1, seed=seed)
    return [ethanol, carbide]


def statistics(frames: list[Atoms]) -> Statistics:
    return Statistics.bare(tuple(int(number) for atoms in frames for number in atoms.numbers))


def made(settings, known=None):
    torch.manual_seed(0)
    return build(settings, known or statistics(structures())).double()


def test_harmonics_obey_the_addition_theorem():
    one, other = torch.nn.functional.normalize(torch.randn(2, 40, 3, dtype=torch.float64), dim=2)
    products = spherical_harmonics(one, 6) * spherical_harmonics(other, 6)
    cosine = (one * other).sum(1)
    for degree in range(6):
        found = products[:, degree**2 : (degree + 1) ** 2].sum(1)
        torch.testing.assert_close(found, torch.tensor(eval_legendre(degree, cosine.numpy())))


@pytest.mark.parametrize("basis", [SmoothBessel(9, 5.0), SphericalBessel(4, 5, 5.0)], ids=["smooth", "spherical"])
def test_radial_functions_are_orthonormal_and_end_at_the_cutoff(basis):
    r = torch.linspace(0, 5.0, 20001, dtype=torch.float64)
    values = basis(r) * r[:, None]
    overlap = values.T @ values * 5.0 / 20000
    block = 9 if basis.count == 9 else 4  # functions of different degrees are not orthogonal in r alone
    for start in range(0, basis.count, block):
        part = overlap[start : start + block, start : start + block]
        torch.testing.assert_close(part, torch.eye(block, dtype=torch.float64), rtol=0, atol=1e-8)
    assert not basis(torch.tensor([5.0, 5.1, 9.0])).any()


def test_spherical_bessel_functions_are_those_of_scipy():
    basis, r = SphericalBessel(3, 5, 5.0), torch.linspace(0.01, 4.99, 500, dtype=torch.float64)
    values = basis(r)
    for degree in range(5):
        root = basis.roots[degree, 1].item()
        ratio = values[:, 3 * degree + 1].numpy() / spherical_jn(degree, root * r.numpy() / 5)
        assert np.ptp(ratio) < 1e-9 * abs(ratio[0])


def test_smooth_functions_have_two_derivatives_at_the_cutoff():
    r = torch.tensor([5.0 - 1e-5], dtype=torch.float64, requires_grad=True)
    value = SmoothBessel(6, 5.0)(r).square().sum().sqrt()
    (first,) = torch.autograd.grad(value, r, create_graph=True)
    (second,) = torch.autograd.grad(first, r)
    assert value < 1e-12
    assert first.abs() < 1e-7
    assert second.abs() < 1e-2


def naive_sums(layer, atoms, graph, config):
    """Equation 2, term by term over pairs of edges with a common centre, for the columns of the network."""
    basis = SmoothBessel(config.radial_count * config.degrees, config.cutoff)
    near = graph.distances < config.three_body_reach
    edges, vectors, r = graph.edges[:, near], graph.vectors[near], graph.distances[near]
    x = r / config.three_body_reach
    decay = 1 - 10 * x**3 + 15 * x**4 - 6 * x**5
    third = torch.sigmoid(layer.third(atoms))
    pairs = triplets(edges[0], graph.n_atoms)
    found = torch.zeros(len(r), config.radial_count * config.degrees, dtype=torch.float64)
    for to, other in zip(torch.cat(pairs[:2]).tolist(), torch.cat(pairs[1::-1]).tolist(), strict=True):
        cosine = float(vectors[to] @ vectors[other] / (r[to] * r[other]))
        for n in range(config.radial_count):
            for degree in range(config.degrees):
                zonal = np.sqrt((2 * degree + 1) / (4 * np.pi)) * eval_legendre(degree, cosine)
                radial = basis(r[other, None])[0, degree * config.radial_count + n]
                column = n * config.degrees + degree
                weight = decay[to] * decay[other] * third[edges[1, other], column]
                found[to, column] += weight * radial * zonal
    return found


def test_three_body_sums_are_those_over_triplets():
    atoms = molecule("CH3OH")
    graph = AtomGraph.from_ase(atoms, 4.5)
    network = made({**SMALL, "three_body_cutoff": 2.0})
    features = torch.randn(graph.n_atoms, 8, dtype=torch.float64)
    layer, seen = network.layers[0].three_body, []
    layer.update.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        layer(features, network._neighbours(graph))
        expected = naive_sums(layer, features, graph, network.config)
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(seen[0], expected, rtol=0, atol=1e-12)


def test_angles_matter_only_within_the_three_body_cutoff():
    """Three atoms in a right and in an acute angle, all other distances the same to the network."""
    right = Atoms("CHH", [[0, 0, 0], [2.0, 0, 0], [0, 2.0, 0]])
    wide = Atoms("CHH", [[0, 0, 0], [2.0, 0, 0], [-1.0, np.sqrt(3.0), 0]])
    for reach, same in ((1.9, True), (2.5, False)):
        network = made({**SMALL, "cutoff": 2.6, "three_body_cutoff": reach})
        energy = evaluate(network, AtomGraph.from_ase([right, wide], 2.6)).energy
        assert (abs(float(energy[0] - energy[1])) < 1e-12) == same


def test_sizes_of_the_paper_and_of_matgl():
    """Published counts of parameters: 227 549, and 282 781 with five elements and functions of matgl's other kind."""
    elements = Statistics.bare(tuple(range(1, 96)))
    paper = build({"kind": "m3gnet", "preset": "pretraining"}, elements)
    constant = 64  # of the first features of edges, which matgl has and the paper has not
    assert sum(parameter.numel() for parameter in paper.parameters()) == 227_549 + constant
    spherical = {"radial_basis": "spherical", "three_body_basis": "spherical"}
    matgl = build({"kind": "m3gnet", "preset": "matgl", **spherical}, Statistics.bare((1, 6, 7, 8, 14)))
    assert sum(parameter.numel() for parameter in matgl.parameters()) == 282_781
    small = build({"kind": "m3gnet", "preset": "small"}, elements)
    assert (small.config.channels, small.config.layers) == (32, 2)


def test_three_body_cutoff_is_within_the_cutoff():
    assert build(SMALL, Statistics.bare((1,))).config.three_body_reach == pytest.approx(3.6)
    with pytest.raises(ValidationError, match="beyond the cutoff"):
        build({**SMALL, "three_body_cutoff": 5.0}, Statistics.bare((1,)))


def test_collinear_atoms_have_finite_second_derivatives():
    atoms = Atoms("CCC", [[0, 0, 0], [1.3, 0, 0], [2.6, 0, 0]])
    network = made(SMALL)
    for settings in ({}, {"radial_basis": "spherical", "three_body_basis": "spherical"}):
        network = made({**SMALL, **settings})
        prediction = evaluate(network, AtomGraph.from_ase(atoms, 4.5), create_graph=True)
        gradients = torch.autograd.grad(prediction.forces.square().sum(), list(network.parameters()), allow_unused=True)
        assert all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None)


@pytest.fixture(scope="module")
def foreign_results(tmp_path_factory):
    """What matgl says, in the environment PHYSTRAIN_PARITY_MATGL_VENV or one made here."""
    given = os.environ.get("PHYSTRAIN_PARITY_MATGL_VENV")
    folder = tmp_path_factory.mktemp("matgl")
    place = Path(given) if given else folder / "environment"
    python = place / "bin" / "python"
    if not given:
        venv.create(place, with_pip=True)
        version = torch.__version__.partition("+")[0]
        subprocess.run([python, "-m", "pip", "install", "-q", f"torch=={version}", "matgl==4.1.2"], check=True)
    ase.io.write(folder / "structures.xyz", structures())
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([python, SCRIPT, folder / "structures.xyz", folder / "result.json"], env=environment, check=True)
    frames = ase.io.read(folder / "structures.xyz", index=":")  # positions with the digits of the file
    return frames, json.loads((folder / "result.json").read_text())


VARIANTS = {
    "smooth": {},
    "spherical": {"radial_basis": "spherical", "three_body_basis": "spherical"},
    "paper": {"three_body_basis": "spherical"},
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_m3gnet_equals_that_of_matgl(foreign_results, variant):
    frames, result = foreign_results
    sizes, found, known = result["sizes"], result[variant], statistics(frames)
    ours = made({"kind": "m3gnet", "preset": "matgl", **sizes, **VARIANTS[variant]}, known)
    weights = ours_from_matgl(found["weights"], ours.config)
    assert set(weights) == {name for name, _ in ours.named_parameters()}
    ours.load_state_dict(weights, strict=False)
    prediction = evaluate(ours, AtomGraph.from_ase(frames, sizes["cutoff"]))
    energy = torch.tensor([one["energy"] for one in found["predictions"]], dtype=torch.float64)
    forces = torch.tensor(np.concatenate([one["forces"] for one in found["predictions"]]))
    for mine, theirs in ((prediction.energy, energy), (prediction.forces, forces)):
        error = float((mine - theirs).abs().max() / theirs.abs().max())
        print(f"{variant}: relative difference {error:.1e}")
        assert error < 1e-6


def ours_from_matgl(theirs: dict, config) -> dict[str, torch.Tensor]:
    """Weights of matgl's M3GNet under our names.

    Ours has the terms of a triplet in the order of the radial functions, not of the degrees.
    """
    theirs = {name: torch.tensor(value, dtype=torch.float64) for name, value in theirs.items()}
    terms = torch.arange(config.radial_count * config.degrees).view(config.degrees, config.radial_count).T.flatten()

    def gated(name: str, layers: int, parts: tuple[str, ...] = ("weight", "bias")) -> dict[str, torch.Tensor]:
        found = {}
        for layer in range(layers):
            for mine, stack in (("value", "layers"), ("gate", "gates")):
                found |= {f"{mine}.{layer}.{part}": theirs[f"{name}.{stack}.{2 * layer}.{part}"] for part in parts}
        return found

    weights = {"embedding.weight": theirs["embedding.layer_node_embedding.weight"]}
    for part in ("weight", "bias"):
        weights[f"edge_embedding.{part}"] = theirs[f"embedding.layer_edge_embedding.layers.0.{part}"]
    for layer in range(config.layers):
        three, conv = f"three_body_interactions.{layer}", f"graph_layers.{layer}.conv"
        for part in ("weight", "bias"):
            weights[f"layers.{layer}.three_body.third.{part}"] = theirs[f"{three}.update_network_atom.layers.0.{part}"][
                terms
            ]
        for name, value in gated(f"{three}.update_network_bond", 1, ("weight",)).items():
            weights[f"layers.{layer}.three_body.update.{name}"] = value[:, terms]
        for mine, name in (("edge_update", "edge"), ("atom_update", "node")):
            found = gated(f"{conv}.{name}_update_func", config.update_layers)
            weights |= {f"layers.{layer}.{mine}.network.{key}": value for key, value in found.items()}
            weights[f"layers.{layer}.{mine}.weights.weight"] = theirs[f"{conv}.{name}_weight_func.weight"]
    return weights | {
        f"readout.{key}": value for key, value in gated("final_layer.gated", config.readout_layers).items()
    }

"""The same weights give the same energies and forces as published implementations."""

import json
import math
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

from phystrain.derive import evaluate
from phystrain.graph import AtomGraph
from phystrain.potentials import build
from phystrain.statistics import Statistics

SCRIPT = Path(__file__).with_name("parity_graph_pes.py")
TOLERANCE = 1e-5


def structures() -> list[Atoms]:
    """A molecule, and a crystal with atoms that are neighbours of their own images."""
    ethanol = molecule("CH3CH2OH")
    carbide = bulk("SiC", "zincblende", a=3.6, cubic=True)
    for seed, atoms in enumerate((ethanol, carbide)):
        atoms.rattle(0.1, seed=seed)
    return [ethanol, carbide]


def statistics(frames: list[Atoms]) -> Statistics:
    return Statistics.bare(tuple(int(number) for atoms in frames for number in atoms.numbers))


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal to the tolerance, relative to the largest entry."""
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()


def test_schnet_equals_that_of_torch_geometric():
    published = pytest.importorskip("torch_geometric.nn.models").SchNet
    frames = structures()
    graph = AtomGraph.from_ase(frames, 4.5)
    known = statistics(frames)
    sizes = {"channels": 16, "filters": 12, "layers": 3, "radial_count": 10, "cutoff": 4.5, "envelope": "cosine"}
    ours = build({"kind": "schnet", **sizes}, known).double()

    def edges_of(positions, batch):
        centre, neighbour = graph.edges
        shift = (graph.shifts[:, None] @ graph.cell[graph.system[centre]])[:, 0]
        return torch.stack([neighbour, centre]), (positions[neighbour] - positions[centre] + shift).norm(dim=1)

    torch.manual_seed(0)
    theirs = published(
        hidden_channels=16, num_filters=12, num_interactions=3, num_gaussians=10, cutoff=4.5, interaction_graph=edges_of
    ).double()
    for parameter in theirs.parameters():  # biases begin at zero, which would hide a mistake
        torch.nn.init.normal_(parameter, std=0.3)

    weights = {"embedding.weight": theirs.embedding.weight[list(known.species)]}
    for layer, block in enumerate(theirs.interactions):
        places = {"filter.0": block.mlp[0], "filter.2": block.mlp[2], "send": block.conv.lin1}
        places |= {"receive.0": block.conv.lin2, "receive.2": block.lin}
        for name, linear in places.items():
            weights |= {f"interactions.{layer}.{name}.{part}": value for part, value in linear.named_parameters()}
    for name, linear in {"readout.0": theirs.lin1, "readout.2": theirs.lin2}.items():
        weights |= {f"{name}.{part}": value for part, value in linear.named_parameters()}
    assert set(weights) == {name for name, _ in ours.named_parameters()}
    ours.load_state_dict(weights, strict=False)

    positions = graph.positions.clone().requires_grad_()
    energy = theirs(graph.species, positions, graph.system).squeeze(1)
    (gradient,) = torch.autograd.grad(energy.sum(), positions)
    prediction = evaluate(ours, graph)
    assert_close(prediction.energy, energy.detach())
    assert_close(prediction.forces, -gradient)


@pytest.fixture(scope="module")
def foreign_python(tmp_path_factory):
    """Interpreter of an environment with graph-pes: that of PHYSTRAIN_PARITY_VENV, or one made here."""
    given = os.environ.get("PHYSTRAIN_PARITY_VENV")
    place = Path(given) if given else tmp_path_factory.mktemp("graph_pes")
    python = place / "bin" / "python"
    if not given:
        venv.create(place, with_pip=True)
        version = torch.__version__.partition("+")[0]
        for package in (f"torch=={version}", "graph-pes==1.0.2"):
            subprocess.run([python, "-m", "pip", "install", "-q", package], check=True)
    return python


@pytest.mark.slow
def test_painn_equals_that_of_graph_pes(foreign_python, tmp_path):
    frames = structures()
    ase.io.write(tmp_path / "structures.xyz", frames)
    environment = {**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    environment.pop("PYTHONPATH", None)
    subprocess.run(
        [foreign_python, SCRIPT, tmp_path / "structures.xyz", tmp_path / "result.json"], env=environment, check=True
    )
    result = json.loads((tmp_path / "result.json").read_text())
    frames = ase.io.read(tmp_path / "structures.xyz", index=":")  # positions with the digits of the file
    sizes, known = result["sizes"], statistics(frames)
    ours = build(
        {
            "kind": "painn",
            "channels": sizes["channels"],
            "layers": sizes["layers"],
            "radial_count": sizes["radial_features"],
            "cutoff": sizes["cutoff"],
            "norm_epsilon": 1e-16,
        },
        known,
    ).double()
    weights = painn_weights(result["weights"], sizes, known)
    assert set(weights) == {name for name, _ in ours.named_parameters()}
    ours.load_state_dict(weights, strict=False)

    prediction = evaluate(ours, AtomGraph.from_ase(frames, sizes["cutoff"]))
    theirs = result["predictions"]
    assert_close(prediction.energy, torch.tensor([one["energy"] for one in theirs], dtype=torch.float64))
    expected = np.concatenate([one["forces"] for one in theirs])
    assert_close(prediction.forces, torch.tensor(expected))


def painn_weights(theirs: dict, sizes: dict, known: Statistics) -> dict[str, torch.Tensor]:
    """Weights of graph-pes's PaiNN under our names.

    Ours has no constant factor in the radial basis, leaves out what meets the zero vectors of the first layer and
    what updates the vectors of the last, and has the gates in another order.
    """
    theirs = {name: torch.tensor(value, dtype=torch.float64) for name, value in theirs.items()}
    assert bool((theirs["scaler.per_element_scaling"] == 1).all())
    channels, layers = sizes["channels"], sizes["layers"]
    weights = {"embedding.weight": theirs["z_embedding._embeddings"][list(known.species)]}
    filters: dict[str, list[torch.Tensor]] = {"weight": [], "bias": []}
    for layer in range(layers):
        parts = 2 if layer == 0 else 3
        message, update = f"interactions.{layer}", f"updates.{layer}"
        for part, scale in (("weight", math.sqrt(2 / sizes["cutoff"])), ("bias", 1.0)):
            value = theirs[f"{message}.filter_generator.components.0.1.{part}"]
            filters[part].append(scale * value[: parts * channels])
            weights[f"messages.{layer}.context.0.{part}"] = theirs[f"{message}.Phi.linear_layers.0.{part}"]
            outgoing = theirs[f"{message}.Phi.linear_layers.1.{part}"]
            weights[f"messages.{layer}.context.2.{part}"] = outgoing[: parts * channels]
            weights[f"{update}.gates.0.{part}"] = theirs[f"{update}.mlp.linear_layers.0.{part}"]
            to_vectors, shift, product = theirs[f"{update}.mlp.linear_layers.1.{part}"].split(channels)
            kept = [shift, product] if layer == layers - 1 else [shift, product, to_vectors]
            weights[f"{update}.gates.2.{part}"] = torch.cat(kept)
        weights[f"{update}.mix.weight"] = torch.cat([theirs[f"{update}.{name}._linear.weight"] for name in "UV"])
    weights |= {f"filters.{part}": torch.cat(values) for part, values in filters.items()}
    for ours, name in ((0, 0), (2, 1)):
        for part in ("weight", "bias"):
            weights[f"readout.{ours}.{part}"] = theirs[f"read_out.linear_layers.{name}.{part}"]
    return weights

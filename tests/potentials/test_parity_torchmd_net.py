"""The same weights give the same energies and forces as torchmd-net, whose authors published both networks."""

import json
import os
import subprocess
import venv
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from phystrain.derive import evaluate
from phystrain.graph import AtomGraph
from phystrain.potentials import build
from phystrain.statistics import Statistics

SCRIPT = Path(__file__).with_name("parity_torchmd_net.py")
TOLERANCE = 1e-5
"""Relative to the largest entry. Measured: below 2e-7; torchmd-net keeps radial centres in single precision."""


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Structures and their predictions by torchmd-net, in the environment PHYSTRAIN_PARITY_TORCHMD_NET or a new one."""
    given = os.environ.get("PHYSTRAIN_PARITY_TORCHMD_NET")
    place = Path(given) if given else tmp_path_factory.mktemp("torchmd_net")
    python = place / "bin" / "python"
    if not given:
        venv.create(place, with_pip=True)
        version = torch.__version__.partition("+")[0]
        for package in (f"torch=={version}", "torchmd-net==3.1.0"):
            subprocess.run([python, "-m", "pip", "install", "-q", package], check=True)
    # its neighbour lists ask for cells of at least twice the cut-off
    ethanol, carbide = molecule("CH3CH2OH"), bulk("SiC", "zincblende", a=4.2, cubic=True).repeat(2)
    for seed, atoms in enumerate((ethanol, carbide)):
        atoms.rattle(0.1, seed=seed)
    folder = tmp_path_factory.mktemp("result")
    ase.io.write(folder / "structures.xyz", [ethanol, carbide])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([python, SCRIPT, folder / "structures.xyz", folder / "result.json"], env=environment, check=True)
    frames = ase.io.read(folder / "structures.xyz", index=":")  # positions with the digits of the file
    return frames, json.loads((folder / "result.json").read_text())


def assert_same(settings, weights_of, frames, model, sizes):
    """Our network with their weights gives their predictions."""
    known = Statistics.bare(tuple(int(number) for atoms in frames for number in atoms.numbers))
    shared = {
        "channels": sizes["embedding_dimension"],
        "layers": sizes["num_layers"],
        "radial_count": sizes["num_rbf"],
        "cutoff": sizes["cutoff_upper"],
        "envelope": "cosine",
    }
    ours = build({**shared, **settings}, known).double()
    theirs = {name: torch.tensor(value, dtype=torch.float64) for name, value in model["weights"].items()}
    weights = weights_of(theirs, sizes, list(known.species))
    assert set(weights) == {name for name, _ in ours.named_parameters()}
    ours.load_state_dict(weights, strict=False)
    prediction = evaluate(ours, AtomGraph.from_ase(frames, sizes["cutoff_upper"]))
    energies = torch.tensor([one["energy"] for one in model["predictions"]], dtype=torch.float64)
    forces = torch.tensor(np.concatenate([one["forces"] for one in model["predictions"]]))
    for found, expected in ((prediction.energy, energies), (prediction.forces, forces)):
        error = (found - expected).abs().max() / expected.abs().max()
        print(settings, f"relative error {error:.1e}")
        assert error <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("vector_cutoff", [False, True])
def test_torchmd_et_equals_that_of_torchmd_net(published, vector_cutoff):
    frames, result = published
    model = result["models"]["torchmd_et with decaying vectors" if vector_cutoff else "torchmd_et"]
    sizes = result["sizes"]
    settings = {"kind": "torchmd_et", "heads": sizes["num_heads"], "vector_cutoff": vector_cutoff}
    assert_same({**settings, "norm_epsilon": 1e-16}, transformer_weights, frames, model, sizes)


@pytest.mark.slow
def test_tensornet_equals_that_of_torchmd_net(published):
    frames, result = published
    assert_same({"kind": "tensornet"}, tensor_weights, frames, result["models"]["tensornet"], result["sizes"])


def parts(weights, ours, theirs, rows=slice(None)):
    """Weight and bias of a linear layer or normalisation, or some rows of them."""
    return {f"{ours}.{part}": weights[f"{theirs}.{part}"][rows] for part in ("weight", "bias")}


def transformer_weights(theirs, sizes, species):
    """Weights of torchmd-net's equivariant transformer under our names.

    Ours joins linear layers with the same input, has the values of all heads in three blocks where theirs has three
    parts for each head, has the outputs in another order and leaves out what meets the zero vectors of the first layer
    and the vectors of the last block.
    """
    channels, heads, layers = sizes["embedding_dimension"], sizes["num_heads"], sizes["num_layers"]
    by_part = torch.arange(3 * channels).view(heads, 3, -1).transpose(0, 1).reshape(3, channels)
    model = "representation_model"
    weights = {
        "embedding.itself.weight": theirs[f"{model}.embedding.weight"][species],
        "embedding.neighbour.weight": theirs[f"{model}.neighbor_embedding.embedding.weight"][species],
        **parts(theirs, "embedding.filter", f"{model}.neighbor_embedding.distance_proj"),
        **parts(theirs, "embedding.combine", f"{model}.neighbor_embedding.combine"),
        **parts(theirs, "norm", f"{model}.out_norm"),
    }
    for layer in range(layers):
        source, target = f"{model}.attention_layers.{layer}", f"attention.{layer}"
        values = by_part[[0, 2] if layer == 0 else [0, 2, 1]].flatten()
        weights |= parts(theirs, f"{target}.norm", f"{source}.layernorm")
        for part in ("weight", "bias"):
            read = {name: theirs[f"{source}.{name}_proj.{part}"] for name in ("q", "k", "v", "dk", "dv", "o")}
            weights[f"{target}.project.{part}"] = torch.cat([read["q"], read["k"], read["v"][values]])
            weights[f"{target}.filters.{part}"] = torch.cat([read["dk"], read["dv"][values]])
            to_vectors, product, shift = read["o"].split(channels)
            kept = [shift] if layer == 0 else [shift, product, to_vectors]
            weights[f"{target}.out.{part}"] = torch.cat(kept)
        if layer:
            weights[f"{target}.mix.weight"] = theirs[f"{source}.vec_proj.weight"]
    output = "output_model.output_network"
    weights["readout.block.normed.weight"] = theirs[f"{output}.0.vec1_proj.weight"]
    weights["readout.block.gated.weight"] = theirs[f"{output}.0.vec2_proj.weight"]
    weights["readout.normed.weight"] = theirs[f"{output}.1.vec1_proj.weight"]
    for number in (0, 2):
        weights |= parts(theirs, f"readout.block.gates.{number}", f"{output}.0.update_net.layers.{number}")
    weights |= parts(theirs, "readout.final.0", f"{output}.1.update_net.layers.0")
    weights |= parts(theirs, "readout.final.2", f"{output}.1.update_net.layers.2", slice(1))
    return weights


def tensor_weights(theirs, sizes, species):
    """Weights of torchmd-net's TensorNet under our names; ours joins the layers of the three parts of a tensor."""
    model = "representation_model"
    first = f"{model}.tensor_embedding"

    def stacked(name, numbers):
        return torch.stack([theirs[f"{name}.{number}.weight"] for number in numbers])

    weights = {
        "embedding.embedding.weight": theirs[f"{first}.emb.weight"][species],
        **parts(theirs, "embedding.pairs", f"{first}.emb2"),
        **parts(theirs, "embedding.norm", f"{first}.init_norm"),
        **parts(theirs, "embedding.gates.0", f"{first}.linears_scalar.0"),
        **parts(theirs, "embedding.gates.2", f"{first}.linears_scalar.1"),
        "embedding.mix.weight": stacked(f"{first}.linears_tensor", range(3)),
        **parts(theirs, "norm", f"{model}.out_norm"),
        **parts(theirs, "invariants.0", f"{model}.linear"),
        **parts(theirs, "readout.0", "output_model.output_network.layers.0"),
        **parts(theirs, "readout.2", "output_model.output_network.layers.2"),
    }
    for part in ("weight", "bias"):
        filters = [theirs[f"{first}.distance_proj{number}.{part}"] for number in (1, 2, 3)]
        weights[f"embedding.filters.{part}"] = torch.cat(filters)
    for layer in range(sizes["num_layers"]):
        source, target = f"{model}.layers.{layer}", f"interactions.{layer}"
        for number in range(3):
            weights |= parts(theirs, f"{target}.filters.{2 * number}", f"{source}.linears_scalar.{number}")
        weights[f"{target}.send.weight"] = stacked(f"{source}.linears_tensor", range(3))
        weights[f"{target}.receive.weight"] = stacked(f"{source}.linears_tensor", range(3, 6))
    return weights

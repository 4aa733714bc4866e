"""The same weights give the same energies and forces as fairchem's eSCN and Equiformer v2."""

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

from phystrain.derive import evaluate
from phystrain.graph import AtomGraph
from phystrain.potentials import build
from phystrain.statistics import Statistics

SCRIPT = Path(__file__).with_name("parity_fairchem.py")
TOLERANCE = 1e-5
PACKAGES = ("e3nn==0.5.8", "torch-geometric==2.8.1", "ase==3.29.0")


@pytest.fixture(scope="module")
def foreign_python(tmp_path_factory):
    """Interpreter of an environment with fairchem-core: that of PHYSTRAIN_FAIRCHEM_VENV, or one made here."""
    given = os.environ.get("PHYSTRAIN_FAIRCHEM_VENV")
    place = Path(given) if given else tmp_path_factory.mktemp("fairchem")
    python = place / "bin" / "python"
    if not given:
        venv.create(place, with_pip=True)
        pip = [python, "-m", "pip", "install", "-q"]
        subprocess.run([*pip, f"torch=={torch.__version__.partition('+')[0]}"], check=True)
        subprocess.run([*pip, "--no-deps", "fairchem-core==1.10.0"], check=True)
        subprocess.run([*pip, *PACKAGES], check=True)
    return python


def run(python, *arguments):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([python, SCRIPT, *arguments], env=environment, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture(scope="module")
def theirs(foreign_python, tmp_path_factory):
    """A molecule, and a crystal with atoms that are neighbours of their own images; what they predict for them."""
    ethanol = molecule("CH3CH2OH")
    carbide = bulk("SiC", "zincblende", a=3.6, cubic=True)
    frames: list[Atoms] = [ethanol, carbide]
    for seed, atoms in enumerate(frames):
        atoms.rattle(0.1, seed=seed)
    folder = tmp_path_factory.mktemp("parity")
    ase.io.write(folder / "structures.xyz", frames)
    run(foreign_python, folder / "structures.xyz", folder / "result.json")
    frames = ase.io.read(folder / "structures.xyz", index=":")  # positions with the digits of the file
    return frames, json.loads((folder / "result.json").read_text())


def as_published(kind, sizes, cutoff):
    settings = {
        "kind": kind,
        "head": "direct",
        "lmax": sizes["lmax_list"][0],
        "mmax": sizes["mmax_list"][0],
        "layers": sizes["num_layers"],
        "channels": sizes["sphere_channels"],
        "edge_channels": sizes["edge_channels"],
        "cutoff": cutoff,
        "radial_basis": "gaussian",
        "chiral": True,
        "smooth_cutoff": False,
    }
    if kind == "escn":
        more = {
            "hidden": sizes["hidden_channels"],
            "activation": "grid",
            "sphere_samples": sizes["num_sphere_samples"],
            "radial_count": round(cutoff / sizes["distance_resolution"]),
        }
    else:
        more = {
            "hidden": sizes["attn_hidden_channels"],
            "attention_heads": sizes["num_heads"],
            "alpha_channels": sizes["attn_alpha_channels"],
            "value_channels": sizes["attn_value_channels"],
            "feed_forward": sizes["ffn_hidden_channels"],
            "activation": "gate" if sizes.get("use_gate_act") else "grid",
            "grid_resolution": sizes.get("grid_resolution"),
            "norm_epsilon": 1e-5,
            "radial_count": 600,
            "basis_width": 2.0,
        }
    return settings | more


@pytest.mark.slow
@pytest.mark.parametrize("case", ["escn", "equiformer_v2-grid", "equiformer_v2-gate"])
def test_same_weights_same_energies_and_forces(case, theirs):
    frames, result = theirs
    found, cutoff = result["cases"][case], result["cutoff"]
    kind = case.partition("-")[0]
    sizes = found["sizes"]
    numbers = tuple(int(number) for atoms in frames for number in atoms.numbers)
    known = Statistics.bare(numbers).model_copy(update={"neighbours": sizes.get("avg_degree", 1.0)})
    ours = build(as_published(kind, sizes, cutoff), known).double().eval()
    weights = {name: torch.tensor(value, dtype=torch.float64) for name, value in found["weights"].items()}
    renamed = (escn_weights if kind == "escn" else equiformer_weights)(weights, sizes, known)
    assert set(renamed) == {name for name, _ in ours.named_parameters()}
    ours.load_state_dict(renamed, strict=False)

    prediction = evaluate(ours, AtomGraph.from_ase(frames, cutoff))
    factor = 1e3 if kind == "escn" else 1.0  # of the published energy
    energy = torch.tensor([factor * one["energy"][0] for one in found["predictions"]], dtype=torch.float64)
    forces = torch.tensor(np.concatenate([one["forces"] for one in found["predictions"]]))
    for mine, expected in ((prediction.energy, energy), (prediction.forces, forces)):
        error = float((mine - expected).abs().max() / expected.abs().max())
        print(f"{case}: {error:.1e} of {float(expected.abs().max()):.2e}")
        assert error <= TOLERANCE


@pytest.mark.slow
def test_the_published_network_has_its_31_million_parameters(foreign_python):
    """But for those that cannot matter: of the outputs, all but degree zero of the energy and one of the forces."""
    published = int(run(foreign_python, "count"))
    ours = build({"kind": "equiformer_v2", "preset": "31M"}, Statistics.bare(tuple(range(1, 91))))
    channels, hidden, feed_forward, values = 128, 64, 128, 8 * 16
    # the energy is made of scalars, which have a map of their own; of the last map degree zero is used
    energy = (5 * channels * feed_forward + feed_forward) + 3 * feed_forward**2 + 4 * feed_forward
    # second convolution of the forces by order, whose results of all degrees but one are not used; then their last map
    forces = (5 * hidden + 1) * 4 * values + 4 * hidden * 2 * 3 * values + 3 * hidden * 2 * 3 * values
    forces += 4 * values + 1
    assert published == 31_058_690
    assert sum(parameter.numel() for parameter in ours.parameters()) == published - energy - forces


def equiformer_weights(theirs, sizes, known):  # noqa: PLR0915
    """Weights of fairchem's Equiformer v2 under our names, those that cannot matter left out."""
    rows, gate = list(known.species), bool(sizes.get("use_gate_act"))
    lmax, mmax, values = sizes["lmax_list"][0], sizes["mmax_list"][0], sizes["num_heads"] * sizes["attn_value_channels"]
    weights = {"embedding.weight": theirs["backbone.sphere_embedding.weight"][rows]}

    def copied(ours, name, parts=("weight", "bias")):
        for part in parts:
            weights[f"{ours}.{part}"] = theirs[f"{name}.{part}"]

    def radial(ours, tables, name):
        for mine, published in (("neighbour", "source"), ("centre", "target")):
            weights[f"{ours}.{mine}.weight"] = theirs[f"{tables}.{published}_embedding.weight"][rows]
        for mine, place in (("first", 0), ("rest.0", 1), ("rest.2", 3), ("rest.3", 4), ("rest.5", 6)):
            copied(f"{ours}.{mine}", f"{name}.rad_func.net.{place}")

    def degree_linear(ours, name):
        weights[f"{ours}.weight"] = theirs[f"{name}.weight"].transpose(1, 2)
        weights[f"{ours}.bias"] = theirs[f"{name}.bias"]

    def norm(ours, name):
        copied(f"{ours}.scalars", f"{name}.norm_l0")
        weights[f"{ours}.weight"] = theirs[f"{name}.affine_weight"]

    def attention(ours, name):
        radial(f"{ours}.radial", name, f"{name}.so2_conv_1")
        for mine, place in (("first", "so2_conv_1"), ("second", "so2_conv_2")):
            copied(f"{ours}.{mine}.zero", f"{name}.{place}.fc_m0")
            for m in range(mmax):
                copied(f"{ours}.{mine}.orders.{m}", f"{name}.{place}.so2_m_conv.{m}.fc", ("weight",))
        copied(f"{ours}.norm", f"{name}.alpha_norm")
        weights[f"{ours}.query"] = theirs[f"{name}.alpha_dot"]
        degree_linear(f"{ours}.out", f"{name}.proj")

    radial("degree_radial", "backbone.edge_degree_embedding", "backbone.edge_degree_embedding")
    for layer in range(sizes["num_layers"]):
        name, ours = f"backbone.blocks.{layer}", f"blocks.{layer}"
        norm(f"{ours}.first_norm", f"{name}.norm_1")
        norm(f"{ours}.second_norm", f"{name}.norm_2")
        attention(f"{ours}.attention", f"{name}.ga")
        degree_linear(f"{ours}.feed_forward.first", f"{name}.ffn.so3_linear_1")
        degree_linear(f"{ours}.feed_forward.second", f"{name}.ffn.so3_linear_2")
        if gate:
            copied(f"{ours}.feed_forward.gates", f"{name}.ffn.gating_linear")
        else:
            copied(f"{ours}.feed_forward.scalars", f"{name}.ffn.scalar_mlp.0")
            for place in range(3):
                copied(f"{ours}.feed_forward.points.{place}", f"{name}.ffn.grid_mlp.{2 * place}", ("weight",))
    norm("norm", "backbone.norm")
    energy = "energy.energy_block"
    if gate:
        weights["readout.0.weight"] = theirs[f"{energy}.so3_linear_1.weight"][0]
        weights["readout.0.bias"] = theirs[f"{energy}.so3_linear_1.bias"]
    else:
        copied("readout.0", f"{energy}.scalar_mlp.0")
    weights["readout.2.weight"] = theirs[f"{energy}.so3_linear_2.weight"][0]
    weights["readout.2.bias"] = theirs[f"{energy}.so3_linear_2.bias"]
    attention("force_block", "force.force_block")
    del weights["force_block.out.bias"]
    weights["force_block.out.weight"] = weights["force_block.out.weight"][1].T
    one = slice(values, 2 * values)  # the part of degree one of what has all degrees
    for part in ("weight", "bias"):
        weights[f"force_block.second.zero.{part}"] = weights[f"force_block.second.zero.{part}"][one]
    order = weights["force_block.second.orders.0.weight"].unflatten(0, (2, lmax, values))
    weights["force_block.second.orders.0.weight"] = order[:, 0].flatten(0, 1)
    for m in range(1, mmax):
        del weights[f"force_block.second.orders.{m}.weight"]
    if gate:  # gates leave orders to themselves
        kept = 2 * sizes["sphere_channels"] * (2 * lmax + 1)
        for part in ("weight", "bias"):
            weights[f"force_block.radial.rest.5.{part}"] = weights[f"force_block.radial.rest.5.{part}"][:kept]
        for m in range(1, mmax):
            del weights[f"force_block.first.orders.{m}.weight"]
    return weights


def escn_weights(theirs, sizes, known):  # noqa: PLR0912
    """Weights of fairchem's eSCN under our names, those that meet the zeros of the first layer left out."""
    rows, channels, hidden = list(known.species), sizes["sphere_channels"], sizes["hidden_channels"]
    weights = {"embedding.weight": theirs["sphere_embedding.weight"][rows]}
    for layer in range(sizes["num_layers"]):
        name, ours = f"layer_blocks.{layer}", f"layers.{layer}"
        block = f"{name}.message_block.edge_block"
        for mine, published in (("neighbour", "source"), ("centre", "target")):
            weights[f"{ours}.scalars.{mine}.weight"] = theirs[f"{block}.{published}_embedding.weight"][rows]
        for mine, published in (("radial", "fc1_dist"), ("mix", "fc1_edge_attr")):
            for part in ("weight", "bias"):
                weights[f"{ours}.scalars.{mine}.{part}"] = theirs[f"{block}.{published}.{part}"]
        source, target = (f"{name}.message_block.so2_block_{which}" for which in ("source", "target"))
        convolution = f"{ours}.convolution"
        for mine, which in (("from_neighbour", source), ("from_centre", target)):
            first = theirs[f"{which}.fc1_m0.weight"]
            weights[f"{convolution}.{mine}.0.weight"] = first[:, :channels] if layer == 0 else first
        weights[f"{convolution}.zero.weight"] = torch.cat(
            [theirs[f"{which}.fc2_m0.weight"] for which in (source, target)], dim=1
        )
        factors = {
            part: [theirs[f"{which}.fc1_dist0.{part}"] for which in (source, target)] for part in ("weight", "bias")
        }
        for m in range(1, 1 if layer == 0 else sizes["mmax_list"][0] + 1):
            orders = [f"{which}.so2_conv.{m - 1}" for which in (source, target)]
            for mine, order in zip(("from_neighbour", "from_centre"), orders, strict=True):
                weights[f"{convolution}.{mine}.{m}.weight"] = torch.cat(
                    [theirs[f"{order}.fc1_{part}.weight"] for part in "ri"]
                )
            weights[f"{convolution}.orders.{m - 1}.weight"] = torch.cat(
                [theirs[f"{order}.fc2_{part}.weight"] for part in "ri" for order in orders], dim=1
            )
            for part, found in factors.items():
                halves = [theirs[f"{order}.fc1_dist.{part}"].split(hidden) for order in orders]
                found += [half[place] for place in range(2) for half in halves]
        for part, found in factors.items():
            weights[f"{convolution}.scalars.{part}"] = torch.cat(found)
        for place in range(3):
            weights[f"{ours}.update.maps.{place}.weight"] = theirs[f"{name}.fc{place + 1}_sphere.weight"]
    for ours, block in (("readout", "energy_block"), ("force_blocks.0", "force_block")):
        for place in range(3):
            for part in ("weight", "bias") if place < 2 else ("weight",):
                weights[f"{ours}.{2 * place}.{part}"] = theirs[f"{block}.fc{place + 1}.{part}"]
    return weights

"""What a training step of eSCN and Equiformer v2 costs beside fairchem's at the same sizes.

Usage: ``PYTHONPATH=src python benchmarks/networks/spherical.py MOLECULES.xyz [RESULT.json]``, by the interpreter of the
environment of tests/potentials/test_parity_fairchem.py with pydantic, jaxtyping, vesin and scipy. Eight molecules,
cut-off 5 Å, float32; loss of energies and direct forces, which is all that fairchem's can do, and of conservative
forces for ours alone. Networks take turns; milliseconds of processor time.
"""

import importlib.util
import json
import statistics
import sys
import time
from pathlib import Path

import ase.io
import torch

_script = Path(__file__).parents[2] / "tests/potentials/parity_fairchem.py"
_spec = importlib.util.spec_from_file_location("parity_fairchem", _script)
fairchem = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fairchem)

from phystrain.derive import evaluate  # noqa: E402
from phystrain.graph import AtomGraph  # noqa: E402
from phystrain.potentials import build  # noqa: E402
from phystrain.statistics import Statistics  # noqa: E402

CUTOFF, ROUNDS = 5.0, 3
SIZES = {
    "small": {"lmax": 2, "mmax": 1, "layers": 3, "channels": 32, "hidden": 32, "edge_channels": 32},
    "large": {"lmax": 4, "mmax": 2, "layers": 2, "channels": 32, "hidden": 32, "edge_channels": 32},
}
ATTENTION = {"attention_heads": 4, "alpha_channels": 16, "value_channels": 8, "feed_forward": 64, "basis_width": 2.0}


def ours(kind: str, sizes: dict, **more: object) -> torch.nn.Module:
    """Our network with published settings, but for the cut-off."""
    attention = ATTENTION if kind == "equiformer_v2" else {}
    basis = {"radial_basis": "gaussian", "radial_count": 600 if attention else 250, "chiral": True}
    return build({"kind": kind, "cutoff": CUTOFF, **sizes, **basis, **attention, **more}, Statistics.bare((1, 6, 7, 8)))


def theirs(kind: str, sizes: dict, activation: str) -> torch.nn.Module:
    """The published network."""
    common = {"otf_graph": False, "lmax_list": [sizes["lmax"]], "mmax_list": [sizes["mmax"]]}
    common |= {"num_layers": sizes["layers"], "sphere_channels": sizes["channels"]}
    common |= {"edge_channels": sizes["edge_channels"]}
    if kind == "escn":
        return fairchem.eSCN(cutoff=CUTOFF, hidden_channels=sizes["hidden"], **common)
    common |= {"num_heads": 4, "attn_alpha_channels": 16, "attn_value_channels": 8, "ffn_hidden_channels": 64}
    common |= {"attn_hidden_channels": sizes["hidden"], "norm_type": "layer_norm_sh"}
    common |= {"alpha_drop": 0.0, "drop_path_rate": 0.0}
    common |= {"use_gate_act": True} if activation == "gate" else {"use_grid_mlp": True}
    return fairchem.Equiformer(max_radius=CUTOFF, **common)


def steps(frames: list[ase.Atoms], kind: str, sizes: dict) -> dict:
    """Functions that make one step."""
    graph = AtomGraph.from_ase(frames, CUTOFF).to(dtype=torch.float32)
    fairchem.CUTOFF = CUTOFF
    data = fairchem.Graph(frames)
    energy, forces = torch.randn(len(frames)), torch.randn(graph.n_atoms, 3)

    def loss(found_energy: torch.Tensor, found_forces: torch.Tensor) -> None:
        ((found_energy - energy).square().mean() + (found_forces - forces).square().mean()).backward()

    def step_of_ours(model: torch.nn.Module) -> None:
        found = evaluate(model, graph, create_graph=True)
        loss(found.energy, found.forces)

    def step_of_theirs(model: torch.nn.Module) -> None:
        found = model(data)
        loss(found["energy"], found["forces"])

    made = {}
    for activation in ("grid",) if kind == "escn" else ("grid", "gate"):
        made[f"fairchem, {activation}, direct"] = (step_of_theirs, theirs(kind, sizes, activation))
    for activation in ("grid", "gate"):
        for head in ("direct", "conservative"):
            made[f"ours, {activation}, {head}"] = (step_of_ours, ours(kind, sizes, activation=activation, head=head))
    made["ours, gate, conservative, not chiral"] = (step_of_ours, ours(kind, sizes, chiral=False))
    return made


def main(molecules: str, result: str = "") -> None:
    """Measure and print."""
    frames, rows = ase.io.read(molecules, ":8"), []
    for kind in ("escn", "equiformer_v2"):
        for name, sizes in SIZES.items():
            made = steps(frames, kind, sizes)
            times = {label: [] for label in made}
            for round_ in range(ROUNDS + 1):
                for label, (step, model) in made.items():
                    began = time.process_time()
                    step(model)
                    if round_:
                        times[label].append(1000 * (time.process_time() - began))
            for label, found in times.items():
                row = {"network": kind, "size": name, "step": label, "ms": round(statistics.median(found), 1)}
                rows.append(row)
                print("{network:14s} {size:6s} {step:38s} {ms:9.1f} ms".format(**row), flush=True)
    if result:
        facts = {"threads": torch.get_num_threads(), "torch": torch.__version__, "rounds": ROUNDS, "sizes": SIZES}
        facts |= {"time": "processor"}
        Path(result).write_text(json.dumps({**facts, "attention": ATTENTION, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

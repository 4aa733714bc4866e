"""Energies and forces of torchmd-net's networks with random weights. Run by the interpreter of an environment with it.

Usage: ``python parity_torchmd_net.py STRUCTURES.xyz RESULT.json``
"""

import json
import sys
import warnings
from pathlib import Path

import ase.io
import torch
from torchmdnet.models.model import create_model

SHARED = {
    "embedding_dimension": 16,
    "num_layers": 3,
    "num_rbf": 8,
    "rbf_type": "expnorm",
    "trainable_rbf": False,
    "activation": "silu",
    "cutoff_lower": 0.0,
    "cutoff_upper": 4.0,
    "max_z": 20,
    "max_num_neighbors": 128,
    "precision": 64,
    "derivative": True,
    "atom_filter": -1,
    "prior_model": None,
    "output_model": "Scalar",
    "reduce_op": "sum",
}
TRANSFORMER = {
    "model": "equivariant-transformer",
    "attn_activation": "silu",
    "num_heads": 4,
    "distance_influence": "both",
    "neighbor_embedding": True,
}
MODELS = {
    "torchmd_et": TRANSFORMER,
    "torchmd_et with decaying vectors": {**TRANSFORMER, "vector_cutoff": True},
    "tensornet": {"model": "tensornet", "equivariance_invariance_group": "O(3)"},
}


def main(structures: str, result: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_default_dtype(torch.float64)
    found = {}
    for name, particular in MODELS.items():
        torch.manual_seed(0)
        model = create_model({**SHARED, **particular})
        with torch.no_grad():
            for weight in model.parameters():  # biases begin at zero, which would hide a mistake
                weight.add_(0.1 * torch.randn_like(weight))
        predictions = []
        for atoms in ase.io.read(structures, index=":"):
            positions = torch.tensor(atoms.positions, requires_grad=True)
            box = torch.tensor(atoms.cell.array) if atoms.pbc.all() else None
            energy, forces = model(torch.tensor(atoms.numbers), positions, box=box)
            predictions.append({"energy": energy.item(), "forces": forces.detach().tolist()})
        weights = {key: weight.detach().tolist() for key, weight in model.named_parameters()}
        found[name] = {"weights": weights, "predictions": predictions}
    Path(result).write_text(json.dumps({"sizes": SHARED | TRANSFORMER, "models": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])

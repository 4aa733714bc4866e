"""Energies and forces of graph-pes's PaiNN with random weights. Run by the interpreter of an environment that has it.

Usage: ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 python parity_graph_pes.py STRUCTURES.xyz RESULT.json``
"""

import json
import sys
from pathlib import Path

import ase.io
import torch
from graph_pes import AtomicGraph
from graph_pes.models import PaiNN

SIZES = {"channels": 16, "radial_features": 8, "layers": 3, "cutoff": 4.5}


def main(structures: str, result: str) -> None:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    model = PaiNN(**SIZES)
    predictions = []
    for atoms in ase.io.read(structures, index=":"):
        found = model.predict(AtomicGraph.from_ase(atoms, cutoff=SIZES["cutoff"]), properties=["energy", "forces"])
        predictions.append({name: value.detach().tolist() for name, value in found.items()})
    weights = {name: parameter.detach().tolist() for name, parameter in model.named_parameters()}
    Path(result).write_text(json.dumps({"sizes": SIZES, "weights": weights, "predictions": predictions}))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What a training step of torchmd_et and tensornet costs beside torchmd-net, in one process with one thread.

Usage: PYTHONPATH=src python -m benchmarks.networks.torchmd_net [--rounds 8] [--output FILE.json]

Run it with an interpreter that has torchmd-net 3.1 and what phystrain needs. A step is energy, forces, a squared loss
of both, its gradient and Adam, in float32. Both networks of a pair are timed in turn; what is printed are medians of
the processor time, which other work on the machine disturbs less than the time on the wall. Neighbour lists are made
beforehand for ours; torchmd-net makes its own in each step, by a search that is a small part of it.
"""

import argparse
import json
import statistics
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from ase.build import molecule
from ase.spacegroup import crystal
from torchmdnet.models.model import create_model

from phystrain.allocator import keep_memory
from phystrain.derive import evaluate
from phystrain.graph import AtomGraph
from phystrain.potentials import build
from phystrain.statistics import Statistics

CUTOFF = 5.0
SIZES = {"channels": 128, "radial_count": 32, "cutoff": CUTOFF, "envelope": "cosine"}
PAIRS = {
    "tensornet": (
        {"kind": "tensornet", "layers": 2, **SIZES},
        {"model": "tensornet", "num_layers": 2, "equivariance_invariance_group": "O(3)"},
    ),
    "torchmd_et": (
        {"kind": "torchmd_et", "layers": 4, "heads": 8, **SIZES},
        {
            "model": "equivariant-transformer",
            "num_layers": 4,
            "num_heads": 8,
            "attn_activation": "silu",
            "distance_influence": "both",
            "neighbor_embedding": True,
            "vector_cutoff": True,
        },
    ),
}
SHARED = {
    "embedding_dimension": 128,
    "num_rbf": 32,
    "rbf_type": "expnorm",
    "trainable_rbf": False,
    "activation": "silu",
    "cutoff_lower": 0.0,
    "cutoff_upper": CUTOFF,
    "max_z": 20,
    "max_num_neighbors": 64,
    "precision": 32,
    "derivative": True,
    "atom_filter": -1,
    "prior_model": None,
    "output_model": "Scalar",
    "reduce_op": "sum",
}


def systems():
    """Eight molecules of 27 atoms, and four rattled cells of quartz with 72 atoms."""
    molecules = []
    for seed in range(8):
        atoms = molecule("C6H6") + molecule("CH3CONH2") + molecule("C2H6")[:6]
        atoms.positions[12:21] += [3.5, 0.0, 0.0]
        atoms.positions[21:] += [0.0, 0.0, 3.5]
        atoms.rattle(0.05, seed=seed)
        molecules.append(atoms)
    sites = [(0.4697, 0.0, 1 / 3), (0.4135, 0.2669, 0.7858)]
    unit = crystal(["Si", "O"], sites, spacegroup=152, cellpar=[4.916, 4.916, 5.405, 90, 90, 120])
    cells = []
    for seed in range(4):
        cell = unit.repeat((2, 2, 2))
        cell.rattle(0.05, seed=seed)
        cells.append(cell)
    return {"8 molecules of 27": molecules, "4 quartz cells of 72": cells}


def timed(network, predict, targets):
    """A function that makes one step and gives its processor time in ms."""
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-6)

    def step():
        began = time.process_time()
        optimiser.zero_grad()
        energy, forces = predict()
        loss = (energy.squeeze() - targets[0]).square().mean() + 10 * (forces - targets[1]).square().mean()
        loss.backward()
        optimiser.step()
        return 1000 * (time.process_time() - began)

    return step


def steps(name, frames):
    """Steps of ours and theirs, parameters of both, edges."""
    rng = np.random.default_rng(0)
    graph = AtomGraph.from_ase(frames, CUTOFF, dtype=torch.float32)
    targets = (
        torch.from_numpy(rng.normal(size=len(frames))).float(),
        torch.from_numpy(rng.normal(size=(graph.n_atoms, 3))).float(),
    )
    torch.manual_seed(0)
    species = tuple(int(number) for frame in frames for number in frame.numbers)
    ours = build(PAIRS[name][0], Statistics.bare(species))
    theirs = create_model({**SHARED, **PAIRS[name][1]})
    box = graph.cell if bool(graph.pbc.all()) else None

    def predict_ours():
        prediction = evaluate(ours, graph, create_graph=True)
        return prediction.energy.float(), prediction.forces

    def predict_theirs():
        return theirs(graph.species, graph.positions.clone(), graph.system, box=box)

    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in (ours, theirs)]
    pair = (timed(ours, predict_ours, targets), timed(theirs, predict_theirs, targets))
    return pair, counts, graph.edges.shape[1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    keep_memory()
    rows = []
    for system, frames in systems().items():
        for name in PAIRS:
            (ours, theirs), counts, edges = steps(name, frames)
            for step in (ours, theirs) * 2:
                step()
            times = [(ours(), theirs()) for _ in range(options.rounds)]
            row = {"system": system, "network": name, "edges": edges, "parameters": counts}
            row |= {
                "ours_ms": round(statistics.median(a for a, _ in times), 1),
                "torchmd_net_ms": round(statistics.median(b for _, b in times), 1),
                "ratio": round(statistics.median(a / b for a, b in times), 2),
            }
            rows.append(row)
            print(row, file=sys.stderr)
    if options.output:
        facts = {"threads": 1, "torch": torch.__version__, "torchmd-net": "3.1.0", "rounds": options.rounds}
        options.output.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

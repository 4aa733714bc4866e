"""What a training step of cgcnn costs beside a network of the same sizes made of torch-geometric's layers.

Usage: OMP_NUM_THREADS=1 python -m benchmarks.networks.cgcnn --data DIR [--output FILE]

DIR holds 3bpa/train_300K.xyz; torch-geometric has to be there. A step is energies, forces and the gradient of a squared
loss of both, in float32, neighbour lists made before. Steps are timed in turn, in processor time, so that one thread
can be timed on a busy machine; medians. Other networks are set beside their packages by benchmarks/peers.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.step import molecules, quartz
from phystrain.derive import evaluate
from phystrain.graph import AtomGraph
from phystrain.potentials import build
from phystrain.statistics import Statistics

CUTOFF = 5.0


class CGConvNetwork(torch.nn.Module):
    """CGCNN made of torch-geometric's layers."""

    def __init__(self, elements: int, channels: int, layers: int, count: int) -> None:
        super().__init__()
        from torch_geometric.nn import CGConv

        self.register_buffer("centres", torch.linspace(0, CUTOFF, count))
        self.embedding = torch.nn.Embedding(elements, channels)
        self.layers = torch.nn.ModuleList([CGConv(channels, count) for _ in range(layers)])
        self.readout = torch.nn.Sequential(
            *(torch.nn.Linear(channels, channels), torch.nn.SiLU(), torch.nn.Linear(channels, channels)),
            *(torch.nn.SiLU(), torch.nn.Linear(channels, 1)),
        )

    def forward(self, graph: AtomGraph, rows: torch.Tensor) -> torch.Tensor:
        step = self.centres[1]
        features = torch.exp(-(((graph.distances[:, None] - self.centres) / step) ** 2))
        x = torch.nn.functional.silu(self.embedding(rows))
        for layer in self.layers:
            x = layer(x, graph.edges.flip(0), features)
        return graph.sum_per_system(self.readout(x).squeeze(1))


def of_torch_geometric(graph: AtomGraph, known: Statistics):
    """Module and a function that gives energies and forces."""
    model = CGConvNetwork(len(known.species), channels=64, layers=3, count=26)
    rows = torch.searchsorted(torch.tensor(known.species), graph.species)

    def predict():
        positions = graph.positions.clone().requires_grad_()
        energy = model(graph.displaced(positions - graph.positions), rows)
        return energy, -torch.autograd.grad(energy.sum(), positions, create_graph=True)[0]

    return model, predict


OURS = {"ours": {}, "ours small": {"preset": "small"}}


def step(model, predict, labels):
    """A function that makes one step and says what it took, in ms of the processor."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-6)

    def run() -> float:
        began = time.process_time()
        energy, forces = predict()
        ((energy - labels[0]) ** 2).mean().add(((forces - labels[1]) ** 2).mean()).backward()
        optimiser.step()
        optimiser.zero_grad()
        return 1e3 * (time.process_time() - began)

    return run


def ours_on(model, graph: AtomGraph):
    """Energies and forces of our network."""

    def predict():
        found = evaluate(model, graph, create_graph=True)
        return found.energy.float(), found.forces

    return predict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    rows = []
    for name, frames in (("8 molecules of 27", molecules(given.data)), ("4 quartz cells of 72", quartz())):
        graph = AtomGraph.from_ase(frames, CUTOFF, dtype=torch.float32)
        known = Statistics.bare(tuple(np.unique(graph.species).tolist()))
        labels = torch.randn(graph.n_systems), torch.randn(graph.n_atoms, 3)
        torch.manual_seed(0)
        published = of_torch_geometric(graph, known)
        steps = {"published": (step(*published, labels), published[0])}
        for label, settings in OURS.items():
            model = build({"kind": "cgcnn", "cutoff": CUTOFF, **settings}, known)
            steps[label] = step(model, ours_on(model, graph), labels), model
        taken = {label: [] for label in steps}
        for number in range(given.rounds + 2):
            for label, (run, _) in steps.items():
                spent = run()
                if number >= 2:
                    taken[label].append(spent)
        for label, times in taken.items():
            median = statistics.median(times)
            ratio = statistics.median(a / b for a, b in zip(times, taken["published"], strict=True))
            size = sum(parameter.numel() for parameter in steps[label][1].parameters())
            rows.append(
                {
                    **{"system": name, "edges": graph.edges.shape[1], "network": label, "parameters": size},
                    **{"ms": round(median, 1), "ratio": round(ratio, 2)},
                }
            )
            print(rows[-1])
    if given.output:
        report = {"kind": "cgcnn", "threads": torch.get_num_threads(), "torch": torch.__version__, "rows": rows}
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

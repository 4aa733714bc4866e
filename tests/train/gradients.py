"""Run by test_processes.py in one process and in two: gradients of one step, written by the first process.

Usage: python gradients.py PROCESSES OBJECTIVES OUTPUT
"""

import sys

import torch
from lightning_fabric import Fabric
from safetensors.torch import save_file

from phystrain import datasets, objectives
from phystrain.data.graphs import GraphStore
from phystrain.data.loader import Loader
from phystrain.data.read import read
from phystrain.data.structures import Structures
from phystrain.potentials import build
from phystrain.statistics import Statistics
from phystrain.train.step import Source, TrainingStep

if __name__ == "__main__":
    processes, names, output = int(sys.argv[1]), sys.argv[2].split(","), sys.argv[3]
    fabric = Fabric(accelerator="cpu", devices=processes, strategy="ddp" if processes > 1 else "auto")
    fabric.launch()
    torch.manual_seed(0)
    parts = [read(datasets.path(name)).structures.select([0, 1]) for name in ("silica", "aspirin", "nbmotaw")]
    structures = Structures.concatenate(parts)  # 36 to 96 atoms, 21, and 2 to 54: very unlike one another
    statistics = Statistics.bare(structures.elements)
    potential = build({"kind": "painn", "channels": 8, "layers": 2, "cutoff": 4.0}, statistics).double()
    terms = objectives.parse({name: {} for name in names})
    share = {"dtype": torch.float64, "rank": fabric.global_rank, "world_size": fabric.world_size}
    batch = Loader(GraphStore(structures, 4.3), 5, seed=3, **share).batch(1)
    replayed = Loader(GraphStore(structures, 4.3), 3, seed=4, **share).batch(0)
    step = TrainingStep(potential, terms, [Source("replay", objectives.parse({"forces": {}}), 0.3)])
    module, _ = fabric.setup(step, torch.optim.SGD(potential.parameters(), lr=1.0))
    loss, means = module(batch, replayed)
    fabric.backward(loss)
    if fabric.is_global_zero:
        gradients = {name: p.grad.clone() for name, p in potential.named_parameters()}
        save_file(gradients | {f"mean.{name}": mean.clone() for name, mean in means.items()}, output)
    fabric.barrier()

"""Run by test_processes.py in one process and in several: gradients of some steps, written by the first process.

Usage: python gradients.py PROCESSES CASES OUTPUT, the cases by name as JSON: terms of the loss and a batch size.
"""

import json
import sys

import torch
from lightning_fabric import Fabric
from safetensors.torch import save_file

from phystrain import datasets, objectives
from phystrain.config import Balance
from phystrain.data.graphs import GraphStore
from phystrain.data.loader import Loader
from phystrain.data.read import read
from phystrain.data.structures import Structures
from phystrain.potentials import build
from phystrain.statistics import Statistics
from phystrain.train.step import Source, TrainingStep


def gradients(fabric, structures, terms, batch_size):
    """Of three steps, a whole epoch of batches that are not all equally large, by parameter and step."""
    torch.manual_seed(0)
    statistics = Statistics.bare(structures.elements)
    potential = build({"kind": "painn", "channels": 8, "layers": 2, "cutoff": 4.0}, statistics).double()
    share = {"dtype": torch.float64, "rank": fabric.global_rank, "world_size": fabric.world_size}
    lazy = "guide" in json.dumps(terms)
    guided = GraphStore(structures.with_labels(structures.energy), 4.3, guide=structures.forces)
    loaders = [
        Loader(guided if lazy else GraphStore(structures, 4.3), batch_size, seed=3, **share),
        Loader(GraphStore(structures, 4.3), 3, seed=4, **share),
        Loader(GraphStore(structures.without_labels(), 4.3), 4, seed=5, **share),
    ]
    weak = {"pitc": {"part": 0.4, "weight": 1.0}, "pisc": {"k": 0.0, "weight": "auto"}}
    sources = [
        Source("replay", objectives.parse({"forces": {}, "pitc": {"weight": 1.0}}), 0.3),
        Source("unlabelled", objectives.parse(weak), 0.5),
    ]
    step = TrainingStep(
        potential, objectives.parse(terms), sources if lazy else sources[:1], balance=Balance(every=2, largest=1e9)
    )
    module, _ = fabric.setup(step, torch.optim.SGD(potential.parameters(), lr=1.0))
    found = {}
    for number in range(3):
        module.zero_grad()
        loss, means = module(*(loader.batch(number) for loader in loaders), step=number)
        fabric.backward(loss)
        found |= {f"{number}.{name}": p.grad.clone() for name, p in potential.named_parameters()}
        found |= {f"{number}.mean.{name}": mean.clone() for name, mean in means.items()}
        found[f"{number}.structures"] = torch.tensor([len(loaders[0].indices(number))])
        found |= {
            f"{number}.weight.{name}": torch.tensor(state["weight"], dtype=torch.float64)
            for name, state in step.balancer.state.items()
        }
    return found


if __name__ == "__main__":
    processes, cases, output = int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
    fabric = Fabric(accelerator="cpu", devices=processes, strategy="ddp" if processes > 1 else "auto")
    fabric.launch()
    parts = [read(datasets.path(name)).structures.select([0, 1]) for name in ("silica", "aspirin", "nbmotaw")]
    structures = Structures.concatenate(parts)  # 36 to 96 atoms, 21, and 2 to 54: very unlike one another
    found = {
        f"{case}.{name}": tensor
        for case, (terms, batch_size) in cases.items()
        for name, tensor in gradients(fabric, structures, terms, batch_size).items()
    }
    if fabric.is_global_zero:
        save_file(found, output)
    fabric.barrier()

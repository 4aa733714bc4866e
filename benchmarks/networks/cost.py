"""What the networks cost at their small preset, and how exactly their forces turn with the structure.

Usage: python benchmarks/networks/cost.py --data DIR [KIND ...] [--rounds 12]

All networks that there are, or the kinds that are named; the others keep their figures. DIR holds
3bpa/train_300K.xyz. Cut-off 5 Å, one thread:

* a training step (energy and forces, their gradient, Adam) on 8 molecules of 27 atoms, single precision;
* energies and forces of the same batch, single precision;
* by how much the forces of a turned molecule differ from the turned forces, relative to the largest, in double and
  in single precision, weights as drawn.

A round times every network once, in turn; medians over the rounds are kept, with the median of the ratios to schnet.
Times are those of the processor, so that other work on the machine does not count.
"""

import argparse
import copy
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from ase.io import read
from scipy.spatial.transform import Rotation

from phystrain import objectives
from phystrain.allocator import keep_memory
from phystrain.catalogue import potentials
from phystrain.data.graphs import GraphStore
from phystrain.data.structures import Structures
from phystrain.derive import evaluate
from phystrain.files import write_text
from phystrain.graph import AtomGraph
from phystrain.potentials import build
from phystrain.statistics import Statistics
from phystrain.train.step import TrainingStep

RESULTS = Path(__file__).parents[1] / "results" / "networks" / "cost.json"
CUTOFF = 5.0


def timed(action) -> float:
    """Milliseconds of the processor: other work on the machine does not count."""
    began = time.process_time()
    action()
    return 1000 * (time.process_time() - began)


def actions(potential, frames):
    """A training step, and a prediction."""
    rng = np.random.default_rng(0)  # made-up labels: only the time matters
    structures = Structures.from_ase(frames).without_labels()
    structures = structures.with_labels(
        energy=rng.normal(size=len(frames)), forces=rng.normal(size=structures.positions.shape)
    )
    batch = GraphStore(structures, CUTOFF).batch(range(len(frames)))
    module = TrainingStep(potential, objectives.parse({"energy": {}, "forces": {"weight": 10.0}}))
    optimiser = torch.optim.Adam(potential.parameters(), lr=1e-6)

    def step():
        optimiser.zero_grad()
        module(batch)[0].backward()
        optimiser.step()

    return step, lambda: evaluate(potential, batch.graph)


def turned(potential, atoms, dtype) -> float:
    """Largest deviation of the forces after a rotation, relative to the largest force."""
    potential = copy.deepcopy(potential).to(dtype)
    matrix = Rotation.random(random_state=1).as_matrix()
    other = atoms.copy()
    other.positions = atoms.positions @ matrix.T
    before, after = (evaluate(potential, AtomGraph.from_ase(a, CUTOFF, dtype=dtype)).forces for a in (atoms, other))
    expected = before.double() @ torch.from_numpy(matrix).T
    return float((after.double() - expected).abs().max() / expected.abs().max())


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    keep_memory()
    torch.set_num_threads(1)
    frames = read(options.data / "3bpa" / "train_300K.xyz", ":8")
    species = Statistics.bare(tuple(int(number) for frame in frames for number in frame.numbers))
    doing, found = {}, {}
    for entry in potentials():
        if not entry.is_network or entry.obstacle or (options.kinds and entry.kind not in (*options.kinds, "schnet")):
            continue
        torch.manual_seed(0)
        preset = {"preset": "small"} if "small" in entry.presets else {}
        potential = build({"kind": entry.kind, **preset, "cutoff": CUTOFF}, species)
        found[entry.kind] = {
            "turned_double": turned(potential, frames[0], torch.float64),
            "turned_single": turned(potential, frames[0], torch.float32),
        }
        doing[entry.kind] = actions(potential, frames)
        for action in doing[entry.kind] * 2:  # to warm up
            action()
    times = {kind: ([], []) for kind in doing}
    for _ in range(options.rounds):
        for kind, (step, predict) in doing.items():
            times[kind][0].append(timed(step))
            times[kind][1].append(timed(predict))
    for kind, (steps, predictions) in times.items():
        ratios = [own / other for own, other in zip(steps, times["schnet"][0], strict=True)]
        found[kind] |= {
            "step_ms": round(statistics.median(steps), 1),
            "forces_ms": round(statistics.median(predictions), 1),
            "step_by_schnet": round(statistics.median(ratios), 2),
        }
        print(f"{kind:16s}", "  ".join(f"{name} {value:.3g}" for name, value in found[kind].items()))
    known = json.loads(RESULTS.read_text(encoding="utf-8"))["kinds"] if RESULTS.is_file() else {}
    if "schnet" in known and options.kinds and "schnet" not in options.kinds:
        del found["schnet"]  # only measured to compare with
    facts = {
        "torch": torch.__version__,
        "threads": 1,
        "rounds": options.rounds,
        "kinds": dict(sorted({**known, **found}.items())),
    }
    write_text(RESULTS, json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()

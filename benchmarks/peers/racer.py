"""Trains one network for a given time and says how good it then is. Run by the interpreter that has its package.

Usage: ``python racer.py NETWORK TRAIN.xyz TEST.xyz SECONDS LEARNING_RATE SEED``. The last line it prints is JSON.

All networks have the same frames, loss, batches, optimiser, averaged weights and course of the learning rate, which
follows the clock, so that it ends at zero when the time is over. The clock is processor time of the one thread, and
starts after three steps of warm-up, whose effect on the weights is undone: what is compiled in them is kept between
runs where a package knows how. Neighbour lists are made before. Float32, 5 Å.
"""

import json
import math
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from worker import CUTOFF, elements, flat, keep_memory, nequip_model

BATCH, WARM, CLIP, DECAY = 5, 0.02, 10.0, 0.999
ENERGY, FORCES = 10.0, 1.0
"""Weights of squared errors in (eV/atom)² and (eV/Å)²."""


def of_phystrain(kind: str, frames: list, scale: float) -> tuple:
    """Ours, at its small preset, compiled."""
    from phystrain import compiled
    from phystrain.derive import evaluate
    from phystrain.graph import AtomGraph
    from phystrain.potentials import build
    from phystrain.statistics import Statistics

    graph = AtomGraph.from_ase(frames, CUTOFF, dtype=torch.float32)
    known = Statistics.bare(elements(frames)).model_copy(
        update={
            "force_rms": scale,
            "neighbours": graph.edges.shape[1] / graph.n_atoms,
        }
    )
    potential = build({"kind": kind, "preset": "small", "cutoff": CUTOFF}, known)
    trained, tested = compiled.faster(potential, training=True), compiled.faster(potential)

    def predict(batch: AtomGraph, train: bool) -> tuple:
        found = evaluate(trained if train else tested, batch, create_graph=train)
        return found.energy, found.forces

    def batches(some: list) -> Callable:
        graphs = [AtomGraph.from_ase([frame], CUTOFF, dtype=torch.float32) for frame in some]
        return lambda chosen: AtomGraph.concatenate([graphs[number] for number in chosen])

    return potential, predict, batches


def of_nequip(mode: str, frames: list, scale: float) -> tuple:
    """NequIP's preset S."""
    data = flat(frames)
    symbols = sorted({symbol for frame in frames for symbol in frame.get_chemical_symbols()})
    model = nequip_model(mode, symbols, len(data["centre"]) / len(data["species"]), scale)

    def predict(batch: dict, train: bool) -> tuple:
        model.train(train)
        found = model(dict(batch))
        return found["total_energy"].squeeze(1), found["forces"]

    def batches(some: list) -> Callable:
        parts = [flat([frame]) for frame in some]
        types = [torch.tensor([symbols.index(symbol) for symbol in frame.get_chemical_symbols()]) for frame in some]

        def joined(chosen: list[int]) -> dict:
            sizes = torch.tensor([len(some[number]) for number in chosen])
            starts = torch.cumsum(sizes, 0) - sizes
            edges = [torch.stack([parts[n]["centre"], parts[n]["neighbour"]]).long() for n in chosen]
            return {
                "pos": torch.cat([parts[number]["positions"] for number in chosen]),
                "edge_index": torch.cat([edge + start for edge, start in zip(edges, starts, strict=True)], dim=1),
                "atom_types": torch.cat([types[number] for number in chosen]),
                "batch": torch.repeat_interleave(torch.arange(len(chosen)), sizes),
                "num_atoms": sizes,
            }

        return joined

    return model, predict, batches


NETWORKS: dict[str, Callable[..., tuple]] = {
    **{
        f"phystrain {kind}": lambda *given, kind=kind: of_phystrain(kind, *given)
        for kind in ("painn", "tensornet", "torchmd_et")
    },
    "nequip S": lambda *given: of_nequip("compile", *given),
    "nequip S, eager": lambda *given: of_nequip("eager", *given),
}


def read(file: str) -> tuple[list, np.ndarray, list]:
    """Frames without labels, energies, forces."""
    import ase.io

    frames = ase.io.read(Path(file), ":")
    labels = np.array([frame.get_potential_energy() for frame in frames]), [frame.get_forces() for frame in frames]
    return [type(frame)(frame.numbers, frame.positions) for frame in frames], *labels


def main(network: str, train: str, test: str, seconds: str, rate: str, seed: str) -> None:
    """Train and test."""
    keep_memory()
    torch.manual_seed(int(seed))
    dice = random.Random(int(seed))
    frames, energies, forces = read(train)
    # energies count from the mean per atom, and networks are in units of the forces, as both packages would have it
    mean = float(np.mean(energies / np.array([len(frame) for frame in frames])))
    energies = energies - mean * np.array([len(frame) for frame in frames])
    model, predict, batches = NETWORKS[network](frames, float(np.sqrt(np.mean(np.concatenate(forces) ** 2))))
    together = batches(frames)
    sizes = torch.tensor([len(frame) for frame in frames])
    targets = torch.tensor(energies, dtype=torch.float64), [torch.tensor(f, dtype=torch.float32) for f in forces]
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(weights, lr=float(rate))

    def step(chosen: list[int]) -> None:
        energy, force = predict(together(chosen), True)
        off = (energy - targets[0][chosen].float()) / sizes[chosen]
        miss = force - torch.cat([targets[1][number] for number in chosen])
        loss = ENERGY * off.square().mean() + FORCES * miss.square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, CLIP)
        optimiser.step()

    def chosen() -> list[int]:
        return dice.sample(range(len(frames)), BATCH)

    before, wall = [weight.detach().clone() for weight in weights], time.perf_counter()
    for _ in range(3):
        step(chosen())
    compiling = time.perf_counter() - wall
    restore(weights, before)
    optimiser.state.clear()

    average, budget = [weight.detach().clone() for weight in weights], float(seconds)
    steps, clock = 0, time.process_time()
    while (spent := (time.process_time() - clock) / budget) < 1:
        warm = min(1.0, spent / WARM + 0.01)
        optimiser.param_groups[0]["lr"] = float(rate) * warm * 0.5 * (1 + math.cos(math.pi * spent))
        step(chosen())
        steps += 1
        decay = min(DECAY, (1 + steps) / (10 + steps))
        for kept, weight in zip(average, weights, strict=True):
            kept.lerp_(weight.detach(), 1 - decay)
    restore(weights, average)
    found: dict[str, Any] = {"steps": steps, "ms": round(1000 * budget / steps, 2), "warm-up, s": round(compiling, 1)}
    found["parameters"] = sum(weight.numel() for weight in weights)
    print(json.dumps(found | errors(predict, batches, test, mean)), flush=True)


def restore(weights: list, values: list) -> None:
    """Give weights other values."""
    with torch.no_grad():
        for weight, value in zip(weights, values, strict=True):
            weight.copy_(value)


def errors(predict: Callable, batches: Callable, file: str, mean: float) -> dict[str, float]:
    """Mean absolute errors: energy in meV/atom, forces in meV/Å."""
    frames, energies, forces = read(file)
    together, off, miss = batches(frames), [], []
    for first in range(0, len(frames), BATCH):
        some = list(range(first, min(first + BATCH, len(frames))))
        energy, force = predict(together(some), False)
        off += [(float(energy[n]) - energies[number]) / len(frames[number]) + mean for n, number in enumerate(some)]
        miss.append(force.detach().numpy() - np.concatenate([forces[number] for number in some]))
    return {
        "energy": round(1000 * float(np.mean(np.abs(off))), 3),
        "forces": round(1000 * float(np.mean(np.abs(np.concatenate(miss)))), 2),
    }


if __name__ == "__main__":
    main(*sys.argv[1:])

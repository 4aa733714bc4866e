"""Our spin convolution beside the published one on a grid: time of a training step, and how forces turn.

Usage: python benchmarks/networks/spinconv.py --data DIR [--rounds 8]

The grid is written here from arXiv:2106.09575 and its code: latitudes and longitudes about the edge, the frame from the
mean of the neighbours weighted by a cosine, messages laid on the four nearest points, a circular convolution over all
longitudes in groups of eight channels, SiLU, the mean over longitudes, normalisation. As published for conservative
forces, no derivative is taken of the places on the grid. All the rest of the network is ours, so that what is compared
is the convolution: the same sizes, the same batch, in turn, one thread, processor time. DIR holds 3bpa/train_300K.xyz.
"""

import argparse
import json
import math
import statistics
from pathlib import Path

import torch
from ase.io import read
from cost import RESULTS, actions, timed, turned
from torch import nn

from phystrain.allocator import keep_memory
from phystrain.files import write_text
from phystrain.potentials import build, spinconv
from phystrain.statistics import Statistics

LATITUDES, LONGITUDES = 16, 12


class Grid(nn.Module):
    """The published convolution."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        groups = max(1, channels // 8)
        self.conv = nn.Conv1d(channels * LATITUDES, hidden, LONGITUDES, groups=groups)
        self.norm = nn.GroupNorm(groups, hidden)

    def forward(self, messages, at, edges):
        sender, looking = arriving_at(at, edges.centre, edges.atoms)
        with torch.no_grad():
            places, weights = self.places(edges, sender, looking)
        laid = messages.index_select(0, sender)
        sphere = messages.new_zeros(len(at) * LATITUDES * LONGITUDES, messages.shape[1])
        for place, weight in zip(places, weights, strict=True):
            sphere = sphere.index_add(0, place, laid * weight[:, None])
        sphere = sphere.view(len(at), LATITUDES, LONGITUDES, -1).permute(0, 3, 1, 2).flatten(1, 2)
        circular = torch.cat([sphere, sphere[:, :, : LONGITUDES - 1]], dim=2)
        return self.norm(nn.functional.silu(self.conv(circular)).mean(dim=2))

    @staticmethod
    def places(edges, sender, looking):
        """Points of the grids and weights, four of each for a message that an edge sees."""
        weight = 0.5 * (torch.cos(math.pi * edges.distances / edges.cutoff) + 1)
        mean = torch.zeros(edges.atoms, 3).to(weight).index_add(0, edges.centre, edges.directions * weight[:, None])
        pole = edges.directions
        second = torch.linalg.cross(pole, mean.index_select(0, edges.centre) + 1e-4)
        second = second / (second.norm(dim=1, keepdim=True) + 1e-7)
        frame = torch.stack([pole, torch.linalg.cross(pole, second), second], dim=1)
        seen = (frame.index_select(0, looking) @ edges.directions.index_select(0, sender)[:, :, None]).squeeze(2)
        x = (torch.atan2(seen[:, 1], seen[:, 2]) / (2 * math.pi) + 0.5) * LONGITUDES
        y = (0.99 * (seen[:, 0].clamp(-1, 1).asin() / math.pi + 0.5) + 0.005) * (LATITUDES - 1)
        x0, y0 = x.floor(), y.floor()
        dx, dy = x - x0, y - y0
        places, weights = [], []
        for i in (0, 1):
            for j in (0, 1):
                row, column = (y0.long() + i) % LATITUDES, (x0.long() + j) % LONGITUDES
                places.append((looking * LATITUDES + row) * LONGITUDES + column)
                weights.append((dy if i else 1 - dy) * (dx if j else 1 - dx))
        return places, weights


def arriving_at(at, centre, atoms):
    """Pairs of a message and an edge that looks at the atom where it arrives."""
    order = torch.argsort(centre, stable=True)
    counts = torch.zeros(atoms, dtype=torch.int64).index_add(0, centre, torch.ones_like(centre))
    start = torch.cumsum(counts, 0) - counts
    many = counts.index_select(0, at)
    looking = torch.repeat_interleave(torch.arange(len(at)), many)
    rank = torch.arange(len(looking)) - (torch.cumsum(many, 0) - many).index_select(0, looking)
    return order.index_select(0, start.index_select(0, at.index_select(0, looking)) + rank), looking


class OnGrid(spinconv.SpinConv):
    """Our network with the published convolution."""

    def __init__(self, config, known):
        super().__init__(config, known)
        for block in self.rounds:
            block.spin = Grid(config.channels, config.hidden)


class EdgesOnGrid(spinconv.Edges):
    """Edges that know how to look at a grid; distances are needed for its frame."""

    def __init__(self, graph, **given):
        super().__init__(graph, **given)
        self.distances, self.cutoff = graph.distances, graph.cutoff

    def around(self, spin, messages, at):
        if isinstance(spin, Grid):
            return spin(messages * (self.decay * self.root), at, self)
        return super().around(spin, messages, at)


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    keep_memory()
    torch.set_num_threads(1)
    spinconv.Edges = EdgesOnGrid
    frames = read(options.data / "3bpa" / "train_300K.xyz", ":8")
    known = Statistics.bare(tuple(int(number) for frame in frames for number in frame.numbers))
    found, steps = {}, {}
    for name, settings in {"ours": {}, "ours, order 2": {"order": 2}, "grid": None}.items():
        torch.manual_seed(0)
        if settings is None:
            potential = OnGrid(spinconv.Config(), known)
        else:
            potential = build({"kind": "spinconv", "preset": "small", **settings}, known)
        found[name] = {
            "turned_double": turned(potential, frames[0], torch.float64),
            "turned_single": turned(potential, frames[0], torch.float32),
            "parameters": sum(parameter.numel() for parameter in potential.parameters()),
        }
        steps[name] = actions(potential, frames)[0]
        steps[name]()
    times = {name: [] for name in steps}
    for _ in range(options.rounds):
        for name, step in steps.items():
            times[name].append(timed(step))
    for name, own in times.items():
        ratios = [one / other for one, other in zip(own, times["grid"], strict=True)]
        found[name] |= {"step_ms": statistics.median(own), "step_by_grid": round(statistics.median(ratios), 3)}
        print(f"{name:16s}", "  ".join(f"{key} {value:.4g}" for key, value in found[name].items()))
    write_text(
        RESULTS.with_name("spinconv.json"), json.dumps({"rounds": options.rounds, "found": found}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()

"""Pictures and figures for docs/weak-losses.md: the three points, orders of residuals, cost of a step.

Usage:
  python -m benchmarks.weak_losses points --output docs/figures
  python -m benchmarks.weak_losses orders --output docs/figures --results benchmarks/results/weak_losses.json
  python -m benchmarks.weak_losses cost --results benchmarks/results/weak_losses.json
  python -m benchmarks.weak_losses joined --results benchmarks/results/weak_losses.json

The residuals are those of an exact potential: a Morse cluster of 8 atoms, and a rattled copper crystal for strains. The
cost is that of a training step of PaiNN (64 channels, 2 layers, 5 Å, float32) on a quartz cell of 72 atoms, on the CPU:
medians of processor time over rounds that make every kind of step once, in any order, and ratios to the plain step of
the same round. With OMP_NUM_THREADS=1.
"""

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from ase.build import bulk, molecule
from matplotlib.figure import Figure

from benchmarks.step import quartz_cell
from phystrain import objectives
from phystrain.allocator import keep_memory
from phystrain.config import Balance
from phystrain.data.graphs import GraphStore
from phystrain.data.structures import Structures
from phystrain.derive import evaluate
from phystrain.files import write_text, write_with
from phystrain.graph import AtomGraph
from phystrain.labels import Batch, unlabelled
from phystrain.potentials import build
from phystrain.report.drawing import COLOURS, LINES, STYLE
from phystrain.statistics import Statistics
from phystrain.testing.morse_cluster import Morse, cluster
from phystrain.testing.objectives import term
from phystrain.train.material import reserve
from phystrain.train.step import TrainingStep

PLAIN = {"energy": {}, "forces": {"weight": 10.0}}
ADVERSARIAL = {"distribution": "adversarial_gradient"}
STEPS = {
    "energy + forces": {},
    "+ pitc": {"pitc": {}},
    "+ pitc, k = 0": {"pitc": {"k": 0}},
    "+ pitc + pisc": {"pitc": {}, "pisc": {}},
    "+ pitc + pisc B": {"pitc": {}, "pisc": {"case": "B"}},
    "+ pitc + pisc D": {"pitc": {}, "pisc": {"case": "D"}},
    "+ antithetic": {"antithetic": {}},
    "+ pitc, detached": {"pitc": {"detach": True}},
    "+ pitc, adversarial force": {"pitc": {"distribution": "adversarial_force"}},
    "+ pitc, adversarial gradient of energy": {"pitc": {**ADVERSARIAL, "adversary": "energy"}},
    "+ pitc, adversarial gradient of both": {"pitc": ADVERSARIAL},
    "+ stress labels": {"stress": {}},
    "+ strain_consistency": {"strain_consistency": {}},
}
RESIDUALS = {
    "PITC, k = 0": {"kind": "pitc", "k": 0},
    "PISC, k = 0": {"kind": "pisc", "k": 0},
    "PISC, k = 1/2": {"kind": "pisc"},
    "antithetic": {"kind": "antithetic"},
    "PITC, k = 1/2": {"kind": "pitc"},
}
STRAINS = {
    "strain, k = 0": {"kind": "strain_consistency", "k": 0},
    "strain, k = 1/2": {"kind": "strain_consistency"},
}


def surface(x, y):
    """An energy in two dimensions, for the drawing."""
    return 1.3 * (x - 0.3) ** 2 + 0.7 * (y - 0.1) ** 2 + 0.5 * x * y + 0.9 * x**3


def slope(x, y):
    """Its gradient."""
    return np.array([2.6 * (x - 0.3) + 0.5 * y + 2.7 * x**2, 1.4 * (y - 0.1) + 0.5 * x])


def points(output: Path) -> None:
    """Left: where the steps lie. Right: what is compared at the end of one."""
    s, b, c = np.array([-0.6, -0.5]), np.array([-0.42, 0.4]), np.array([0.22, 0.05])
    figure = Figure(figsize=(9.5, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.0, 1.15])
    _draw_points(left, {"S": s, "B": b, "C": c})
    _draw_step(right, s, c)
    save(figure, output / "three-points.svg")


def _draw_points(axes, places) -> None:
    x, y = np.meshgrid(np.linspace(-0.9, 1.0, 200), np.linspace(-0.8, 0.9, 200))
    axes.contour(x, y, surface(x, y), levels=14, colors="0.85", linewidths=0.8)
    s, b, c = places["S"], places["B"], places["C"]
    for start, end, colour, style, text, shift in (
        (s, c, COLOURS[0], "-", "PITC:  d", (0.04, -0.13)),
        (b, c, COLOURS[1], "-", "PISC:  d − d′", (0.03, 0.06)),
        (s, b, "0.5", ":", "d′", (-0.11, 0.0)),
    ):
        arrow = {"arrowstyle": "-|>", "color": colour, "lw": 1.8, "ls": style, "shrinkA": 7, "shrinkB": 7}
        axes.annotate("", end, start, arrowprops=arrow)
        axes.text(*((start + end) / 2 + shift), text, color=colour)
    for (name, place), text, shift in zip(
        places.items(), ("S", "B = S + d′", "C = S + d"), ((-0.04, -0.14), (-0.25, 0.08), (0.05, -0.1)), strict=True
    ):
        axes.plot(*place, "o", color="black" if name == "S" else "0.25", ms=7)
        axes.text(*(place + shift), text)
    axes.set(xticks=[], yticks=[], title="Two ways to the same displaced structure")
    axes.set_xlabel("positions of all atoms (contours: energy)")


def _draw_step(axes, s, c) -> None:
    t = np.linspace(0, 1, 200)
    path = s[:, None] + (c - s)[:, None] * t
    energy = surface(*path)
    first, last = slope(*s) @ (c - s), slope(*c) @ (c - s)
    trapezoid = energy[0] + 0.5 * (first + last)
    axes.plot(t, energy, color="black", lw=2, label="energy along the step")
    axes.plot(t, energy[0] + first * t, color=COLOURS[1], ls="--", label="forces at S:  k = 0")
    axes.plot(t, energy[0] + 0.5 * (first + last) * t, color=COLOURS[0], ls="-.", label="mean of S and C:  k = 1/2")
    for ends, colour, text, place in (
        ((energy[0] + first, energy[-1]), COLOURS[1], "residual\n½ d·H·d", 1.03),
        ((trapezoid, energy[-1]), COLOURS[0], "residual\n−T[d,d,d]/12", 1.03),
    ):
        axes.plot([1, 1], ends, color=colour, lw=3, solid_capstyle="butt")
        axes.text(place, (ends[0] + ends[1]) / 2, text, color=colour, va="center", fontsize=9)
    axes.plot([0, 1], energy[[0, -1]], "o", color="black", ms=6)
    axes.text(-0.02, energy[0] + 0.06, "S", ha="right")
    axes.text(0.97, energy[-1] + 0.05, "C", ha="right")
    axes.set(
        xlim=(-0.1, 1.32), xticks=[], yticks=[], title="What is compared at C", ylabel="energy", xlabel="from S to C"
    )
    axes.legend(frameon=False, fontsize=9, loc="lower left")


def orders(output: Path, results: Path) -> None:
    """Root-mean-square residuals against the size of the displacement or strain, and their slopes."""
    sizes = {"displacement": [0.2, 0.1, 0.05, 0.025, 0.0125], "strain": [0.04, 0.02, 0.01, 0.005, 0.0025]}
    free, packed = clusters(40), crystals(40)
    found: dict = {"displacement": {"size": sizes["displacement"]}, "strain": {"size": sizes["strain"]}}
    for field, kinds, batch, potential in (
        ("displacement", RESIDUALS, free, Morse()),
        ("strain", STRAINS, packed, Morse(cutoff=3.5, length=2.2)),
    ):
        for name, settings in kinds.items():
            found[field][name] = [
                root_mean_square({**settings, field: size, "per_atom": False}, batch, potential)
                for size in sizes[field]
            ]
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, width_ratios=[1.3, 1])
    labels = ("displacement (Å)", "strain")
    for axes, label, (field, values) in zip(panels, labels, found.items(), strict=True):
        for number, name in enumerate(RESIDUALS if field == "displacement" else STRAINS):
            order = np.polyfit(np.log(values["size"]), np.log(values[name]), 1)[0]
            look = {"color": COLOURS[number], "ls": LINES[number % len(LINES)], "marker": "o", "ms": 4}
            axes.loglog(values["size"], values[name], label=f"{name}: order {order:.1f}", **look)
            print(f"{name:18s} order {order:.2f}  " + "  ".join(f"{value:.1e}" for value in values[name]))
        axes.set(xlabel=label, ylabel="residual, root mean square (eV)", xticks=values["size"])
        axes.minorticks_off()
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0e}".replace("e-0", "e-").replace("e+00", ""))
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    save(figure, output / "residual-orders.svg")
    note(results, orders=found)


def clusters(copies: int) -> Batch:
    """Copies of the Morse cluster, each with displacements of its own."""
    graph = AtomGraph.concatenate([cluster(torch.Generator().manual_seed(0))] * copies)
    return Batch(graph, unlabelled(graph), torch.arange(copies) + 17)


def crystals(copies: int) -> Batch:
    """Copies of a rattled cell of four atoms."""
    atoms = bulk("Cu", "fcc", a=3.3, cubic=True)
    atoms.rattle(0.1, seed=1)
    graph = AtomGraph.concatenate([AtomGraph.from_ase(atoms, 4.0)] * copies)
    return Batch(graph, unlabelled(graph), torch.arange(copies))


def root_mean_square(settings: dict, batch: Batch, potential: torch.nn.Module) -> float:
    total, count = term(objectives.parse({"loss": settings})["loss"], batch, potential)
    return float((total / count).detach()) ** 0.5


def cost(results: Path, rounds: int) -> None:
    """Milliseconds of a whole step, forward, backward and optimiser, and passes through the network."""
    keep_memory()
    atoms = quartz_cell((2, 2, 2))
    torch.manual_seed(0)
    network = {"kind": "painn", "channels": 64, "layers": 2, "cutoff": 5.0}
    potential = build(network, Statistics.bare((8, 14)))
    passes = count_passes(potential)
    # by number: an automatic weight is measured now and then only, which a median would not see
    weighed = {name: {kind: {"weight": 1.0} | term for kind, term in terms.items()} for name, terms in STEPS.items()}
    steps = {name: stepper(potential, PLAIN | terms, atoms) for name, terms in weighed.items()}
    automatic = {kind: {"weight": "auto"} for kind in ("pitc", "pisc")}
    measured = stepper(potential, PLAIN | automatic, atoms, Balance(every=1))
    steps["+ pitc + pisc, automatic weights measured"] = measured
    counts = {}
    for name, step in steps.items():
        step()
        passes[0] = 0
        step()
        counts[name] = passes[0]
    times: dict[str, list[float]] = {name: [] for name in steps}
    order = np.random.default_rng(0)
    for _ in range(rounds):
        for name in order.permutation(list(steps)):
            times[name].append(steps[name]())
    rows = {}
    for name, taken in times.items():
        ratio = statistics.median(t / p for t, p in zip(taken, times["energy + forces"], strict=True))
        rows[name] = {"passes": counts[name], "ms": round(statistics.median(taken), 1), "ratio": round(ratio, 2)}
        print(f"{name:42s} {rows[name]}")
    note(results, cost={"threads": torch.get_num_threads(), "rounds": rounds, "rows": rows})


def joined(results: Path, rounds: int) -> None:
    """Three passes of energy and forces, differentiated once more, beside one pass of all three batches joined."""
    keep_memory()
    rows = {}
    ethanol = molecule("CH3CH2OH")
    systems = {
        "1 molecule of 9": [ethanol],
        "8 molecules of 9": [ethanol] * 8,
        "32 molecules of 9": [ethanol] * 32,
        "1 quartz cell of 72": [quartz_cell((2, 2, 2))],
        "4 quartz cells of 72": [quartz_cell((2, 2, 2))] * 4,
        "1 quartz cell of 576": [quartz_cell((2, 2, 2)).repeat(2)],
    }
    for name, frames in systems.items():
        copies = [[displaced(frame, seed) for frame in frames] for seed in range(3)]
        potential = build({"kind": "painn", "preset": "small"}, Statistics.bare(tuple(sorted({*frames[0].numbers}))))
        potential = potential.to(torch.float32)
        ways = {
            "three": [AtomGraph.from_ase(each, potential.cutoff, dtype=torch.float32) for each in copies],
            "one": [AtomGraph.from_ase(list(itertools.chain(*copies)), potential.cutoff, dtype=torch.float32)],
        }
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds + 1):
            for way, graphs in ways.items():
                began = time.process_time()
                found = [evaluate(potential, graph, create_graph=True) for graph in graphs]
                sum(each.energy.square().sum() + each.forces.square().sum() for each in found).backward()
                times[way].append(1000 * (time.process_time() - began))
        ratios = [one / three for one, three in zip(times["one"][1:], times["three"][1:], strict=True)]
        rows[name] = {way: round(statistics.median(taken[1:]), 2) for way, taken in times.items()}
        rows[name]["ratio"] = round(statistics.median(ratios), 2)
        print(name, rows[name])
    note(results, joined={"threads": torch.get_num_threads(), "rounds": rounds, "rows": rows})


def displaced(atoms, seed: int):
    """A rattled copy."""
    copy = atoms.copy()
    copy.rattle(0.03, seed=seed)
    return copy


def count_passes(potential: torch.nn.Module) -> list[int]:
    """A list whose only number rises with every pass through ``potential``."""
    passes, evaluate = [0], potential.atomic_energies

    def counted(graph):
        passes[0] += 1
        return evaluate(graph)

    potential.atomic_energies = counted
    return passes


def stepper(potential: torch.nn.Module, terms: dict, atoms, balance: Balance | None = None):
    """A function that makes one whole step and returns its milliseconds."""
    parsed, rng = objectives.parse(terms), np.random.default_rng(0)
    structures = Structures.from_ase([atoms]).without_labels()
    structures = structures.with_labels(
        energy=rng.normal(size=1), forces=rng.normal(size=(len(atoms), 3)), stress=0.01 * rng.normal(size=(1, 3, 3))
    )
    batch = GraphStore(structures, potential.cutoff + reserve(parsed.values(), potential.cutoff)).batch([0])
    module = TrainingStep(potential, parsed, balance=balance)
    optimiser = torch.optim.Adam(potential.parameters(), lr=1e-6)
    numbers = itertools.count()

    def step() -> float:
        began = time.process_time()  # not of the clock: other work on the machine must not count
        optimiser.zero_grad()
        module(batch, step=next(numbers))[0].backward()
        optimiser.step()
        return 1000 * (time.process_time() - began)

    return step


def note(file: Path, **found) -> None:
    """Replace these entries of a results file."""
    known = json.loads(file.read_text()) if file.exists() else {}
    write_text(file, json.dumps(known | found, indent=1) + "\n")


def save(figure: Figure, file: Path) -> None:
    """SVG on a white ground, and without a date so that the same data give the same file."""
    meta = {"Date": None}
    write_with(file, lambda path: figure.savefig(path, format="svg", metadata=meta, facecolor="white"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["points", "orders", "cost", "joined"])
    parser.add_argument("--output", type=Path, default=Path("docs/figures"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/weak_losses.json"))
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    with mpl.rc_context({**STYLE, "svg.hashsalt": "phystrain"}):
        if options.what == "points":
            points(options.output)
        elif options.what == "orders":
            orders(options.output, options.results)
        elif options.what == "cost":
            cost(options.results, options.rounds)
        else:
            joined(options.results, options.rounds)


if __name__ == "__main__":
    main()

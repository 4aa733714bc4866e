"""Pictures of what pretraining does to the energy landscape: pairs of atoms, and the parts of the teacher.

Usage:
  python benchmarks/landscapes.py --runs WORK/silica-10 --output docs/figures

WORK is the folder that ``python -m benchmarks.reproduce run --work WORK`` trained in. The pictures are those of
arXiv 2602.19592, on these data: energy of two atoms by labels only, pretrained, with replay, with a prior, and by the
teacher; and the decomposition of the fitted EAM into density, Morse, embedding and total.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from phystrain.files import write_with
from phystrain.reliability.dimers import dimer_curves
from phystrain.report.drawing import COLOURS, LINES, STYLE
from phystrain.report.teacher import pair_curves
from phystrain.saving import load_model

MODELS = {
    "labels only": "labels-only-0/run/model/model.safetensors",
    "pretrained on EAM": "eam-pretrained-0/run/model/model.safetensors",
    "and EAM replayed": "eam-pretrained-replayed-0/run/model/model.safetensors",
    "EAM": "eam-pretrained-0/run/model/teacher.safetensors",
    "fitted prior": "fitted-prior-0/run/model/model.safetensors",
    "prior alone": "fitted-prior-0/run/model/teacher.safetensors",
}
PAIRS = {"O-Si": (8, 14), "O-O": (8, 8), "Si-Si": (14, 14)}


def landscapes(runs: Path, output: Path) -> None:
    """Energy of two atoms by every model."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = figure.subplots(1, len(PAIRS))
    for number, (name, file) in enumerate(MODELS.items()):
        potential = load_model(runs / file).potential
        curves = dimer_curves(potential, list(PAIRS.values()), 0.4, 400)
        for axes, curve in zip(panels, curves, strict=True):
            axes.plot(
                curve.distance, curve.energy, color=COLOURS[number % len(COLOURS)], ls=LINES[number % 4], label=name
            )
    for axes, name, pair in zip(panels, PAIRS, PAIRS.values(), strict=True):
        known = load_model(runs / MODELS["labels only"]).statistics
        shortest = known.shortest.get(f"{pair[0]}-{pair[1]}")
        if shortest:
            axes.axvline(shortest, color="0.5", lw=0.8, ls=":")
        axes.set(title=name, xlabel="Distance (Å)", ylabel="Energy of two atoms (eV)", ylim=(-12, 20), xlim=(0.5, 4.6))
    panels[-1].legend(fontsize=7)
    save(figure, output / "landscapes.svg")


def decomposition(runs: Path, output: Path) -> None:
    """The fitted EAM's parts."""
    model = load_model(runs / MODELS["EAM"]).potential.get_submodule("terms.model")
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    distance = np.linspace(0.6, 6.0, 500)
    for axes, (name, pair) in zip(figure.subplots(1, len(PAIRS)), PAIRS.items(), strict=True):
        curves = pair_curves([("eam", model)], distance, *pair)
        density = curves.pop("density")
        for number, (part, energy) in enumerate(curves.items()):
            label = {"pair energy": "Morse and wall", "embedding": "embedding (atomic)"}.get(part, part)
            axes.plot(distance, energy, color=COLOURS[number], ls=LINES[number], label=label)
        other = axes.twinx()
        other.plot(distance, density, color="0.5", lw=1)
        other.set_ylabel("Density (grey)")
        other.set_ylim(0, 4 * float(density[distance > pair_start(pair)].max()))
        axes.set(title=name, xlabel="Distance (Å)", ylabel="Energy of two atoms (eV)", ylim=(-8, 12))
        axes.legend(fontsize=7)
    save(figure, output / "decomposition.svg")


def pair_start(pair: tuple[int, int]) -> float:
    """Å, from where the density matters: below, nuclei repel and nothing else."""
    return 1.4 if pair != (14, 14) else 2.4


def save(figure: Figure, file: Path) -> None:
    write_with(file, lambda temporary: figure.savefig(temporary, format="svg", metadata={"Date": None}))
    print(file)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    with mpl.rc_context(STYLE):
        landscapes(options.runs, options.output)
        decomposition(options.runs, options.output)


if __name__ == "__main__":
    main()

"""Survival curves of all variants of an experiment in one picture."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from benchmarks.reproduce.experiment import Experiment
from phystrain.files import write_with
from phystrain.report.drawing import COLOURS, LINES


def mean_curve(curves: list[dict[str, Any]], points: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Mean over seeds of curves that fall in steps, on a common grid.

    Args:
        curves: each with ``x``, ascending, and ``y``.
        points: of the grid.
    """
    grid = np.linspace(min(curve["x"][0] for curve in curves), max(curve["x"][-1] for curve in curves), points)
    # the value at a step is the one after it
    values = [np.asarray(c["y"])[np.searchsorted(c["x"], grid, side="right") - 1] for c in curves]
    return grid, np.mean(values, axis=0)


def draw(experiment: Experiment, found: dict[str, list[dict[str, Any]]], results: Path) -> Path | None:
    """Draw the curves of survival and heating, one panel for each temperature.

    Args:
        experiment: what they belong to.
        found: results of all seeds by variant.
        results: folder of result files.

    Returns:
        The picture, or ``None`` if there is nothing to draw.
    """
    panels: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for variant, items in found.items():
        for result in items:
            for test, curves in result["curves"].items():
                for label, curve in curves.items():
                    panels.setdefault((test, label), {}).setdefault(variant, []).append(curve)
    if not panels:
        return None
    style = {"svg.hashsalt": "phystrain", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with mpl.rc_context(style):
        figure = Figure(figsize=(3.2 * len(panels), 3.2), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axis, ((_, label), variants) in zip(axes, panels.items(), strict=True):
            for number, variant in enumerate(experiment.variants):
                if variant not in variants:
                    continue
                look = {
                    "color": COLOURS[number % len(COLOURS)],
                    "linestyle": LINES[number // len(COLOURS) % len(LINES)],
                }
                axis.plot(*mean_curve(variants[variant]), label=variant, **look)
            one = next(iter(variants.values()))[0]
            axis.set(title=label, xlabel=one["x_label"], ylim=(-0.03, 1.05))
            axis.grid(alpha=0.25)
        axes[0].set_ylabel("fraction of runs surviving")
        handles = {text: line for axis in axes for line, text in zip(*axis.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False)
        file = results / experiment.name / "survival.svg"
        FigureCanvasSVG(figure)
        write_with(file, lambda path: figure.savefig(path, format="svg", metadata={"Date": None}))
    return file

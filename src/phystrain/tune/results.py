"""What a search leaves: a table, a picture, and the run file of the best trial."""

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from phystrain.files import write_text, write_with
from phystrain.report.drawing import COLOURS, STYLE
from phystrain.tune.space import Dimension, Value

UNITS = {"energy": "meV/atom", "forces": "meV/Å", "stress": "meV/Å³"}


@dataclass(frozen=True)
class Trial:
    """A trial that has ended.

    Attributes:
        number: in the order they began.
        state: ``complete``, ``pruned`` or ``diverged``.
        value: figure at its end, or at the last validation before it was pruned.
        validations: how many it had.
        seconds: it took.
        values: by path.
    """

    number: int
    state: str
    value: float
    validations: int
    seconds: float
    values: Mapping[str, Value]


def label(metric: str) -> str:
    """Name and unit of a metric."""
    if metric == "energy_and_forces":
        return "geometric mean of the RMSEs of energy (meV/atom) and forces (meV/Å)"
    quantity, _, error = metric.partition("_")
    return f"{quantity} {error.upper()}, {UNITS[quantity]}"


def short(path: str) -> str:
    """The last two parts of a dotted path, which tell people enough."""
    return ".".join(path.split(".")[-2:])


def write_results(folder: Path, trials: list[Trial], space: list[Dimension], metric: str) -> None:
    """Write ``trials.csv`` and ``trials.png``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", metric, "validations", "seconds", *(dimension.path for dimension in space)])
    for trial in trials:
        figure = f"{trial.value:.6g}" if math.isfinite(trial.value) else ""
        values = [trial.values.get(dimension.path, "") for dimension in space]
        writer.writerow([trial.number, trial.state, figure, trial.validations, round(trial.seconds, 1), *values])
    write_text(folder / "trials.csv", text.getvalue())
    _draw(folder / "trials.png", trials, space, metric)


def table(trials: list[Trial], space: list[Dimension], metric: str, count: int = 5) -> str:
    """The best trials, for the terminal."""
    best = sorted((trial for trial in trials if trial.state == "complete"), key=lambda trial: trial.value)[:count]
    rows = [["trial", metric, *(short(dimension.path) for dimension in space)]]
    rows += [[str(t.number), f"{t.value:.4g}", *(_text(t.values[d.path]) for d in space)] for t in best]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def write_best(path: Path, settings: dict[str, Any], trial: Trial, metric: str, name: str) -> None:
    """Write the run file of the best trial.

    Args:
        path: file, beside the run file: relative paths in it stay right.
        settings: of the trial.
        trial: the best one.
        metric: it was judged by.
        name: of the run file that was searched.
    """
    kept = {key: value for key, value in settings.items() if key != "tune"}
    note = f"# The best of a search of {name}: trial {trial.number}, {label(metric)}: {trial.value:.4g}\n"
    write_text(path, note + yaml.safe_dump(kept, sort_keys=False, allow_unicode=True))


def _text(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _draw(path: Path, trials: list[Trial], space: list[Dimension], metric: str) -> None:
    """Figure against the number of the trial, and against each setting."""
    shown = [trial for trial in trials if math.isfinite(trial.value)]
    if not shown:
        return
    columns = min(3, len(space) + 1)
    rows = math.ceil((len(space) + 1) / columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * columns, 2.8 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for panel, dimension in zip(axes, [None, *space], strict=False):
            for state, colour, marker in (("pruned", COLOURS[4], "x"), ("complete", COLOURS[0], "o")):
                points = [trial for trial in shown if trial.state == state]
                x: list[Any] = [_place(trial, dimension) for trial in points]
                panel.plot(x, [trial.value for trial in points], marker, color=colour, markersize=4, label=state)
            if dimension is None:
                _best_so_far(panel, shown)
                panel.set(xlabel="trial")
                panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
                panel.legend()
            else:
                panel.set(xlabel=short(dimension.path))
                if dimension.log:
                    panel.set_xscale("log")
                    _plain_ticks(panel.xaxis, dimension.low, dimension.high)
        for panel in axes[: len(space) + 1]:
            panel.set_yscale("log")
            _plain_ticks(panel.yaxis, min(trial.value for trial in shown), max(trial.value for trial in shown))
        for panel in axes[len(space) + 1 :]:
            panel.set_visible(False)
        figure.supylabel(metric, fontsize=9)
        write_with(path, lambda temporary: figure.savefig(temporary, dpi=150, facecolor="white"))


def _plain_ticks(axis: Any, low: float | int, high: float | int) -> None:
    """Few ticks of a logarithmic axis, as plain numbers."""
    several = high > 50 * max(low, 1e-12)
    axis.set_major_locator(LogLocator(subs=(1.0,) if several else (1.0, 2.0, 5.0), numticks=5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _place(trial: Trial, dimension: Dimension | None) -> Any:
    if dimension is None:
        return trial.number
    value = trial.values[dimension.path]
    return str(value) if dimension.choices else value


def _best_so_far(panel: Any, trials: list[Trial]) -> None:
    numbers: list[int] = []
    best: list[float] = []
    for trial in trials:
        if trial.state == "complete":
            numbers.append(trial.number)
            best.append(min([trial.value, *best[-1:]]))
    panel.step(numbers, best, where="post", color=COLOURS[1], label="best so far")

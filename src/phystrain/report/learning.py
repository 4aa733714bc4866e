"""Loss and validation errors against training time, from the ``metrics.csv`` of a run."""

import csv
import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from phystrain.report.comparison import Variant
from phystrain.report.drawing import Array, Drawing, listed, look, render

_TITLES = {
    "loss": ("Training loss", "Loss"),
    "valid_loss": ("Validation loss", "Loss"),
    "valid_energy_mae": ("Validation energy error", "MAE (meV/atom)"),
    "valid_forces_mae": ("Validation force error", "MAE (meV/Å)"),
    "valid_stress_mae": ("Validation stress error", "MAE (meV/Å³)"),
}
"""Title and vertical axis by column of ``metrics.csv``; other columns go by their own name."""


def learning_drawings(variants: Sequence[Variant]) -> Iterator[Drawing]:
    """One panel for every column; stages before the last are pale."""
    histories = {i: read_history(v.history) for i, v in enumerate(variants) if v.history is not None}
    columns = dict.fromkeys(name for history in histories.values() for stage in history for name in stage)
    wanted = [name for name in columns if name == "loss" or (name.startswith("valid_") and not name.endswith("_rmse"))]
    for column in wanted:
        present = [(i, variants[i].name) for i, h in histories.items() if any(column in stage for stage in h)]
        title = _TITLES.get(column, (column.replace("_", " "), ""))[0]
        paint = partial(_paint, histories=histories, column=column)
        yield render("learning", title, f"{title} against training time for {listed(present)}", paint, present)


def _paint(axes: Any, *, histories: dict[int, list[dict[str, Array]]], column: str) -> None:
    for index, history in histories.items():
        for number, stage in enumerate(history):
            if column in stage:
                alpha = 1.0 if number == len(history) - 1 else 0.35
                marker = "o" if len(stage[column]) == 1 else ""
                axes.plot(stage["elapsed"], stage[column], alpha=alpha, marker=marker, markersize=3, **look(index))
    values = np.concatenate([stage[column] for h in histories.values() for stage in h if column in stage])
    if np.nanmin(values) > 0:
        axes.set_yscale("log")
        if np.nanmax(values) < 50 * np.nanmin(values):  # powers of ten alone would be too few ticks
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="Training time (s)", ylabel=_TITLES.get(column, ("", column.replace("_", " ")))[1])


def read_history(path: Path) -> list[dict[str, Array]]:
    """Columns of every stage of a ``metrics.csv``, with ``elapsed``: seconds since the first stage began.

    A missing or empty file gives no stage. What is not a number becomes not-a-number.
    """
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    stages: list[dict[str, Array]] = []
    start = 0.0
    for name in dict.fromkeys(row.get("stage") for row in rows):
        own = [row for row in rows if row.get("stage") == name]
        columns = {
            key: np.array([_number(row.get(key)) for row in own]) for key in own[0] if key not in ("stage", None)
        }
        columns = {key: values for key, values in columns.items() if np.isfinite(values).any()}
        time = columns.get("seconds", columns.get("step", np.arange(len(own), dtype=np.float64)))
        columns["elapsed"] = time if start and np.nanmin(time) >= start else time + start
        start = float(np.nanmax(columns["elapsed"]))
        stages.append(columns)
    return stages


def _number(text: str | None) -> float:
    try:
        value = float(text or "nan")
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan

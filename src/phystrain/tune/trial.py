"""One training of a search: the run file with one set of values, judged on the same validation frames as all others."""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

from phystrain.config import RunConfig, load
from phystrain.train.log import Rows
from phystrain.train.run import Run
from phystrain.train.selection import Selection, level_of
from phystrain.tune.space import Dimension, Value
from phystrain.verdict.gate import judge


class Trials:
    """Where trials are trained, and what they have in common.

    Args:
        run_file: YAML file.
        overrides: changes that every trial has.
        folder: of the search.
        space: what is searched.
        metric: figure by which trials are judged.
    """

    def __init__(
        self, run_file: Path, overrides: tuple[str, ...], folder: Path, space: list[Dimension], metric: str
    ) -> None:
        self._run_file, self._overrides, self._folder, self._metric = run_file, overrides, folder, metric
        config = load(run_file, overrides)
        self._shared = shared_stages(config, space)

    def overrides(self, values: Mapping[str, Value]) -> list[str]:
        """Changes to the run file that make it that of a trial."""
        return [*self._overrides, *(f"{path}={_yaml(value)}" for path, value in values.items())]

    def folder(self, values: Mapping[str, Value]) -> Path:
        """Run folder of a trial: the same values find it again after an interruption."""
        name = hashlib.sha256(json.dumps(dict(values), sort_keys=True).encode()).hexdigest()[:12]
        return self._folder / "trials" / name

    def train(self, values: Mapping[str, Value], report: Callable[[int, float, bool], None]) -> float:
        """Train to the end, or go on where it was interrupted.

        Args:
            values: by path.
            report: told number of the validation, the figure there and whether it is the last; may raise.

        Returns:
            The figure of the weights that the run hands on.

        Raises:
            DivergedError: the loss is no longer finite.
            Interrupted: stopped by a signal.
        """
        config = load(self._run_file, self.overrides(values))
        last, reported = config.stages[-1], 0

        def watch(rows: Rows) -> None:
            nonlocal reported
            own = [row for row in rows if row["stage"] == last.name]
            for number in range(reported, len(own)):
                reported += 1
                report(number, figure(own[number], self._metric), int(own[number]["step"]) == last.steps)

        folder = self.folder(values)
        job = Run(config, folder, base=self._run_file.parent, say=lambda _: None, watch=watch, gate=judge)
        for stage in self._shared:
            _copy(self._folder / "shared" / f"{stage}.safetensors", folder / "model" / f"{stage}.safetensors")
        try:
            job.train()
        finally:
            for stage in self._shared:
                _copy(folder / "model" / f"{stage}.safetensors", self._folder / "shared" / f"{stage}.safetensors")
        return judged(folder, config, self._metric)

    def forget(self, values: Mapping[str, Value]) -> None:
        """Remove weights and checkpoints of a trial; its figures stay."""
        for name in ("checkpoints", "model"):
            shutil.rmtree(self.folder(values) / name, ignore_errors=True)


def shared_stages(config: RunConfig, space: list[Dimension]) -> list[str]:
    """The first stages, as far as nothing that they depend on is searched: they are trained once.

    Args:
        config: settings.
        space: what is searched.
    """
    names = [stage.name for stage in config.stages]
    first = len(names) - 1
    for dimension in space:
        part, _, rest = dimension.path.partition(".")
        stage = rest.partition(".")[0]
        if part != "stages":
            return []
        first = min(first, names.index(stage) if stage in names else int(stage))
    if config.stages[first].keep_optimiser:  # it goes on from a checkpoint, which is not shared
        first -= 1
    return names[:first]


def figure(row: Mapping[str, object], metric: str) -> float:
    """The figure of a validation by which trials are judged; energies in meV/atom, forces in meV/Å.

    Args:
        row: of ``metrics.csv``.
        metric: one of :data:`phystrain.tune.space.METRICS`.
    """
    if metric == "energy_and_forces":
        return math.sqrt(float(str(row["valid_energy_rmse"])) * float(str(row["valid_forces_rmse"])))
    return float(str(row[f"valid_{metric}"]))


def judged(folder: Path, config: RunConfig, metric: str) -> float:
    """The figure of the weights that the last stage hands on, from its ``metrics.csv``."""
    from phystrain.train.log import Metrics

    stage = config.stages[-1]
    rows = [row for row in Metrics(folder / "metrics.csv").rows if row["stage"] == stage.name]
    chosen = rows[-1]
    if stage.select == "best":
        choice = Selection()
        for number, row in enumerate(rows):
            level = 0 if stage.gate is None else level_of(float(row.get("gate", -1)), stage.gate.tolerance)
            if choice.takes(float(row[f"valid_{stage.metric}"]), number, level):
                chosen = row
    return figure(chosen, metric)


def _yaml(value: Value) -> str:
    return yaml.safe_dump(value).removesuffix("...\n").strip()


def _copy(source: Path, target: Path) -> None:
    if source.is_file() and not target.is_file():
        from phystrain.files import write_with

        write_with(target, lambda temporary: shutil.copyfile(source, temporary))

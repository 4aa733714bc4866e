"""A run: all stages in order, in a folder that can be resumed."""

import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from phystrain.allocator import keep_memory
from phystrain.config import Gate, RunConfig, Stage
from phystrain.errors import UserError
from phystrain.files import write_with
from phystrain.fitting import FitSettings, fit
from phystrain.parallel import cores
from phystrain.saving import load_model, save_model
from phystrain.train import launch
from phystrain.train.connect import connected, require_enough, require_seen
from phystrain.train.folder import prepare
from phystrain.train.log import Log, Metrics, Rows
from phystrain.train.loop import Training
from phystrain.train.made import Made
from phystrain.train.material import Labelled, counts, load_labelled, need_labels, require_labels
from phystrain.train.others import require_startable, start_others
from phystrain.train.processes import alone, answer_for, rank, somebody_spoke, world_size
from phystrain.train.sources import Sources
from phystrain.train.spread import keep_snapshots, write_ensemble
from phystrain.train.start import align_reference, start

POOR = 0.6
"""Relative error of a prior's forces beyond which it is warned of."""

_APART = 1_000_003
"""Between the seeds of the members of a stage: far more than seeds of runs or streams of numbers are apart."""

_SAME = 1.0
"""Seconds in which two signals are one: torchrun passes a Ctrl-C on that the processes had from the terminal too."""

Gatekeeper = Callable[[nn.Module, Gate, Labelled, RunConfig], Mapping[str, float]]
"""Tests weights with the tests of a gate, on the data and at the temperatures of a run."""

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Run:
    """A run folder and what happens in it.

    Args:
        config: settings, checked.
        folder: where everything is written; made if need be.
        base: folder that relative paths in the settings start from.
        restart: forget what is in the folder.
        say: told what happens, line by line.
        watch: shown all rows of figures after every validation; what it raises ends the training.
        gate: tests weights on the way, for stages with a gate; see :func:`phystrain.verdict.gate.judge`.
        labelled: the structures that ``config.data`` means, where another run has read them already.

    Raises:
        UserError: a mistake in the data, an objective without its labels, a folder that holds another run, or
            processes that cannot be as many as asked for.

    Attributes:
        labelled: the labelled structures, split.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: Path | str,
        *,
        base: Path | str = ".",
        restart: bool = False,
        say: Callable[[str], None] = print,
        watch: Callable[[Rows], None] = lambda _: None,
        gate: Gatekeeper | None = None,
        labelled: Labelled | None = None,
    ) -> None:
        if gate is None and any(stage.gate is not None for stage in config.stages):
            raise ValueError("a stage has a gate: give Run what tests the weights, phystrain.verdict.gate.judge")
        self._gate = gate
        self.config, self.folder, self.base = config, Path(folder), Path(base)
        keep_memory()
        processes = launch.planned(config.processes, config.nodes)
        require_enough(config, processes.total)
        noted: list[str] = []

        def read() -> Labelled:
            """Read the data and prepare the folder, in the first process and once: the others take it from there."""
            found = labelled or load_labelled(
                config.data,
                cutoff=getattr(config.potential, "cutoff", 5.0),
                seed=config.seed,
                base=self.base,
                say=noted.append,
            )
            for stage in config.stages:
                require_labels(stage, found)
            prepare(self.folder, config, found, base=self.base, restart=restart)
            return found

        known: Labelled | None = None
        if processes.by == "phystrain" and not launch.is_child() and world_size() == 1:
            if processes.total > 1:
                require_startable()
            known = read()  # before there are others, whom a mistake would cost time
            if processes.total > 1:
                answer_for(start_others(processes.total, somebody_spoke))
        self._fabric = connected(config, processes)
        self.labelled = alone(lambda: known or read())
        require_seen(self.folder / "config.yaml")
        first = self.is_first
        self._log = Log(self.folder / "train.log" if first else None, say if first else None)
        self._metrics = Metrics(self.folder / "metrics.csv" if first else None, watch)
        self._made = Made(self.labelled, config.seed, self._located, first)
        for line in noted:
            self._log(line)
        if processes.total > 1:
            self._log(f"{processes}")
            if self._fabric.device.type == "cpu" and processes.each > cores():
                self._log(f"{processes.each} processes on {cores()} cores take turns: --devices {cores()} is no slower")
        elif forgotten := launch.forgotten():
            self._log(forgotten)

    @property
    def is_first(self) -> bool:
        """Whether this is the first of the processes, the one that writes."""
        return rank() == 0

    @property
    def final(self) -> Path:
        """The model file that the run hands on, there once it is finished."""
        return self.folder / "model" / "model.safetensors"

    def train(self) -> Path:
        """Train every stage that is not finished yet.

        Returns:
            The final model file.

        Raises:
            UserError: a mistake in settings or data.
            Interrupted: stopped by a signal; the same command goes on from there.
        """
        if alone(self.final.is_file):
            return self.final
        for stage in self.config.stages:
            for number, member in enumerate(stage.each):
                file = self._model_file(member.name)
                if not alone(file.is_file):
                    if (fit_settings := stage.fit) is None:
                        self._train_stage(member, self.config.seed + _APART * number)
                    else:
                        alone(partial(self._fit_stage, stage, fit_settings))
                self._fabric.barrier()
                require_seen(file)
        alone(self._finish)
        return self.final

    def _finish(self) -> None:
        """Write what the run hands on."""
        stage = self.config.stages[-1]
        last = self._model_file(stage.name)
        files = [self._model_file(member.name) for member in stage.each]
        write_ensemble(self.final, files, self.folder / "checkpoints", self.labelled.valid, self._log)
        write_with(self.final, lambda temporary: shutil.copyfile(last, temporary))

    def _model_file(self, stage: str) -> Path:
        return self.folder / "model" / f"{stage}.safetensors"

    def _train_stage(self, stage: Stage, seed: int) -> None:
        config, statistics = self.config, self.labelled.statistics
        dtype = DTYPES[config.precision]
        torch.manual_seed(seed)
        begun = start(stage, config.potential, statistics, self._stage_or_file, self.labelled.train)
        settings, potential = begun.settings, begun.potential.to(dtype)
        if stage.prior is not None:
            self._say_how_good(stage, stage.prior)
        train, valid = self._made.structures(stage)
        if stage.gate is not None and valid is None:
            raise UserError(f"stage {stage.name}: a gate chooses among validations: set data.valid_fraction above 0")
        need_labels(stage, stage.objectives, train, "those it is trained on")
        potential = potential.to(self._fabric.device)
        share = {"dtype": dtype, "rank": self._fabric.global_rank, "world_size": self._fabric.world_size}
        sources = Sources(config, self.labelled.train, self._made, share, seed, self._log)
        material = sources.material(stage, float(potential.cutoff), train, valid)  # type: ignore[arg-type]
        if settings["terms"]["reference"]["trainable"] or stage.prior is not None or begun.foreign:
            moved = align_reference(potential, material.train)
            if begun.foreign and stage.prior is None:
                self._log(
                    f"stage {stage.name}: the weights of {stage.init_from} were learnt with other reference energies; "
                    f"these moved by {moved:.4g} eV to meet the labels"
                )
        checkpoints = self.folder / "checkpoints"
        stopped: list[float] = []
        training = Training(
            potential,
            stage,
            material,
            self._fabric,
            metrics=self._metrics,
            checkpoints=checkpoints,
            checkpoint_seconds=config.checkpoint_seconds,
            should_stop=lambda: bool(stopped),
            on_best=lambda weights: self._save(stage, settings, weights, checkpoints / "best.safetensors"),
            gate=self._gate_of(stage),
            say=self._log,
        )
        count = sum(parameter.numel() for parameter in potential.parameters())
        self._log(
            f"stage {stage.name}: {_spoken(settings['terms']['model'])}, {count:,} parameters, "
            f"{len(train)} structures ({counts(train)}), {training.steps} steps"
        )
        with _noting_signals(stopped):
            weights = training.run()
        if self.is_first:
            keep_snapshots(checkpoints, stage.name, training.snapshots)
        self._save(stage, settings, weights, self._model_file(stage.name))
        if self.is_first:
            figures = {k.removeprefix("valid_"): v for k, v in self._metrics.rows[-1].items() if "mae" in k}
            errors = ", ".join(f"{name} {float(value):.3g}" for name, value in figures.items())
            self._log(f"stage {stage.name}: done{', validation ' + errors if errors else ''}")

    def _gate_of(self, stage: Stage) -> Callable[[nn.Module], Mapping[str, float]] | None:
        if stage.gate is None or self._gate is None:
            return None
        tested, gate = self._gate, stage.gate
        return lambda potential: tested(potential, gate, self.labelled, self.config)

    def _say_how_good(self, stage: Stage, prior: str) -> None:
        """Say what the prior leaves to learn, and warn of one that teaches more about itself than about the data."""
        model = load_model(self._stage_or_file(prior))
        error = model.meta.get("quality", {}).get("relative force error")
        if model.config["terms"].get("model", {}).get("kind") == "wall":
            self._log(f"stage {stage.name}: the prior is a wall below the distances of the data")
        elif error is not None and np.isfinite(error):
            self._log(f"stage {stage.name}: the prior is wrong by {100 * error:.0f} % of the forces")
            if error > POOR:
                self._log(
                    f"stage {stage.name}: that is a poor prior; fit: {{choose: auto, trust: {POOR}}} takes a wall"
                )

    def _fit_stage(self, stage: Stage, fit_settings: FitSettings) -> None:
        """Fit a classical potential; it takes seconds, so an interrupted one begins anew."""
        began = time.monotonic()
        self._metrics.cut(stage.name, 0)
        fitted = fit(
            fit_settings,
            stage.potential,
            self.labelled.train,
            self.labelled.statistics,
            seed=self.config.seed,
            say=self._log,
        )
        found = {"quality": fitted.quality, "families": fitted.families, "notes": list(fitted.notes)}
        self._save(stage, fitted.settings, fitted.potential.state_dict(), self._model_file(stage.name), found)
        seconds = round(time.monotonic() - began, 2)
        self._metrics.add({"stage": stage.name, "step": 0, "epoch": 0.0, "seconds": seconds})
        known = {name: value for name, value in fitted.quality.items() if np.isfinite(value)}
        figures = ", ".join(f"{name} {value:.3g}" for name, value in known.items())
        self._log(
            f"stage {stage.name}: {fitted.settings['terms']['model']['kind']} fitted in {seconds:.1f} s; {figures}"
        )

    def _save(
        self,
        stage: Stage,
        settings: dict[str, Any],
        weights: dict[str, Tensor],
        file: Path,
        found: dict[str, Any] | None = None,
    ) -> None:
        """Write a model file, from the first process; ``found`` is kept beside the provenance."""
        if not self.is_first:
            return
        meta = {
            "stage": stage.name,
            "seed": self.config.seed,
            "data": self.labelled.train.digest(),
            "temperatures": self.config.reliability.temperatures,
            **(found or {}),
        }
        save_model(file, weights, settings, self.labelled.statistics, meta)

    def _stage_or_file(self, name: str) -> Path:
        if any(stage.name == name for stage in self.config.stages):
            return self._model_file(name)
        return self.base / name

    def _located(self, spec: str | dict[str, Any]) -> tuple[str | dict[str, Any] | list[str], bool]:
        """What a teacher's setting stands for, and whether it is a stage of this run; several files of a committee."""
        own = isinstance(spec, str) and any(other.name == spec for other in self.config.stages)
        if own:
            stage = next(other for other in self.config.stages if other.name == spec)
            files = [str(self._model_file(member.name)) for member in stage.each]
            return files if len(files) > 1 else files[0], True
        if isinstance(spec, str) and (self.base / spec).exists():
            return str(self.base / spec), False
        return spec, False


@contextmanager
def _noting_signals(asked: list[float]) -> Iterator[None]:
    """Only note the first Ctrl-C or termination, for the loop to see after its step; the second one acts at once.

    An exception in the middle of an optimiser step would leave weights that belong to no step.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if asked:
            if time.monotonic() - asked[0] > _SAME:
                raise KeyboardInterrupt
            return
        asked.append(time.monotonic())
        if launch.is_first():
            print("\nstopping after this step; once more stops at once, without a checkpoint", file=sys.stderr)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _spoken(settings: dict[str, Any]) -> str:
    """A potential in a word or two, for the log."""
    inner = settings.get("potential")
    return f"{inner['kind']} ({settings['kind']})" if isinstance(inner, dict) else str(settings["kind"])

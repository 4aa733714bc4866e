"""A run: all stages in order, in a folder that can be resumed."""

import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from phystrain.allocator import keep_memory
from phystrain.augment._relabel import align, load_teacher, relabel
from phystrain.config import RunConfig, Stage
from phystrain.data.graphs import GraphStore
from phystrain.data.loader import Loader
from phystrain.data.statistics import composition
from phystrain.data.structures import Structures
from phystrain.derive import evaluate
from phystrain.errors import UserError
from phystrain.files import write_with
from phystrain.potentials import build
from phystrain.potentials.reference_energy import ReferenceEnergy
from phystrain.progress import track
from phystrain.saving import load_model, save_model
from phystrain.statistics import Statistics
from phystrain.train.folder import prepare
from phystrain.train.log import Log, Metrics
from phystrain.train.loop import Material, Training
from phystrain.train.material import load_labelled, need_labels, require_labels, reserve
from phystrain.train.step import as_potential

_ALIGNED_AT_ONCE = 32
"""Structures evaluated together when reference energies are aligned."""

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Run:
    """A run folder and what happens in it.

    Args:
        config: settings, checked.
        folder: where everything is written; made if need be.
        base: folder that relative paths in the settings start from.
        restart: forget what is in the folder.
        say: told what happens, line by line.

    Raises:
        UserError: a mistake in the data, an objective without its labels, or a folder that holds another run.

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
    ) -> None:
        self.config, self.folder, self.base = config, Path(folder), Path(base)
        keep_memory()
        devices = config.processes
        accelerator = config.device if config.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
        self._fabric = Fabric(accelerator=accelerator, devices=devices, strategy="ddp" if devices > 1 else "auto")
        noted: list[str] = []
        self.labelled = load_labelled(
            config.data,
            cutoff=getattr(config.potential, "cutoff", 5.0),
            seed=config.seed,
            base=self.base,
            say=noted.append,
        )
        for stage in config.stages:
            require_labels(stage, self.labelled)
        if os.environ.get("LOCAL_RANK", "0") == "0":  # before the others start, who would wait for ever
            prepare(self.folder, config, self.labelled, base=self.base, restart=restart)
        self._fabric.launch()
        first = self.is_first
        self._log = Log(self.folder / "train.log" if first else None, say if first else None)
        self._metrics = Metrics(self.folder / "metrics.csv" if first else None)
        for line in noted:
            self._log(line)

    @property
    def is_first(self) -> bool:
        """Whether this is the first of the processes, the one that writes."""
        return bool(self._fabric.is_global_zero)

    def train(self) -> Path:
        """Train every stage that is not finished yet.

        Returns:
            The final model file.

        Raises:
            UserError: a mistake in settings or data.
            Interrupted: stopped by a signal; the same command goes on from there.
        """
        final = self.folder / "model" / "model.safetensors"
        if final.is_file():
            return final
        for stage in self.config.stages:
            if not self._model_file(stage.name).is_file():
                self._train_stage(stage)
            self._fabric.barrier()
        if self._fabric.is_global_zero:
            last = self._model_file(self.config.stages[-1].name)
            write_with(final, lambda temporary: shutil.copyfile(last, temporary))
        self._fabric.barrier()
        return final

    def _model_file(self, stage: str) -> Path:
        return self.folder / "model" / f"{stage}.safetensors"

    def _train_stage(self, stage: Stage) -> None:
        config, statistics = self.config, self.labelled.statistics
        dtype = DTYPES[config.precision]
        torch.manual_seed(config.seed)
        potential, settings = self._start(stage, statistics)
        potential = potential.to(dtype)
        train, valid = self._structures(stage)
        need_labels(stage, stage.objectives, train, "those it is trained on")
        potential = potential.to(self._fabric.device)
        material = self._material(stage, potential, train, valid, dtype)
        if settings["terms"]["reference"]["trainable"]:
            _align_reference(potential, material)
        checkpoints = self.folder / "checkpoints"
        stopped: list[int] = []
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
        )
        count = sum(parameter.numel() for parameter in potential.parameters())
        self._log(
            f"stage {stage.name}: {settings['terms']['model']['kind']}, {count:,} parameters, "
            f"{len(train)} structures, {training.steps} steps"
        )
        with _noting_signals(stopped):
            weights = training.run()
        self._save(stage, settings, weights, self._model_file(stage.name))
        if self.is_first:
            figures = {k.removeprefix("valid_"): v for k, v in self._metrics.rows[-1].items() if "mae" in k}
            errors = ", ".join(f"{name} {float(value):.3g}" for name, value in figures.items())
            self._log(f"stage {stage.name}: done{', validation ' + errors if errors else ''}")

    def _save(self, stage: Stage, settings: dict[str, Any], weights: dict[str, Tensor], file: Path) -> None:
        """Write a model file, from the first process."""
        if not self.is_first:
            return
        meta = {
            "stage": stage.name,
            "seed": self.config.seed,
            "data": self.labelled.train.digest(),
            "temperatures": self.config.reliability.temperatures,
        }
        save_model(file, weights, settings, self.labelled.statistics, meta)

    def _start(self, stage: Stage, statistics: Statistics) -> tuple[nn.Module, dict[str, Any]]:
        """The potential as the stage begins, and the settings it is built from."""
        inner = stage.potential or self.config.potential
        settings = {
            "kind": "sum",
            "terms": {
                "reference": {"kind": "reference_energy", "trainable": inner.trains_reference},
                "model": inner.model_dump(mode="json"),
            },
        }
        potential = build(settings, statistics)
        if stage.init_from is not None:
            saved = load_model(self._stage_or_file(stage.init_from))
            _copy_weights(saved.potential, potential, stage)
        return potential, settings

    def _stage_or_file(self, name: str) -> Path:
        if any(stage.name == name for stage in self.config.stages):
            return self._model_file(name)
        return self.base / name

    def _structures(self, stage: Stage) -> tuple[Structures, Structures | None]:
        """What the stage trains on and is validated on: labelled structures, or made ones with a teacher's labels."""
        labelled = self.labelled
        if stage.data is None:
            return labelled.train, labelled.valid
        recipes = stage.data.augment if isinstance(stage.data.augment, list) else [stage.data.augment]
        made: list[Structures | None] = []
        for number, structures in enumerate((labelled.train, labelled.valid)):
            if structures is None:
                made.append(None)
                continue
            parts = [recipe(structures, self.config.seed + number) for recipe in recipes]
            made.append(self._taught(stage, Structures.concatenate(parts)))
        assert made[0] is not None
        return made[0], made[1]

    def _taught(self, stage: Stage, structures: Structures) -> Structures:
        """Labels of the stage's teacher, on the scale of the quantum energies."""
        assert stage.data is not None
        spec = stage.data.label_by
        own = isinstance(spec, str) and any(other.name == spec for other in self.config.stages)
        if own:
            spec = str(self._model_file(str(spec)))
        elif isinstance(spec, str) and (self.base / spec).exists():
            spec = str(self.base / spec)
        teacher = load_teacher(spec)
        first = self._fabric.is_global_zero
        if not first:
            self._fabric.barrier()  # the first process labels and fills the cache, the others read it
        taught = relabel(structures, teacher, progress=first)
        reference = self.labelled.train
        if not own and reference.labelled("energy").any():
            numbered = replace(reference, info={"number": np.arange(len(reference)).astype(str)})
            seen = relabel(numbered, teacher, progress=first)
            kept = reference.select(seen.info["number"].astype(np.int64))
            taught = align(taught, kept, seen.energy)
        if first:
            self._fabric.barrier()
        if stage.data.steep is not None:
            taught = soften(taught, stage.data.steep * self.labelled.statistics.force_rms)
        return taught

    def _material(
        self, stage: Stage, potential: nn.Module, train: Structures, valid: Structures | None, dtype: torch.dtype
    ) -> Material:
        cutoff, seed = float(potential.cutoff), self.config.seed  # type: ignore[arg-type]
        share: dict[str, Any] = {
            "dtype": dtype,
            "rank": self._fabric.global_rank,
            "world_size": self._fabric.world_size,
        }
        store = GraphStore(train, cutoff + reserve(stage.objectives.values()), _listing)
        replay = None
        if stage.replay is not None:
            source = next(other for other in self.config.stages if other.name == stage.replay.stage)
            replayed, _ = self._structures(source)
            objectives = source.objectives
            replay_store = GraphStore(replayed, cutoff + reserve(objectives.values()), _listing)
            size = stage.replay.batch_size or source.batch_size
            replay = (Loader(replay_store, size, seed + 1, **share), objectives, stage.replay.weight)
        return Material(
            train=Loader(store, stage.batch_size, seed, **share),
            valid=None if valid is None else GraphStore(valid, cutoff, _listing),
            replay=replay,
        )


def _listing(numbers: Iterable[int]) -> Iterable[int]:
    """Show how far the neighbour lists are: a large set takes minutes."""
    return track(numbers, "neighbour lists")


def soften(structures: Structures, largest: float) -> Structures:
    """Lower the weight of structures with forces beyond ``largest`` (eV/Å), so that their error counts relatively.

    Squared errors of a structure with a force of 300 eV/Å would outweigh a hundred thousand near equilibrium.
    """
    size = np.nan_to_num(np.linalg.norm(structures.forces, axis=1))
    steepest = np.maximum.reduceat(size, structures.offsets[:-1])
    factor = np.minimum(1.0, largest / np.maximum(steepest, 1e-12)) ** 2
    return replace(structures, weight=structures.weight * factor)


def _copy_weights(source: nn.Module, target: nn.Module, stage: Stage) -> None:
    """Take over the weights of the network; reference energies stay those of the labelled data."""
    weights = {name: value for name, value in source.state_dict().items() if not name.startswith("terms.reference")}
    own = target.state_dict()
    wrong = [name for name, value in weights.items() if name not in own or own[name].shape != value.shape]
    missing = [name for name in own if name not in weights and not name.startswith("terms.reference")]
    if wrong or missing:
        raise UserError(
            f"stage {stage.name}: the weights of init_from {stage.init_from!r} belong to another potential "
            f"({(wrong + missing)[0]} differs). Give both the same potential, made for the same elements"
        )
    target.load_state_dict(own | weights)


def _align_reference(potential: nn.Module, material: Material) -> None:
    """Start trainable reference energies where they fit the energies best; of what composition leaves open, nothing."""
    loader = material.train
    structures = loader.store.structures
    labelled = np.flatnonzero(structures.labelled("energy"))
    if not len(labelled):
        return
    device = next(potential.parameters()).device
    predicted = []
    for start in range(0, len(labelled), _ALIGNED_AT_ONCE):
        graph = loader.store.graph(labelled[start : start + _ALIGNED_AT_ONCE], loader.dtype).to(device)
        energy = evaluate(as_potential(potential), graph, ("energy",)).energy
        assert energy is not None
        predicted.append(energy.cpu().numpy())
    residual = structures.energy[labelled] - np.concatenate(predicted)
    offsets, *_ = np.linalg.lstsq(composition(structures)[labelled].astype(np.float64), residual, rcond=None)
    reference = potential.get_submodule("terms.reference")
    assert isinstance(reference, ReferenceEnergy)
    reference.shift(dict(zip(structures.elements, offsets.tolist(), strict=True)))


@contextmanager
def _noting_signals(asked: list[int]) -> Iterator[None]:
    """Only note the first Ctrl-C or termination, for the loop to see after its step; the second one acts at once.

    An exception in the middle of an optimiser step would leave weights that belong to no step.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        print("\nstopping after this step; once more stops at once, without a checkpoint", file=sys.stderr)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

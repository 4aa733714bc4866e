"""The one training loop."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from phystrain import compiled
from phystrain.config import Stage
from phystrain.data.loader import in_order
from phystrain.errors import UserError
from phystrain.labels import Batch
from phystrain.progress import bar
from phystrain.saving import read_state, write_state
from phystrain.stages import RUNNING, SNAPSHOTS_FROM, guided
from phystrain.train.guide import running_guide
from phystrain.train.lazy import acting
from phystrain.train.log import Metrics
from phystrain.train.optimisation import LearningRate, average_of, make_optimiser, optimiser_names
from phystrain.train.processes import alone, global_sum, same_everywhere, world_size
from phystrain.train.selection import Selection, level_of
from phystrain.train.sharpness import worst_nearby
from phystrain.train.sources import Material
from phystrain.train.step import TrainingStep
from phystrain.train.validation import validate

VALIDATIONS = 50

TRIED = 20
"""Steps that are timed before it is decided whether the rest is worth compiling; the first one does not count."""


class DivergedError(UserError):
    """A loss or weights that are no longer finite."""


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop; a checkpoint has been written."""


class Training:
    """A stage in progress: the potential, its averaged weights, the optimiser and where they stand.

    Args:
        potential: what is trained, on the right device and in the right precision.
        stage: settings.
        material: what it is trained on.
        fabric: device, precision and processes.
        checkpoints: folder of ``last`` and ``best``; ``None`` writes none.
        metrics: where validation figures go.
        checkpoint_seconds: time between checkpoints.
        should_stop: asked after every step.
        on_best: given the weights at every best validation.
        gate: given the weights, tests them in the first process and tells figures by name, ``gate`` among them: how
            well they did, from 0 to 1. For stages with a gate.
        say: told of what a person may want to know.

    Attributes:
        steps: how many there will be.
        step: how many have been made.
        snapshots: weights kept on the way, not averaged, of stages that keep some.
    """

    def __init__(
        self,
        potential: nn.Module,
        stage: Stage,
        material: Material,
        fabric: Fabric,
        *,
        metrics: Metrics,
        checkpoints: Path | None = None,
        checkpoint_seconds: float = 20.0,
        should_stop: Callable[[], bool] = lambda: False,
        on_best: Callable[[dict[str, Tensor]], None] = lambda _: None,
        gate: Callable[[nn.Module], Mapping[str, float]] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._say = say
        self._gate = gate if stage.gate is not None else None
        self._stage, self._material, self._fabric = stage, material, fabric
        self._metrics, self._checkpoints = metrics, checkpoints
        self._checkpoint_seconds, self._should_stop, self._on_best = checkpoint_seconds, should_stop, on_best
        self.steps = stage.steps or (stage.epochs or 1) * material.train.steps_per_epoch
        self._every = stage.validate_every or max(1, self.steps // VALIDATIONS)
        self._potential = potential
        self._dtype = material.train.dtype
        self._loss = TrainingStep(
            potential,
            stage.objectives,
            [source for source, _ in material.others],
            stay_near=stage.stay_near.weight if stage.stay_near else 0.0,
            balance=stage.balance,
        )
        self._optimiser = make_optimiser(potential, stage.optimiser)
        self._averaged = average_of(potential, stage.average) if stage.average else None
        self._module, self._fabric_optimiser = fabric.setup(self._loss, self._optimiser)
        self._rate = LearningRate(stage.optimiser, self.steps)
        self.step = 0
        self._seconds = 0.0
        self._best = Selection()
        self._best_weights: dict[str, Tensor] = {}
        self.snapshots: list[dict[str, Tensor]] = []
        first, last = SNAPSHOTS_FROM
        apart = (last - first) / max(stage.snapshots, 1)
        self._snapshot_at = {round(self.steps * (first + apart * (n + 0.5))) for n in range(stage.snapshots)}
        # the latest of each term since the last validation: a term may act on some steps only
        self._means: dict[str, Tensor] = {}
        self._compiled = stage.compiled if compiled.available() else False
        self._times: list[float] = []

    def run(self) -> dict[str, Tensor]:
        """Train to the end.

        Returns:
            The state of the weights that the stage hands on: averaged if the stage averages, of the best validation
            if the stage selects by it.

        Raises:
            Interrupted: asked to stop; the checkpoint allows to go on.
            DivergedError: the loss is no longer finite.
        """
        self._resume()
        if not same_everywhere(self.step, self._fabric.device):
            where = "put the run folder where all machines see the same files"
            raise UserError(f"stage {self._stage.name}: processes see different checkpoints: {where}")
        started = saved = time.monotonic()
        if self._compiled:
            self._compile()
        with bar() as display:
            task = display.add_task(self._stage.name, total=self.steps, completed=self.step, note="")
            while self.step < self.steps and not self._finished_early():
                if self._compiled is None and self._is_worth_compiling():
                    display.update(task, note="compiling the network")
                    self._compile()
                began = time.monotonic()
                self._means |= self._one_step()
                self.step += 1
                if self._compiled is None:
                    self._times.append(time.monotonic() - began)
                if self.step in self._snapshot_at:
                    self.snapshots.append({k: v.detach().clone() for k, v in self._potential.state_dict().items()})
                display.advance(task)
                if self.step % self._every == 0 or self.step == self.steps:
                    elapsed = self._seconds + time.monotonic() - started
                    display.update(task, note=self._validate(elapsed))
                now = time.monotonic()
                stop = self._agree_to_stop()
                if stop or now - saved >= self._checkpoint_seconds or self.step == self.steps:
                    self._save(self._seconds + now - started)
                    saved = now
                if stop:
                    self._fabric.barrier()  # a launcher ends all as soon as one has ended
                    raise Interrupted
        if self._finished_early():  # the next stage may go on with the optimiser's state
            self._save(self._seconds + time.monotonic() - started)
        use_best = self._stage.select == "best" and self._best_weights
        weights = self._best_weights if use_best else self._current()
        if not all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()):
            raise DivergedError(f"stage {self._stage.name}: weights are not finite. Lower its learning_rate")
        return weights

    def _agree_to_stop(self) -> bool:
        """Whether any process was asked to stop: all of them stop at the same step, or none."""
        asked = self._should_stop()
        if world_size() == 1:
            return asked
        return bool(global_sum(torch.tensor(float(asked), device=self._fabric.device)) > 0)

    def _is_worth_compiling(self) -> bool:
        """Whether compiled code would make up for the time it takes to compile; decided once, for all processes."""
        if len(self._times) <= TRIED:
            return False
        ahead = statistics.median(self._times[1:]) * (self.steps - self.step)
        self._compiled = bool(self._fabric.broadcast(ahead > compiled.WORTH_TRAINING))
        return self._compiled

    def _compile(self) -> None:
        self._compiled = self._loss.compile_passes()
        if self._compiled:
            self._say(f"stage {self._stage.name}: steps are compiled from step {self.step} on")

    def _one_step(self) -> dict[str, Tensor]:
        """Make a step; the mean of each term of the loss that acted."""
        for group in self._optimiser.param_groups:
            group["lr"] = group["factor"] * self._rate.at(self.step)
        batches = self._batches()
        self._module.train()
        loss, means = self._module(*batches, step=self.step)
        if not all(bool(torch.isfinite(mean)) for mean in means.values()):  # means are the same in every process
            raise DivergedError(
                f"stage {self._stage.name}: the loss is not finite at step {self.step}. "
                f"Lower its learning_rate, or look for odd structures with 'phystrain check'."
            )
        self._fabric_optimiser.zero_grad()
        self._fabric.backward(loss)
        if (sharpness := self._stage.optimiser.sharpness) is not None:
            with worst_nearby(self._potential.parameters(), sharpness):
                self._fabric_optimiser.zero_grad()
                worst, _ = self._module(*batches, step=self.step)
                self._fabric.backward(worst)
        if self._stage.optimiser.clip is not None:
            torch.nn.utils.clip_grad_norm_(self._potential.parameters(), self._stage.optimiser.clip)
        self._fabric_optimiser.step()
        if self._averaged is not None:
            self._averaged.update_parameters(self._potential)
        return means

    def _batches(self) -> list[Batch | None]:
        """Batch of the step from every source; none from a source of which no term acts."""
        batches: list[Batch | None] = []
        loaders = [self._material.train, *(loader for _, loader in self._material.others)]
        for source, loader in zip(self._loss.sources, loaders, strict=True):
            terms = acting(source.objectives, self.step)
            batch = loader.batch(self.step).to(self._fabric.device) if terms else None
            running = batch is not None and len(batch.key) and self._stage.guide == RUNNING
            if batch is not None and running and any(map(guided, terms.values())):
                assert self._averaged is not None
                guide = running_guide(self._averaged.module, batch.graph)
                batch = batch._replace(labels=batch.labels._replace(guide=guide))
            batches.append(batch)
        return batches

    def _current(self) -> dict[str, Tensor]:
        """The weights as they would be handed on now."""
        source = self._potential if self._averaged is None else self._averaged.module
        return {name: tensor.detach().clone() for name, tensor in source.state_dict().items()}

    def _validate(self, seconds: float) -> str:
        stage, fabric = self._stage, self._fabric
        means, self._means = self._means, {}
        row: dict[str, Any] = {
            "stage": stage.name,
            "step": self.step,
            "epoch": round(self.step / self._material.train.steps_per_epoch, 3),
            "seconds": round(seconds, 2),
            "learning_rate": self._rate.at(self.step - 1),
            "loss": sum(
                self._loss.weight(name, objective) * float(means[name])
                for name, objective in stage.objectives.items()
                if name in means
            ),
            **{f"train_{name}": float(mean) for name, mean in means.items()},
            **{f"weight_{name}": found["weight"] for name, found in self._loss.balancer.state.items()},
        }
        if self._material.valid is not None:
            potential = self._potential if self._averaged is None else self._averaged.module
            potential.eval()
            batches = in_order(self._material.valid, self._material.valid_size, fabric.global_rank, fabric.world_size)
            figures = validate(potential, self._material.valid, batches, stage.objectives, fabric.device, self._dtype)
            row |= {f"valid_{name}": value for name, value in figures.items()}
            if stage.metric not in figures:
                raise UserError(
                    f"stage {stage.name}: metric {stage.metric!r} is not among the validation figures: "
                    f"{', '.join(figures)}"
                )
            row |= self._judge(figures, potential)
        self._metrics.add(row)
        return "  ".join(f"{name.removeprefix('valid_')} {value:.4g}" for name, value in row.items() if "mae" in name)

    def _judge(self, figures: dict[str, float], potential: nn.Module) -> dict[str, float]:
        """Keep these weights if they are the best so far; figures of the gate, if it was their turn."""
        figure, gate = figures[self._stage.metric], self._stage.gate
        stopping = self._stage.early_stopping
        self._rate.validated(figures["loss"])
        self._best.note(figure, stopping.minimum_gain if stopping else 0.0)
        found: dict[str, float] = {}
        level = 0
        if gate is not None:
            last = self.step == self.steps or self._finished_early()
            if self.step // self._every % gate.every and not last:
                return {}  # only weights that have been tested can be the best
            found = self._gated(potential)
            level = level_of(found["gate"], gate.tolerance)
        if self._best.takes(figure, self.step, level):
            self._best_weights = self._current()
            self._on_best(self._best_weights)
        return found

    def _gated(self, potential: nn.Module) -> dict[str, float]:
        """What the gate says, the same in every process."""
        assert self._gate is not None
        tested = self._gate

        def test() -> dict[str, float]:
            with torch.random.fork_rng():  # a test may draw; training goes on as if it had not
                return dict(tested(potential))

        try:
            return alone(test)
        except UserError as error:
            raise UserError(f"stage {self._stage.name}, gate: {error}") from error

    def _finished_early(self) -> bool:
        stopping = self._stage.early_stopping
        return stopping is not None and self._best.waited >= stopping.patience

    def _save(self, seconds: float) -> None:
        """Write ``last``: everything that the next step depends on."""
        if self._checkpoints is None or not self._fabric.is_global_zero:
            return
        tensors = {f"model.{name}": tensor for name, tensor in self._potential.state_dict().items()}
        if self._averaged is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in self._averaged.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self._best_weights.items()}
        for number, weights in enumerate(self.snapshots):
            tensors |= {f"snapshot.{number}.{name}": tensor for name, tensor in weights.items()}
        state = self._optimiser.state_dict()["state"]
        tensors |= {f"optimiser.{i}.{name}": value for i, entry in state.items() for name, value in entry.items()}
        # Tensors that share memory cannot be stored under two names.
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
        rate = {"plateau": self._rate.plateau, "best": _finite(self._rate.best), "waited": self._rate.waited}
        header = {
            "type": "checkpoint",
            "stage": self._stage.name,
            "step": self.step,
            "seconds": seconds,
            "rate": rate,
            "best": self._best.state(),
            "snapshots": len(self.snapshots),
            "compiled": self._compiled,
            "means": {name: float(mean) for name, mean in self._means.items()},
            "balance": self._loss.balancer.state,
            "parameters": optimiser_names(self._potential, self._optimiser),
        }
        write_state(self._checkpoints / "last.safetensors", tensors, header)

    def _keep_moments(self, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        """Take over the optimiser's state of the stage before, parameter by parameter."""
        before = dict(zip(header["parameters"], range(len(header["parameters"])), strict=True))
        entries = _moments(tensors)
        names = optimiser_names(self._potential, self._optimiser)
        state = {number: entries[before[name]] for number, name in enumerate(names) if before.get(name) in entries}
        self._optimiser.load_state_dict({**self._optimiser.state_dict(), "state": state})

    def _resume(self) -> None:
        """Take up the checkpoint of this stage, if there is one."""
        path = None if self._checkpoints is None else self._checkpoints / "last.safetensors"
        tensors, header = read_state(path) if path is not None and path.is_file() else ({}, {})
        if header.get("stage") != self._stage.name:
            self._metrics.cut(self._stage.name, 0)  # of a process that was killed before its first checkpoint
            if self._stage.keep_optimiser and header.get("stage") == self._stage.init_from:
                self._keep_moments(tensors, header)
            return
        self._potential.load_state_dict(_part(tensors, "model."))
        if self._averaged is not None:
            self._averaged.load_state_dict(_part(tensors, "average."))
        self._best_weights = _part(tensors, "best.")
        self._optimiser.load_state_dict({**self._optimiser.state_dict(), "state": _moments(tensors)})
        self.step, self._seconds = header["step"], header["seconds"]
        if self._compiled is None:  # so that going on is what an uninterrupted run would have done
            self._compiled = header.get("compiled")
        rate = header["rate"]
        self._rate.plateau, self._rate.waited = rate["plateau"], rate["waited"]
        self._rate.best = math.inf if rate["best"] is None else rate["best"]
        self._best = Selection.of(header["best"])
        self.snapshots = [_part(tensors, f"snapshot.{number}.") for number in range(header.get("snapshots", 0))]
        self._means = {name: torch.tensor(mean, dtype=torch.float64) for name, mean in header.get("means", {}).items()}
        self._loss.balancer.state = header.get("balance", {})
        self._metrics.cut(self._stage.name, self.step)


def _moments(tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """State of the optimiser by number of the parameter."""
    entries: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _part(tensors, "optimiser.").items():
        index, _, key = name.partition(".")
        entries.setdefault(int(index), {})[key] = tensor
    return entries


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

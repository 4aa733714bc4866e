"""What is refused before any work begins, so that a mistake costs seconds and leaves nothing half-done behind."""

from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError

from phystrain import registry
from phystrain.augment import load_teacher
from phystrain.augment._recipes import RECIPES
from phystrain.config import Reliability, RunConfig
from phystrain.data.write import require_ending
from phystrain.errors import UserError
from phystrain.explain import explain
from phystrain.files import require_writable
from phystrain.reliability import ReliabilityTest
from phystrain.saving import load_model
from phystrain.stages import RUNNING
from phystrain.train.launch import launched

T = TypeVar("T", bound=BaseModel)


def require_sources(config: RunConfig, base: Path) -> None:
    """Refuse weights and teachers that are not there, before the stages that come first are trained."""
    names = [stage.name for stage in config.stages]
    for stage in config.stages:
        teacher = stage.data.label_by if stage.data else None
        for field, source in (("init_from", stage.init_from), ("prior", stage.prior)):
            if source is not None and source not in names:
                _require_source(f"stages.{stage.name}.{field}", base / source, source, names)
        if isinstance(teacher, str) and teacher not in (*names, *RECIPES) and ":" not in teacher:
            _require_source(f"stages.{stage.name}.data.label_by", base / teacher, teacher, names)
        elif teacher is not None and teacher not in names:
            load_teacher(teacher)
        for guide in stage.guides:
            if isinstance(guide, str) and guide not in (RUNNING, *names, *RECIPES) and ":" not in guide:
                _require_source(f"stages.{stage.name}.guide", base / guide, guide, names)
            elif guide != RUNNING and guide not in names:
                load_teacher(guide)


def _require_source(field: str, path: Path, name: str, stages: list[str]) -> None:
    if not path.exists():
        near = registry.did_you_mean(name, stages)
        raise UserError(f"{field}: {name!r} is neither an earlier stage nor a model file or run folder; {near}")
    load_model(path)


def require_held_out(config: RunConfig) -> None:
    """Refuse to promise errors on test structures where there will be none."""
    data, tests = config.data, config.reliability.tests or {}
    held_out = data.test or data.valid or data.split_key or data.valid_fraction
    if config.reliability.enabled and "errors" in tests and not held_out:
        raise UserError("reliability.tests.errors needs held-out structures: give data.test, or a data.valid_fraction")


def require_temperature(settings: Reliability, complaint: str = "") -> None:
    """Refuse tests in dynamics at a temperature that nobody has named.

    Args:
        settings: of the tests.
        complaint: what is wrong, where it is not a run file that lacks the temperature.
    """
    tests = settings.tests
    chosen = [registry.parse("reliability", {"kind": kind}) for kind in registry.kinds("reliability")]
    needy = [test for test in (chosen if tests is None else tests.values()) if needs_temperature(test)]
    if settings.enabled and settings.temperatures is None and needy:
        if complaint:
            raise UserError(f"{complaint}:\ngive it in K with --temperature, as in --temperature 300")
        raise UserError(
            "the tests in dynamics need the temperature of your training data, which is not guessed. Add its K to the\n"
            "run file, as in 'reliability: {temperatures: [300]}', or reliability.temperatures=[300] to the command"
        )


def needs_temperature(test: ReliabilityTest) -> bool:
    """Whether a test takes its temperature from that of the training data."""
    asked = [getattr(test, name) for name in ("temperature", "temperatures") if name in type(test).model_fields]
    return asked == [None]


def require_device(config: RunConfig) -> None:
    """Refuse devices that this machine lacks."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device is {config.device}, of which torch finds none here: use device=auto or device=cpu")
    count = torch.cuda.device_count()
    if config.processes > count and (config.device == "cuda" or (config.device == "auto" and count)):
        if launched() is not None:
            raise UserError(
                f"{config.processes} processes on this machine see {count} GPUs: let every process see all of them "
                f"(SLURM: --gpus-per-node rather than --gpus-per-task), or use device=cpu"
            )
        raise UserError(
            f"{config.processes} processes (--devices, or processes in the run file) are more than the {count} GPUs: "
            f"lower it, or use device=cpu"
        )


def withdraw(folder: Path) -> None:
    """Take back a run folder in which nothing was trained: settings that are mended must not be refused there."""
    if (folder / "checkpoints").exists() or (folder / "model").exists():
        return
    for name in ("config.yaml", "data.json", "metrics.csv", "train.log"):
        (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def checked(model: type[T], where: str, settings: dict[str, Any]) -> T:
    """Settings that were given one by one, checked."""
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error, model, settings)}") from error


def require_apart(folder: Path) -> None:
    """Refuse a run folder as the place of another report: that of the run would be lost."""
    if (folder / "config.yaml").is_file():
        raise UserError(f"{folder} is a run folder with a report of its own: give another --output")
    require_writable(folder / "report.html")


def require_new(output: Path, source: Path) -> None:
    """Refuse a file of structures that cannot be written, or that is the one to be read, before the work begins."""
    require_ending(output)
    require_writable(output)
    if output.exists() and source.exists() and output.samefile(source):
        raise UserError(f"{output} is the file to read: give another --output")

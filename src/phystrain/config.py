"""The run file: every setting with its default, checked before anything starts.

``load`` reads the YAML file, applies overrides by dotted path and answers mistakes with the nearest right name.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from phystrain import registry
from phystrain.data.read import LabelKeys
from phystrain.errors import UserError
from phystrain.explain import explain
from phystrain.files import relative_to, write_text
from phystrain.stages import (
    FIGURES,
    RUNNING,
    AnyPotential,
    Balance,
    Confine,
    EarlyStopping,
    Gate,
    Optimiser,
    Replay,
    Section,
    Sharpness,
    Stage,
    StageData,
    StayNear,
    Tests,
    Unlabelled,
    Window,
    guided,
    require_heads,
)
from phystrain.tune.space import Search

__all__ = [
    "FIGURES",
    "Balance",
    "Confine",
    "DataConfig",
    "EarlyStopping",
    "Gate",
    "Optimiser",
    "Reliability",
    "Replay",
    "RunConfig",
    "Sharpness",
    "Stage",
    "StageData",
    "StayNear",
    "Unlabelled",
    "Window",
    "check",
    "load",
    "save",
]


class DataConfig(Section):
    """The labelled structures."""

    train: str | list[str] = Field(description="file or files with labelled structures")
    valid: str | None = Field(None, description="file of validation structures; else a fraction of train is kept back")
    test: str | None = Field(None, description="file of test structures, never trained on")
    unlabelled: str | list[str] | None = Field(
        None, description="file or files with structures for the weak losses; labels in them are not used"
    )
    valid_fraction: float = Field(0.1, ge=0, lt=1, description="part of train kept back for validation")
    group_by: str | None = Field(None, description="info key whose groups are never split between train and valid")
    split_key: str | None = Field(
        None, description="info key that says train, valid or test of every frame; instead of a random split"
    )
    use: int | None = Field(None, gt=0, description="use only this many structures of train, drawn at random by seed")
    keys: LabelKeys = Field(
        LabelKeys(), description="names of the labels in the files, where they are not the usual ones"
    )
    reference_energies: Literal["auto", "isolated", "fit", "zero"] | dict[str, float] = Field(
        "auto",
        description="energies of isolated atoms, eV: given by element, from isolated frames, or fitted; beside a "
        "classical potential or a prior they are fitted to what it leaves",
    )

    neighbour_lists: Literal["auto", "held", "built"] = Field(
        "auto",
        description="held in memory, or built by threads for each batch; auto holds them up to a gigabyte. Results are "
        "the same, bit for bit",
    )

    @model_validator(mode="after")
    def _one_split(self) -> "DataConfig":
        if self.valid is not None and self.split_key is not None:
            raise ValueError("data.valid and data.split_key exclude each other: give one of them")
        if self.group_by is not None and (self.valid is not None or self.split_key is not None):
            raise ValueError("data.group_by is for a random split: leave it out beside data.valid or data.split_key")
        return self


class Reliability(Section):
    """The tests after training; see ``phystrain audit``. Fields given for a test under ``tests`` win over these."""

    temperatures: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] | None = Field(
        None, description="K, the temperature of the training data first; tests in dynamics need it, and nobody guesses"
    )
    replicas: int = Field(4, gt=0)
    picoseconds: float = Field(2.0, gt=0, description="length of runs, where minutes are not given")
    minutes: float | None = Field(
        None, gt=0, description="wall time for all tests, from which lengths of runs follow; instead of picoseconds"
    )
    timestep: float | None = Field(None, gt=0, description="fs; 1, or 0.5 with hydrogen, if not given")
    tests: Tests | None = Field(None, description="tests by kind with their settings; all of them if not given")
    baseline: bool = Field(
        False, description="also train the last stage from scratch on its labels alone, and test it beside this run"
    )
    teacher: bool = Field(True, description="put the tests to the classical potentials of earlier stages too")
    enabled: bool = True


class RunConfig(Section):
    """A whole run."""

    potential: AnyPotential
    data: DataConfig
    stages: list[Stage] = Field(min_length=1)
    reliability: Reliability = Reliability()
    seed: int = Field(0, ge=0)
    precision: Literal["float32", "float64"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where training runs: auto takes a GPU if there is one; teachers and tests run on the CPU"
    )
    processes: int = Field(1, gt=0, description="processes, one to a GPU, that share every batch, on each machine")
    nodes: int = Field(1, gt=0, description="machines; more than one need torchrun or SLURM")
    checkpoint_seconds: float = Field(20.0, ge=0, description="time between checkpoints; 0 saves after every step")
    tune: Search | None = Field(None, description="what 'phystrain tune' searches; training does not look at it")

    @model_validator(mode="after")
    def _references_apart(self) -> "RunConfig":
        for potential in [self.potential, *(stage.potential for stage in self.stages if stage.potential)]:
            inner = getattr(potential, "terms", {}).values()
            if any(term.kind == "reference_energy" for term in (potential, *inner)):
                raise ValueError("reference_energy: training adds it by itself; set data.reference_energies instead")
        return self

    @model_validator(mode="after")
    def _stages_fit(self) -> "RunConfig":
        names = [stage.name for stage in self.stages]
        for number, stage in enumerate(self.stages):
            earlier, later = names[:number], names[number:]
            if stage.name in earlier:
                raise ValueError(f"two stages are called {stage.name!r}; give each its own name")
            taken = {
                "init_from": stage.init_from,
                "data.label_by": stage.data.label_by if stage.data else None,
                "replay.stage": stage.replay.stage if stage.replay else None,
                "prior": stage.prior,
            }
            taken |= {f"guide.{number}": name for number, name in enumerate(stage.guides)}
            for field, name in taken.items():
                # weights and teachers may also be files, which is for the trainer to look at
                if isinstance(name, str) and (name in later or (field == "replay.stage" and name not in earlier)):
                    hint = registry.did_you_mean(name, earlier) if earlier else "there is none before it"
                    raise ValueError(f"stages.{stage.name}.{field}: {name!r} is no earlier stage; {hint}")
            if stage.name == RUNNING and any(RUNNING in other.guides for other in self.stages):
                raise ValueError("guide: average means the averaged weights: give the stage 'average' another name")
            network = stage.potential or self.potential
            require_heads(stage.name, network, stage.own_objectives)
            if stage.keep_optimiser:
                _same_optimiser(stage, self.stages[number - 1] if number else None)
            if stage.replay is not None:
                source = self.stages[names.index(stage.replay.stage)]
                terms = source.objectives if stage.replay.objectives is None else stage.replay.objectives
                if not terms:
                    raise ValueError(
                        f"stages.{stage.name}.replay: there is no term of the loss; name the stage that makes "
                        f"structures, or give replay.objectives"
                    )
                require_heads(stage.name, network, terms.values())
                if stage.guide is None and any(guided(term) for term in terms.values()):
                    raise ValueError(f"stages.{stage.name}.replay: its terms ask for the forces of a guide: give guide")
            if stage.unlabelled is not None and not (self.data.unlabelled or stage.unlabelled.augment):
                raise ValueError(
                    f"stages.{stage.name}.unlabelled: there are no such structures: give data.unlabelled a file, or "
                    f"unlabelled.augment a way to make them"
                )
        _members_teach(self.stages)
        if self.data.unlabelled is not None and not any(stage.unlabelled for stage in self.stages):
            raise ValueError("data.unlabelled is used by no stage: give one an unlabelled section, with objectives")
        return self


def _members_teach(stages: list[Stage]) -> None:
    """Refuse several networks where one is wanted, and snapshots that nobody would look at."""
    for stage in stages[:-1]:
        if stage.snapshots:
            raise ValueError(f"stages.{stage.name}.snapshots: they tell the spread of the last stage: set them there")
    several = {stage.name for stage in stages if stage.members > 1}
    for stage in stages:
        for field, source in (("init_from", stage.init_from), ("prior", stage.prior)):
            if source in several:
                raise ValueError(f"stages.{stage.name}.{field}: {source} has several members, and one is wanted")


def _same_optimiser(stage: Stage, before: Stage | None) -> None:
    """Refuse to keep the state of an optimiser that there is none of."""
    if before is None or before.name != stage.init_from or before.fit is not None:
        raise ValueError(f"stages.{stage.name}.keep_optimiser: init_from must be the training right before it")
    if before.optimiser.amsgrad != stage.optimiser.amsgrad:
        raise ValueError(f"stages.{stage.name}.keep_optimiser: optimiser.amsgrad must be as in {before.name}")


def load(path: Path | str, overrides: list[str] | tuple[str, ...] = ()) -> RunConfig:
    """Read and check a run file.

    Args:
        path: YAML file.
        overrides: ``path.to.field=value``; stages by name or number, values as YAML.

    Raises:
        UserError: no such file, bad YAML, or a wrong setting; the message gives the place and the mend.
    """
    path = Path(path)
    settings = read_settings(path, overrides)
    with relative_to(path.parent):  # files named in the settings of potentials
        return check(settings, str(path))


def read_settings(path: Path, overrides: list[str] | tuple[str, ...] = ()) -> dict[str, Any]:
    """The settings of a run file as plain data, overrides applied, not checked yet.

    Args:
        path: YAML file.
        overrides: as in :func:`load`.

    Raises:
        UserError: no such file, or bad YAML.
    """
    if not path.is_file():
        raise UserError(f"no such run file: {path}. 'phystrain init DATA' writes one.")
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file; 'phystrain init DATA' writes a run file.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not valid YAML ({getattr(error, 'problem', None) or error})") from error
    if not isinstance(settings, dict):
        raise UserError(f"{path} does not hold settings; 'phystrain init DATA' writes a run file to start from.")
    for override in overrides:
        _override(settings, override)
    return settings


def check(settings: dict[str, Any], where: str = "run file") -> RunConfig:
    """Check settings given as plain data.

    Raises:
        UserError: the first mistake, with its place and the mend.
    """
    try:
        return RunConfig.model_validate(settings)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error, RunConfig, settings)}") from error


def save(config: RunConfig, path: Path | str) -> None:
    """Write the resolved settings, defaults included."""
    write_text(path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def _override(settings: dict[str, Any], override: str) -> None:
    dotted, equals, value = override.partition("=")
    if not equals:
        raise UserError(f"override {override!r} has no '=': write path.to.field=value")
    *parents, last = dotted.split(".")
    if not all((*parents, last)):
        raise UserError(f"override {override!r} has no field before the '=': write path.to.field=value")
    place: Any = settings
    for part in parents:
        place = _enter(place, part, dotted)
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"override {override!r}: the value is not valid YAML") from error
    if isinstance(place, list):
        place[place.index(_enter(place, last, dotted))] = parsed
    else:
        place[last] = parsed


def _enter(place: Any, part: str, dotted: str) -> Any:
    """One step of a dotted path: a field, or an entry of a list by its name or number."""
    if isinstance(place, list):
        for number, entry in enumerate(place):
            if part == str(number) or (isinstance(entry, dict) and entry.get("name") == part):
                return entry
        names = [str(entry.get("name", number)) for number, entry in enumerate(place) if isinstance(entry, dict)]
        raise UserError(f"override {dotted}: no entry {part!r}; {registry.did_you_mean(part, names)}")
    if not isinstance(place, dict):
        raise UserError(f"override {dotted}: {part!r} is not inside a group of settings")
    if not isinstance(place.get(part), dict | list):
        place[part] = {}
    return place[part]

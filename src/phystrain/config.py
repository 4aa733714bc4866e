"""The run file: every setting with its default, checked before anything starts.

``load`` reads the YAML file, applies overrides by dotted path and answers mistakes with the nearest right name.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from phystrain import registry
from phystrain.augment import Augmentation
from phystrain.data.read import LabelKeys
from phystrain.errors import UserError
from phystrain.explain import explain
from phystrain.files import relative_to, write_text
from phystrain.fitting import FitSettings
from phystrain.objectives import Objective
from phystrain.potentials import PotentialConfig
from phystrain.reliability import ReliabilityTest
from phystrain.tune.space import Search


def _named(settings: Any) -> Any:
    """``{"pitc": {...}}`` to ``{"pitc": {"kind": "pitc", ...}}``: an objective's name is its kind unless it says so."""
    if not isinstance(settings, dict):
        return settings
    return {
        name: {"kind": name, **(value or {})} if isinstance(value, dict | None) else value
        for name, value in settings.items()
    }


if TYPE_CHECKING:
    AnyPotential = PotentialConfig
    AnyAugmentation = Augmentation
    Objectives = dict[str, Objective]
    Tests = dict[str, ReliabilityTest]
else:  # unions over all plug-ins: made when this module is imported, which a type checker does not see
    AnyPotential = registry.union("potentials")
    AnyAugmentation = registry.union("augment")
    Objectives = Annotated[dict[str, registry.union("objectives")], BeforeValidator(_named)]
    Tests = Annotated[dict[str, registry.union("reliability")], BeforeValidator(_named)]


FIGURES = ("loss", *(f"{label}_{error}" for label in ("energy", "forces", "stress") for error in ("mae", "rmse")))
"""What is measured at a validation; see :func:`phystrain.train.validation.validate`."""


class Section(BaseModel):
    """Base of every part of the run file: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class DataConfig(Section):
    """The labelled structures."""

    train: str | list[str] = Field(description="file or files with labelled structures")
    valid: str | None = Field(None, description="file of validation structures; else a fraction of train is kept back")
    test: str | None = Field(None, description="file of test structures, never trained on")
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

    @model_validator(mode="after")
    def _one_split(self) -> "DataConfig":
        if self.valid is not None and self.split_key is not None:
            raise ValueError("data.valid and data.split_key exclude each other: give one of them")
        if self.group_by is not None and (self.valid is not None or self.split_key is not None):
            raise ValueError("data.group_by is for a random split: leave it out beside data.valid or data.split_key")
        return self


class StageData(Section):
    """Structures that a stage makes for itself."""

    augment: AnyAugmentation | Annotated[list[AnyAugmentation], Field(min_length=1)] = Field(
        description="how structures are made from train"
    )
    label_by: str | dict[str, Any] = Field(
        description="teacher: a stage, a model file or run folder, or {calculator: module:attribute, ...}"
    )
    steep: float | None = Field(
        10.0,
        gt=0,
        description="structures whose largest force exceeds this many times the RMS force of the labels count by their "
        "relative error: the walls must not drown the rest; null counts all alike",
    )


class Window(Section):
    """Which replayed structures are outside what the labels know: closer, or further apart."""

    short: float = Field(
        1.0, gt=0, description="keep structures with a pair closer than this times the pair's shortest labelled one"
    )
    expanded: float = Field(
        1.15, gt=0, description="and those with an atom this many times more lonely than the loneliest labelled one"
    )


class Replay(Section):
    """Teacher labels that stay in the loss, so that what pretraining taught is not forgotten."""

    stage: str = Field(description="stage whose data are replayed")
    weight: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        "auto", description="factor of that stage's loss; auto lowers it with the measured error of the teacher"
    )
    batch_size: int | None = Field(None, gt=0, description="structures a step; those of the stage if not given")
    window: Window | None = Field(None, description="replay only what the labels do not cover; all if not given")
    objectives: Objectives | None = Field(
        None, description="terms of the loss on them, PITC and PISC for example; those of the stage if not given"
    )


class StayNear(Section):
    """A penalty on leaving the weights that the stage starts from (L2-SP; Li et al. 2018, arXiv 1802.01483)."""

    weight: float = Field(1e-3, gt=0, description="half of it multiplies the squared distance of the weights")


class Sharpness(Section):
    """Minimise the loss where it is worst nearby (SAM, arXiv 2010.01412; adaptive: ASAM, arXiv 2102.11600)."""

    radius: float = Field(5e-3, gt=0, description="how far nearby is")
    adaptive: bool = Field(True, description="measure in units of each weight's own size")


class Optimiser(Section):
    """AdamW and its schedule."""

    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    amsgrad: bool = False
    schedule: Literal["cosine", "constant", "plateau"] = "cosine"
    warmup: int = Field(0, ge=0, description="steps over which the learning rate rises from zero")
    final: float = Field(0.01, ge=0, le=1, description="learning rate at the end of the cosine, as a fraction")
    patience: int = Field(10, gt=0, description="validations without gain before the plateau schedule lowers the rate")
    factor: float = Field(0.8, gt=0, lt=1, description="by which the plateau schedule lowers the rate")
    minimum: float = Field(1e-6, ge=0, description="lowest rate of the plateau schedule")
    clip: float | None = Field(10.0, gt=0, description="largest norm of the gradient")
    rates: dict[str, Annotated[float, Field(ge=0)]] = Field(
        {},
        description="factors of the learning rate by pattern of parameter names, such as '*embedding*': 0.1; 0 holds",
    )
    sharpness: Sharpness | None = Field(None, description="sharpness-aware minimisation; two passes a step")


class EarlyStopping(Section):
    """Stop when the validation metric no longer falls."""

    patience: int = Field(20, gt=0, description="validations without gain before the stage ends")
    minimum_gain: float = Field(0.0, ge=0, description="relative gain that counts")


class Stage(Section):
    """One training: what is trained, on what, with which loss, for how long; or one fit of a classical potential."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    potential: AnyPotential | None = Field(None, description="what is trained; the run's potential if not given")
    fit: FitSettings | None = Field(
        None, description="fit a classical potential by least squares; a stage with it needs no objectives and steps"
    )
    init_from: str | None = Field(None, description="stage or model file whose weights are the start")
    keep_optimiser: bool = Field(False, description="go on with the optimiser's state of the stage of init_from")
    prior: str | None = Field(
        None, description="stage or model file whose potential is added and held fixed (delta learning)"
    )
    stay_near: StayNear | None = None
    data: StageData | None = Field(None, description="made structures; the labelled ones if not given")
    replay: Replay | None = None
    objectives: Objectives = Field({}, description="terms of the loss by kind")
    epochs: int | None = Field(None, gt=0)
    steps: int | None = Field(None, gt=0, description="steps of the optimiser; instead of epochs")
    batch_size: int = Field(4, gt=0)
    optimiser: Optimiser = Optimiser()
    average: float = Field(0.99, ge=0, lt=1, description="decay of the averaged weights a step; 0 turns averaging off")
    validate_every: int = Field(0, ge=0, description="steps between validations; 0 means about fifty a stage")
    metric: str = Field("loss", description=f"validation figure that selects the best weights: {', '.join(FIGURES)}")
    select: Literal["best", "last"] = Field("best", description="weights that the stage hands on")
    early_stopping: EarlyStopping | None = None

    @model_validator(mode="after")
    def _one_length(self) -> "Stage":
        if self.fit is not None:
            return self._only_fitted()
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps")
        if not self.objectives:
            raise ValueError("objectives is empty; name energy or forces at least")
        if self.metric not in FIGURES:
            raise ValueError(f"unknown metric {self.metric!r}: {registry.did_you_mean(self.metric, FIGURES)}")
        if self.init_from is None and (self.keep_optimiser or self.stay_near is not None):
            field = "keep_optimiser" if self.keep_optimiser else "stay_near"
            raise ValueError(f"{field} refers to the weights that the stage starts from: give init_from too")
        return self

    def _only_fitted(self) -> "Stage":
        """Refuse what a fit by least squares would ignore."""
        allowed = {"name", "potential", "fit"}
        if ignored := sorted(
            self.model_fields_set - allowed - {n for n in self.model_fields_set if not _given(self, n)}
        ):
            raise ValueError(f"{ignored[0]} means nothing in a stage that fits by least squares: leave it or fit out")
        if self.potential is not None and not self.potential.trains_reference:
            raise ValueError(f"{self.potential.kind} is a network; a fit by least squares is for classical potentials")
        if self.potential is None and self.fit is not None and self.fit.choose is None:
            raise ValueError("give the classical potential that is fitted, or fit.choose: auto")
        return self


def _given(stage: Stage, name: str) -> bool:
    """Whether a field was set to something other than its default (a saved run file holds every field)."""
    return bool(getattr(stage, name) != Stage.model_fields[name].get_default())


class Reliability(Section):
    """The tests after training; see ``phystrain audit``. Fields given for a test under ``tests`` win over these."""

    temperatures: list[Annotated[float, Field(gt=0)]] = Field(
        [300.0], min_length=1, description="K, the temperature of the training data first"
    )
    replicas: int = Field(4, gt=0)
    picoseconds: float = Field(2.0, gt=0)
    timestep: float | None = Field(None, gt=0, description="fs; 1, or 0.5 with hydrogen, if not given")
    tests: Tests | None = Field(None, description="tests by kind with their settings; all of them if not given")
    baseline: bool = Field(
        False, description="also train the last stage from scratch on its labels alone, and test it beside this run"
    )
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
    processes: int = Field(1, gt=0, description="processes or GPUs that share every batch")
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
            for field, name in taken.items():
                # weights and teachers may also be files, which is for the trainer to look at
                if isinstance(name, str) and (name in later or (field == "replay.stage" and name not in earlier)):
                    hint = registry.did_you_mean(name, earlier) if earlier else "there is none before it"
                    raise ValueError(f"stages.{stage.name}.{field}: {name!r} is no earlier stage; {hint}")
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
        return self


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

"""What an experiment is: one YAML file, checked before anything runs."""

import json
import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from phystrain import recipes
from phystrain.errors import UserError
from phystrain.registry import did_you_mean
from phystrain.reliability import ReliabilityTest
from phystrain.reliability._suite import parse_tests

EXPERIMENTS = Path(__file__).parent / "experiments"


class Part(BaseModel):
    """Base of every part: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TestFile(Part):
    """Labelled structures for errors."""

    __test__ = False  # not a class of tests, whatever pytest thinks of its name

    file: str
    frames: int | None = Field(None, gt=0, description="use only this many, drawn at random; the same for all seeds")


class Starts(Part):
    """Structures that dynamics starts from: the smallest ones of a file, drawn at random among those of one size."""

    file: str | None = Field(None, description="the first test file if not given")
    count: int = Field(4, gt=0)
    atoms: int | None = Field(None, gt=0, description="draw from all structures of at most this size instead")


class Variant(Part):
    """One way of training: a recipe of the package, stages of its own, or the wall time of the others."""

    recipe: str | None = Field(None, description="of phystrain.recipes; the variant's own name if nothing is given")
    stages: list[dict[str, Any]] | None = Field(None, description="as in a run file")
    equal_time: str | None = Field(
        None,
        description="variant that is repeated with more steps, so that it takes as long as the slowest of the others",
    )
    overrides: list[str] = Field([], description="changes of the run file, such as stages.finetune.steps=100")
    about: str = ""

    @model_validator(mode="after")
    def _one_source(self) -> "Variant":
        if sum(source is not None for source in (self.recipe, self.stages, self.equal_time)) > 1:
            raise ValueError("give one of recipe, stages and equal_time")
        return self


class Model(Part):
    """A model trained beforehand on other data; stages that name it as ``{NAME}`` start from it or ask it."""

    train: list[str] = Field(min_length=1)
    labels: int = Field(gt=1, description="labelled structures in all, those for validation included")
    stages: list[dict[str, Any]] = Field(min_length=1, description="as in a run file")


class Experiment(Part):
    """A comparison of variants on one data set. Paths are relative to the folder of the data."""

    name: str
    title: str
    about: str = ""
    train: list[str] = Field(min_length=1)
    tests: dict[str, TestFile] = Field(min_length=1, description="files for errors, by a short name such as 600 K")
    labels: int = Field(gt=1, description="labelled structures in all, those for validation included")
    hold_out: int = Field(
        0, ge=0, description="structures of each training file that are kept for a test of the same file, drawn once"
    )
    withhold: list[Literal["energy", "forces", "stress"]] = Field([], description="labels that training does not see")
    models: dict[str, Model] = Field({}, description="models trained beforehand, once for each seed")
    valid_fraction: float = Field(0.1, ge=0, lt=1)
    seeds: int = Field(3, gt=0, description="each draws its own labelled structures, the same for all variants")
    potential: dict[str, Any]
    recipe: dict[str, Any] = Field({}, description="arguments of phystrain.recipes.stages")
    run: dict[str, Any] = Field({}, description="further settings of the run file")
    variants: dict[str, Variant] = Field(min_length=1)
    temperatures: list[float] = Field([300.0], min_length=1, description="K, that of the training data first")
    starts: Starts = Starts()
    reliability: dict[str, dict[str, Any] | None] = Field({}, description="reliability tests by kind, with settings")
    hottest: float | None = Field(0.25, gt=0, le=1, description="fraction of test frames whose forces are told apart")
    cost: bool = Field(False, description="measure memory and the time of a prediction too")
    compare: Literal["first", "own"] = Field(
        "first",
        description="changes are against the first variant, or against the one whose name this one's continues after "
        "a comma, such as painn for 'painn, PITC'",
    )
    beside: dict[str, list[str]] = Field(
        {}, description="variants of other experiments on the same frames, which tables show first"
    )
    minutes: float | None = Field(None, gt=0, description="guess of the time of one variant and seed, for the plan")

    @model_validator(mode="before")
    @classmethod
    def _empty_variants(cls, settings: Any) -> Any:
        if isinstance(settings, dict) and isinstance(settings.get("variants"), dict):
            variants = {name: {} if value is None else value for name, value in settings["variants"].items()}
            return settings | {"variants": variants}
        return settings

    @model_validator(mode="after")
    def _sound(self) -> "Experiment":
        if "errors" in self.reliability:
            raise ValueError("errors are measured on every file of 'tests': leave them out of 'reliability'")
        for name, variant in self.variants.items():
            if variant.equal_time is not None:
                base = self.variants.get(variant.equal_time)
                if base is None or base.equal_time is not None:
                    raise ValueError(f"variant {name!r}: equal_time names no ordinary variant")
            elif variant.stages is None and (wanted := variant.recipe or name) not in recipes.VARIANTS:
                raise ValueError(f"variant {name!r}: no recipe {wanted!r}; {did_you_mean(wanted, [*recipes.VARIANTS])}")
        if len({slug(name) for name in self.variants}) < len(self.variants):
            raise ValueError("two variants have names that make the same file name")
        parse_tests(self.reliability)
        return self

    def run_settings(self, variant: str, seed: int) -> dict[str, Any]:
        """The run file of an ordinary variant, data by their relative names, without overrides."""
        chosen = self.variants[variant]
        data = {"train": self.train, "use": self.labels, "valid_fraction": self.valid_fraction}
        return {
            "potential": self.potential,
            "stages": chosen.stages or recipes.stages(chosen.recipe or variant, **self.recipe),
            "seed": seed,
            **self.run,
            "data": data | self.run.get("data", {}),
            "reliability": {"enabled": False, "temperatures": self.temperatures},
        }

    @property
    def cuts(self) -> bool:
        """Whether training sees less than is in its files."""
        return bool(self.hold_out or self.withhold)

    def models_of(self, variant: str) -> dict[str, Model]:
        """The models that a variant names."""
        chosen = self.variants[self.variants[variant].equal_time or variant]
        text = json.dumps(chosen.stages)
        return {name: model for name, model in self.models.items() if f'"{{{name}}}"' in text}

    def reliability_tests(self) -> list[ReliabilityTest]:
        """The tests beside errors, cheap ones first."""
        return parse_tests(self.reliability)

    def settings(self, variant: str, seed: int) -> dict[str, Any]:
        """Everything that a result depends on, as plain data: a result with other settings is out of date."""
        chosen = self.variants[variant]
        base = chosen.equal_time or variant
        rare = {  # said only where it is used: older results stay valid
            "hold_out": self.hold_out,
            "withhold": self.withhold,
            "models": {name: model.model_dump() for name, model in self.models_of(variant).items()},
            "cost": self.cost,
        }
        return {name: value for name, value in rare.items() if value} | {
            "run": self.run_settings(base, seed),
            "overrides": [*self.variants[base].overrides, *(chosen.overrides if chosen.equal_time else [])],
            "equal_time": chosen.equal_time is not None,
            "tests": {name: test.model_dump() for name, test in self.tests.items()},
            "hottest": self.hottest,
            "starts": self.starts.model_dump(),
            "reliability": {test.kind: test.model_dump(mode="json") for test in self.reliability_tests()},
        }


def slug(name: str) -> str:
    """A name as part of a file name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-").lower()


def load(name: str, folder: Path = EXPERIMENTS) -> Experiment:
    """Read and check an experiment; with ``extends: other`` it takes what it does not say itself from another.

    ``add`` holds variants beside those of the other one, ``leave_out`` lists those that are not run.

    Raises:
        UserError: no such experiment, or a mistake in it.
    """
    settings = _merged(name, folder, ())
    try:
        return Experiment.model_validate({"title": name, **settings, "name": name})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{folder / name}.yaml: {place}: {first['msg'].removeprefix('Value error, ')}") from error
    except UserError as error:
        raise UserError(f"{folder / name}.yaml: {error}") from error


def names(folder: Path = EXPERIMENTS) -> list[str]:
    """All experiments of a folder; files that begin with an underscore are there to be extended only."""
    return sorted(file.stem for file in folder.glob("*.yaml") if file.stem[0] != "_")


def _merged(name: str, folder: Path, above: tuple[str, ...]) -> dict[str, Any]:
    file = folder / f"{name}.yaml"
    if not file.is_file():
        raise UserError(f"no experiment {name!r}: {did_you_mean(name, names(folder))}")
    if name in above:
        raise UserError(f"{file} extends itself through {', '.join(above)}")
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    base = settings.pop("extends", None)
    added, left_out = settings.pop("add", {}), settings.pop("leave_out", [])
    if base is not None:
        settings = _merge(_merged(base, folder, (*above, name)), settings)
    variants = settings.get("variants", {}) | added
    if unknown := sorted(set(left_out) - set(variants)):
        raise UserError(f"{file}: leave_out: there is no variant {unknown[0]!r}")
    return settings | {"variants": {key: value for key, value in variants.items() if key not in left_out}}


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over`` wins, group by group; variants are taken whole, not mixed."""
    result = dict(base)
    for key, value in over.items():
        inner = result.get(key)
        mixes = isinstance(inner, dict) and isinstance(value, dict) and key not in ("variants", "tests")
        result[key] = _merge(inner, value) if mixes else value
    return result

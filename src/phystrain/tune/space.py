"""What is searched: ranges and choices of settings by dotted path, as a person writes them."""

import re
from dataclasses import dataclass
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from phystrain.errors import UserError

Value = float | int | str | bool | None

METRICS = (
    "energy_and_forces",
    *(f"{label}_{error}" for label in ("energy", "forces", "stress") for error in ("rmse", "mae")),
)
"""Figures that do not depend on the weights of the loss, which are searched; the first is a geometric mean of RMSEs."""

FIXED = ("data", "seed", "reliability", "device", "processes", "precision", "checkpoint_seconds", "tune")
"""Parts of a run file that every trial has alike: else their errors could not be compared."""

_RANGE = re.compile(r"(?:(log|int):)?\s*(\S+?)\s*\.\.\s*(\S+)")


class Search(BaseModel):
    """The section ``tune`` of a run file."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    search: dict[str, str | list[Value]] = Field(
        {}, description="by dotted path: 'low..high', 'log:low..high' or a list of choices; a plain set if empty"
    )
    metric: Literal[METRICS] | None = Field(  # type: ignore[valid-type]  # a tuple of names, as it is above
        None, description="validation figure to lower; energy_and_forces where there are both"
    )
    trials: int = Field(30, gt=0, description="trainings in all, earlier ones in the folder included")
    minutes: float | None = Field(None, gt=0, description="no training begins after so long")
    pruner: Literal["median", "hyperband", "none"] = Field(
        "median", description="how unpromising trainings are ended early"
    )


@dataclass(frozen=True)
class Dimension:
    """One setting that is searched.

    Attributes:
        path: dotted, such as ``stages.finetune.objectives.pitc.weight``.
        low, high: ends of a range.
        log: whether the range is even in the logarithm.
        choices: instead of a range.
    """

    path: str
    low: float | int = 0.0
    high: float | int = 0.0
    log: bool = False
    choices: tuple[Value, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether the range is of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def ends(self) -> tuple[Value, ...]:
        """Values that tell whether the settings allow all of it."""
        return self.choices or (self.low, self.high)

    def holds(self, value: Any) -> bool:
        """Whether a value may be tried."""
        if self.choices:
            return any(value == choice and type(value) is type(choice) for choice in self.choices)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high and (not self.whole or isinstance(value, int))


def parse(path: str, text: str | list[Any]) -> Dimension:
    """A range or choices from what a person wrote.

    Args:
        path: dotted path.
        text: ``0.01..0.1``, ``1..4`` (whole numbers), ``log:1e-3..10``, ``int:1..4``, ``[16, 32]`` or ``16, 32``.

    Raises:
        UserError: not understood, or a setting that must be the same in every trial.
    """
    if path.partition(".")[0] in FIXED or not all(path.split(".")):
        raise UserError(f"search of {path!r}: only settings of stages and potentials can be searched")
    hint = f"search of {path}: write low..high, log:low..high, or choices such as [16, 32, 64]; got {text!r}"
    found = _RANGE.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None:
        return Dimension(path, choices=_choices(text, hint))
    low, high = (_number(part, hint) for part in found.groups()[1:])
    if found[1] == "int" and not (isinstance(low, int) and isinstance(high, int)):
        raise UserError(hint)
    if not low < high or (found[1] == "log" and low <= 0):
        above = " and above zero" if found[1] == "log" else ""
        raise UserError(f"search of {path}: the range {text!r} is empty; let low be below high{above}")
    if not (isinstance(low, int) and isinstance(high, int)):
        low, high = float(low), float(high)
    return Dimension(path, low, high, found[1] == "log")


def parse_option(option: str) -> tuple[str, str]:
    """Path and range of ``PATH=RANGE``.

    Raises:
        UserError: no ``=``.
    """
    path, equals, text = option.partition("=")
    if not equals or not path or not text:
        raise UserError(
            f"--search {option!r} is not understood: write PATH=low..high, such as optimiser... =log:1e-4..1e-2"
        )
    return path.strip(), text.strip()


def _choices(text: str | list[Any], hint: str) -> tuple[Value, ...]:
    try:
        found = yaml.safe_load(f"[{text.strip().strip('[]')}]") if isinstance(text, str) else text
    except yaml.YAMLError as error:
        raise UserError(hint) from error
    found = [_exponent(value) for value in found] if isinstance(found, list) else []
    if len(found) < 2 or not all(value is None or isinstance(value, str | int | float) for value in found):
        raise UserError(hint)
    if any(isinstance(value, str) and ".." in value for value in found):
        raise UserError(hint)
    return tuple(found)


def _exponent(value: Any) -> Any:
    """YAML takes 1e-3 for text, for want of a point."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _number(text: str, hint: str) -> float | int:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError as error:
        raise UserError(hint) from error

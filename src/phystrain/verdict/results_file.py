"""The layout of ``results.json``: what the tests found and what follows from it, for programs to read.

``phystrain schema --results`` prints its JSON schema. The file is JSON in the strict sense: a figure that is not a
number is null, an infinite one is the text ``inf`` or ``-inf``.
"""

import math
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from phystrain.reliability import Curve, Result
from phystrain.verdict.grade import Verdict

VERSION = 2
"""Of the layout. Files of version 1 have no ``version``, no verdict and nothing beside; they are still read."""

_INFINITE = {"inf": math.inf, "-inf": -math.inf}


class Audited(BaseModel):
    """One potential and what was found."""

    model_config = ConfigDict(extra="forbid", title="Audited")

    name: str = Field(description="of the potential")
    description: str = Field("", description="how it was made, in one sentence")
    verdict: Verdict | None = Field(None, description="what the results say together; null where none is given")
    results: list[Result] = Field(description="of the tests, one by one")


class ResultsFile(Audited):
    """Contents of ``results.json``."""

    model_config = ConfigDict(extra="forbid", title="Results of reliability tests")

    version: int = Field(VERSION, ge=1, le=VERSION, description="of this layout")
    program: str = Field("", description="version of phystrain that made it")
    data: str = Field(description="hash of the structures; empty if there were none")
    beside: list[Audited] = Field(
        [], description="others put to the same tests: from the same starts, with the same seeds"
    )


def finite(result: Result) -> Result:
    """The same result without numbers that JSON does not have."""
    return result.model_copy(
        update={
            "figures": {name: _plain(value) for name, value in result.figures.items()},
            "curves": {name: _drawable(curve) for name, curve in result.curves.items()},
        }
    )


def restored(result: Result) -> Result:
    """The other way round; what was not a number stays unknown."""
    figures = {
        name: _INFINITE.get(value, value) if isinstance(value, str) else value for name, value in result.figures.items()
    }
    return result.model_copy(update={"figures": figures})


def _plain(value: Any) -> Any:
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return None if math.isnan(value) else str(value)


def _drawable(curve: Curve) -> Curve:
    """Without points that have no place; values there that are not finite are gaps."""
    kept = [index for index, x in enumerate(curve.x) if math.isfinite(x)]
    lines = {name: getattr(curve, name) for name, field in Curve.model_fields.items() if field.annotation is not str}
    return curve.model_copy(
        update={name: [_number(line[index]) for index in kept] for name, line in lines.items() if line}
    )


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

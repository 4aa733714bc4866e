"""Tests of whether a potential can be trusted, made from the user's own elements, structures and temperatures.

One file is one test. It holds a pydantic ``Config`` (thresholds and sizes) that is called with a :class:`Subject`
and returns a :class:`Result`: raw figures, a threshold, pass or fail, and one sentence.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, ConfigDict
from torch import nn

from phystrain.data.structures import Structures
from phystrain.registry import PluginConfig
from phystrain.statistics import Statistics


@dataclass(frozen=True)
class Subject:
    """A potential under test, and what it is tested on.

    Attributes:
        name: of the potential, for tables.
        potential: in evaluation mode, on the device and in the precision to test.
        statistics: of its training data.
        test: labelled structures that it was not trained on; ``None`` if there are none.
        start: structures from which dynamics starts; ``None`` if there are none.
        temperatures: K, the training temperature first where it is known.
        seed: of velocities and thermostat.
    """

    name: str
    potential: nn.Module
    statistics: Statistics
    test: Structures | None = None
    start: Structures | None = None
    temperatures: tuple[float, ...] = (300.0,)
    seed: int = 0


class Curve(BaseModel):
    """A line to draw: x against y, with names and units on the axes."""

    model_config = ConfigDict(extra="forbid")

    x: list[float]
    y: list[float | None]
    x_label: str
    y_label: str


class Result(BaseModel):
    """What a test found; plain data, so that it can be stored and compared.

    Attributes:
        test: kind of the test, which is its file name.
        title: for people.
        figures: raw numbers by name; the name carries the unit.
        passed: ``None`` where nothing is judged or the test does not apply.
        threshold: the criterion in words, with its source.
        sentence: the finding in one sentence.
        curves: lines to draw, by label.
    """

    model_config = ConfigDict(extra="forbid")

    test: str
    title: str
    figures: dict[str, float | int | str | None] = {}
    passed: bool | None = None
    threshold: str = ""
    sentence: str = ""
    curves: dict[str, Curve] = {}


class ReliabilityTest(PluginConfig):
    """Base of every reliability test.

    Attributes:
        cost: 0 for seconds, 1 for a short dynamics run, 2 for a long one; cheap tests come first.
    """

    cost: ClassVar[int] = 0

    @abstractmethod
    def __call__(self, subject: Subject) -> Result:
        """Put the subject to the test.

        Raises:
            UserError: something the test needs is missing and the user can supply it.
        """

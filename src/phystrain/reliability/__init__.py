"""Tests of whether a potential can be trusted, made from the user's own elements, structures and temperatures.

One file is one test. It holds a pydantic ``Config`` (thresholds and sizes) that is called with a :class:`Subject`
and returns a :class:`Result`: raw figures, a threshold, pass or fail, and one sentence.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict
from torch import nn

from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.reference import Reference
from phystrain.registry import PluginConfig
from phystrain.statistics import Statistics

Figures = dict[str, float | int | str | None]
"""Raw numbers and facts by name; the name carries the unit."""

Grade = Literal["safe", "limited", "unsafe"]
"""What a finding means for someone who runs dynamics: nothing to fear, fit for some conditions, or not to be used."""


@dataclass(frozen=True)
class Subject:
    """A potential under test, and what it is tested on.

    Attributes:
        name: of the potential, for tables.
        potential: in evaluation mode, on the device and in the precision to test.
        statistics: of its training data.
        test: labelled structures that it was not trained on; ``None`` if there are none.
        start: structures from which dynamics starts; ``None`` if there are none.
        temperatures: K, the training temperature first; empty where it is not known.
        seed: of velocities and thermostat.
        train: structures that it was trained on; ``None`` if they are not at hand.
        reference: a trajectory to compare dynamics with; ``None`` if there is none.
    """

    name: str
    potential: nn.Module
    statistics: Statistics
    test: Structures | None = None
    start: Structures | None = None
    temperatures: tuple[float, ...] = ()
    seed: int = 0
    train: Structures | None = None
    reference: Reference | None = None

    @property
    def kelvin(self) -> float:
        """Training temperature.

        Raises:
            UserError: it is not known, and nobody guesses it.
        """
        if not self.temperatures:
            raise UserError(
                "the temperature of the training data is not known: give it with --temperature,\n"
                "or as reliability.temperatures in a run file"
            )
        return self.temperatures[0]


class Curve(BaseModel):
    """A line to draw: x against y, with names and units on the axes, and a band about it if ``low`` is not empty."""

    model_config = ConfigDict(extra="forbid")

    x: list[float]
    y: list[float | None]
    x_label: str
    y_label: str
    low: list[float | None] = []
    high: list[float | None] = []


class Result(BaseModel):
    """What a test found; plain data, so that it can be stored and compared.

    Attributes:
        test: kind of the test, which is its file name.
        title: for people.
        figures: what was measured.
        passed: ``None`` where nothing is judged or the test does not apply.
        threshold: the criterion in words, with its source.
        sentence: the finding in one sentence.
        curves: lines to draw, by label.
        applies: whether the test means anything for this potential and these structures; if not, the sentence says why.
        grade: what the finding means for dynamics; ``None`` where nothing is judged.
        conditions: clauses for the verdict, such as ``O-O below 1.10 Å is unsupported``.
        kelvin: highest temperature at which this test found dynamics to be safe; 0 if none, ``None`` if it cannot say.
        score: from 0 to 1, finer than ``passed``; weights are chosen by it in training; ``None`` if there is none.
    """

    model_config = ConfigDict(extra="forbid")

    test: str
    title: str
    figures: Figures = {}
    passed: bool | None = None
    threshold: str = ""
    sentence: str = ""
    curves: dict[str, Curve] = {}
    applies: bool = True
    grade: Grade | None = None
    conditions: list[str] = []
    kelvin: float | None = None
    score: float | None = None


class ReliabilityTest(PluginConfig):
    """Base of every reliability test.

    Attributes:
        cost: 0 for seconds, 1 for a short dynamics run, 2 for a long one; cheap tests come first.
        level: what it needs: 0 the model and the data alone, 1 dynamics, 2 a reference trajectory or more labels.
        dynamics: whether it moves atoms as a simulation would: only such a test shows that runs live.
        share: of the time for dynamics, relative to that of the other tests that have a field ``picoseconds``.
        shortest: ps, below which a run of this test tells nothing.
        full: ps, as long as published protocols have it; a shorter run is called cut.
        one_run: name of the run that this test looks at with others of the same name; ``None`` if it has its own.
    """

    cost: ClassVar[int] = 0
    level: ClassVar[Literal[0, 1, 2]] = 0
    dynamics: ClassVar[bool] = False
    share: ClassVar[float] = 1.0
    shortest: ClassVar[float] = 0.5
    full: ClassVar[float] = 10.0
    one_run: ClassVar[str | None] = None

    def runs(self, subject: Subject) -> int:  # noqa: ARG002
        """How many structures it moves side by side."""
        return int(getattr(self, "replicas", 0))

    def fixed_steps(self) -> int:
        """Steps that it takes with each of its runs whatever time there is, where it has no ``picoseconds``."""
        return 0

    def runs_unasked(self, subject: Subject) -> bool:  # noqa: ARG002
        """Whether the test runs where none is named: it has what it needs, and a cost in keeping."""
        return True

    @abstractmethod
    def __call__(self, subject: Subject) -> Result:
        """Put the subject to the test.

        Raises:
            UserError: something the test needs is missing and the user can supply it.
        """

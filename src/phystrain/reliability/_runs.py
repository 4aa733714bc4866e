"""What tests in dynamics share: settings, where runs start, and which rungs of a ladder of temperatures hold."""

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from phystrain.data.structures import Structures
from phystrain.dynamics import Settings
from phystrain.dynamics.guards import Guards
from phystrain.errors import UserError
from phystrain.reliability import ReliabilityTest, Subject


class RunTest(ReliabilityTest):
    """Base of tests that run dynamics."""

    cost: ClassVar[int] = 1
    level: ClassVar[Literal[0, 1, 2]] = 1
    dynamics: ClassVar[bool] = True
    picoseconds: float = Field(default=5.0, gt=0, description="length of each run, ps")
    timestep: float | None = Field(default=None, gt=0, description="fs; 1, or 0.5 with hydrogen, if not given")
    replicas: int = Field(default=4, ge=1, description="runs; they take turns over the starting structures")
    guards: Guards = Field(default=Guards(), description="when to stop a run")

    def settings(self, subject: Subject, **more: Any) -> Settings:
        """Of the dynamics, those that the test itself says and ``more``, which win."""
        own = {name: getattr(self, name) for name in ("picoseconds", "timestep", "guards")}
        return Settings(**own | {"seed": subject.seed} | more)


def starts_of(subject: Subject, test: str) -> Structures:
    """The starting structures.

    Args:
        subject: under test.
        test: kind, for the message.

    Raises:
        UserError: there is none.
    """
    if subject.start is None or not len(subject.start):
        raise UserError(f"{test}: there is no structure to start from; name a file with --start")
    return subject.start


def starting(subject: Subject, runs: int, test: str) -> Structures:
    """Starting structures, taken in turn, as many as there are runs.

    Raises:
        UserError: there is none.
    """
    return in_turn(starts_of(subject, test), runs)


def in_turn(structures: Structures, runs: int) -> Structures:
    """As many structures as there are runs, the same ones over and over."""
    return structures.select(np.arange(runs) % len(structures))


def all_runs(count: int) -> str:
    """The subject of a sentence about every run."""
    return f"All {count} runs" if count > 1 else "The only run"


def highest_rung(rungs: Iterable[tuple[float, bool]]) -> float:
    """The highest temperature (K) that holds with every lower one; 0 if the lowest does not.

    Args:
        rungs: temperatures, and whether each holds.
    """
    highest = 0.0
    for kelvin, holds in sorted(rungs):
        if not holds:
            break
        highest = float(kelvin)
    return highest

"""Which weights of a stage are the best so far."""

import math
from dataclasses import dataclass
from typing import Any


@dataclass
class Selection:
    """The best validation so far; what lives comes before what is accurate.

    Attributes:
        step: of the best weights; -1 if there are none.
        metric: their validation figure.
        level: how well they did in the tests of the gate, in whole steps of its tolerance; 0 without a gate.
        lowest: figure of the most accurate weights, whether they live or not; what early stopping looks at.
        waited: validations since that figure last fell.
    """

    step: int = -1
    metric: float = math.inf
    level: int = 0
    lowest: float = math.inf
    waited: int = 0

    def note(self, figure: float, gain: float = 0.0) -> None:
        """Take down the figure of a validation.

        Args:
            figure: of the validation.
            gain: relative fall that counts.
        """
        self.waited = 0 if figure < self.lowest * (1 - gain) else self.waited + 1
        self.lowest = min(self.lowest, figure)

    def takes(self, figure: float, step: int, level: int = 0) -> bool:
        """Whether these weights are better than the best so far; if so they are the best now."""
        if (-level, figure) >= (-self.level, self.metric) and self.step >= 0:
            return False
        if not math.isfinite(figure):
            return False
        self.step, self.metric, self.level = step, figure, level
        return True

    def state(self) -> dict[str, Any]:
        """As plain data; JSON has no infinity."""
        return {name: value if math.isfinite(value) else None for name, value in vars(self).items()}

    @classmethod
    def of(cls, state: dict[str, Any]) -> "Selection":
        """From plain data."""
        known: dict[str, Any] = {name: math.inf if value is None else value for name, value in state.items()}
        return cls(**known)


def level_of(score: float, tolerance: float) -> int:
    """A score in whole steps of the tolerance; what is on the same step is as good.

    A comparison of differences would not be transitive, and the choice would depend on the order.
    """
    return round(score / tolerance)

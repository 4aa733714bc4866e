"""Up to which temperature dynamics stays physical: the thermostat is heated steadily until runs break off.

A ramp as in mlip-arena's heating task (Chiang et al. 2025, arXiv 2509.20630), from the training temperature of the
user's own structures, with the stop rules of :mod:`phystrain.dynamics.guards` following the target.
"""

from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from phystrain.data.structures import Floats
from phystrain.dynamics import Trajectory, simulate
from phystrain.reliability import Curve, Figures, Grade, Result, Subject
from phystrain.reliability._runs import RunTest, all_runs, starting


class Config(RunTest):
    """Temperature at which dynamics fails when it is heated steadily."""

    kind: Literal["heating"] = "heating"
    share: ClassVar[float] = 1.5
    temperature: float | None = Field(
        default=None, gt=0, description="K at the start; the first of the subject's if not given"
    )
    highest: float = Field(default=8.0, gt=1, description="multiple of the first temperature reached at the end")
    required: float = Field(
        default=2.0, ge=1, description="multiple of the first temperature that every run must reach"
    )
    unsafe: float = Field(
        default=1.25, ge=1, description="multiple of the first temperature below which a failure means unsafe"
    )
    friction: float = Field(default=0.01, gt=0, description="of the thermostat, 1/fs")

    def __call__(self, subject: Subject) -> Result:
        """Heat ``subject.start``.

        Raises:
            UserError: there is no structure to start from.
        """
        return self.judge(self.run(subject))

    def run(self, subject: Subject) -> Trajectory:
        """The dynamics, all replicas side by side."""
        at_first = starting(subject, self.replicas, self.kind)
        first = self.temperature or subject.kelvin
        return simulate(
            subject.potential,
            at_first,
            self.settings(subject, ensemble="nvt", temperature=first, friction=self.friction, record_interval=50),
            final_temperatures=np.full(self.replicas, self.highest * first),
            description=f"heating of {subject.name}",
        )

    def judge(self, run: Trajectory) -> Result:
        """What a trajectory of :meth:`run` says."""
        first = float(run.temperatures[0])
        reached = first * (1 + (self.highest - 1) * run.steps / run.settings.n_steps)
        lowest = float(reached.min())
        figures: Figures = {
            "first temperature, K": first,
            "highest temperature, K": self.highest * first,
            "length, ps": run.settings.picoseconds,
            "time step, fs": run.settings.step,
            "heating rate, K/ps": (self.highest - 1) * first / run.settings.picoseconds,
            "runs": len(reached),
            "reached the end": float(run.survived.mean()),
            "mean temperature reached, K": float(reached.mean()),
            "lowest temperature reached, K": lowest,
        }
        earliest = int(np.where(run.survived, np.inf, reached).argmin())
        grade: Grade = "unsafe" if lowest < self.unsafe * first else "limited"
        hasty = bool(run.survived.all()) and run.settings.picoseconds < self.shortest
        conditions = [] if run.survived.all() else [f"heating above {lowest:.0f} K is unsupported"]
        return Result(
            test=self.kind,
            title="Heating",
            figures=figures | {"earliest failure": run.sentences[earliest]},
            passed=None if hasty else lowest >= self.required * first,
            threshold=f"every run reaches {self.required:g} times the first temperature, {self.required * first:g} K",
            sentence=(
                f"{all_runs(len(reached))} reached {self.highest * first:g} K"
                + (f", which in {run.settings.picoseconds:g} ps proves nothing." if hasty else ".")
                if run.survived.all()
                else f"{int((~run.survived).sum())} of {len(reached)} runs failed on the way to "
                f"{self.highest * first:g} K, the earliest at {lowest:.0f} K: {run.sentences[earliest]}."
            ),
            curves={"heating": running_curve(reached, run.survived, first, self.highest * first)},
            grade=None if hasty else "safe" if lowest >= self.required * first else grade,
            conditions=conditions,
            # a ramp passes each temperature in no time: where it fails is a bound, and what it reaches shows nothing
            kelvin=None if hasty or lowest >= self.required * first else lowest,
        )


def running_curve(reached: Floats, survived: npt.NDArray[np.bool_], first: float, last: float) -> Curve:
    """Fraction of runs still going against the target temperature, as steps.

    Args:
        reached: (runs,) K, target temperature at which each run ended.
        survived: (runs,) whether it came to the end of the ramp.
        first, last: K, ends of the ramp.
    """
    failures = np.sort(reached[~survived])
    after = 1 - np.arange(len(failures) + 1) / len(reached)
    return Curve(
        x=[first, *np.repeat(failures, 2).tolist(), last],
        y=np.repeat(after, 2).tolist(),
        x_label="temperature of the thermostat, K",
        y_label="fraction of runs surviving",
    )

"""How long a potential survives in hot dynamics: many runs, each stopped as soon as it is unphysical."""

from collections import Counter
from pathlib import Path
from typing import ClassVar, Literal

import ase.io
import numpy as np
from pydantic import Field

from phystrain.data.structures import Floats, Structures
from phystrain.dynamics import Settings, Trajectory, replicate, simulate
from phystrain.errors import UserError
from phystrain.files import write_with
from phystrain.guards import Guards
from phystrain.reliability import Curve, ReliabilityTest, Result, Subject


class Config(ReliabilityTest):
    """Survival in Langevin dynamics at and above the training temperature."""

    kind: Literal["survival"] = "survival"
    cost: ClassVar[int] = 2
    level: ClassVar[Literal[0, 1, 2]] = 1
    temperatures: tuple[float, ...] | None = Field(
        default=None, description="K; if not given the subject's, or multiples of its only one"
    )
    multiples: tuple[float, ...] = Field(default=(1.0, 1.5, 2.0), min_length=1, description="of the only temperature")
    replicas: int = Field(
        default=4, ge=1, description="runs at each temperature; they take turns over the starting structures"
    )
    picoseconds: float = Field(default=10.0, gt=0, description="length of each run, ps")
    timestep: float | None = Field(default=None, gt=0, description="fs; 1, or 0.5 with hydrogen, if not given")
    friction: float = Field(default=0.01, gt=0, description="of the thermostat, 1/fs")
    guards: Guards = Field(default=Guards(), description="when to stop a run")
    required: float = Field(
        default=1.0, ge=0, le=1, description="fraction of runs that must survive, at each temperature"
    )
    frames_to: Path | None = Field(
        default=None, description="extended-XYZ file for the failing frames: the next structures to label"
    )

    def __call__(self, subject: Subject) -> Result:
        """Run from ``subject.start``.

        Raises:
            UserError: there is no structure to start from, or the frames cannot be written.
        """
        run = self.run(subject)
        if self.frames_to is not None and not run.survived.all():
            write_frames(self.frames_to, run.failing)
        return self.judge(run, subject.seed)

    def run(self, subject: Subject) -> Trajectory:
        """The dynamics: all temperatures and replicas side by side, sorted by temperature."""
        start = subject.start
        if start is None or not len(start):
            raise UserError("survival: there is no structure to start from; name a file with --start")
        kelvin = self._temperatures(subject)
        at_one = replicate(start, -(-self.replicas // len(start))).select(np.arange(self.replicas))
        settings = Settings(
            ensemble="nvt",
            timestep=self.timestep,
            picoseconds=self.picoseconds,
            friction=self.friction,
            record_interval=50,
            seed=subject.seed,
            guards=self.guards,
        )
        return simulate(
            subject.potential,
            replicate(at_one, len(kelvin)),
            settings,
            temperatures=np.repeat(kelvin, self.replicas),
            # replicas of one number get the same random stream at every temperature: differences are the temperature's
            keys=np.tile(np.arange(self.replicas), len(kelvin)).tolist(),
            description=f"hot dynamics of {subject.name}",
        )

    def judge(self, run: Trajectory, seed: int = 0) -> Result:
        """What a trajectory of :meth:`run` says."""
        figures: dict[str, float | int | str | None] = {
            "time step, fs": run.settings.step,
            "length, ps": self.picoseconds,
            "runs": len(run.reasons),
            "survived": float(run.survived.mean()),
        }
        curves, lost = {}, []
        passed = True
        for kelvin in np.unique(run.temperatures).tolist():
            at = run.temperatures == kelvin
            survived, times = run.survived[at], run.picoseconds[at]
            fraction = float(survived.mean())
            low, high = bootstrap_interval(times, seed)
            figures |= {
                f"survived at {kelvin:g} K": fraction,
                f"median survival at {kelvin:g} K, ps": median_survival(times, survived),
                f"mean survival at {kelvin:g} K, ps": float(times.mean()),
                f"mean survival at {kelvin:g} K, 95 % interval, ps": f"{low:.2f} to {high:.2f}",
                f"failures at {kelvin:g} K": _counted(run, at),
            }
            curves[f"{kelvin:g} K"] = survival_curve(times, survived, self.picoseconds)
            passed = passed and fraction >= self.required
            if not survived.all():
                lost.append(f"{int((~survived).sum())} of {len(times)} at {kelvin:g} K")
        earliest = run.sentences[int(np.where(run.survived, np.inf, run.picoseconds).argmin())]
        return Result(
            test=self.kind,
            title="Survival in hot dynamics",
            figures=figures,
            passed=passed,
            threshold=f"at least {100 * self.required:g} % of the runs survive {self.picoseconds:g} ps",
            sentence=(
                f"Runs lost: {', '.join(lost)}; the earliest: {earliest}."
                if lost
                else f"All {len(run.reasons)} runs of {self.picoseconds:g} ps survived."
            ),
            curves=curves,
            score=min(1.0, float(run.picoseconds.mean()) / self.picoseconds),
        )

    def _temperatures(self, subject: Subject) -> Floats:
        if self.temperatures is not None:
            return np.asarray(self.temperatures)
        if len(subject.temperatures) > 1:
            return np.asarray(subject.temperatures)
        return subject.temperatures[0] * np.asarray(self.multiples)


def median_survival(times: Floats, survived: np.ndarray) -> float | None:
    """Time (ps) after which half of the runs have failed; ``None`` if half or more survived."""
    failures = np.sort(times[~survived])
    needed = -(-len(times) // 2)
    return float(failures[needed - 1]) if len(failures) > len(times) / 2 else None


def survival_curve(times: Floats, survived: np.ndarray, length: float) -> Curve:
    """Fraction of runs still going against time, as steps (Kaplan, Meier 1958; no run is lost from sight early)."""
    failures = np.sort(times[~survived])
    x, y = [0.0], [1.0]
    for number, moment in enumerate(failures.tolist(), start=1):
        x += [moment, moment]
        y += [y[-1], 1 - number / len(times)]
    return Curve(x=[*x, length], y=[*y, y[-1]], x_label="time, ps", y_label="fraction of runs surviving")


def bootstrap_interval(times: Floats, seed: int, draws: int = 2000) -> tuple[float, float]:
    """95 % interval of the mean survival time within the length of the runs, ps."""
    generator = np.random.default_rng(seed)
    means = generator.choice(times, size=(draws, len(times))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def write_frames(path: Path | str, frames: Structures) -> None:
    """Write failing frames as extended XYZ, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    write_with(path, lambda temporary: ase.io.write(temporary, list(frames.frames()), format="extxyz"))


def _counted(run: Trajectory, at: np.ndarray) -> str:
    """Failures by reason, with one example each; empty if there are none."""
    numbers = np.flatnonzero(at & ~run.survived)
    counts = Counter(run.reasons[number] for number in numbers)
    examples = {run.reasons[number]: run.sentences[number] for number in numbers[::-1]}
    return "; ".join(f"{count} x {reason} ({examples[reason]})" for reason, count in counts.most_common())

"""How long a potential survives in hot dynamics: many runs, each stopped as soon as it is unphysical.

What runs that survive prove is said with them: N runs of t ps without a failure bound the rate of failures, not exclude
them. Failing frames are kept, with reason, time and temperature: they are the next ones to compute.
"""

from collections import Counter
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import ase.io
import numpy as np
from pydantic import Field

from phystrain.data.structures import Floats, Structures
from phystrain.dynamics import Trajectory, replicate, simulate
from phystrain.files import write_with
from phystrain.reliability import Curve, Figures, Result, Subject
from phystrain.reliability._kaplan_meier import Survival, kaplan_meier, largest_rate
from phystrain.reliability._runs import RunTest, all_runs, highest_rung, starting


class Config(RunTest):
    """Survival in Langevin dynamics at and above the training temperature."""

    kind: Literal["survival"] = "survival"
    cost: ClassVar[int] = 2
    share: ClassVar[float] = 4.0
    full: ClassVar[float] = 20.0
    temperatures: tuple[float, ...] | None = Field(
        default=None, description="K; if not given the subject's, or multiples of its only one"
    )
    multiples: tuple[float, ...] = Field(default=(1.0, 1.5, 2.0), min_length=1, description="of the only temperature")
    replicas: int = Field(
        default=4, ge=1, description="runs at each temperature; they take turns over the starting structures"
    )
    picoseconds: float = Field(default=10.0, gt=0, description="length of each run, ps")
    friction: float = Field(default=0.01, gt=0, description="of the thermostat, 1/fs")
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
        return self.judge(run, subject.seed, subject.temperatures[0] if subject.temperatures else None)

    def runs(self, subject: Subject) -> int:
        """Replicas at every temperature."""
        return self.replicas * len(self._temperatures(subject))

    def run(self, subject: Subject) -> Trajectory:
        """The dynamics: all temperatures and replicas side by side, sorted by temperature."""
        at_one = starting(subject, self.replicas, self.kind)
        kelvin = self._temperatures(subject)
        return simulate(
            subject.potential,
            replicate(at_one, len(kelvin)),
            self.settings(subject, ensemble="nvt", friction=self.friction, record_interval=50),
            temperatures=np.repeat(kelvin, self.replicas),
            # replicas of one number get the same random stream at every temperature: differences are the temperature's
            keys=np.tile(np.arange(self.replicas), len(kelvin)).tolist(),
            description=f"hot dynamics of {subject.name}",
        )

    def judge(self, run: Trajectory, seed: int = 0, training: float | None = None) -> Result:
        """What a trajectory of :meth:`run` says.

        Args:
            run: sorted by temperature.
            seed: of the bootstrap.
            training: K, temperature of the training data; the lowest of the run if not given.
        """
        figures: Figures = {
            "time step, fs": run.settings.step,
            "length, ps": run.settings.picoseconds,
            "runs": len(run.reasons),
            "survived": float(run.survived.mean()),
        }
        rungs = [self._rung(run, kelvin, seed) for kelvin in np.unique(run.temperatures).tolist()]
        highest = highest_rung((rung.kelvin, rung.holds) for rung in rungs)
        figures["highest temperature of survival, K"] = highest
        for rung in rungs:
            figures |= rung.figures
        broken = [rung for rung in rungs if not rung.holds]
        trained_at = rungs[0].kelvin if training is None else training
        lost_there = highest == 0 or any(rung.kelvin <= trained_at for rung in broken)
        return Result(
            test=self.kind,
            title="Survival in hot dynamics",
            figures=figures,
            passed=not broken,
            threshold=f"at least {100 * self.required:g} % of the runs survive {run.settings.picoseconds:g} ps",
            sentence=self._sentence(run, rungs, highest),
            curves={f"{rung.kelvin:g} K": rung.curve for rung in rungs},
            grade="safe" if not broken else "unsafe" if lost_there else "limited",
            conditions=[rung.clause for rung in broken[:1]],
            kelvin=highest,
            score=min(1.0, float(run.picoseconds.mean()) / run.settings.picoseconds),
        )

    def _rung(self, run: Trajectory, kelvin: float, seed: int) -> "Rung":
        """What the runs at one temperature say."""
        at = run.temperatures == kelvin
        failed, times = ~run.survived[at], run.picoseconds[at]
        estimate = kaplan_meier(times, failed)
        median, earliest, latest = estimate.median
        low, high = bootstrap_interval(times, seed)
        rate = largest_rate(int(failed.sum()), float(times.sum()))
        length = run.settings.picoseconds
        figures: Figures = {
            f"survived at {kelvin:g} K": float(1 - failed.mean()),
            f"95 % interval of survival at {kelvin:g} K": f"{estimate.low[-1]:.2f} to {estimate.high[-1]:.2f}",
            f"median survival at {kelvin:g} K, ps": median,
            f"mean survival at {kelvin:g} K, ps": float(times.mean()),
            f"mean survival at {kelvin:g} K, 95 % interval, ps": f"{low:.2f} to {high:.2f}",
            f"largest failure rate at {kelvin:g} K (95 %), 1/ps": rate,
            f"failures at {kelvin:g} K": _counted(run, at),
        }
        if median is not None:
            ends = (f"> {length:g}" if end is None else f"{end:.2f}" for end in (earliest, latest))
            figures[f"95 % interval of the median at {kelvin:g} K, ps"] = " to ".join(ends)
        holds = bool(1 - failed.mean() >= self.required)
        reasons = Counter(run.reasons[number] for number in np.flatnonzero(at & ~run.survived))
        clause = (
            f"dynamics at {kelvin:g} K is unsupported: {int(failed.sum())} of {len(times)} runs of {length:g} ps failed"
        )
        if reasons:
            clause += f" ({reasons.most_common(1)[0][0]})"
        return Rung(kelvin, holds, int(failed.sum()), rate, figures, survival_curve(estimate, length), clause)

    def _sentence(self, run: Trajectory, rungs: list["Rung"], highest: float) -> str:
        """What happened, and what it proves."""
        lost = [f"{rung.failed} of {self.replicas} at {rung.kelvin:g} K" for rung in rungs if rung.failed]
        first = run.sentences[int(np.where(run.survived, np.inf, run.picoseconds).argmin())]
        whole = f"{all_runs(len(run.reasons))} of {run.settings.picoseconds:g} ps survived."
        sentence = f"Runs lost: {', '.join(lost)}; the earliest: {first}." if lost else whole
        held = next((rung for rung in rungs if rung.kelvin == highest), None)
        if held is None or held.failed:
            return sentence
        return (
            f"{sentence} At {highest:g} K that proves, with 95 % confidence, less than one failure in "
            f"{1 / held.rate:.2g} ps (rule of three), and no more."
        )

    def _temperatures(self, subject: Subject) -> Floats:
        if self.temperatures is not None:
            return np.asarray(self.temperatures, dtype=np.float64)
        if len(subject.temperatures) > 1:
            return np.asarray(subject.temperatures, dtype=np.float64)
        return subject.kelvin * np.asarray(self.multiples)


class Rung(NamedTuple):
    """Runs at one temperature.

    Attributes:
        kelvin: K.
        holds: whether as many survived as must.
        failed: how many did not.
        rate: 1/ps, below which the rate of failures is with 95 % confidence.
        figures: by name.
        curve: fraction alive against time.
        clause: for the verdict, where it does not hold.
    """

    kelvin: float
    holds: bool
    failed: int
    rate: float
    figures: Figures
    curve: Curve
    clause: str


def survival_curve(estimate: Survival, length: float) -> Curve:
    """Fraction of runs still going against time, with its interval, as steps up to the end of the runs (ps)."""

    def steps(values: Floats) -> list[float | None]:
        return [*np.repeat(values, 2).tolist()]

    x = [0.0, *np.repeat(estimate.times[1:], 2).tolist(), length]
    return Curve(
        x=x,
        y=steps(estimate.fraction),
        x_label="time, ps",
        y_label="fraction of runs surviving",
        low=steps(estimate.low),
        high=steps(estimate.high),
    )


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

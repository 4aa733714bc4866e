"""Whether the total energy stays constant in dynamics without a thermostat.

The drift ratio and the slope of the total energy as in mlipaudit's energy-conservation benchmark; the start of the
run is dropped as in LAMBench. A slope from noise alone is small against the kinetic energy's own fluctuation.
"""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from phystrain.data.structures import Floats, Structures
from phystrain.dynamics import Settings, Trajectory, replicate, simulate
from phystrain.errors import UserError
from phystrain.guards import Guards
from phystrain.reliability import Curve, ReliabilityTest, Result, Subject


class Config(ReliabilityTest):
    """Energy conservation in NVE dynamics."""

    kind: Literal["drift"] = "drift"
    cost: ClassVar[int] = 1
    level: ClassVar[Literal[0, 1, 2]] = 1
    temperature: float | None = Field(default=None, gt=0, description="K; the first of the subject's if not given")
    picoseconds: float = Field(default=5.0, gt=0, description="length of the run, ps")
    timestep: float | None = Field(default=None, gt=0, description="fs; 1, or 0.5 with hydrogen, if not given")
    replicas: int = Field(default=2, ge=1, description="runs; they take turns over the starting structures")
    discard: float = Field(default=0.2, ge=0, lt=0.9, description="fraction of the run dropped at its start")
    halving: bool = Field(default=True, description="repeat the first part with half the time step")
    limit: float = Field(default=1.0, gt=0, description="largest drift ratio")
    guards: Guards = Field(default=Guards(), description="when to stop a run")

    def __call__(self, subject: Subject) -> Result:
        """Run from ``subject.start``.

        Raises:
            UserError: there is no structure to start from.
        """
        start = _start(subject.start, self.replicas)
        settings = Settings(
            ensemble="nve",
            temperature=self.temperature or subject.temperatures[0],
            timestep=self.timestep,
            picoseconds=self.picoseconds,
            record_interval=1,
            seed=subject.seed,
            guards=self.guards,
        )
        run = simulate(subject.potential, start, settings, description=f"energy conservation of {subject.name}")
        slopes, ratios = np.array([self._slope(run, number, start.sizes) for number in range(len(start))]).T
        figures: dict[str, float | int | str | None] = {
            "temperature, K": settings.temperature,
            "time step, fs": run.settings.step,
            "length, ps": self.picoseconds,
            "runs": len(start),
            "runs completed": int(run.survived.sum()),
            "slope, meV/atom/ps": _largest(slopes),
            "drift ratio": _largest(ratios),
        }
        if self.halving:
            figures["fluctuation ratio dt to dt/2"] = self._halved(subject, start, run)
        passed: bool | None = bool(run.survived.all() and np.abs(ratios).max() < self.limit)
        if run.survived.all() and not np.isfinite(ratios).all():
            passed = None  # too short to tell
        return Result(
            test=self.kind,
            title="Energy conservation",
            figures=figures,
            passed=passed,
            threshold=f"drift ratio |slope| t / std(E_kin) < {self.limit:g}, every run complete (mlipaudit)",
            sentence=_sentence(run, slopes, ratios),
            curves={f"run {number + 1}": _curve(run, number, start.sizes) for number in range(min(len(start), 4))},
        )

    def _slope(self, run: Trajectory, number: int, sizes: np.ndarray) -> tuple[float, float]:
        """Slope of the total energy, meV/atom/ps, and drift ratio of one run, as far as it went."""
        total = run.potential[:, number] + run.kinetic[:, number]
        known = np.flatnonzero(np.isfinite(total))
        known = known[int(self.discard * len(known)) :]
        if len(known) < 10:
            return np.nan, np.nan
        slope = np.polyfit(run.times[known], total[known], 1)[0]
        spread = np.std(run.kinetic[known, number])
        length = run.times[known[-1]] - run.times[known[0]]
        return 1000 * slope / sizes[number], abs(slope) * length / max(spread, 1e-12)

    def _halved(self, subject: Subject, start: Structures, run: Trajectory) -> float | None:
        """How much less the total energy fluctuates with half the time step; 4 for a smooth energy surface."""
        halved = run.settings.model_copy(
            update={"timestep": run.settings.step / 2, "picoseconds": min(self.picoseconds, 1.0)}
        )
        finer = simulate(subject.potential, start, halved, description="the same, half the time step")
        if not finer.survived.all():
            return None
        ratios = []
        for number in range(len(start)):
            coarse_total = (run.potential + run.kinetic)[: len(finer.times[::2]), number]
            fine_total = (finer.potential + finer.kinetic)[::2, number]
            if not np.isfinite(coarse_total).all():
                return None
            ratios.append(_fluctuation(coarse_total) / max(_fluctuation(fine_total), 1e-15))
        return float(np.median(ratios))


def _start(structures: Structures | None, replicas: int) -> Structures:
    """Starting structures, taken in turn, as many as there are replicas."""
    if structures is None or not len(structures):
        raise UserError("drift: there is no structure to start from; name a file with --start")
    return replicate(structures, -(-replicas // len(structures))).select(np.arange(replicas))


def _fluctuation(total: Floats) -> float:
    """RMS deviation (eV) from a straight line, so that a drift does not count as fluctuation."""
    steps = np.arange(len(total))
    return float(np.std(total - np.polyval(np.polyfit(steps, total, 1), steps)))


def _largest(values: Floats) -> float | None:
    """The value of largest size; ``None`` where one of them could not be determined."""
    if not np.isfinite(values).all():
        return None
    return float(values[np.abs(values).argmax()])


def _curve(run: Trajectory, number: int, sizes: np.ndarray, points: int = 500) -> Curve:
    total = 1000 * (run.potential[:, number] + run.kinetic[:, number]) / sizes[number]
    chosen = np.unique(np.linspace(0, len(total) - 1, points).astype(int))
    change = total[chosen] - total[0]
    return Curve(
        x=run.times[chosen].tolist(),
        y=[float(value) if np.isfinite(value) else None for value in change],
        x_label="time, ps",
        y_label="change of the total energy, meV/atom",
    )


def _sentence(run: Trajectory, slopes: Floats, ratios: Floats) -> str:
    if not run.survived.all():
        first = next(sentence for sentence in run.sentences if sentence)
        return f"{int((~run.survived).sum())} of {len(run.reasons)} runs broke off: {first}."
    slope, ratio = _largest(slopes), _largest(ratios)
    if slope is None or ratio is None:
        return "The run was too short to tell a drift."
    return f"Total energy drifts by {slope:.2g} meV/atom/ps, drift ratio {ratio:.2g} over {run.times[-1]:g} ps."

"""Whether the total energy stays constant in dynamics without a thermostat.

The drift ratio and the slope of the total energy as in mlipaudit's energy-conservation benchmark; the start of the
run is dropped as in LAMBench. A slope from noise alone is small against the kinetic energy's own fluctuation.

Velocity Verlet errs by the square of the time step, so the fluctuation of the total energy falls fourfold when the step
is halved (Merz, Shirts 2018, doi:10.1371/journal.pone.0202764, section on integrators). Where it does not, the fault is
not the integrator's: energies that jump, forces that are no gradient, or too few digits.

What a drift means: dynamics at constant energy is not to be trusted. A thermostat carries the heat away, and with
friction g, the atoms are hotter than set by slope / (3 k g), which is bearable up to a point.
"""

from typing import ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from phystrain.data.structures import Floats
from phystrain.dynamics import Trajectory, simulate
from phystrain.reliability import Curve, Figures, Grade, Result, Subject
from phystrain.reliability._runs import RunTest, highest_rung, starting
from phystrain.reliability._static import evenly
from phystrain.units import BOLTZMANN

_FEWEST = 20
"""Records below which no slope is fitted."""

_BLOCKS = 5
"""Parts of a run that are left out in turn, for the error of its slope."""


class Config(RunTest):
    """Energy conservation in NVE dynamics."""

    kind: Literal["drift"] = "drift"
    share: ClassVar[float] = 2.0
    full: ClassVar[float] = 20.0
    temperature: float | None = Field(default=None, gt=0, description="K; the first of the subject's if not given")
    multiples: tuple[float, ...] = Field(default=(1.0, 2.0), min_length=1, description="of that temperature")
    replicas: int = Field(default=2, ge=1, description="runs of each kind; they take turns over the structures")
    discard: float = Field(default=0.2, ge=0, lt=0.9, description="fraction of the run dropped at its start")
    halving: bool = Field(default=True, description="also run half as long with half the time step")
    limit: float = Field(default=1.0, gt=0, description="largest drift ratio")
    fall: float = Field(
        default=2.0, gt=0, description="least fall of the fluctuation at half the step; 4 for a smooth surface"
    )
    negligible: float = Field(
        default=1e-3, ge=0, description="fluctuation over that of the kinetic energy below which its fall is not judged"
    )
    friction: float = Field(default=0.01, gt=0, description="1/fs, of the thermostat that is to carry heat away")
    bearable: float = Field(
        default=0.1, gt=0, description="rise of the temperature under that thermostat, as a fraction, that is unsafe"
    )

    def runs(self, subject: Subject) -> int:  # noqa: ARG002
        """Replicas of every temperature and time step."""
        return self.replicas * len(self.multiples) * (2 if self.halving else 1)

    def __call__(self, subject: Subject) -> Result:
        """Run from ``subject.start``.

        Raises:
            UserError: there is no structure to start from, or no temperature.
        """
        return self.judge(self.run(subject))

    def run(self, subject: Subject) -> Trajectory:
        """The dynamics of all temperatures and time steps side by side; those of half the step end at half the time."""
        first = self.temperature or subject.kelvin
        kinds = len(self.multiples) * (2 if self.halving else 1)
        start = starting(subject, self.replicas, self.kind)
        start = start.select(np.tile(np.arange(self.replicas), kinds))
        settings = self.settings(subject, ensemble="nve", record_interval=1)
        step = settings.step_of(start.species)
        kelvin = np.repeat(first * np.array(self.multiples), self.replicas)
        return simulate(
            subject.potential,
            start,
            settings,
            temperatures=np.tile(kelvin, 2 if self.halving else 1),
            timesteps=np.repeat([step, step / 2][: 2 if self.halving else 1], len(kelvin)),
            # the same velocities at both time steps
            keys=np.tile(np.arange(self.replicas), kinds).tolist(),
            description=f"energy conservation of {subject.name}",
        )

    def judge(self, run: Trajectory) -> Result:
        """What a trajectory of :meth:`run` says."""
        rungs = [self._rung(run, kelvin) for kelvin in np.unique(run.temperatures).tolist()]
        base = rungs[0]
        figures: Figures = {
            "temperature, K": base.kelvin,
            "time step, fs": run.settings.step,
            "length, ps": run.settings.picoseconds,
            "runs": len(run.reasons),
            "runs completed": int(run.survived.sum()),
            "slope, meV/atom/ps": base.slope,
            "slope error, meV/atom/ps": base.error,
            "drift ratio": base.ratio,
        }
        if self.halving:
            figures["fluctuation ratio dt to dt/2"] = base.fall
        for rung in rungs:
            figures |= rung.figures
        known = [rung for rung in rungs if rung.ratio is not None]
        drifting = [rung for rung in known if rung.ratio is not None and rung.ratio >= self.limit]
        rough = [rung for rung in rungs if self._is_rough(rung)]
        broken = [rung for rung in rungs if not rung.complete]
        unbearable = [rung for rung in rungs if not rung.complete or self._is_heated(rung)]
        passed: bool | None = not (drifting or rough or broken)
        if passed and len(known) < len(rungs):
            passed = None  # too short to tell
        # a finding at the training temperature itself is worse than one at twice that
        grade: Grade | None = "safe" if passed else None if passed is None else "limited"
        if base in unbearable:
            grade = "unsafe"
        return Result(
            test=self.kind,
            title="Energy conservation",
            figures=figures,
            passed=passed,
            threshold=(
                f"drift ratio |slope| t / std(E_kin) < {self.limit:g} (mlipaudit), every run complete; fluctuation "
                f"falls by {self.fall:g} or more at half the step, 4 in theory (Merz, Shirts 2018)"
            ),
            sentence=_sentence(run, rungs, drifting, rough),
            curves={rung.name: rung.curve for rung in rungs},
            grade=grade,
            conditions=self._conditions(drifting, rough, broken, run.settings.step),
            # without a fault it says nothing about hotter runs: that is for longer ones to find
            kelvin=highest_rung((rung.kelvin, rung not in unbearable) for rung in rungs) if unbearable else None,
        )

    def _rung(self, run: Trajectory, kelvin: float) -> "Rung":
        """All runs at one temperature."""
        at = run.temperatures == kelvin
        coarse = np.flatnonzero(at & (run.timesteps == run.settings.step)).tolist()
        fine = np.flatnonzero(at & (run.timesteps < run.settings.step)).tolist()
        slopes = [self._slope(run, number) for number in coarse]
        halved = [self._slope(run, number) for number in fine]
        worst, worst_halved = _worst(slopes), _worst(halved)
        fluctuation = [self._fluctuation(run, one, other) for one, other in zip(coarse, fine, strict=False)]
        fall, share = (np.median(fluctuation, axis=0).tolist()) if fluctuation else (None, None)
        fall, share = (None if value is None or not np.isfinite(value) else value for value in (fall, share))
        heating = None if worst is None else abs(worst.slope) / (3000 * BOLTZMANN * 1000 * self.friction)
        return Rung(
            kelvin=kelvin,
            complete=bool(run.survived[at].all()),
            slope=None if worst is None else worst.slope,
            error=None if worst is None else worst.error,
            ratio=None if worst is None else worst.ratio,
            halved=None if worst_halved is None else worst_halved.ratio,
            fall=fall,
            share=share,
            heating=heating,
            figures={
                f"slope at {kelvin:g} K, meV/atom/ps": None if worst is None else worst.slope,
                f"slope at {kelvin:g} K and half the step, meV/atom/ps": worst_halved and worst_halved.slope,
                f"drift ratio at {kelvin:g} K": None if worst is None else worst.ratio,
                f"drift ratio at {kelvin:g} K and half the step": worst_halved and worst_halved.ratio,
                f"fluctuation at {kelvin:g} K, dt to dt/2": fall,
                f"fluctuation at {kelvin:g} K over that of the kinetic energy": share,
                f"heating at {kelvin:g} K with friction {1000 * self.friction:g}/ps, K": heating,
            },
            curve=_curve(run, coarse[0]),
        )

    def _slope(self, run: Trajectory, number: int) -> "Slope | None":
        """Of the total energy of one run, as far as it went."""
        total = run.potential[:, number] + run.kinetic[:, number]
        known = np.flatnonzero(np.isfinite(total))
        known = known[int(self.discard * len(known)) :]
        if len(known) < _FEWEST:
            return None
        times = run.times[known] * run.timesteps[number] / run.settings.step
        slope, error = slope_with_error(times, total[known])
        spread = max(float(np.std(run.kinetic[known, number])), 1e-12)
        to_atoms = 1000 / run.final.sizes[number]
        return Slope(slope * to_atoms, error * to_atoms, abs(slope) * float(times[-1] - times[0]) / spread)

    def _fluctuation(self, run: Trajectory, coarse: int, fine: int) -> tuple[float, float]:
        """How much less the total energy fluctuates with half the step, and how much over the kinetic energy's.

        Over the same time from the same start, a picosecond at most: later, drift bends what is taken for a line.
        """
        total = run.potential + run.kinetic
        count = min((len(total) - 1) // 2 + 1, int(1000 / run.settings.step) + 1)
        at_step, at_half = total[:count, coarse], total[: 2 * count - 1 : 2, fine]
        if count < _FEWEST or not (np.isfinite(at_step).all() and np.isfinite(at_half).all()):
            return np.nan, np.nan
        size = fluctuation(at_step)
        kinetic = max(float(np.std(run.kinetic[:count, coarse])), 1e-12)
        return size / max(fluctuation(at_half), 1e-15), size / kinetic

    def _is_rough(self, rung: "Rung") -> bool:
        """Whether the fluctuation does not fall with the time step, and is large enough to tell."""
        if rung.fall is None or rung.share is None:
            return False
        return rung.fall < self.fall and rung.share > self.negligible

    def _is_heated(self, rung: "Rung") -> bool:
        """Whether the atoms would be hotter under a thermostat than is bearable."""
        return rung.heating is not None and bool(rung.heating >= self.bearable * rung.kelvin)

    def _conditions(
        self, drifting: list["Rung"], rough: list["Rung"], broken: list["Rung"], timestep: float
    ) -> list[str]:
        if broken:
            return [f"dynamics at constant energy breaks off at {broken[0].kelvin:g} K"]
        if not drifting and not rough:
            return []
        worst = (drifting or rough)[0]
        if drifting and not rough and worst.halved is not None and worst.halved < self.limit:
            return [f"dynamics at constant energy needs a time step below {timestep:g} fs at {worst.kelvin:g} K"]
        return [f"dynamics at constant energy (NVE) is unsupported at {worst.kelvin:g} K; use a thermostat"]


class Slope(NamedTuple):
    """Of one run: meV/atom/ps, its error, and the drift ratio."""

    slope: float
    error: float
    ratio: float


class Rung(NamedTuple):
    """The worst of the runs at one temperature.

    Attributes:
        kelvin: K.
        complete: whether all runs came to their end.
        slope, error: meV/atom/ps; ``None`` where a run was too short.
        ratio, halved: drift ratios at the time step and at half of it.
        fall: of the fluctuation when the step is halved.
        share: fluctuation of the total energy over that of the kinetic energy.
        heating: K above the set temperature under a thermostat; ``None`` where a run was too short.
        figures: by name.
        curve: total energy of the first run.
    """

    kelvin: float
    complete: bool
    slope: float | None
    error: float | None
    ratio: float | None
    halved: float | None
    fall: float | None
    share: float | None
    heating: float | None
    figures: Figures
    curve: Curve

    @property
    def name(self) -> str:
        """For curves."""
        return f"{self.kelvin:g} K"


def slope_with_error(times: Floats, values: Floats) -> tuple[float, float]:
    """Slope of a straight line and its standard error, by leaving out a part of the run at a time (jackknife).

    Neighbouring values are correlated, so that the usual error of a fit would be far too small.

    Args:
        times: (records,) ps.
        values: (records,) eV.
    """
    slope = float(np.polyfit(times, values, 1)[0])
    parts = np.array_split(np.arange(len(times)), _BLOCKS)
    left = [np.polyfit(np.delete(times, part), np.delete(values, part), 1)[0] for part in parts]
    spread = np.sqrt((_BLOCKS - 1) / _BLOCKS * np.sum((np.array(left) - np.mean(left)) ** 2))
    return slope, float(spread)


def fluctuation(total: Floats) -> float:
    """RMS deviation (eV) from a straight line, so that a drift does not count as fluctuation."""
    steps = np.arange(len(total))
    return float(np.std(total - np.polyval(np.polyfit(steps, total, 1), steps)))


def _worst(slopes: list[Slope | None]) -> Slope | None:
    """The one with the largest drift ratio; ``None`` where one of them could not be determined."""
    known = [slope for slope in slopes if slope is not None]
    return max(known, key=lambda slope: slope.ratio) if known and len(known) == len(slopes) else None


def _curve(run: Trajectory, number: int, points: int = 500) -> Curve:
    total = 1000 * (run.potential[:, number] + run.kinetic[:, number]) / run.final.sizes[number]
    chosen = evenly(len(total), points)
    change = total[chosen] - total[0]
    return Curve(
        x=run.times[chosen].tolist(),
        y=[float(value) if np.isfinite(value) else None for value in change],
        x_label="time, ps",
        y_label="change of the total energy, meV/atom",
    )


def _sentence(run: Trajectory, rungs: list[Rung], drifting: list[Rung], rough: list[Rung]) -> str:
    if not run.survived.all():
        first = next(sentence for sentence in run.sentences if sentence)
        return f"{int((~run.survived).sum())} of {len(run.reasons)} runs broke off: {first}."
    worst = max(drifting, key=lambda rung: rung.ratio or 0) if drifting else rungs[0]
    if worst.slope is None or worst.ratio is None or worst.error is None:
        return "The run was too short to tell a drift."
    sentence = (
        f"Total energy drifts by {worst.slope:.2g} ± {worst.error:.1g} meV/atom/ps at {worst.kelvin:g} K, drift ratio "
        f"{worst.ratio:.2g} over {run.settings.picoseconds:g} ps."
    )
    if rough:
        sentence += (
            f" Its fluctuation falls by {rough[0].fall:.2g} instead of 4 at half the time step: energies jump, forces "
            "are no gradient, or digits are lost."
        )
    return sentence

"""Up to which pressure dynamics stays physical: cells follow a pressure that rises until runs break off.

A ramp as in mlip-arena's compression task (Chiang et al. 2025, arXiv 2509.20630; 0 to 500 GPa there, in 10 ps), up to
a pressure that a user of the potential may meet. Unlike the static scan of :mod:`phystrain.reliability.compression`
the atoms are hot, and the cell shrinks by itself: holes are found where dynamics would find them.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from phystrain.data.structures import Structures
from phystrain.derive import gives_stress
from phystrain.dynamics import Trajectory, simulate
from phystrain.dynamics.barostat import Barostat
from phystrain.reliability import Curve, Figures, Grade, Result, Subject
from phystrain.reliability._runs import RunTest, all_runs, in_turn, starts_of
from phystrain.units import GPA

TITLE = "Compression in dynamics"


class Config(RunTest):
    """Pressure at which dynamics fails when it is raised steadily."""

    kind: Literal["squeeze"] = "squeeze"
    temperature: float | None = Field(default=None, gt=0, description="K; the first of the subject's if not given")
    highest: float = Field(default=20.0, gt=0, description="GPa at the end of the ramp, which starts at 0")
    required: float | None = Field(
        default=None, gt=0, description="GPa that every run must reach; the end of the ramp if not given"
    )
    unsafe: float = Field(
        default=1.0,
        ge=0,
        description="GPa below which a failure means unsafe: small cells swing that far by themselves",
    )
    friction: float = Field(default=0.01, gt=0, description="of the thermostat, 1/fs")
    relaxation: float = Field(default=50.0, gt=0, description="fs in which the volume follows the pressure")
    smallest: float = Field(
        default=0.3, gt=0, lt=1, description="volume over that at the start that counts as collapse"
    )
    largest: float = Field(default=2.0, gt=1, description="volume over that at the start that counts as burst")
    replicas: int = Field(default=2, ge=1, description="runs; they take turns over the starting structures")

    def runs(self, subject: Subject) -> int:
        """Replicas that start from structures with a volume."""
        if subject.start is None or not subject.start.pbc.all(axis=1).any():
            return 0
        return self.replicas

    def __call__(self, subject: Subject) -> Result:
        """Squeeze the periodic structures of ``subject.start``.

        Raises:
            UserError: there is no structure to start from, or no temperature.
        """
        if not gives_stress(subject.potential):
            return self._not_applicable("the potential gives no stress")
        start = starts_of(subject, self.kind)
        start = start.select(start.pbc.all(axis=1))
        if not len(start):
            return self._not_applicable("no structure is periodic in all three directions, so there is no pressure")
        return self.judge(self.run(subject, in_turn(start, self.replicas)), subject.train)

    def run(self, subject: Subject, start: Structures) -> Trajectory:
        """The dynamics, all runs side by side."""
        settings = self.settings(
            subject,
            ensemble="nvt",
            temperature=self.temperature or subject.kelvin,
            friction=self.friction,
            record_interval=5,
            barostat=Barostat(
                pressure=0.0,
                final_pressure=self.highest,
                relaxation=self.relaxation,
                smallest=self.smallest,
                largest=self.largest,
            ),
        )
        return simulate(subject.potential, start, settings, description=f"compression of {subject.name}")

    def judge(self, run: Trajectory, train: Structures | None = None) -> Result:
        """What a trajectory of :meth:`run` says.

        Args:
            run: with a barostat.
            train: structures whose stresses tell which pressures the potential was shown.
        """
        assert run.volume is not None and run.pressure is not None  # noqa: PT018
        target = self.highest * run.steps / run.settings.n_steps
        # soft cells lag behind the ramp: what counts is the pressure that was in them
        reached = np.minimum(target, [_peak(column) for column in run.pressure.T])
        lowest = float(reached.min())
        required = self.highest if self.required is None else self.required
        shown = _pressures(train)
        known = np.flatnonzero(np.isfinite(run.volume[0])).tolist()  # others failed before the first record
        ends = [_last(run.volume[:, number]) / run.volume[0, number] for number in known]
        figures: Figures = {
            "temperature, K": float(run.temperatures[0]),
            "highest pressure, GPa": self.highest,
            "length, ps": run.settings.picoseconds,
            "time step, fs": run.settings.step,
            "runs": len(run.steps),
            "reached the end": float(run.survived.mean()),
            "lowest pressure at failure, GPa": None if run.survived.all() else float(reached[~run.survived].min()),
            "lowest pressure reached, GPa": lowest,
            _VOLUME: float(np.mean(ends)) if ends else None,
            "highest pressure in the training data, GPa": shown,
        }
        earliest = int(np.where(run.survived, np.inf, reached).argmin())
        conditions = [] if run.survived.all() else [f"pressures above {reached[earliest]:.2g} GPa are unsupported"]
        lost = int((~run.survived).sum())
        passed: bool | None = bool((reached >= np.where(run.survived, _ENOUGH, 1.0) * required).all())
        if not passed and not lost:
            passed = None  # the ramp was too fast for these cells to tell
        grade: Grade | None = "unsafe" if lowest < self.unsafe else "limited"
        return Result(
            test=self.kind,
            title=TITLE,
            figures=figures | {"earliest failure": run.sentences[earliest]},
            passed=passed,
            threshold=f"every run reaches {required:g} GPa",
            sentence=(
                f"{lost} of {len(run.steps)} runs failed on the way to {self.highest:g} GPa, the earliest at "
                f"{reached[earliest]:.2g} GPa: {run.sentences[earliest]}."
                if lost
                else f"{all_runs(len(run.steps))} survived to {lowest:.2g} GPa, at {figures[_VOLUME]:.2f} of the volume"
                + ("." if passed else f"; the ramp to {self.highest:g} GPa was too fast: give picoseconds.")
            ),
            curves={f"run {number + 1}": _curve(run, number) for number in known[:4]},
            grade="safe" if passed else None if passed is None else grade,
            conditions=conditions,
        )

    def _not_applicable(self, reason: str) -> Result:
        return Result(test=self.kind, title=TITLE, applies=False, sentence=f"Does not apply: {reason}.")


_ENOUGH = 0.8
"""Part of the pressure asked for that must have been in the cells of runs that survived."""

_VOLUME = "volume at the end over that at the start"


def _pressures(train: Structures | None) -> float | None:
    """GPa, the highest among labelled stresses."""
    if train is None or not train.labelled("stress").any():
        return None
    stress = train.stress[train.labelled("stress")]
    return float((-np.trace(stress, axis1=1, axis2=2) / 3 / GPA).max())


def _peak(values: np.ndarray) -> float:
    """Largest mean over a twentieth of a run: single records swing by GPa. Zero for one that failed at once."""
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0
    width = max(1, len(known) // 20)
    return float(np.convolve(known, np.full(width, 1 / width), "valid").max())


def _last(values: np.ndarray) -> float:
    """Mean of the last twentieth of a run, as far as it went."""
    known = values[np.isfinite(values)]
    return float(known[-max(1, len(known) // 20) :].mean())


def _curve(run: Trajectory, number: int, points: int = 100) -> Curve:
    """Volume against pressure, both averaged over neighbouring records."""
    assert run.volume is not None and run.pressure is not None  # noqa: PT018
    known = np.flatnonzero(np.isfinite(run.volume[:, number]))
    parts = np.array_split(known, min(points, len(known)))
    volume = [float(run.volume[part, number].mean() / run.volume[0, number]) for part in parts]
    pressure = [float(run.pressure[part, number].mean()) for part in parts]
    return Curve(x=pressure, y=[*volume], x_label="pressure, GPa", y_label="volume over that at the start")

"""One run of the potential beside reference frames, shared by all tests that compare the two.

With a reference trajectory the run starts from frames of it, at its temperature, and stores frames as far apart as
the reference's; otherwise the reference is the labelled frames of the test data that have the same atoms as a starting
structure and nearly its density, which should come from dynamics at the temperature of the test. Tests of equal
settings share the run.

The Langevin thermostat is weak beside a trajectory, because friction slows diffusion and blurs vibrations: at 0.0005/fs
by two or three per cent in a liquid. What thermostat the reference had is its own affair.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import nn

from phystrain.data.structures import Floats, Structures
from phystrain.dynamics import Settings, Trajectory, simulate
from phystrain.errors import UserError
from phystrain.reference import unwrapped
from phystrain.reliability import Figures, Result, Subject
from phystrain.reliability._runs import RunTest, in_turn, starts_of
from phystrain.uncertainty.ensemble import digest

FINEST = {True: 1.5, False: 3.0}
"""fs between frames, with and without hydrogen; finer frames of a reference are skipped, vibrations need none."""

WEAK = 0.0005
"""1/fs, friction of the thermostat beside a trajectory."""


@dataclass(frozen=True)
class Compared:
    """A run and what to compare it with.

    Attributes:
        run: with frames.
        burn_in: fraction of the run's steps to drop.
        reference: frames of the same atoms.
        interval: fs between frames, of the run and of the reference; ``None`` if the reference is no trajectory.
        kelvin: temperature of both.
    """

    run: Trajectory
    burn_in: float
    reference: Structures
    interval: float | None
    kelvin: float

    def frames(self, most: int) -> Structures | None:
        """About ``most`` frames of each run after the burn-in and before a guard stopped it; ``None`` if none."""
        assert self.run.settings.frame_interval is not None
        stored = self.run.settings.n_steps * (1 - self.burn_in) / self.run.settings.frame_interval
        return frames_of(self.run, self.burn_in, max(1, math.ceil(stored / most)))

    def reference_frames(self, most: int) -> Structures:
        """About ``most`` frames of the reference, evenly spread."""
        return self.reference.select(np.arange(0, len(self.reference), max(1, math.ceil(len(self.reference) / most))))

    def halves(self, most: int) -> tuple[Structures, Structures]:
        """Two halves of the reference's frames: the earlier and the later, or every other where there is no order."""
        frames = self.reference_frames(most)
        if self.interval is None:
            return frames.select(np.arange(0, len(frames), 2)), frames.select(np.arange(1, len(frames), 2))
        middle = len(frames) // 2
        return frames.select(np.arange(middle)), frames.select(np.arange(middle, len(frames)))

    def paths(self) -> tuple[list[Floats], Floats]:
        """(frames, atoms, 3) Å of each run after the burn-in, as far as it went, and of the reference; not wrapped."""
        assert self.run.frames is not None
        assert self.run.settings.frame_interval is not None
        steps = np.arange(len(self.run.frames)) * self.run.settings.frame_interval
        offsets = self.run.final.offsets
        ours = []
        for number in range(len(self.run.reasons)):
            kept = (steps >= self.burn_in * self.run.settings.n_steps) & (steps <= last_sound_step(self.run, number))
            ours.append(self.run.frames[kept, offsets[number] : offsets[number + 1]])
        return ours, unwrapped(self.reference)

    @property
    def species(self) -> np.ndarray:
        """(atoms,) of one frame."""
        return self.reference.species[: self.reference.sizes[0]]

    @property
    def figures(self) -> Figures:
        """What the comparison rests on."""
        return {
            "temperature, K": self.kelvin,
            "length, ps": self.run.settings.picoseconds,
            "runs": len(self.run.reasons),
            "runs completed": int(self.run.survived.sum()),
            "reference frames": len(self.reference),
        }

    @property
    def lost(self) -> str:
        """Of the runs that broke off, for a sentence; empty if none did."""
        if self.run.survived.all():
            return ""
        first = next(sentence for sentence in self.run.sentences if sentence)
        return f" {int((~self.run.survived).sum())} of {len(self.run.reasons)} runs broke off ({first})."


class ReferenceRun(RunTest):
    """Base of what looks at dynamics beside reference frames; see the module.

    Attributes:
        title: for people.
        needs_order: the test means something beside a trajectory only, not beside labelled frames.
    """

    level: ClassVar[Literal[0, 1, 2]] = 2
    cost: ClassVar[int] = 2
    one_run: ClassVar[str | None] = "reference"
    title: ClassVar[str]
    needs_order: ClassVar[bool] = True
    temperature: float | None = Field(
        default=None,
        gt=0,
        description="K, beside labelled frames: the first of the subject's if not given; a trajectory has its own",
    )
    picoseconds: float = Field(default=4.0, gt=0, description="length of each run, ps")
    burn_in: float = Field(default=0.25, ge=0, lt=1, description="fraction of the run dropped at its start")
    frames: int = Field(default=100, ge=1, description="frames of each run that are looked at, where order is nothing")
    friction: float | None = Field(
        default=None, gt=0, description="of the thermostat, 1/fs; 0.01, or 0.0005 beside a trajectory, if not given"
    )
    density: float = Field(default=0.05, gt=0, description="relative difference of volume allowed to labelled frames")
    fewest: int = Field(default=10, ge=2, description="labelled frames without which nothing is compared")

    def runs_unasked(self, subject: Subject) -> bool:
        if subject.reference is not None:
            return True
        return not self.needs_order and subject.test is not None and subject.start is not None

    def compare(self, subject: Subject) -> Compared | str:
        """Run the potential beside the reference, or say why there is nothing to compare with.

        Raises:
            UserError: there is no reference, or no structure to start from.
        """
        reference = subject.reference
        if reference is not None:
            frames = reference.frames
            hydrogen = bool((frames.species == 1).any())
            stride = max(1, int(FINEST[hydrogen] / reference.interval + 1e-6))
            frames = frames.select(np.arange(0, len(frames), stride))
            interval = stride * reference.interval
            start = frames.select(np.linspace(0, len(frames) - 1, self.replicas).astype(int))
            longest = Settings(timestep=self.timestep).step_of(frames.species)
            inside = max(1, math.ceil(interval / longest - 1e-6))  # steps from one frame to the next
            run = self.run(subject, start, reference.temperature, interval / inside, inside, WEAK)
            return Compared(run, self.burn_in, frames, interval, reference.temperature)
        if self.needs_order:
            raise UserError(f"{self.kind}: there is no reference trajectory; give one with --reference FILE")
        starts = starts_of(subject, self.kind)
        if subject.test is None or not len(subject.test):
            raise UserError(f"{self.kind}: there are no frames to compare with; give a test set, or keep some aside")
        start, frames = matching(starts, subject.test, self.density)
        if len(frames) < self.fewest:
            return (
                f"{len(frames)} test structures have the atoms and the density of a starting structure, "
                f"at least {self.fewest} are needed"
            )
        kelvin = self.temperature or subject.kelvin
        step = Settings(timestep=self.timestep).step_of(start.species)
        steps = max(1, round(self.picoseconds * 1000 / step))
        every = max(1, math.ceil(steps * (1 - self.burn_in) / self.frames))
        run = self.run(subject, start, kelvin, step, every, 0.01)
        return Compared(run, self.burn_in, frames, None, kelvin)

    def run(
        self, subject: Subject, start: Structures, kelvin: float, step: float, every: int, friction: float
    ) -> Trajectory:
        """The dynamics, with stored frames; the last run is kept, for the next test.

        Args:
            subject: whose potential runs.
            start: structures over which the replicas take turns.
            kelvin: of the thermostat.
            step: fs.
            every: steps between stored frames.
            friction: 1/fs, if none is set.
        """
        settings = self.settings(
            subject,
            ensemble="nvt",
            temperature=kelvin,
            timestep=step,
            friction=self.friction or friction,
            record_interval=50,
            frame_interval=every,
        )
        begin = in_turn(start, self.replicas).without_labels()
        # the same module may be trained on between two tests
        weights = digest(subject.potential.state_dict())
        return _simulated(subject.potential, weights, _Start(begin.digest(), begin), settings, subject.name)


class ComparedTest(ReferenceRun):
    """Base of the tests that compare such a run with its reference, and of nothing else."""

    def __call__(self, subject: Subject) -> Result:
        """Run the potential beside ``subject.reference``, or from ``subject.start`` beside ``subject.test``.

        Raises:
            UserError: there is no structure to start from or to compare with.
        """
        result = Result(test=self.kind, title=self.title, threshold=self.criterion())
        if (reason := self.unfit(subject)) is not None:
            return result.model_copy(update={"applies": False, "sentence": reason})
        compared = self.compare(subject)
        if isinstance(compared, str):
            return result.model_copy(update={"sentence": f"Not done: {compared}."})
        return self.judged(compared, result)

    def criterion(self) -> str:
        """When the test passes, in words, with its source, as far as that is known before the run."""
        return "nothing to judge"

    def unfit(self, subject: Subject) -> str | None:  # noqa: ARG002
        """Why the test means nothing for these structures, in a sentence; ``None`` if it does."""
        return None

    @abstractmethod
    def judged(self, compared: Compared, result: Result) -> Result:
        """What a run beside its reference says.

        Args:
            compared: both.
            result: to complete.
        """


@dataclass(frozen=True)
class _Start:
    """Structures that compare by their content."""

    digest: str
    structures: Structures = field(compare=False)


@lru_cache(maxsize=1)
def _simulated(potential: nn.Module, weights: str, start: _Start, settings: Settings, name: str) -> Trajectory:  # noqa: ARG001
    return simulate(potential, start.structures, settings, description=f"dynamics of {name} beside the reference")


def last_sound_step(run: Trajectory, number: int) -> int:
    """Last step of a structure that no guard objected to."""
    return int(run.steps[number]) - (run.reasons[number] is not None)


def frames_of(run: Trajectory, burn_in: float, every: int = 1) -> Structures | None:
    """The stored frames of all structures after the burn-in, before any guard stopped them; ``None`` if none is left.

    Args:
        run: with frames.
        burn_in: fraction of the run's steps to drop.
        every: of so many of the rest, one is kept.
    """
    assert run.frames is not None
    assert run.settings.frame_interval is not None
    steps = np.arange(len(run.frames)) * run.settings.frame_interval
    parts = []
    for number in range(len(run.reasons)):
        kept = np.flatnonzero((steps > burn_in * run.settings.n_steps) & (steps <= last_sound_step(run, number)))
        kept = kept[::every]
        atoms = slice(run.final.offsets[number], run.final.offsets[number + 1])
        if len(kept):
            copies = run.final.select(np.full(len(kept), number))
            parts.append(replace(copies, positions=run.frames[kept, atoms].reshape(-1, 3), info={}))
    return Structures.concatenate(parts) if parts else None


def matching(start: Structures, test: Structures, density: float) -> tuple[Structures, Structures]:
    """The starting structures of the composition with most labelled frames, and those frames.

    Args:
        start, test: to choose from.
        density: relative difference of volume allowed.
    """
    kinds: dict[tuple[object, ...], list[int]] = {}
    for number in range(len(start)):
        kinds.setdefault(_kind(start, number), []).append(number)
    wanted = [_kind(test, number) for number in range(len(test))]
    best = (start.select([0]), test.select([]))
    for kind, members in kinds.items():
        same = np.flatnonzero([other == kind for other in wanted])
        if start.pbc[members[0]].all():
            volume = np.median(volumes(start.select(members)))
            same = same[np.abs(volumes(test.select(same)) / volume - 1) <= density]
        if len(same) > len(best[1]):
            best = (start.select(members), test.select(same))
    return best


def _kind(structures: Structures, number: int) -> tuple[object, ...]:
    """What structures must share to be compared: periodic directions and atoms."""
    part = slice(structures.offsets[number], structures.offsets[number + 1])
    return (*structures.pbc[number].tolist(), *np.sort(structures.species[part]).tolist())


def volumes(structures: Structures) -> Floats:
    """(systems,) Å³."""
    return np.abs(np.linalg.det(structures.cell))

"""Result files, and which trainings there are to do."""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from benchmarks.reproduce.experiment import Experiment, slug
from phystrain.errors import UserError
from phystrain.reliability._suite import parse_tests

RESULTS = Path(__file__).parents[1] / "results" / "reproduce"


@dataclass(frozen=True)
class Job:
    """One training with its tests.

    Attributes:
        experiment: what it belongs to.
        variant: way of training.
        seed: of frames, weights and dynamics.
    """

    experiment: Experiment
    variant: str
    seed: int

    @property
    def name(self) -> str:
        """Of files and folders."""
        return f"{slug(self.variant)}-{self.seed}"

    def file(self, results: Path) -> Path:
        """Where its result is."""
        return results / self.experiment.name / f"{self.name}.json"

    def load(self, results: Path) -> dict[str, Any] | None:
        """Its result, or ``None``."""
        file = self.file(results)
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def state(self, results: Path) -> str:
        """``done``, ``to do``, or ``out of date`` if the experiment has been changed since."""
        found = self.load(results)
        if found is None:
            return "to do"
        wanted = json.loads(json.dumps(self.experiment.settings(self.variant, self.seed)))
        return "done" if _with_new_fields(found["settings"]) == wanted else "out of date"

    def others(self) -> list["Job"]:
        """Jobs whose wall time this one needs to know: none for an ordinary variant."""
        if self.experiment.variants[self.variant].equal_time is None:
            return []
        ordinary = [name for name, variant in self.experiment.variants.items() if variant.equal_time is None]
        return [Job(self.experiment, name, self.seed) for name in ordinary]


def _with_new_fields(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a result with the defaults of fields that reliability tests have got since it was made."""
    try:
        tests = parse_tests(settings["reliability"])
    except (UserError, ValidationError):
        return settings  # of a test that is no more what it was
    return settings | {"reliability": {test.kind: test.model_dump(mode="json") for test in tests}}


def all_jobs(experiments: list[Experiment]) -> list[Job]:
    """Complete sets of variants for one seed first, so that a comparison is fair whenever it is stopped."""
    return [
        Job(experiment, variant, seed)
        for seed in range(max((experiment.seeds for experiment in experiments), default=0))
        for experiment in experiments
        if seed < experiment.seeds
        # those that need the time of the others come after them
        for variant in sorted(experiment.variants, key=lambda name: experiment.variants[name].equal_time is not None)
    ]


def training_seconds(result: dict[str, Any]) -> float:
    """Wall time of all stages."""
    return float(sum(result["seconds"].values()))


def more_steps(job: Job, results: Path) -> float:
    """Factor by which an equal-time variant trains longer than the one it repeats: never less than 1."""
    times = {other.variant: training_seconds(other.load(results) or {"seconds": {}}) for other in job.others()}
    base = times[str(job.experiment.variants[job.variant].equal_time)]
    return max(1.0, max(times.values()) / base) if base > 0 else 1.0


def expected_minutes(job: Job, results: Path) -> float | None:
    """From finished seeds of the same variant, else the experiment's own guess, else its other variants."""
    found: dict[str, list[float]] = {}
    for other in all_jobs([job.experiment]):
        if (result := other.load(results)) is not None:
            wall = training_seconds(result) + sum(result["test_seconds"].values())
            found.setdefault(other.variant, []).append(wall / 60)
    if job.variant in found:
        return statistics.median(found[job.variant])
    if job.experiment.minutes is not None or not found:
        return job.experiment.minutes
    return max(statistics.median(times) for times in found.values())

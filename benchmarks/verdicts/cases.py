"""Cases that were listed beforehand: the verdict of a short audit, and what runs ten times as long show."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmarks.reproduce import experiment as experiments
from benchmarks.reproduce.experiment import Experiment, Starts
from benchmarks.reproduce.job import choose_starts, run_config
from benchmarks.reproduce.results import RESULTS as REPRODUCED
from benchmarks.reproduce.results import Job
from benchmarks.reproduce.training import processor_seconds, train
from benchmarks.verdicts.results import RESULTS, audited, store
from phystrain import registry
from phystrain.data.read import read
from phystrain.data.structures import Structures
from phystrain.data.write import write
from phystrain.reliability import Subject
from phystrain.saving import load_model
from phystrain.verdict.audited import smallest

PLAN = Path(__file__).with_name("cases.yaml")
TRUTH_SEED = 1000
"""Added to the seed of a case: dynamics that the audit has not seen."""


class Case(NamedTuple):
    """One training, its verdict and the truth.

    Attributes:
        experiment: of benchmarks.reproduce.
        variant: way of training.
        seed: of frames, weights and dynamics.
        timestep: fs, of all dynamics.
        expect: good or bad; a guess.
        settings: lengths, numbers of runs and the ladder, the same for all cases.
    """

    experiment: Experiment
    variant: str
    seed: int
    timestep: float
    expect: str
    settings: dict[str, Any]

    @property
    def job(self) -> Job:
        """The training."""
        return Job(self.experiment, self.variant, self.seed)

    @property
    def file(self) -> Path:
        """Where its result is."""
        return RESULTS / f"{self.experiment.name}-{self.job.name}.json"

    @property
    def kelvin(self) -> float:
        """Temperature that the ladder counts from."""
        return self.experiment.temperatures[0]

    @property
    def ladder(self) -> list[float]:
        """K, the rungs above none."""
        return [self.kelvin * multiple for multiple in self.settings["multiples"]]

    @property
    def described(self) -> dict[str, Any]:
        """All that its result depends on: a result with another description is made anew."""
        return {
            "experiment": self.experiment.name,
            "variant": self.variant,
            "seed": self.seed,
            "timestep": self.timestep,
            "expect": self.expect,
            "ladder": self.ladder,
            **self.settings,
        }

    def load(self) -> dict[str, Any]:
        """Its result so far."""
        found = json.loads(self.file.read_text(encoding="utf-8")) if self.file.is_file() else {}
        return found if found.get("case") == self.described else {"case": self.described}


def cases() -> list[Case]:
    """Those that are listed."""
    plan = yaml.safe_load(PLAN.read_text(encoding="utf-8"))
    listed = plan.pop("cases")
    return [Case(**case | {"experiment": experiments.load(case["experiment"])}, settings=plan) for case in listed]


def run_case(case: Case, data: Path, work: Path) -> None:
    """Train, audit and look at the truth, each unless it is done."""
    result = case.load()
    folder = work / case.experiment.name / case.job.name
    if "truth" in result:
        return
    if not (folder / "run" / "model" / "model.safetensors").is_file():
        config, _ = run_config(case.job, data, work, REPRODUCED, print)
        train(config, folder / "run", folder / "seconds.json", print)
    starts = _starts(case, data)
    if "verdict" not in result:
        file = folder / "starts.xyz"
        write(starts, file)
        options = ["--start", str(file), "--temperature", f"{case.kelvin:g}", "--alone"]
        options += ["--picoseconds", f"{case.settings['picoseconds']:g}", "--timestep", f"{case.timestep:g}"]
        options += ["--replicas", str(case.settings["replicas"]["verdict"])]
        result["verdict"] = audited([str(folder / "run"), *options], folder / "audit")
        store(case.file, result)
    result["truth"] = truth(case, folder, starts)
    store(case.file, result)


def _starts(case: Case, data: Path) -> Structures:
    """Structures that dynamics starts from: as in the experiment, but fewer."""
    experiment = case.experiment
    source = read(data / (experiment.starts.file or next(iter(experiment.tests.values())).file)).structures
    return choose_starts(source, Starts(count=case.settings["starts"], atoms=experiment.starts.atoms))


def truth(case: Case, folder: Path, starts: Structures) -> dict[str, Any]:
    """What longer runs at every rung of the ladder show."""
    model = load_model(folder / "run")
    subject = Subject(
        name=case.job.name,
        potential=model.potential,
        statistics=model.statistics,
        start=smallest(starts),
        temperatures=(case.kelvin,),
        seed=TRUTH_SEED + case.seed,
    )
    settings = {
        "multiples": case.settings["multiples"],
        "picoseconds": case.settings["longer"] * case.settings["picoseconds"],
        "replicas": case.settings["replicas"]["truth"],
        "timestep": case.timestep,
    }
    began = processor_seconds()
    result = registry.parse("reliability", {"kind": "survival", **settings})(subject)
    return {
        "survival, K": result.kelvin,
        "survived": {f"{kelvin:g}": result.figures[f"survived at {kelvin:g} K"] for kelvin in case.ladder},
        "mean survival, ps": {
            f"{kelvin:g}": result.figures[f"mean survival at {kelvin:g} K, ps"] for kelvin in case.ladder
        },
        "sentence": result.sentence,
        "seconds": round(processor_seconds() - began, 1),
    }

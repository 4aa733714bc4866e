"""One training with its tests, in a process of its own: ``python -m benchmarks.reproduce.job``.

Stopped half way, the same command goes on: training from its checkpoint, tests from the first that is not stored.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.reproduce import experiment as experiments
from benchmarks.reproduce.cost import peak_memory, prediction_time
from benchmarks.reproduce.experiment import Starts, slug
from benchmarks.reproduce.material import held_out, start_models, training_files, with_models
from benchmarks.reproduce.results import Job, more_steps
from benchmarks.reproduce.training import processor_seconds, train
from phystrain import config as run_file
from phystrain import registry
from phystrain.config import RunConfig
from phystrain.data.read import read
from phystrain.data.statistics import isolated
from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.files import write_text
from phystrain.reliability import Result, Subject
from phystrain.saving import load_model
from phystrain.train.folder import versions

CURVES = ("survival", "heating")
"""Tests whose curves are kept in the result file."""


def perform(
    job: Job,
    *,
    data: Path,
    work: Path,
    results: Path,
    compiled: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train and test; write the result file.

    Args:
        job: what to do.
        data: folder of the data sets.
        work: folder for run folders.
        results: folder of result files.
        compiled: whether the steps of every training are compiled, which changes times and rounding: for a whole
            experiment or not at all.
        say: told what happens.

    Returns:
        The content of the result file.
    """
    folder = work / job.experiment.name / job.name
    settings = json.loads(json.dumps(job.experiment.settings(job.variant, job.seed)))
    _same_or_new(folder, settings)
    config, before = run_config(job, data, work, results, say, compiled=compiled)
    seconds = before | train(config, folder / "run", folder / "seconds.json", say)
    memory = peak_memory()
    found = _test(job, data, folder, say)
    result = {
        "experiment": job.experiment.name,
        "variant": job.variant,
        "seed": job.seed,
        "settings": settings,
        "steps": {stage.name: stage.steps for stage in config.stages if stage.steps is not None},
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "test_seconds": {name: round(item["seconds"], 1) for name, item in found.items()},
        "figures": {name: item["figures"] for name, item in found.items()},
        "passed": {name: item["passed"] for name, item in found.items() if item["passed"] is not None},
        "curves": {name: item["curves"] for name, item in found.items() if item["curves"]},
        "versions": versions() | {"compiled": compiled},
    }
    if job.experiment.cost:
        model = load_model(folder / "run" / "model" / "model.safetensors")
        name, test = next(iter(job.experiment.tests.items()))
        structures = subset(held_out(test.file, job.experiment, data), test.frames)
        result["cost"] = {
            "memory, MB": round(memory),
            f"prediction of a frame of {name}, ms": round(prediction_time(model, structures), 3),
        }
    write_text(job.file(results), json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return result


def run_config(
    job: Job, data: Path, work: Path, results: Path, say: Callable[[str], None], *, compiled: bool = False
) -> tuple[RunConfig, dict[str, float]]:
    """The checked run file, with paths and, for an equal-time variant, with its steps; time of earlier models.

    The run file is written once: an interrupted training must find the steps it began with.
    """
    folder = work / job.experiment.name / job.name
    models = start_models(job.experiment, job.variant, job.seed, data=data, work=work, say=say)
    file = folder / "run.yaml"
    if not file.is_file():
        settings = job.experiment.settings(job.variant, job.seed)
        run = settings["run"]
        run["data"]["train"] = training_files(job.experiment, data, folder)
        run["stages"] = with_models(run["stages"], models)
        plain = folder / "plain.yaml"
        write_text(plain, yaml.safe_dump(run, sort_keys=False, allow_unicode=True))
        config = _compiled(run_file.load(plain, settings["overrides"]), compiled)
        if settings["equal_time"]:
            config = _longer(config, more_steps(job, results))
        run_file.save(config, file)
    return run_file.load(file), {f"model {name}": seconds for name, (_, seconds) in models.items()}


def _compiled(config: RunConfig, compiled: bool) -> RunConfig:
    """With steps compiled everywhere or nowhere: a decision by times would differ between the variants."""
    changed = config.model_dump(mode="json")
    for stage in changed["stages"]:
        if stage["fit"] is None:
            stage["compiled"] = compiled
    return run_file.check(changed)


def _longer(config: RunConfig, factor: float) -> RunConfig:
    changed = config.model_dump(mode="json")
    for stage in changed["stages"]:
        for length in ("steps", "epochs"):
            if stage[length] is not None:
                stage[length] = max(1, round(factor * stage[length]))
    return run_file.check(changed)


TRAINING = ("run", "overrides", "equal_time")
"""Settings that the trained model depends on; the others are those of its tests."""


def _same_or_new(folder: Path, settings: dict[str, Any]) -> None:
    """Forget what other settings have left: all of it, or the tests only where the training is the same."""
    record = folder / "settings.json"
    if folder.exists():
        before = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
        if any(before.get(name) != settings[name] for name in TRAINING):
            shutil.rmtree(folder)
        elif before != settings:
            shutil.rmtree(folder / "tests", ignore_errors=True)
    write_text(record, json.dumps(settings))


def _test(job: Job, data: Path, folder: Path, say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Results of all tests by name, as plain data; each is stored when it is finished."""
    experiment = job.experiment
    model = load_model(folder / "run" / "model" / "model.safetensors")
    files = {name: held_out(test.file, experiment, data) for name, test in experiment.tests.items()}
    files = {name: structures.select(~isolated(structures)) for name, structures in files.items()}
    files = {name: of_known_elements(found, model.statistics.species) for name, found in files.items()}
    first = next(iter(files.values()))
    source = first if experiment.starts.file is None else read(data / experiment.starts.file).structures
    subject = Subject(
        name=f"{experiment.name} {job.name}",
        potential=model.potential,
        statistics=model.statistics,
        test=first,
        start=choose_starts(source, experiment.starts),
        temperatures=tuple(experiment.temperatures),
        seed=job.seed,
    )
    errors = registry.parse("reliability", {"kind": "errors", "hottest": experiment.hottest})
    tasks = {
        f"errors, {name}": (errors, replace(subject, test=subset(files[name], test.frames)))
        for name, test in experiment.tests.items()
    }
    tasks |= {test.kind: (test, subject) for test in experiment.reliability_tests()}
    found = {}
    for name, (test, target) in tasks.items():
        file = folder / "tests" / f"{slug(name)}.json"
        if not file.is_file():
            began = processor_seconds()
            result = test(target)
            write_text(file, json.dumps(_plain(result) | {"seconds": processor_seconds() - began}))
            say(f"{name}: {result.sentence}")
        found[name] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _plain(result: Result) -> dict[str, Any]:
    """What a result file keeps of a test."""
    content = result.model_dump(mode="json")
    figures = {name: value for name, value in result.figures.items() if "=" not in name}  # not those of single groups
    curves = content["curves"] if result.test in CURVES else {}
    return {"figures": figures, "passed": result.passed, "curves": curves}


def of_known_elements(structures: Structures, species: tuple[int, ...]) -> Structures:
    """The structures that hold no other elements: of others a potential can say nothing."""
    strange = np.bincount(structures.system, weights=~np.isin(structures.species, species), minlength=len(structures))
    return structures.select(strange == 0)


def subset(structures: Structures, count: int | None) -> Structures:
    """Some structures at random, always the same, in their order."""
    if count is None or count >= len(structures):
        return structures
    return structures.select(np.sort(np.random.default_rng(0).permutation(len(structures))[:count]))


def choose_starts(structures: Structures, starts: Starts) -> Structures:
    """Structures for dynamics: the smallest, or any of at most a given size; ties are drawn at random, always alike."""
    bodies = structures.select(~isolated(structures))
    order = np.random.default_rng(0).permutation(len(bodies))
    sizes = bodies.sizes[order]
    if starts.atoms is None:
        order = order[np.argsort(sizes, kind="stable")]
    elif not len(order := order[sizes <= starts.atoms]):
        raise UserError(f"starts.atoms is {starts.atoms}, but the smallest structure has {bodies.sizes.min()} atoms")
    return bodies.select(order[: starts.count]).without_labels()


def main() -> None:
    """Command line, for the runner."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment")
    parser.add_argument("variant")
    parser.add_argument("seed", type=int)
    for name in ("--data", "--work", "--results", "--experiments"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--compiled", action="store_true")
    options = parser.parse_args()
    try:
        job = Job(experiments.load(options.experiment, options.experiments), options.variant, options.seed)
        perform(job, data=options.data, work=options.work, results=options.results, compiled=options.compiled)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

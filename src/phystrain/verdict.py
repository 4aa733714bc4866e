"""The reliability tests on a saved model, and their results as a file."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phystrain import registry
from phystrain.config import Reliability
from phystrain.data.statistics import isolated
from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.files import write_text
from phystrain.reliability import Result, Subject
from phystrain.reliability._suite import audit
from phystrain.report.comparison import Variant
from phystrain.saving import SavedModel

STARTS = 4
"""Structures that dynamics starts from, the smallest ones of the test data."""


Say = Callable[[str], None]


def name_of(path: Path) -> str:
    """Of a run or model, for tables; also of a folder given as a dot."""
    return Path(path).resolve().name


def comparable(structures: Structures | None) -> bool:
    """Whether there are labels to compare predictions with."""
    return structures is not None and bool(structures.labelled("energy").any() or structures.labelled("forces").any())


def audit_saved(
    model: SavedModel,
    settings: Reliability,
    *,
    name: str,
    test: Structures | None,
    start: Structures | None,
    seed: int = 0,
    frames_to: Path | None = None,
) -> list[Result]:
    """Run the reliability tests that the settings name, or all of them.

    Args:
        model: under test.
        settings: temperatures, replicas, lengths.
        name: for tables.
        test: labelled structures.
        start: structures that dynamics starts from.
        seed: of the dynamics.
        frames_to: file for failing frames.
    """
    if not settings.enabled:
        return []
    if frames_to is not None:  # those of an earlier audit are no findings of this one
        frames_to.unlink(missing_ok=True)
    subject = Subject(
        name=name,
        potential=model.potential,
        statistics=model.statistics,
        test=test,
        start=start,
        temperatures=tuple(settings.temperatures),
        seed=seed,
    )
    tests = _tests(settings, frames_to)
    if settings.tests is None:  # those that were not asked for may be left out
        if not comparable(test):
            del tests["errors"]
        if test is None:
            del tests["rdf"]
        if start is None:
            tests = {kind: fields for kind, fields in tests.items() if kind in ("errors", "dimers")}
    return audit(subject, tests)


def _tests(settings: Reliability, frames_to: Path | None) -> dict[str, dict[str, Any]]:
    """Fields of each test: those of the section where the test itself was given none."""
    length: dict[str, Any] = {"picoseconds": settings.picoseconds}
    if settings.timestep is not None:
        length["timestep"] = settings.timestep
    common = {
        "drift": length | {"halving": False},
        "heating": length | {"replicas": settings.replicas},
        "rdf": length | {"replicas": settings.replicas},
        "survival": length | {"replicas": settings.replicas, "frames_to": frames_to},
    }
    given = settings.tests if settings.tests is not None else dict.fromkeys(registry.kinds("reliability"))
    return {
        kind: common.get(kind, {}) | ({} if test is None else test.model_dump(include=test.model_fields_set))
        for kind, test in given.items()
    }


def smallest(structures: Structures, count: int = STARTS) -> Structures | None:
    """The smallest structures: the cheapest to run dynamics of. Isolated atoms do not count; ``None`` if all are."""
    bodies = structures.select(~isolated(structures))
    return bodies.select(np.argsort(bodies.sizes, kind="stable")[:count]) if len(bodies) else None


def store_results(folder: Path, variant: Variant, data_hash: str) -> None:
    """Write ``results.json``, which :func:`load_results` reads."""
    content = {
        "name": variant.name,
        "description": variant.description,
        "data": data_hash,
        "results": [result.model_dump(mode="json") for result in variant.results],
    }
    write_text(folder / "results.json", json.dumps(content, indent=1, allow_nan=True) + "\n")


def load_results(folder: Path) -> Variant:
    """Read what :func:`store_results` wrote.

    Raises:
        UserError: the folder holds no results.
    """
    file = folder / "results.json"
    if not file.is_file():
        raise UserError(f"{folder} holds no results.json: give folders that 'train' or 'audit' has finished")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        results = [Result.model_validate(result) for result in content["results"]]
        name, description = str(content["name"]), str(content["description"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged: run 'phystrain audit' or 'phystrain train' again") from error
    history = folder / "metrics.csv"
    return Variant(name, description, results, history if history.is_file() else None)


def say_results(results: Sequence[Result], say: Say) -> None:
    """One line for each test."""
    for result in results:
        verdict = {True: "pass", False: "FAIL", None: "    "}[result.passed]
        say(f"{verdict}  {result.title}: {result.sentence}")

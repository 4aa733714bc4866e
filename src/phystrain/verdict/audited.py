"""The reliability tests on a saved model, and their results as a file."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from phystrain import __version__, registry
from phystrain.config import Reliability
from phystrain.data.statistics import isolated
from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.files import write_text
from phystrain.reliability import Reference, ReliabilityTest, Result, Subject
from phystrain.reliability._suite import audit, parse_tests
from phystrain.report.comparison import Variant
from phystrain.saving import SavedModel
from phystrain.verdict.beside import Other
from phystrain.verdict.budget import within
from phystrain.verdict.grade import Verdict, judge
from phystrain.verdict.results_file import VERSION, Audited, ResultsFile, finite, restored

STARTS = 4
"""Structures that dynamics starts from, the smallest ones of the test data."""

LATE = 1.2
"""Times the minutes that were given, from which it is said that the tests will take longer."""

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
    train: Structures | None = None,
    reference: Reference | None = None,
    rivals: Iterable[Other] = (),
    note: Callable[[Result], Result] = lambda result: result,
    say: Say = lambda _: None,
) -> tuple[list[Result], list[Variant]]:
    """Run the reliability tests that the settings name, or all of them.

    Args:
        model: under test.
        settings: temperatures, replicas, lengths.
        name: for tables.
        test: labelled structures.
        start: structures that dynamics starts from.
        seed: of the dynamics.
        frames_to: file for failing frames.
        train: structures that it was trained on, where they are at hand.
        reference: trajectory to compare dynamics with.
        rivals: what it is compared with: the same tests from the same starts with the same seed, failing frames not
            kept.
        note: what is to be remarked on a result.
        say: told each result of the model when it is there.

    Returns:
        The results, and the rivals with theirs.
    """
    if not settings.enabled:
        return [], []
    if frames_to is not None:  # those of an earlier audit are no findings of this one
        frames_to.unlink(missing_ok=True)
    subject = Subject(
        name=name,
        potential=model.potential,
        statistics=model.statistics,
        test=test,
        start=start,
        temperatures=tuple(settings.temperatures or ()),
        seed=seed,
        train=train,
        reference=reference,
    )
    tests = _tests(settings, frames_to)
    required = settings.tests is not None
    if not required and not comparable(test):
        del tests["errors"]
    parsed = parse_tests(tests)
    if not required:  # those that were not asked for may be left out
        parsed = [test for test in parsed if test.runs_unasked(subject)]
        if start is None:
            beside = 2 if reference is not None else None
            still = ("errors", "dimers", *(("coverage",) if train is not None else ()))
            parsed = [test for test in parsed if test.kind in still or test.level == beside]
    planned: dict[str, ReliabilityTest] = {test.kind: test for test in parsed}
    cut: dict[str, str] = {}
    if start is None and not required:
        say("no structures to test on but pairs of atoms: name a file with --start")
    say(f"testing {name}: {len(planned)} tests")
    if settings.minutes is not None and start is not None:
        planned, cut, least = within(subject, planned, settings.minutes)
        if least > LATE * settings.minutes:
            say(f"the shortest runs that tell anything take about {least:.1f} minutes of dynamics")
    results: list[Result] = []

    def heard(result: Result) -> None:
        """Remarks are added before anyone sees the result."""
        if result.test in cut and result.applies:
            sentence = f"{result.sentence} Cut to fit {settings.minutes:g} minutes: {cut[result.test]}."
            result = result.model_copy(update={"sentence": sentence})
        results.append(note(result))
        say_results(results[-1:], say)

    audit(subject, planned, required=required, done=heard)
    silent = {
        kind: test.model_copy(update={"frames_to": None}) if "frames_to" in type(test).model_fields else test
        for kind, test in planned.items()
    }
    compared = []
    for other in rivals:
        say(f"testing {other.name}, to compare with")
        rival = replace(subject, name=other.name, potential=other.model.potential, statistics=other.model.statistics)
        compared.append(variant_of(other.name, audit(rival, silent, required=required), other.description))
    return results, compared


def _tests(settings: Reliability, frames_to: Path | None) -> dict[str, dict[str, Any]]:
    """Fields of each test: those of the section where the test itself was given none."""
    length: dict[str, Any] = {} if settings.minutes is not None else {"picoseconds": settings.picoseconds}
    if settings.timestep is not None:
        length["timestep"] = settings.timestep
    # without a budget, as after training, the cheaper half of what drift and squeeze can do
    brief: dict[str, Any] = {} if settings.minutes is not None else {"replicas": 1}
    every = registry.kinds("reliability")
    # tests that look at one run need the same settings
    shared = [kind for kind in every if registry.find("reliability", kind).Config.one_run is not None]
    common = {
        "drift": length | brief | ({} if settings.minutes is not None else {"halving": False}),
        "squeeze": length | brief,
        "relaxation": {"replicas": settings.replicas},
        "heating": length | {"replicas": settings.replicas},
        **{kind: length | {"replicas": settings.replicas} for kind in shared},
        "survival": length | {"replicas": settings.replicas, "frames_to": frames_to},
    }
    given = settings.tests if settings.tests is not None else dict.fromkeys(every)
    return {
        kind: common.get(kind, {}) | ({} if test is None else test.model_dump(include=test.model_fields_set))
        for kind, test in given.items()
    }


def smallest(structures: Structures, count: int = STARTS) -> Structures | None:
    """The smallest structures: the cheapest to run dynamics of. Isolated atoms do not count; ``None`` if all are."""
    bodies = structures.select(~isolated(structures))
    return bodies.select(np.argsort(bodies.sizes, kind="stable")[:count]) if len(bodies) else None


def variant_of(name: str, results: Sequence[Result], description: str = "", history: Path | None = None) -> Variant:
    """A potential with its results, and the verdict that follows from them."""
    return Variant(name, description, results, history, judge(results) if results else None)


def store_results(folder: Path, variant: Variant, data_hash: str, beside: Sequence[Variant] = ()) -> None:
    """Write ``results.json``, which :func:`load_results` reads; see :mod:`phystrain.verdict.results_file`."""
    content = ResultsFile(
        **_audited(variant).model_dump(),
        program=__version__,
        data=data_hash,
        beside=[_audited(other) for other in beside],
    )
    write_text(folder / "results.json", json.dumps(content.model_dump(mode="json"), indent=1, allow_nan=False) + "\n")


def _audited(variant: Variant) -> Audited:
    return Audited(
        name=variant.name,
        description=variant.description,
        verdict=variant.verdict,
        results=[finite(result) for result in variant.results],
    )


def load_results(folder: Path) -> Variant:
    """Read what :func:`store_results` wrote, now or in an older version.

    Raises:
        UserError: the folder holds no results, damaged ones, or those of a newer version.
    """
    file = folder / "results.json"
    if not file.is_file():
        raise UserError(f"{folder} holds no results.json: give folders that 'train' or 'audit' has finished")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        version = int(content.pop("version", 1))
        if version > VERSION:
            raise UserError(f"{file} has version {version}, this phystrain reads up to {VERSION}: upgrade phystrain")
        found = ResultsFile.model_validate(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is damaged: run 'phystrain audit' or 'phystrain train' again") from error
    results = [restored(result) for result in found.results]
    history = folder / "metrics.csv"
    verdict = judge(results) if version == 1 and results else found.verdict
    return Variant(found.name, found.description, results, history if history.is_file() else None, verdict)


def say_results(results: Sequence[Result], say: Say) -> None:
    """One line for each test."""
    for result in results:
        verdict = {True: "pass", False: "FAIL", None: "    "}[result.passed]
        say(f"{verdict}  {result.title}: {result.sentence}")


def say_verdict(verdict: Verdict | None, say: Say, name: str = "") -> None:
    """The verdict in full; nothing if there is none."""
    if verdict is not None:
        first, *others = verdict.lines
        say(f"VERDICT{f' on {name}' if name else ''}: {first}")
        for line in others:
            say(f"  {line}")

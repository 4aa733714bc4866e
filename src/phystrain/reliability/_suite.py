"""All tests on one potential, the cheap ones first."""

from collections.abc import Mapping
from typing import Any

from phystrain import registry
from phystrain.errors import UserError
from phystrain.progress import track
from phystrain.reliability import ReliabilityTest, Result, Subject


def parse_tests(settings: Mapping[str, Any] | None) -> list[ReliabilityTest]:
    """Checked tests, in order of cost.

    Args:
        settings: fields by kind of test, or ``None`` for all tests as they come.

    Raises:
        UserError: an unknown kind.
        pydantic.ValidationError: a wrong field.
    """
    if settings is None:
        settings = {kind: {} for kind in registry.kinds("reliability")}
    tests = []
    for kind, fields in settings.items():
        if isinstance(fields, ReliabilityTest):
            tests.append(fields)
        else:
            tests.append(registry.parse("reliability", {"kind": kind, **(fields or {})}))
    return sorted(tests, key=lambda test: test.cost)


def audit(subject: Subject, settings: Mapping[str, Any] | None = None, *, progress: bool = True) -> list[Result]:
    """Put a potential to the tests.

    Args:
        subject: the potential and what it is tested on.
        settings: fields by kind of test; all tests as they come if not given. A test that was asked for and cannot
            run is an error; one that was not asked for says so in its result.
        progress: show which test is running, on a terminal.

    Raises:
        UserError: a test that was asked for lacks something.
    """
    tests = parse_tests(settings)
    results = []
    for test in track(tests, f"testing {subject.name}") if progress else tests:
        try:
            results.append(test(subject))
        except UserError as error:
            if settings is not None:
                raise
            reason = str(error).replace("\n", " ").rstrip(".")
            results.append(Result(test=test.kind, title=test.kind.capitalize(), sentence=f"Not done: {reason}."))
    return results

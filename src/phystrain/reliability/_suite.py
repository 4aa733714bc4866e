"""All tests on one potential, the cheap ones first."""

from collections.abc import Callable, Mapping
from typing import Any

from phystrain import registry
from phystrain.errors import UserError
from phystrain.progress import track
from phystrain.reliability import ReliabilityTest, Result, Subject

NOT_DONE = "Not done"
"""How the sentence of a test begins that lacked something it needs."""

CALLS, FAILED = "calculations", "calculations that failed"
"""Figures of the calculations of a potential that counts them."""


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


def audit(
    subject: Subject,
    settings: Mapping[str, Any] | None = None,
    *,
    required: bool | None = None,
    progress: bool = True,
    done: Callable[[Result], None] = lambda _: None,
) -> list[Result]:
    """Put a potential to the tests.

    Args:
        subject: the potential and what it is tested on.
        settings: fields by kind of test; all tests as they come if not given.
        required: whether a test that cannot run is an error; else it says so in its result. True if not given and
            settings are.
        progress: show which test is running, on a terminal.
        done: told each result when it is there.

    Raises:
        UserError: a test that was asked for lacks something.
    """
    tests = parse_tests(settings)
    required = settings is not None if required is None else required
    results = []
    for test in track(tests, f"testing {subject.name}") if progress else tests:
        try:
            results.append(_tested(test, subject))
        except UserError as error:
            if required:
                raise
            reason = str(error).replace("\n", " ").rstrip(".")
            results.append(Result(test=test.kind, title=test.kind.capitalize(), sentence=f"{NOT_DONE}: {reason}."))
        done(results[-1])
    return results


def _tested(test: ReliabilityTest, subject: Subject) -> Result:
    """The result; of a calculator of someone else's with what became of its calculations."""
    take_failures = getattr(subject.potential, "take_failures", None)
    if take_failures is None:
        return test(subject)
    take_failures()
    try:
        result = test(subject)
    except UserError:
        raise
    except Exception as error:
        calls, failed, first = take_failures()
        if not failed:  # then it is no fault of the calculator
            raise
        return Result(
            test=test.kind,
            title=test.kind.capitalize(),
            figures={CALLS: calls, FAILED: failed, "first failure": first},
            passed=False,
            sentence=f"Broke off ({type(error).__name__}): {_failing(calls, failed, first)}",
        )
    calls, failed, first = take_failures()
    figures = result.figures | {CALLS: calls, FAILED: failed} | ({"first failure": first} if failed else {})
    sentence = f"{result.sentence.rstrip('.')}. {_failing(calls, failed, first)}" if failed else result.sentence
    return result.model_copy(update={"figures": figures, "sentence": sentence})


def _failing(calls: int, failed: int, first: str) -> str:
    return f"The calculator has no result for {failed} of {calls} structures: {first}."

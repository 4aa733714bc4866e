"""From what the tests found to a verdict: one word for scripts, and the sentences without which it means nothing.

The rules, all of them:

* Each result has a grade: the one that its test gave; else ``safe`` if it passed, and if it failed what :data:`RULES`
  says, or ``limited`` for a test that is not listed there.
* The verdict is the worst of them. Without dynamics that passed or failed it is ``limited`` at best: no static test
  shows that runs live, and no relaxation.
* The safe temperature is the highest one at which all runs of the survival test lived, or, where that test was not
  made, the highest of the other passed tests that name one. Every test that failed lowers it to its own. If nothing
  is left of it (0 K: runs were lost at the training temperature), the verdict is ``unsafe``; and it is 0 K wherever
  the verdict is that, for those who read the number alone.
* Runs shorter than :data:`SHORTEST`, of the survival test or, where that was not made, of all others, make it
  ``limited`` at best too, and no temperature is called safe.
* What does not apply, could not be done or was not run is named; it changes nothing else.
"""

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from phystrain import registry
from phystrain.reliability import Grade, Result
from phystrain.reliability._suite import NOT_DONE

SHORTEST = 1.0
"""ps. Ten times the relaxation time of the thermostat as it comes; shorter runs have hardly left where they started."""

NAMED = 4
"""Conditions of each test that the sentence names; all of them are in ``conditions``."""

GRADES: tuple[Grade, ...] = ("unsafe", "limited", "safe")
"""From the worst to the best."""


class Rule(NamedTuple):
    """What a failed test means where it does not say so itself.

    Attributes:
        grade: of the potential.
        reason: for it.
    """

    grade: Grade
    reason: str


RULES: dict[str, Rule] = {
    "derivatives": Rule("unsafe", "forces that are not the slope of the energy make energy from nothing"),
    "symmetry": Rule("unsafe", "a molecule that feels how it is turned or numbered has no conserved momentum"),
    "locality": Rule("unsafe", "atoms far away from one another must not change one another's energy"),
    "survival": Rule("limited", "below the temperature of the first loss runs live; lost at the first, it is unsafe"),
    "heating": Rule("limited", "below the temperature of the first loss runs live"),
    "drift": Rule("limited", "a thermostat hides the drift, and averages are off; without one, runs mean nothing"),
    "dimers": Rule("limited", "runs that never bring two atoms that close do not see it"),
    "compression": Rule("limited", "runs that never bring atoms that close do not see it"),
    "errors": Rule("limited", "dynamics lives, of another material"),
    "rdf": Rule("limited", "dynamics lives, of another structure"),
}
"""By kind of test; only for results that carry no grade of their own."""

_RUNG = re.compile(r"survived at ([0-9.e+]+) K")

OTHER = Rule("limited", "one failure without a rule of its own")


class Verdict(BaseModel):
    """Whether a potential can be trusted in dynamics, and why.

    Attributes:
        grade: ``safe``, ``limited`` or ``unsafe``; ``None`` if nothing was judged.
        kelvin: highest temperature found safe, 0 if there is none; ``None`` if no test could say.
        sentence: the grade with the temperature and the conditions it holds in, :data:`NAMED` of each test at most.
        reasons: why it is no better, one finding each.
        conditions: clauses in which it holds.
        untested: what does not apply, could not be done or was not run, with the reason.
    """

    model_config = ConfigDict(extra="forbid")

    grade: Grade | None = Field(description="safe, limited or unsafe; null if nothing was judged")
    kelvin: float | None = Field(
        None, description="highest temperature found safe, K, 0 if none is; null if no test could say"
    )
    sentence: str = Field(
        description="the grade with the temperature and the conditions it holds in, a few of each test if they are many"
    )
    reasons: list[str] = Field([], description="why it is no better, one finding each")
    conditions: list[str] = Field([], description="clauses in which it holds")
    untested: list[str] = Field([], description="what does not apply, could not be done or was not run")

    @property
    def short(self) -> str:
        """For a cell of a table, such as ``limited, 450 K``."""
        return (self.grade or "not graded") + (f", {self.kelvin:g} K" if self.kelvin else "")

    @property
    def lines(self) -> list[str]:
        """The whole of it, line by line."""
        untested = [f"Not tested: {'; '.join(self.untested)}."] if self.untested else []
        return [self.sentence, *(f"- {reason}" for reason in self.reasons), *untested]

    def below(self, least: Grade) -> bool:
        """Whether the grade is worse than ``least``; so is none at all, except that nothing is below ``unsafe``."""
        return (0 if self.grade is None else GRADES.index(self.grade)) < GRADES.index(least)


def judge(results: Sequence[Result]) -> Verdict:
    """The verdict on a potential, by the rules of this module.

    Args:
        results: of one potential.
    """
    graded = [(result, found) for result in results if result.applies and (found := grade_of(result)) is not None]
    dynamics = [result for result, _ in graded if _is_dynamics(result.test)]
    kelvin = _kelvin([result for result, _ in graded])
    grade: Grade | None = min((found for _, found in graded), key=GRADES.index, default=None)
    reasons = [f"{result.title} ({found}): {result.sentence}" for result, found in graded if found != "safe"]
    if grade is not None and kelvin == 0 and grade != "unsafe":
        grade = "unsafe"
        reasons.insert(0, "No temperature was found at which all runs live, that of the training data included.")
    if grade == "safe" and not dynamics:
        grade = "limited"
        reasons.append("No dynamics was judged, and static tests alone do not show that runs live.")
    if grade == "unsafe":
        kelvin = 0.0
    length = _runs(results)[1] or max((_length(result) for result in dynamics), default=None)
    if grade != "unsafe" and length is not None and length < SHORTEST:
        grade = "limited" if grade == "safe" else grade
        kelvin = None  # what did not fail in so short a time is not safe for that
        reasons.append(f"Runs of {length:g} ps are too short to tell; {SHORTEST:g} ps is the least that counts.")
    conditions = list(dict.fromkeys(clause for result in results for clause in result.conditions))
    decisive = [result for result, found in graded if found == grade]
    return Verdict(
        grade=grade,
        kelvin=kelvin,
        sentence=_sentence(grade, kelvin, decisive, results, _named(results)),
        reasons=reasons,
        conditions=conditions,
        untested=_untested(results),
    )


def grade_of(result: Result) -> Grade | None:
    """What one result means for dynamics; ``None`` where nothing is judged."""
    if result.grade is not None or result.passed is None:
        return result.grade
    if result.passed:
        return "safe"
    if result.test == "survival" and kelvin_of(result) == 0:
        return "unsafe"
    return RULES.get(result.test, OTHER).grade


def kelvin_of(result: Result) -> float | None:
    """Highest temperature that a result found safe; read from the figures of survival where it does not say."""
    if result.kelvin is not None or result.test != "survival":
        return result.kelvin
    found = ((_RUNG.fullmatch(name), value) for name, value in result.figures.items())
    ladder = sorted((float(match[1]), value) for match, value in found if match and isinstance(value, int | float))
    whole = list(takewhile(lambda rung: rung[1] == 1 or result.passed, ladder))
    return max((kelvin for kelvin, _ in whole), default=0.0) if ladder else None


def _kelvin(results: Sequence[Result]) -> float | None:
    known = [(result, kelvin) for result in results if (kelvin := kelvin_of(result)) is not None]
    highest = [kelvin for result, kelvin in known if result.test == "survival"]
    highest = highest or [max((kelvin for result, kelvin in known if result.passed), default=float("inf"))]
    lowest = min([*highest, *(kelvin for result, kelvin in known if result.passed is False)])
    return lowest if lowest < float("inf") else None


def _sentence(
    grade: Grade | None,
    kelvin: float | None,
    decisive: Sequence[Result],
    results: Sequence[Result],
    conditions: Sequence[str],
) -> str:
    """The grade in words; the findings that decide it are named, the conditions and what dynamics showed it follow."""
    if grade is None:
        return "Not graded: no test passed or failed."
    clauses = "; ".join([*_shown_by(results), *conditions])
    where = f" in these conditions: {clauses}" if clauses else " in the conditions tested"
    titles = _listing([result.title for result in decisive])
    if grade == "unsafe":
        why = f": it fails {titles}" if titles else ": no temperature was found at which all runs live"
        return f"Unsafe for dynamics{why}." + (f" Known besides: {'; '.join(conditions)}." if conditions else "")
    up_to = f" up to {kelvin:g} K" if kelvin else ""
    if grade == "safe":
        return f"Safe{up_to}{where}."
    but = f": it falls short in {titles}" if titles else ": dynamics has shown too little"
    if up_to:
        return f"Limited{but}. Safe{up_to}{where}."
    return f"Limited{but}." + (f" Known besides: {clauses}." if clauses else "")


def _named(results: Sequence[Result]) -> list[str]:
    """A few conditions of each test, and how many more it has: of many elements there are hundreds of pairs."""
    clauses: list[str] = []
    for result in results:
        fresh = [clause for clause in dict.fromkeys(result.conditions) if clause not in clauses]
        clauses += fresh[:NAMED]
        if len(fresh) > NAMED:
            clauses.append(f"{len(fresh) - NAMED} more of {result.title}")
    return clauses


def _shown_by(results: Sequence[Result]) -> list[str]:
    """What runs the safe temperature rests on."""
    runs, length = _runs(results)
    return [f"{runs} runs of {length:g} ps"] if runs is not None and length is not None else []


def _runs(results: Sequence[Result]) -> tuple[int | None, float | None]:
    """Number and length (ps) of the runs of the survival test."""
    figures = next((result.figures for result in results if result.test == "survival"), {})
    runs, length = figures.get("runs"), figures.get("length, ps")
    return runs if isinstance(runs, int) else None, float(length) if isinstance(length, int | float) else None


def _untested(results: Sequence[Result]) -> list[str]:
    """What says nothing about the potential, and why."""
    found = []
    for result in results:
        reason = result.sentence.rstrip(".").removeprefix("Does not apply: ")
        if not result.applies:
            found.append(f"{result.title} (does not apply: {reason})")
        elif result.sentence.startswith(NOT_DONE):
            found.append(f"{result.title} ({reason[0].lower()}{reason[1:]})")
    done = {result.test for result in results}
    return found + [f"{kind} (not run)" for kind in registry.kinds("reliability") if kind not in done]


def _is_dynamics(kind: str) -> bool:
    """Whether a kind of test runs dynamics; not so of one that is not installed here."""
    known = kind in registry.kinds("reliability")
    return known and bool(registry.find("reliability", kind).Config.dynamics)


def _length(result: Result) -> float:
    """Of the runs of a test, ps; infinite if it does not say."""
    length = result.figures.get("length, ps")
    return float(length) if isinstance(length, int | float) else float("inf")


def _listing(names: Sequence[str]) -> str:
    """``a, b and c``."""
    names = list(dict.fromkeys(names))
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else ""

"""How long tests in dynamics may be: from the wall time there is, and what a step costs on this machine.

A few steps of the user's own structures are timed, alone and side by side; the time is then shared out among the tests.
No test gets more than its published length, none less than what tells anything, and what was cut is said.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from phystrain import compiled
from phystrain.dynamics import Settings, replicate, simulate
from phystrain.dynamics.guards import Guards
from phystrain.reliability import ReliabilityTest, Subject

MARGIN = 1.25
"""By which a step is reckoned dearer than measured: lists are built anew, atoms come closer, others compute."""

STATIC = 60.0
"""Seconds kept back for what needs no dynamics, or a tenth of the whole where that is less."""

FEWEST = 2
"""Replicas that a test keeps when time is short."""

RESTING = 0.15
"""Largest share of the time for tests whose number of steps is fixed, such as relaxations."""

_STEPS = (2, 8)
_UNGUARDED = Guards(contact=None, temperature_rise=None, temperature_jump=None)


class Cost(NamedTuple):
    """What a step of a batch takes.

    Attributes:
        fixed: s, whatever its size.
        each: s, for every atom.
        most: atoms that advance together.
    """

    fixed: float
    each: float
    most: int = 4000

    def step(self, atoms: float) -> float:
        """Seconds of a step of this many atoms."""
        return MARGIN * (self.fixed * max(1.0, math.ceil(atoms / self.most)) + self.each * atoms)


def step_cost(subject: Subject, copies: int) -> Cost:
    """Time steps of dynamics of one starting structure, and of all of them ``copies`` times.

    Args:
        subject: with structures to start from.
        copies: of each, about as many as tests will run.
    """
    assert subject.start is not None
    sizes, seconds = [], []
    for structures in (subject.start.select([0]), replicate(subject.start, max(1, copies))):
        settings = Settings(temperature=subject.kelvin, guards=_UNGUARDED, compiled=False, record_interval=50)
        step, took = settings.step_of(structures.species), []
        simulate(subject.potential, structures, settings.model_copy(update={"picoseconds": step / 1000}))  # warm
        for steps in _STEPS:
            began = time.perf_counter()
            simulate(subject.potential, structures, settings.model_copy(update={"picoseconds": steps * step / 1000}))
            took.append(time.perf_counter() - began)
        sizes.append(len(structures.positions))
        seconds.append(max(took[1] - took[0], 1e-6) / (_STEPS[1] - _STEPS[0]))
    if sizes[1] == sizes[0]:
        return Cost(0.0, seconds[0] / sizes[0])
    each = min(max((seconds[1] - seconds[0]) / (sizes[1] - sizes[0]), 0.0), seconds[1] / sizes[1])
    return Cost(max(seconds[1] - each * sizes[1], 0.0), max(each, 1e-9))


def within(
    subject: Subject, tests: Mapping[str, ReliabilityTest], minutes: float
) -> tuple[dict[str, ReliabilityTest], dict[str, str], float]:
    """Tests whose dynamics takes about this long together, by kind what had to be cut, and the minutes it will take.

    Lengths and numbers of steps that were given stay as they are.

    Args:
        subject: with structures to start from and a temperature.
        tests: by kind.
        minutes: of wall time for all of them.

    Raises:
        UserError: the temperature is not known.
    """
    assert subject.start is not None
    began = time.perf_counter()
    total = 60 * minutes
    available = total - min(STATIC, total / 10)
    copies = math.ceil(max((test.runs(subject) for test in tests.values()), default=1) / len(subject.start))
    cost = step_cost(subject, min(copies, 4))
    share = available / max(1, sum(_has_length(test) for test in tests.values()))
    if compiled.available() and share > 2 * compiled.WORTH:
        # long runs are compiled, which is done here once, and later taken from torch's cache
        cost = step_cost(replace(subject, potential=compiled.faster(subject.potential)), min(copies, 4))
    planned, notes = share_out(subject, tests, cost, available - (time.perf_counter() - began))
    partners = _partners(tests)
    alone = [test for kind, test in planned.items() if kind not in partners and test.runs(subject)]
    seconds = sum(
        _price(test, subject, cost) * _length(test)
        if _has_length(test)
        else test.fixed_steps() * cost.step(_atoms(test, subject))
        for test in alone
    )
    return planned, notes, seconds / 60


def share_out(
    subject: Subject, tests: Mapping[str, ReliabilityTest], cost: Cost, available: float
) -> tuple[dict[str, ReliabilityTest], dict[str, str]]:
    """The same with the cost of a step known.

    Args:
        subject: with structures to start from.
        tests: by kind.
        cost: of a step.
        available: s.
    """
    partners = _partners(tests)
    if partners:
        alone = {kind: test for kind, test in tests.items() if kind not in partners}
        planned, notes = share_out(subject, alone, cost, available)
        for kind, first in partners.items():
            chosen = {name: getattr(planned[first], name) for name in ("picoseconds", "replicas")}
            planned[kind] = tests[kind].model_copy(update=chosen)
            notes |= {kind: notes[first]} if first in notes else {}
        return {kind: planned[kind] for kind in tests}, notes
    planned = dict(tests)
    notes = {}
    moving = {kind: test for kind, test in tests.items() if test.runs(subject)}  # what does not apply needs no time
    given = {kind for kind, test in moving.items() if "picoseconds" in test.model_fields_set}
    open_kinds = [kind for kind, test in moving.items() if _has_length(test) and kind not in given]
    available -= sum(_price(tests[kind], subject, cost) * _length(tests[kind]) for kind in given)
    for kind, test in moving.items():
        if test.fixed_steps() and not _has_length(test):
            planned[kind], note = _fewer_steps(test, subject, cost, RESTING * available)
            notes |= {kind: note} if note else {}
            available -= planned[kind].fixed_steps() * cost.step(_atoms(planned[kind], subject))
    lengths: dict[str, float] = {}
    # a test that reaches its full or its least length leaves the others more or less: one is settled at a time
    while open_kinds:
        whole = sum(tests[kind].share for kind in open_kinds)
        ideal = {kind: _ideal(tests[kind], subject, cost, available, whole) for kind in open_kinds}
        short = [kind for kind in open_kinds if ideal[kind] < tests[kind].shortest]
        long = [kind for kind in open_kinds if ideal[kind] > tests[kind].full]
        settled = short or long or list(open_kinds)
        for kind in settled:
            test = tests[kind]
            lengths[kind] = _rounded(min(max(ideal[kind], test.shortest), test.full))
            open_kinds.remove(kind)
        if settled is not short:
            available -= sum(_price(tests[kind], subject, cost) * lengths[kind] for kind in settled)
        else:
            for kind in settled:  # too long even so: fewer runs
                planned[kind] = _fewer_runs(tests[kind], subject, cost, available * tests[kind].share / whole)
                available -= _price(planned[kind], subject, cost) * lengths[kind]
    for kind, length in lengths.items():
        fewer = planned[kind]
        planned[kind] = fewer.model_copy(update={"picoseconds": length})
        parts = [f"{length:g} ps instead of {fewer.full:g}"] * (length < fewer.full)
        if (kept := getattr(fewer, "replicas", 0)) < getattr(tests[kind], "replicas", 0):
            parts.append(f"{kept} replicas instead of {getattr(tests[kind], 'replicas', 0)}")
        if parts:
            notes[kind] = ", ".join(parts)
    return planned, notes


def _partners(tests: Mapping[str, ReliabilityTest]) -> dict[str, str]:
    """Tests that look at the run of another one, and that one."""
    first: dict[str, str] = {}
    for kind, test in tests.items():
        if test.one_run is not None:
            first.setdefault(test.one_run, kind)
    return {k: first[t.one_run] for k, t in tests.items() if t.one_run is not None and first[t.one_run] != k}


def _has_length(test: ReliabilityTest) -> bool:
    return "picoseconds" in type(test).model_fields


def _length(test: ReliabilityTest) -> float:
    return float(getattr(test, "picoseconds", 0.0))


def _atoms(test: ReliabilityTest, subject: Subject) -> float:
    """How many atoms move side by side."""
    assert subject.start is not None
    return float(subject.start.sizes.mean()) * test.runs(subject)


def _price(test: ReliabilityTest, subject: Subject, cost: Cost) -> float:
    """Seconds that one ps of the test takes."""
    assert subject.start is not None
    step = getattr(test, "timestep", None) or Settings().step_of(subject.start.species)
    return cost.step(_atoms(test, subject)) * 1000 / float(step)


def _ideal(test: ReliabilityTest, subject: Subject, cost: Cost, available: float, whole: float) -> float:
    """Length, ps, that the share of a test pays for."""
    return max(available, 0.0) * test.share / whole / _price(test, subject, cost)


def _fewer_runs(test: ReliabilityTest, subject: Subject, cost: Cost, seconds: float) -> ReliabilityTest:
    """With as many replicas as can be paid for at the shortest length, two at least."""
    replicas = int(getattr(test, "replicas", 0))
    while replicas > FEWEST and _price(test, subject, cost) * test.shortest > seconds:
        replicas -= 1
        test = test.model_copy(update={"replicas": replicas})
    return test


def _fewer_steps(test: ReliabilityTest, subject: Subject, cost: Cost, seconds: float) -> tuple[ReliabilityTest, str]:
    """With as many steps as can be paid for, a fifth of them at least."""
    steps = test.fixed_steps()
    paid = int(seconds / cost.step(_atoms(test, subject)))
    if "steps" in test.model_fields_set or paid >= steps:
        return test, ""
    fewer = max(paid, steps // 5, 1)
    return test.model_copy(update={"steps": fewer}), f"{fewer} steps instead of {steps}"


def _rounded(picoseconds: float) -> float:
    """Down to two digits."""
    unit: float = 10.0 ** (math.floor(math.log10(picoseconds)) - 1)
    return float(f"{math.floor(picoseconds / unit + 1e-9) * unit:.2g}")

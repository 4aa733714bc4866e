"""Lengths of runs from the time there is."""

import time
from types import SimpleNamespace

import pytest
from ase import Atoms

from phystrain.data.structures import Structures
from phystrain.reliability._suite import parse_tests
from phystrain.verdict import budget
from phystrain.verdict.budget import Cost, share_out, step_cost, within

DYNAMICS = ("drift", "heating", "survival", "squeeze", "relaxation", "rdf")


def made(**settings):
    given = {kind: {} for kind in DYNAMICS} | settings
    return {test.kind: test for test in parse_tests(given)}


def seconds(tests, subject, cost):
    """What a plan costs: atoms of all runs side by side, step by step."""
    total = 0.0
    for test in tests.values():
        atoms = float(subject.start.sizes.mean()) * test.runs(subject)
        steps = test.picoseconds * 1000 if hasattr(test, "picoseconds") else test.fixed_steps()
        total += steps * cost.step(atoms)
    return total


@pytest.mark.parametrize("available", [300.0, 900.0, 2000.0])
def test_plan_fits(lennard_jones, subject_of, available):
    subject, cost = subject_of(lennard_jones), Cost(0.01, 1e-4)
    planned, notes = share_out(subject, made(), cost, available)
    assert 0.8 * available < seconds(planned, subject, cost) <= 1.001 * available
    for kind, test in planned.items():
        if kind != "relaxation":
            assert test.shortest <= test.picoseconds <= test.full
            assert (kind in notes) == (test.picoseconds < test.full)
    assert notes["survival"] == f"{planned['survival'].picoseconds:g} ps instead of 20"


def test_plenty_of_time_gives_full_lengths_and_no_more(lennard_jones, subject_of):
    planned, notes = share_out(subject_of(lennard_jones), made(), Cost(1e-4, 1e-7), 3600.0)
    assert notes == {}
    assert all(test.picoseconds == test.full for kind, test in planned.items() if kind != "relaxation")


def test_too_little_time_keeps_the_least_and_says_so(lennard_jones, subject_of):
    planned, notes = share_out(subject_of(lennard_jones), made(), Cost(0.01, 1e-3), 30.0)
    assert planned["survival"].picoseconds == planned["survival"].shortest
    assert planned["survival"].replicas == 2
    assert planned["relaxation"].steps == 100
    assert notes["survival"] == "0.5 ps instead of 20, 2 replicas instead of 4"
    assert notes["relaxation"] == "100 steps instead of 500"


def test_what_was_given_stays(lennard_jones, subject_of):
    tests = made(survival={"picoseconds": 3.0}, relaxation={"steps": 400})
    planned, notes = share_out(subject_of(lennard_jones), tests, Cost(0.01, 1e-3), 30.0)
    assert planned["survival"].picoseconds == 3
    assert planned["relaxation"].steps == 400
    assert not {"survival", "relaxation"} & set(notes)


def test_what_does_not_apply_gets_no_time(lennard_jones, subject_of):
    pair = Structures.from_ase([Atoms("Ar2", [[0, 0, 0], [0, 0, 4]])])
    cost = Cost(0.01, 1e-4)
    planned, notes = share_out(subject_of(lennard_jones, start=pair), made(), cost, 300.0)
    without = {kind: test for kind, test in made().items() if kind != "squeeze"}
    alone, _ = share_out(subject_of(lennard_jones, start=pair), without, cost, 300.0)
    assert planned["survival"] == alone["survival"]
    assert "squeeze" not in notes


def test_cost_of_steps_follows_the_clock(lennard_jones, subject_of, monkeypatch):
    """A clock that only runs while atoms move, so that what a step costs is known."""
    now = 0.0

    def run(potential, structures, settings):
        nonlocal now
        steps = round(1000 * settings.picoseconds / settings.step_of(structures.species))
        now += 0.3 + steps * (2e-3 + 5e-5 * len(structures.positions))  # a start, which is no part of a step

    monkeypatch.setattr(budget, "simulate", run)
    monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=lambda: now))
    cost = step_cost(subject_of(lennard_jones), 4)
    assert (cost.fixed, cost.each) == pytest.approx((2e-3, 5e-5))


def test_steps_are_timed(lennard_jones, subject_of, monkeypatch):
    monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=time.process_time))  # whoever else is busy
    subject = subject_of(lennard_jones)
    cost = step_cost(subject, 4)
    assert 0 < cost.step(32.0) < 1
    assert cost.step(128.0) >= cost.step(32.0)
    planned, notes, least = within(subject, made(), 1e-4)
    assert least > 1e-4
    assert planned["drift"].picoseconds == planned["drift"].shortest
    assert "drift" in notes

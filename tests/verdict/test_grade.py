"""From results to a verdict: every rule, and that none of them gives a bare word."""

import pytest

from phystrain import registry
from phystrain.reliability import Result
from phystrain.verdict.grade import GRADES, Verdict, grade_of, judge, kelvin_of


def result(test, passed=True, **fields):
    return Result(test=test, title=test.capitalize(), passed=passed, sentence=f"{test} was looked at.", **fields)


def survival(*fractions, first=300.0, length=10.0, **fields):
    rungs = {f"survived at {first * (1 + number / 2):g} K": value for number, value in enumerate(fractions)}
    figures = {"runs": 12, "length, ps": length, **rungs}
    return result("survival", all(value == 1 for value in fractions), figures=figures, **fields)


STATIC = [result("derivatives"), result("dimers"), result("compression")]


def test_of_many_conditions_the_sentence_names_a_few():
    clauses = [f"H-{number} is outside the data" for number in range(10)]
    verdict = judge([*STATIC, result("drift", kelvin=300.0), survival(1.0, 1.0, 1.0, conditions=clauses)])
    assert verdict.sentence.endswith(f"12 runs of 10 ps; {'; '.join(clauses[:4])}; 6 more of Survival.")
    assert verdict.conditions == clauses


def test_all_passed_is_safe_up_to_the_highest_temperature_in_named_conditions():
    clause = "O-O below 1.10 Å is unsupported"
    verdict = judge([*STATIC, result("drift", kelvin=300.0), survival(1.0, 1.0, 1.0, conditions=[clause])])
    assert (verdict.grade, verdict.kelvin) == ("safe", 600.0)
    assert verdict.sentence == f"Safe up to 600 K in these conditions: 12 runs of 10 ps; {clause}."
    assert verdict.reasons == []
    assert verdict.conditions == [clause]
    assert verdict.short == "safe, 600 K"


def test_runs_lost_above_the_training_temperature_limit():
    verdict = judge([*STATIC, survival(1.0, 1.0, 0.75)])
    assert (verdict.grade, verdict.kelvin) == ("limited", 450.0)
    assert "falls short in Survival" in verdict.sentence
    assert "Safe up to 450 K" in verdict.sentence
    assert verdict.reasons == ["Survival (limited): survival was looked at."]


def test_runs_lost_at_the_training_temperature_make_unsafe():
    verdict = judge([*STATIC, survival(0.75, 1.0, 1.0)])
    assert (verdict.grade, verdict.kelvin) == ("unsafe", 0.0)
    assert verdict.sentence == "Unsafe for dynamics: it fails Survival."
    assert verdict.short == "unsafe"


@pytest.mark.parametrize("test", ["derivatives", "symmetry"])
def test_what_no_temperature_mends_makes_unsafe(test):
    verdict = judge([result(test, False), survival(1.0, 1.0)])
    assert (verdict.grade, verdict.kelvin) == ("unsafe", 0.0)
    assert test.capitalize() in verdict.sentence
    assert "up to" not in verdict.sentence


@pytest.mark.parametrize("test", ["dimers", "compression", "drift", "heating", "errors", "of_tomorrow"])
def test_other_failures_limit(test):
    verdict = judge([result(test, False), survival(1.0, 1.0)])
    assert (verdict.grade, verdict.kelvin) == ("limited", 450.0)
    assert test.capitalize() in verdict.sentence


def test_the_grade_of_a_test_itself_comes_first():
    assert grade_of(result("dimers", False, grade="unsafe")) == "unsafe"
    assert grade_of(result("derivatives", False, grade="limited")) == "limited"
    assert grade_of(result("of_tomorrow", True, grade="limited")) == "limited"
    assert grade_of(result("errors", None)) is None
    assert judge([result("dimers", True, grade="limited"), survival(1.0)]).grade == "limited"


def test_a_failed_test_lowers_the_safe_temperature_and_a_passed_one_does_not():
    ramp = result("heating", False, kelvin=400.0)
    assert judge([survival(1.0, 1.0, 1.0), ramp]).kelvin == 400.0
    assert judge([survival(1.0, 1.0, 1.0), result("drift", True, kelvin=300.0)]).kelvin == 600.0
    assert judge([result("drift", True, kelvin=300.0), result("heating", True, kelvin=500.0)]).kelvin == 500.0
    assert judge([survival(1.0, 1.0), result("drift", False, kelvin=0.0)]).grade == "unsafe"


def test_what_survival_says_itself_counts_more_than_its_figures():
    assert kelvin_of(survival(1.0, 1.0, kelvin=320.0)) == 320.0
    assert kelvin_of(survival(1.0, 0.9, 1.0)) == 300.0
    assert kelvin_of(result("survival", None)) is None


def test_static_tests_alone_are_not_enough():
    verdict = judge(STATIC)
    assert (verdict.grade, verdict.kelvin) == ("limited", None)
    assert "No dynamics was judged" in verdict.reasons[0]
    assert judge([*STATIC, survival(1.0, length=0.5)]).grade == "limited"
    assert judge([*STATIC, survival(1.0, length=1.0)]).grade == "safe"


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (result("relaxation"), "No dynamics was judged"),
        (result("heating", figures={"length, ps": 0.6}), "Runs of 0.6 ps are too short"),
    ],
    ids=["relaxation", "short"],
)
def test_what_moves_atoms_a_little_does_not_show_that_runs_live(found, reason):
    verdict = judge([*STATIC, found])
    assert (verdict.grade, verdict.kelvin) == ("limited", None)
    assert reason in verdict.reasons[0]
    assert judge([*STATIC, found, result("heating", figures={"length, ps": 2.0})]).grade == "safe"


def test_what_was_not_tested_is_named():
    beyond = result("of_tomorrow", None, applies=False)
    missing = Result(test="rdf", title="Radial distributions", sentence="Not done: there are no frames.")
    verdict = judge([*STATIC, beyond, missing])
    assert "Of_tomorrow (does not apply: of_tomorrow was looked at)" in verdict.untested
    assert "Radial distributions (not done: there are no frames)" in verdict.untested
    assert "errors (not run)" in verdict.untested
    assert not any(line.startswith("dimers") for line in verdict.untested)
    assert verdict.lines[-1].startswith("Not tested: ")
    everything = [result(kind) for kind in registry.kinds("reliability")]
    assert judge(everything).untested == []


def test_a_test_that_does_not_apply_is_no_failure():
    assert judge([*STATIC, survival(1.0), result("symmetry", False, applies=False)]).grade == "safe"


def test_nothing_judged_is_no_grade():
    verdict = judge([result("errors", None)])
    assert verdict.grade is None
    assert verdict.sentence == "Not graded: no test passed or failed."
    assert verdict.short == "not graded"


@pytest.mark.parametrize(
    ("grade", "below"),
    [("safe", ()), ("limited", ("safe",)), ("unsafe", ("limited", "safe")), (None, ("limited", "safe"))],
)
def test_below(grade, below):
    verdict = Verdict(grade=grade, sentence="")
    assert tuple(least for least in GRADES if verdict.below(least)) == below

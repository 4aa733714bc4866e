"""All tests together, and what every test must keep to."""

import pytest
from pydantic import ValidationError

from phystrain import registry
from phystrain.errors import UserError
from phystrain.reliability import Result
from phystrain.reliability._suite import audit, parse_tests


@pytest.mark.parametrize("kind", registry.kinds("reliability"))
def test_every_field_is_described(kind):
    config = registry.find("reliability", kind).Config
    assert config().kind == kind
    for name, field in config.model_fields.items():
        assert name == "kind" or field.description, f"{kind}.{name}"


def test_cheap_ones_first_and_results_are_plain_data(lennard_jones, subject_of):
    settings = {
        "survival": {"picoseconds": 0.05, "replicas": 1},
        "dimers": {"points": 20},
        "drift": {"picoseconds": 0.05, "halving": False},
        "derivatives": None,
    }
    results = audit(subject_of(lennard_jones), settings, progress=False)
    assert [result.test for result in results] == ["dimers", "derivatives", "drift", "survival"]
    for result in results:
        assert Result.model_validate_json(result.model_dump_json()) == result
        assert result.sentence.endswith(".")
        assert result.title
        assert result.threshold


def test_what_was_asked_for_must_run(lennard_jones, subject_of):
    with pytest.raises(UserError, match="no labelled test"):
        audit(subject_of(lennard_jones), {"errors": {}})
    with pytest.raises(UserError, match="did you mean 'dimers'"):
        parse_tests({"dimer": {}})
    with pytest.raises(ValidationError):
        parse_tests({"dimers": {"point": 3}})

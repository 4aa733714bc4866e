"""results.json: strict JSON of one schema, and files of older versions are still read."""

import json

import pytest

from phystrain.errors import UserError
from phystrain.reliability import Curve, Result
from phystrain.verdict.audited import load_results, store_results, variant_of
from phystrain.verdict.results_file import VERSION, ResultsFile

CURVE = Curve(x=[0.0, float("nan"), 2.0, 3.0], y=[1.0, 2.0, float("nan"), None], x_label="x, Å", y_label="y, eV")
FIGURES = {"drop, eV": float("inf"), "drift": float("nan"), "runs": 4, "why": "heat", "error, %": 2.5, "none": None}


@pytest.fixture
def variant():
    odd = Result(
        test="compression", title="Compression", figures=FIGURES, passed=False, sentence="A hole.", curves={"c": CURVE}
    )
    return variant_of(
        "one", [odd, Result(test="dimers", title="Pairs", passed=True, sentence="Smooth.")], "a description"
    )


def test_round_trip(variant, tmp_path):
    store_results(tmp_path, variant, "abc", [variant])
    found = load_results(tmp_path)
    assert (found.name, found.description, found.verdict) == (variant.name, variant.description, variant.verdict)
    assert found.verdict.grade == "limited"
    figures = found.results[0].figures
    assert figures == FIGURES | {"drift": None}
    curve = found.results[0].curves["c"]
    assert (curve.x, curve.y) == ([0.0, 2.0, 3.0], [1.0, None, None])
    assert found.results[1] == variant.results[1]


def test_the_file_is_strict_json_of_the_schema(variant, tmp_path):
    store_results(tmp_path, variant, "abc", [variant])

    def refuse(word):
        raise AssertionError(word)

    content = json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)
    assert ResultsFile.model_validate(content, strict=False).version == VERSION
    schema = ResultsFile.model_json_schema()
    assert set(content) == set(schema["properties"])
    assert set(content["verdict"]) == set(schema["$defs"]["Verdict"]["properties"])
    assert set(content["results"][0]) == set(schema["$defs"]["Result"]["properties"])
    assert [other["name"] for other in content["beside"]] == ["one"]
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(content, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content | {"verdict": {"grade": "splendid", "sentence": ""}}, schema)


def test_files_of_the_first_version(tmp_path):
    result = {"test": "dimers", "title": "Pair curves", "figures": {"wall eV": float("nan")}, "passed": False}
    old = {"name": "old", "description": "", "data": "", "results": [result | {"sentence": "A hole.", "curves": {}}]}
    (tmp_path / "results.json").write_text(json.dumps(old))
    found = load_results(tmp_path)
    assert found.verdict.grade == "limited"
    assert found.verdict.reasons == ["Pair curves (limited): A hole."]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"version": VERSION + 1}, "upgrade phystrain"), ({"results": 3}, "damaged"), ({"version": "new"}, "damaged")],
)
def test_files_that_cannot_be_read(variant, tmp_path, change, words):
    store_results(tmp_path, variant, "")
    file = tmp_path / "results.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=words):
        load_results(tmp_path)


def test_no_results_no_verdict(tmp_path):
    store_results(tmp_path, variant_of("none", []), "")
    assert load_results(tmp_path).verdict is None

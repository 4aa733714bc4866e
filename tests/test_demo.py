import pytest

from phystrain import demo
from phystrain.errors import UserError


@pytest.fixture
def short(monkeypatch):
    """The demo in a few seconds: the same run files with hardly any steps."""
    monkeypatch.setattr(demo, "STAGES", {"steps": 3, "pretrain_steps": 2, "batch_size": 2, "families": ["morse_zbl"]})
    monkeypatch.setattr(demo, "SURVIVAL", demo.SURVIVAL | {"picoseconds": 0.01, "replicas": 2})
    monkeypatch.setattr(demo, "LABELS", 3)


def test_four_ways_one_table_one_page(short, tmp_path):
    said = []
    variants = demo.run_demo(tmp_path / "demo", say=said.append)
    assert [variant.name for variant in variants] == ["labels only", "weak losses", "prior", "all physics"]
    for variant in variants:
        assert {result.test for result in variant.results} == {"errors", "dimers", "derivatives", "survival"}
    page = (tmp_path / "demo" / "report.html").read_text()
    assert "all physics" in page
    assert any("Force MAE" in line for line in said)
    models = [tmp_path / "demo" / name / "model" / "model.safetensors" for name in ("labels-only", "all-physics")]
    written = [model.stat().st_mtime_ns for model in models]
    again = demo.run_demo(tmp_path / "demo", say=said.append)
    assert [variant.results for variant in again] == [variant.results for variant in variants]
    assert [model.stat().st_mtime_ns for model in models] == written
    with pytest.raises(UserError, match="other settings"):
        demo.run_demo(tmp_path / "demo", seed=1, say=said.append)


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "demo").write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        demo.run_demo(tmp_path / "demo")
    assert (tmp_path / "demo").read_text() == "mine"

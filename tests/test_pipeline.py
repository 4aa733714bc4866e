from phystrain import config, datasets
from phystrain.pipeline import run, without_physics


def settings(**reliability):
    short = {"energy": {}, "forces": {}}
    made = {"augment": {"kind": "pull_perturb", "rounds": 2}, "label_by": "teacher"}
    return {
        "potential": {"kind": "painn", "channels": 8, "layers": 1, "cutoff": 3.5},
        "data": {"train": str(datasets.path("silica")), "use": 6, "valid_fraction": 0.34},
        "stages": [
            {"name": "teacher", "potential": {"kind": "morse"}, "objectives": short, "steps": 3},
            {"name": "pretrain", "data": made, "objectives": short, "steps": 3},
            {
                "name": "finetune",
                "init_from": "pretrain",
                "replay": {"stage": "pretrain"},
                "objectives": {**short, "pitc": {}},
                "steps": 4,
            },
        ],
        "reliability": {"tests": {"errors": {}, "dimers": {}}, **reliability},
    }


def test_a_baseline_stands_beside_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    said = []
    results = run(config.check(settings(baseline=True)), tmp_path / "run", say=said.append)
    assert {result.test for result in results} == {"errors", "dimers"}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "labels only" in page
    assert any("labels only" in line and "run" in line for line in said)
    baseline = config.load(tmp_path / "run" / "baseline" / "config.yaml")
    assert [stage.name for stage in baseline.stages] == ["finetune"]
    assert set(baseline.stages[0].objectives) == {"energy", "forces"}


def test_a_run_without_physics_is_its_own_baseline():
    plain = without_physics(config.check(settings()))
    assert plain is not None
    assert without_physics(plain) is None

import pytest

from phystrain import config, datasets


@pytest.fixture
def settings():
    """A run of three stages on six silica frames that takes a few seconds."""
    short = {"energy": {}, "forces": {"weight": 10.0}}
    return {
        "potential": {"kind": "painn", "channels": 8, "layers": 1, "cutoff": 3.5},
        "data": {"train": str(datasets.path("silica")), "use": 6, "valid_fraction": 0.34},
        "stages": [
            {
                "name": "teacher",
                "potential": {"kind": "morse"},
                "objectives": short,
                "steps": 6,
                "batch_size": 4,
                "optimiser": {"learning_rate": 0.02},
            },
            {
                "name": "pretrain",
                "data": {"augment": {"kind": "pull_perturb", "rounds": 2}, "label_by": "teacher"},
                "objectives": short,
                "steps": 8,
                "batch_size": 3,
            },
            {
                "name": "finetune",
                "init_from": "pretrain",
                "replay": {"stage": "pretrain", "weight": 0.05, "batch_size": 2},
                "objectives": {**short, "pitc": {}, "pisc": {}},
                "steps": 12,
                "batch_size": 2,
                "validate_every": 4,
            },
        ],
        "reliability": {"enabled": False},
    }


@pytest.fixture
def run_config(settings):
    return config.check(settings)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

"""The same training, whatever form the structures are in and however their lists come."""

import pytest
import torch

from phystrain import config, datasets
from phystrain.data.convert import convert
from phystrain.errors import UserError
from phystrain.saving import read_state
from phystrain.train.run import Run


@pytest.fixture
def settings():
    """A few steps on ten silica frames."""
    return {
        "potential": {"kind": "schnet", "channels": 8, "layers": 1, "cutoff": 3.5},
        "data": {"train": str(datasets.path("silica")), "use": 10, "valid_fraction": 0.3},
        "stages": [{"name": "one", "objectives": {"energy": {}, "forces": {"weight": 10.0}}, "steps": 6}],
        "reliability": {"enabled": False},
    }


def trained(settings, folder):
    said: list[str] = []
    run = Run(config.check(settings), folder, say=said.append)
    return read_state(run.train())[0], run.labelled, said


def test_a_store_trains_like_its_file(settings, tmp_path):
    convert([datasets.path("silica")], tmp_path / "silica.store", say=lambda _: None)
    expected, labelled, _ = trained(settings, tmp_path / "xyz")
    settings["data"] |= {"train": str(tmp_path / "silica.store"), "neighbour_lists": "built"}
    found, same, _ = trained(settings, tmp_path / "store")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert same.statistics == labelled.statistics
    assert same.indices == labelled.indices
    assert same.train.digest() == labelled.train.digest()


def test_a_stage_fills_batches(settings, tmp_path):
    settings["stages"][0] |= {"batch_atoms": 90, "epochs": 2, "steps": None}
    _, labelled, said = trained(settings, tmp_path / "run")
    large = int((labelled.train.sizes > 90).sum())
    assert large
    assert any(f"{large} structures exceed the budget" in line for line in said)
    atoms = int(labelled.train.sizes.sum())
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    steps = int(dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))["step"])
    assert 2 * atoms / 90 - 2 * large <= steps <= 2 * len(labelled.train)
    settings["stages"][0]["batch_size"] = 8
    with pytest.raises(UserError, match="leave batch_size out"):
        config.check(settings)

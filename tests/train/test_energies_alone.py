"""A set with energies and no forces, as coupled cluster gives them."""

import csv
from pathlib import Path

import pytest

from phystrain import config
from phystrain.data.read import read
from phystrain.train.run import Run

WATER = Path(__file__).parents[2] / "benchmarks" / "data" / "water"


def test_the_two_files_hold_the_same_frames():
    best, cheap = read(WATER / "ccsdt.xyz").structures, read(WATER / "pbe.xyz").structures
    assert (best.positions == cheap.positions).all()
    assert best.labelled("energy").all()
    assert not best.labelled("forces").any()
    assert cheap.labelled("forces").all()


@pytest.mark.parametrize("weak", [{}, {"pisc": {}, "pitc": {}}])
def test_a_network_learns_from_energies_alone(tmp_path, weak):
    settings = {
        "potential": {"kind": "painn", "channels": 16, "layers": 2, "cutoff": 4.0},
        "data": {"train": str(WATER / "ccsdt.xyz"), "valid_fraction": 0.2},
        "stages": [
            {
                "name": "train",
                "objectives": {"energy": {}, **{name: {"weight": 0.1} for name in weak}},
                "steps": 150,
                "batch_size": 8,
                "validate_every": 50,
                "average": 0.9,
                "optimiser": {"learning_rate": 5e-3},
            }
        ],
    }
    Run(config.check(settings), tmp_path / "run", say=lambda line: None).train()
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert "valid_forces_mae" not in rows[0]
    errors = [float(row["valid_energy_rmse"]) for row in rows]
    assert errors[-1] < 0.7 * errors[0]

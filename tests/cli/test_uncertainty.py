"""The spread of models trained alike, from the command line."""

import ase.io
import numpy as np
import pytest
import yaml

from phystrain.saving import load_model
from phystrain.uncertainty.ensemble import file_beside, load_ensemble


@pytest.fixture
def run(call, run_file, settings, tmp_path):
    """A finished run with snapshots."""
    settings["data"]["valid_fraction"] = 0.75  # ten atoms are needed to calibrate
    settings["stages"][0] |= {"steps": 8, "snapshots": 2, "optimiser": {"learning_rate": 0.05}}
    run_file.write_text(yaml.safe_dump(settings))
    outcome = call("train", run_file, "--output", "run")
    assert outcome.code == 0, outcome.err
    assert "spread of 3 models (snapshots)" in outcome.out
    return tmp_path / "run"


def test_a_run_with_snapshots_tells_its_spread(run, call, data, tmp_path):
    outcome = call("evaluate", run, data, "--spread", "--output", "page")
    assert outcome.code == 0, outcome.err
    for name in ("spread, rank correlation", "spread, attainable", "spread, miscalibration area"):
        assert name in outcome.out
    assert "calibrated on 6 structures with 12 atoms only" in outcome.out
    assert "miscalibration area" in (tmp_path / "page" / "report.html").read_text()

    outcome = call("md", run, data, "--temperature", "10", "--picoseconds", "0.002", "--spread", "auto", "--every", "1")
    assert outcome.code == 0, outcome.err
    limit = load_ensemble(load_model(run)).calibration.limit
    assert f"spread of 3 models, limit {limit:.3g} eV/Å" in outcome.out
    assert "largest spread" in outcome.out
    tight = ["--temperature", "10", "--picoseconds", "0.002", "--spread", "1e-6", "--output", "tight.xyz"]
    assert "stopped at 0 ps: spread of" in call("md", run, data, *tight).out
    assert "beyond the limit first by a spread of" in call("md", run, data, *tight, "--no-spread-stops").out

    outcome = call("rank", run, "trajectory.xyz", "--count", "3", "--apart", "0.01")
    assert outcome.code == 0, outcome.err
    found = ase.io.read(tmp_path / "next.xyz", ":")
    spreads = [float(frame.info["spread"]) for frame in found]
    assert len(found) == 3
    assert spreads == sorted(spreads, reverse=True)
    every = ase.io.read(tmp_path / "trajectory.xyz", ":")
    first = every[int(found[0].info["source"])]
    np.testing.assert_allclose(found[0].positions, first.positions, atol=1e-6)
    assert "the other 23 are within 5 Å" in call("rank", run, "trajectory.xyz", "--apart", "5").out


def test_mistakes_are_mended_in_a_line(run, call, refuse, data, model):
    md = ["md", run, data, "--temperature", "10"]
    for given in ("some", "0", "inf", "nan"):
        refuse(*md, "--spread", given, words="auto or a positive number")
    refuse("md", model, data, "--temperature", "10", "--spread", "auto", words="set snapshots: 8 or members: 4")
    refuse("evaluate", model, data, "--spread", words="has no ensemble")
    refuse("rank", run, data, "--count", "0", words="count should be 1 or more")
    refuse("rank", run, data, "--output", data, words="is the file to read")
    refuse("rank", run, data, "--contact", "3", words="lower --contact")
    file_beside(run / "model" / "model.safetensors").write_bytes(b"x")
    refuse("rank", run, data, words="damaged")

"""Training that is stopped, by Ctrl-C or by nothing that can be caught, and goes on: real processes and signals."""

import signal
import time

import numpy as np
import pytest
import yaml

STEPS = 100
TIMEOUT = 120


@pytest.fixture
def arguments(run_file, settings):
    """A training of a second or two that saves after every step; two stages, the second replaying the first."""
    first, second = dict(settings["stages"][0]), dict(settings["stages"][0])
    first |= {"name": "first", "steps": 20, "validate_every": 5}
    second |= {
        "name": "second",
        "init_from": "first",
        "steps": STEPS,
        "validate_every": 10,
        "replay": {"stage": "first", "weight": 0.1},
        "objectives": {"energy": {}, "forces": {}, "pitc": {}},
    }
    settings |= {"stages": [first, second], "checkpoint_seconds": 0}
    run_file.write_text(yaml.safe_dump(settings))
    return ["train", "run.yaml", "--output"]


def finish(process):
    out, err = process.communicate(timeout=TIMEOUT)
    return process.returncode, out, err


def model(tmp_path, name):
    return (tmp_path / name / "model" / "model.safetensors").read_bytes()


def wait_for(path, process):
    deadline = time.monotonic() + TIMEOUT
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_stopped_training_goes_on_bit_for_bit(shell, arguments, tmp_path):
    code, _, err = finish(shell(*arguments, "whole"))
    assert code == 0, err
    random = np.random.default_rng()
    checkpoint = tmp_path / "cut" / "checkpoints" / "last.safetensors"

    process = shell(*arguments, "cut")  # killed before there is anything to go on from
    wait_for(tmp_path / "cut" / "config.yaml", process)
    process.kill()
    finish(process)
    assert not checkpoint.exists()

    process = shell(*arguments, "cut")  # Ctrl-C
    wait_for(checkpoint, process)
    time.sleep(random.uniform(0, 0.3))
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert code == 130, (code, out, err)
    assert "Traceback" not in err
    assert "stopped. Go on with: phystrain train run.yaml --output cut" in err
    assert not (tmp_path / "cut" / "model" / "model.safetensors").exists()

    waits = random.uniform(0, 0.3, size=2)
    for wait in waits:  # nothing can be tidied up here; whatever is half-written must not matter
        before = checkpoint.stat().st_mtime_ns
        process = shell(*arguments, "cut")
        while checkpoint.stat().st_mtime_ns == before and process.poll() is None:
            time.sleep(0.002)
        time.sleep(wait)
        process.kill()
        code, _, err = finish(process)
        assert code in (-signal.SIGKILL, 0), err

    code, _, err = finish(shell(*arguments, "cut"))
    assert code == 0, err
    assert model(tmp_path, "cut") == model(tmp_path, "whole"), waits
    tables = [
        [row.split(",")[:3] for row in (tmp_path / name / "metrics.csv").read_text().splitlines()]
        for name in ("whole", "cut")
    ]
    assert tables[0] == tables[1]

"""Several processes that train together: real ones, started by this command, torchrun, or as SLURM would."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from phystrain.saving import load_model

TIMEOUT = 300
BATCH_FILE = Path(__file__).parents[2] / "configs" / "train.sbatch"


@pytest.fixture
def everything(run_file, settings):
    """A fit, a committee that labels what the next stage makes, and a last stage with all that waits for the first."""
    short = {"objectives": {"energy": {}, "forces": {}}, "batch_size": 2, "optimiser": {"learning_rate": 1e-3}}
    made = {"augment": {"kind": "rattle", "copies": 1}, "label_by": "committee"}
    gate = {"every": 1, "tests": {"dimers": {}}}
    settings["stages"] = [
        {"name": "fit", "potential": {"kind": "morse"}, "fit": {"starts": 1}},
        {"name": "committee", "members": 2, "steps": 4, **short},
        {"name": "pretrain", "data": made, "steps": 4, **short},
        {
            **short,
            "name": "finetune",
            "init_from": "pretrain",
            "objectives": {"energy": {}, "forces": {}, "pitc": {}, "pisc": {}},
            "replay": {"stage": "pretrain", "batch_size": 1},
            "epochs": 20,
            "validate_every": 20,
            "snapshots": 2,
            "gate": gate,
        },
    ]
    settings["data"]["valid_fraction"] = 0.4  # five left: the last batch of an epoch holds one
    settings["reliability"] = {"tests": {"errors": {}, "dimers": {}}, "baseline": True}
    settings |= {"precision": "float64", "device": "cpu", "checkpoint_seconds": 0}
    run_file.write_text(yaml.safe_dump(settings))
    return settings


@pytest.fixture
def endless(run_file, settings):
    """A run that only ends if something ends it."""
    settings["stages"][0] |= {"steps": 1_000_000, "validate_every": 1_000_000}
    settings |= {"device": "cpu", "checkpoint_seconds": 0}
    run_file.write_text(yaml.safe_dump(settings))


def finish(process):
    out, err = process.communicate(timeout=TIMEOUT)
    return process.returncode, out, err


def wait_for(path, process):
    deadline = time.monotonic() + TIMEOUT
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def children(number):
    threads = Path(f"/proc/{number}/task").glob("*/children")
    return [int(number) for thread in threads for number in thread.read_text().split()]


def rows(folder):
    drop = {"seconds": ""}
    return [row | drop for row in csv.DictReader((folder / "metrics.csv").open())]


def test_two_processes_do_all_that_one_does_and_one_goes_on(shell, everything, tmp_path):
    code, _, err = finish(shell("train", "run.yaml", "--output", "one"))
    assert code == 0, err

    process = shell("train", "run.yaml", "--output", "two", "--devices", "2")
    wait_for(tmp_path / "two" / "model" / "pretrain.safetensors", process)
    checkpoint = tmp_path / "two" / "checkpoints" / "last.safetensors"
    before = checkpoint.stat().st_mtime_ns
    while checkpoint.stat().st_mtime_ns == before:
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)  # the first one only: it has to tell the other
    code, out, err = finish(process)
    assert code == 130, (out, err)
    assert "2 processes on 1 node, started by phystrain" in out
    assert err.count("stopped. Go on with: phystrain train run.yaml --output two --devices 2") == 1
    assert "Traceback" not in err
    assert not (tmp_path / "two" / "model" / "finetune.safetensors").exists()

    code, out, err = finish(shell("train", "run.yaml", "--output", "two", "--devices", "1"))
    assert code == 0, err
    one, two = (load_model(tmp_path / name).potential.state_dict() for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-9, atol=1e-12, msg=name)
    assert len(rows(tmp_path / "two")) == len(rows(tmp_path / "one"))


def test_the_rest_of_a_run_is_there_with_two_processes(shell, everything, tmp_path):
    code, out, err = finish(shell("train", "run.yaml", "--output", "two", "--devices", "2"))
    assert code == 0, err
    assert out.count("VERDICT") == 1
    assert "labels only" in (tmp_path / "two" / "report.html").read_text()
    assert (tmp_path / "two" / "baseline" / "model" / "model.safetensors").is_file()
    assert (tmp_path / "two" / "model" / "committee.2.safetensors").is_file()
    assert (tmp_path / "two" / "checkpoints" / "finetune-snapshots.safetensors").is_file()
    last = rows(tmp_path / "two")[-1]
    assert float(last["gate_dimers"]) >= 0
    assert float(last["epoch"]) == 20
    assert err.strip() == ""


@pytest.mark.parametrize("harm", [signal.SIGKILL, signal.SIGSTOP])
def test_one_that_dies_or_hangs_ends_all(harm, shell, endless, tmp_path, monkeypatch):
    monkeypatch.setenv("PHYSTRAIN_TIMEOUT", "600" if harm is signal.SIGKILL else "5")
    process = shell("train", "run.yaml", "--output", "out", "--devices", "2")
    wait_for(tmp_path / "out" / "checkpoints" / "last.safetensors", process)
    (child,) = children(process.pid)
    os.kill(child, harm)
    code, _, err = finish(process)
    assert code == 2, err
    said = {signal.SIGKILL: "process 1 of 2 was killed (signal 9", signal.SIGSTOP: "did not answer for 5 s"}[harm]
    (line,) = err.strip().splitlines()
    assert line.startswith("phystrain: ")
    assert said in line
    assert "goes on from the last checkpoint" in line
    assert not Path(f"/proc/{child}").exists()


def test_those_left_end_with_the_first(shell, endless, tmp_path):
    process = shell("train", "run.yaml", "--output", "out", "--devices", "2")
    wait_for(tmp_path / "out" / "checkpoints" / "last.safetensors", process)
    (child,) = children(process.pid)
    process.kill()
    _, _, err = finish(process)  # until the other one has closed its end
    assert err.strip().startswith("phystrain: the first of 2 processes has ended")
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}/exe").is_symlink() and os.path.lexists(f"/proc/{child}/fd/2"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_torchrun_on_two_nodes(run_file, settings, tmp_path):
    settings |= {"device": "cpu", "precision": "float64"}
    run_file.write_text(yaml.safe_dump(settings))
    rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--rdzv-id", "7"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", *rendezvous]
    command += ["-m", "phystrain.cli", "train", "run.yaml", "--output", "out", "--nodes", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    nodes = [
        subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    ended = [finish(node) for node in nodes]
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert sum("stage finetune: done" in out for _, out, _ in ended) == 1
    assert "2 processes on 2 nodes, started by torchrun" in (tmp_path / "out" / "train.log").read_text()
    assert yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["nodes"] == 2


def test_ctrl_c_under_torchrun_leaves_a_checkpoint(endless, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "phystrain.cli", "train", "run.yaml", "--output", "out"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    job = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(tmp_path / "out" / "checkpoints" / "last.safetensors", job)
    os.killpg(job.pid, signal.SIGINT)  # all of them, and torchrun passes it on
    _, out, err = finish(job)
    assert "2 processes on 1 node, started by torchrun" in out
    assert err.count("stopping after this step") == err.count("stopped. Go on with") == 1


def as_slurm(rank, port):
    """What srun --nodes 2 --ntasks-per-node 1 leaves for a task."""
    return {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_NNODES": "2",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NUM_NODES": "2",
        "SLURM_PROCID": str(rank),
        "SLURM_NODEID": str(rank),
        "SLURM_LOCALID": "0",
        "MASTER_PORT": str(port),
    }


def descendants(process):
    """Python processes below a script."""
    found, left = [], children(process.pid)
    while left:
        number = left.pop()
        left += children(number)
        if b"phystrain.cli" in Path(f"/proc/{number}/cmdline").read_bytes():
            found.append(number)
    return found


def test_the_batch_file_trains_under_slurm_and_queues_again(run_file, settings, tmp_path):
    assert subprocess.run(["bash", "-n", BATCH_FILE], check=False).returncode == 0
    settings["checkpoint_seconds"] = 0
    settings["device"] = "cpu"
    run_file.write_text(yaml.safe_dump(settings))
    port = free_port()
    steps = "\n".join(
        " ".join([*(f"{name}={value}" for name, value in as_slurm(rank, port).items()), '"$@" & tasks+=($!)'])
        for rank in range(2)
    )
    skip = 'while [[ $1 == --* ]]; do shift; done\necho "$1 $2"\ntasks=()'
    wait = 'code=0; for task in "${tasks[@]}"; do wait "$task" || code=$?; done; exit "$code"'
    programs = {
        "srun": "\n".join([skip, steps, wait]),
        "phystrain": f'exec {sys.executable} -m phystrain.cli "$@"',
        "scontrol": f'echo "$@" >> {tmp_path}/requeued',
    }
    for name, text in programs.items():
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/bash\n{text}\n")
        file.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_JOB_ID": "4711",
        "SLURM_NTASKS": "2",
    }
    command = ["bash", BATCH_FILE, "run.yaml", "--output", "out", "stages.finetune.steps=1000000"]
    job = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(tmp_path / "out" / "checkpoints" / "last.safetensors", job)
    for task in descendants(job):
        os.kill(task, signal.SIGTERM)  # as --signal=TERM@120 does, before the time is over
    code, out, err = finish(job)
    assert code == 130, (out, err)
    assert "2 processes on 2 nodes, started by SLURM" in out
    assert out.count("stage finetune: painn") == err.count("stopped. Go on with") == 1  # one speaks
    assert (tmp_path / "requeued").read_text() == "requeue 4711\n"


def test_what_cannot_be_is_refused(refuse, run_file, monkeypatch):
    train = ["train", run_file, "--output", "out"]
    refuse(*train, "--nodes", "2", words=("torchrun --nnodes 2 --nproc-per-node 1", "srun phystrain train"))
    refuse(*train, "--devices", "3", words="batch_size 2 cannot feed 3 processes")
    refuse(*train, "--devices", "0", words="at least 1")
    refuse(*train, "device=cuda", "processes=2", words="of which torch finds none here")
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        refuse(*train, "--devices", "2", words=("cannot be used", "set MASTER_PORT"))
    for name, value in as_slurm(0, 1).items():
        monkeypatch.setenv(name, value)
    refuse(*train, "--devices", "2", words="SLURM started 1 on each of 2 nodes, but --devices 2 --nodes 1")
    assert not Path("out").exists()

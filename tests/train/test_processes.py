import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from phystrain.errors import UserError
from phystrain.train.launch import Processes, forgotten, is_first, is_first_here, launched
from phystrain.train.processes import PATIENCE, alone, is_lost, patience, waited

PITC, PISC = {"pitc": {"weight": 1.0}}, {"pisc": {"weight": 1.0}}
LAZY = {"energy": {}, "forces": {"of": "guide"}, "pitc": {"every": 2}, "pisc": {"weight": 1.0, "part": 0.3}}
CASES = {
    "all": ({"energy": {}, "forces": {}, "stress": {}, **PITC, **PISC}, 5),  # batches of 3
    "forces": ({"forces": {}}, 2),
    "lazy": (LAZY, 6),
    "single": ({"energy": {}, "forces": {}, **PITC}, 1),  # fewer structures than processes
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Gradients of all cases by number of processes."""
    folder, script = tmp_path_factory.mktemp("gradients"), Path(__file__).with_name("gradients.py")
    results = {}
    for processes in (1, 2):
        output = folder / f"{processes}.safetensors"
        command = [sys.executable, script, str(processes), json.dumps(CASES), output]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        results[processes] = load_file(output)
    return results


@pytest.mark.parametrize("case", CASES)
def test_two_processes_have_the_gradient_of_one(case, found):
    one, two = ({n: v for n, v in part.items() if n.startswith(f"{case}.")} for part in (found[1], found[2]))
    assert one.keys() == two.keys()
    for step in range(3):
        names = [name for name in one if name.startswith(f"{case}.{step}.") and one[name].is_floating_point()]
        scale = max(float(one[name].abs().max()) for name in names)
        assert scale > 0
        for name in names:
            torch.testing.assert_close(two[name], one[name], rtol=1e-12, atol=1e-12 * scale, msg=name)
    sizes = [int(one[f"{case}.{step}.structures"]) for step in range(3)]
    assert sizes == [int(two[f"{case}.{step}.structures"]) for step in range(3)]
    assert (case == "single") == (1 in sizes)


def test_automatic_weights_are_measured_now_and_then(found):
    weights = [float(found[1][f"lazy.{step}.weight.unlabelled_pisc"]) for step in range(3)]
    assert weights[0] == weights[1] != weights[2]


TORCHRUN = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "2"}
SLURM = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_NNODES": "2", "SLURM_PROCID": "0"}
SRUN = SLURM | {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2"}


def test_launchers_are_known_by_what_they_leave():
    assert launched({}) is None
    assert str(launched(TORCHRUN)) == "4 processes on 2 nodes, started by torchrun"
    assert launched(SRUN) == Processes(4, 2, "SLURM")
    assert launched(SLURM) is None  # a batch script without srun is one process
    assert "put srun before the command" in forgotten(SLURM)
    assert not forgotten(SRUN)
    assert launched(SRUN | {"SLURM_STEP_NUM_TASKS": "1"}) is None
    with pytest.raises(UserError, match="not the same number on each"):
        launched(SRUN | {"SLURM_STEP_NUM_TASKS": "7"})
    with pytest.raises(UserError, match="use torchrun or srun"):
        launched({"OMPI_COMM_WORLD_SIZE": "4"})


def test_one_process_speaks_for_all():
    assert is_first({})
    assert is_first(SLURM | {"SLURM_PROCID": "3"})
    assert is_first(SRUN)
    assert not is_first(SRUN | {"SLURM_PROCID": "3"})
    assert [is_first(TORCHRUN | {"RANK": rank}) for rank in "01"] == [True, False]
    assert is_first_here(TORCHRUN | {"RANK": "2", "LOCAL_RANK": "0"})  # another machine may have other faults
    assert not is_first_here(TORCHRUN | {"RANK": "3", "LOCAL_RANK": "1"})
    assert [is_first_here(SRUN | {"SLURM_PROCID": "4", "SLURM_LOCALID": number}) for number in "01"] == [True, False]
    assert not is_first({"PHYSTRAIN_STARTED_BY": str(os.getpid() + 1)})
    assert is_first({"PHYSTRAIN_STARTED_BY": str(os.getpid())})


@pytest.mark.parametrize(
    ("words", "long"),
    [
        ("[/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 5000ms for recv", True),
        ("Application timeout caused pair closure", True),
        ("Connection closed by peer [127.0.0.1]:40312", False),
    ],
)
def test_errors_of_a_connection_are_known(words, long):
    """As torch has raised them, of which some are plain ``RuntimeError`` and do not name where they come from."""
    assert is_lost(RuntimeError(words))
    assert waited(RuntimeError(words)) == long
    assert not is_lost(ValueError(words))
    assert not is_lost(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_one_process_alone_simply_works(monkeypatch):
    assert alone(lambda: 3) == 3
    monkeypatch.setenv(PATIENCE, "30")
    assert patience().total_seconds() == 30
    monkeypatch.setenv(PATIENCE, "long")
    with pytest.raises(UserError, match="give a number of seconds"):
        patience()

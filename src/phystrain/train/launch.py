"""Who starts the processes of a run: this command itself on one machine, torchrun, or SLURM's srun.

Lightning Fabric connects processes however they were started. What is decided here is how many there are, what the
settings must agree with, and which of them speaks.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

from phystrain.errors import UserError

CHILD = "PHYSTRAIN_STARTED_BY"
"""Set for processes that :func:`phystrain.train.others.start_others` made, to the process that made them."""

_LONE = {"OMPI_COMM_WORLD_SIZE": "mpirun", "PMI_SIZE": "mpiexec", "JSM_NAMESPACE_SIZE": "jsrun"}
"""Number of processes of launchers that are not supported: their processes would not know of one another."""


class Processes(NamedTuple):
    """The processes of a run.

    Attributes:
        each: on each machine.
        nodes: machines.
        by: what started them, or will.
    """

    each: int
    nodes: int
    by: str = "phystrain"

    @property
    def total(self) -> int:
        """On all machines."""
        return self.each * self.nodes

    def __str__(self) -> str:
        machines = f"{self.nodes} node{'s' * (self.nodes > 1)}"
        return f"{self.total} process{'es' * (self.total > 1)} on {machines}, started by {self.by}"


def launched(environment: Mapping[str, str] = os.environ) -> Processes | None:
    """Processes that a launcher started, by what it leaves in the environment; ``None`` without one.

    A step of SLURM with a single task is no launcher: this command may start processes on that machine.

    Raises:
        UserError: unlike numbers of processes on the machines, or a launcher that is not supported.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        total, each = int(environment["WORLD_SIZE"]), int(environment["LOCAL_WORLD_SIZE"])
        return _even(total, int(environment.get("GROUP_WORLD_SIZE", total // each)), "torchrun", each)
    # A batch script sees the variables of the whole job; only srun makes a step.
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", environment.get("SLURM_NTASKS", "1")))
    if "SLURM_STEP_ID" in environment and tasks > 1:
        nodes = int(environment.get("SLURM_STEP_NUM_NODES", environment.get("SLURM_NNODES", "1")))
        return _even(tasks, nodes, "SLURM")
    for variable, name in _LONE.items():
        if int(environment.get(variable, "1")) > 1 and "SLURM_STEP_ID" not in environment:
            raise UserError(f"processes started by {name} do not find one another: use torchrun or srun")
    return None


def _even(total: int, nodes: int, by: str, each: int | None = None) -> Processes:
    if total % nodes or (each is not None and each * nodes != total):
        raise UserError(
            f"{by} started {total} processes on {nodes} nodes, not the same number on each: "
            f"start as many everywhere ({'--ntasks-per-node' if by == 'SLURM' else '--nproc-per-node'})"
        )
    return Processes(total // nodes, nodes, by)


def planned(
    processes: int, nodes: int, *, asked: tuple[int | None, int | None] = (None, None), what: str = "phystrain train"
) -> Processes:
    """How many processes there will be: as the launcher says, else as the options say, else as the run file says.

    Args:
        processes: on each machine, by the run file.
        nodes: machines, by the run file.
        asked: the same by options, where they are given.
        what: the command, for what a message tells to type.

    Raises:
        UserError: options and launcher disagree, or several machines without a launcher.
    """
    if min(number for number in (*asked, 1) if number is not None) < 1:
        raise UserError("--devices and --nodes are numbers of at least 1")
    found = launched()
    each, machines = asked[0] or processes, asked[1] or nodes
    if found is not None:
        if (asked[0] or found.each, asked[1] or found.nodes) != found[:2]:
            raise UserError(
                f"{found.by} started {found.each} on each of {found.nodes} nodes, but --devices {each} --nodes "
                f"{machines} was asked for: leave these options out, or start as many"
            )
        return found
    if machines > 1:
        raise UserError(
            f"{machines} nodes need a launcher. In a SLURM job: srun {what} ...; else, on each of them:\n"
            f"torchrun --nnodes {machines} --nproc-per-node {each} --rdzv-backend c10d --rdzv-endpoint FIRST_NODE:29500"
            f" --no-python {what} ..."
        )
    return Processes(each, 1)


def forgotten(environment: Mapping[str, str] = os.environ) -> str:
    """What to say of a SLURM job for several tasks in which the command stands without srun; empty otherwise."""
    tasks = int(environment.get("SLURM_NTASKS", "1"))
    if tasks > 1 and "SLURM_STEP_ID" not in environment and CHILD not in environment:
        return (
            f"SLURM has {tasks} tasks for this job, and this is one process without srun: put srun before the command"
        )
    return ""


def is_child(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process was made by :func:`phystrain.train.others.start_others`."""
    return CHILD in environment and environment[CHILD] != str(os.getpid())


def is_first(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is the first of the processes, as far as the environment tells: the one that speaks for all."""
    if "TORCHELASTIC_RUN_ID" in environment:
        return environment.get("RANK") == "0"
    return not is_child(environment) and ("SLURM_STEP_ID" not in environment or environment.get("SLURM_PROCID") == "0")


def is_first_here(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is the first process of its machine: the one that tells mistakes before the processes met."""
    if "TORCHELASTIC_RUN_ID" in environment:
        return environment.get("LOCAL_RANK") == "0"
    return not is_child(environment) and ("SLURM_STEP_ID" not in environment or environment.get("SLURM_LOCALID") == "0")

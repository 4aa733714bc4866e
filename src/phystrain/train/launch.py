"""Who starts the processes of a run: this command itself on one machine, torchrun, or SLURM's srun.

Lightning Fabric connects processes however they were started. What is decided here is how many there are, what the
settings must agree with, and what happens to the others when one of them dies.
"""

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from phystrain.errors import UserError

_CHILD = "PHYSTRAIN_STARTED_BY"
"""Set for processes that :func:`start_others` made, to the process that made them."""

_GRACE = 10.0
"""Seconds that processes have to end by themselves after one of them died."""

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
    if tasks > 1 and "SLURM_STEP_ID" not in environment and _CHILD not in environment:
        return (
            f"SLURM has {tasks} tasks for this job, and this is one process without srun: put srun before the command"
        )
    return ""


def is_child(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process was made by :func:`start_others`."""
    return _CHILD in environment and environment[_CHILD] != str(os.getpid())


def is_first(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is the first of the processes, as far as the environment tells: the one that speaks for all."""
    if "TORCHELASTIC_RUN_ID" in environment:
        return environment.get("RANK") == "0"
    return not is_child(environment) and ("SLURM_STEP_ID" not in environment or environment.get("SLURM_PROCID") == "0")


AGAIN = "The same command goes on from the last checkpoint."


def is_first_here(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is the first process of its machine: the one that tells mistakes before the processes met."""
    if "TORCHELASTIC_RUN_ID" in environment:
        return environment.get("LOCAL_RANK") == "0"
    return not is_child(environment) and ("SLURM_STEP_ID" not in environment or environment.get("SLURM_LOCALID") == "0")


class Others:
    """The processes that this one started, and what becomes of them.

    Args:
        started: all of them, by number from 1.
        spoken: whether one of the processes has said already why it ended.
    """

    def __init__(self, started: list[subprocess.Popen[bytes]], spoken: Callable[[], bool]) -> None:
        self._started, self._spoken, self._over = started, spoken, False
        threading.Thread(target=self._watch, daemon=True, name="other-processes").start()

    @property
    def running(self) -> bool:
        """Whether any is left."""
        return any(process.poll() is None for process in self._started)

    def fallen(self) -> str:
        """How the first one that died did, in a sentence; empty if none did."""
        for number, process in enumerate(self._started, start=1):
            if code := process.poll():
                return f"process {number} of {len(self._started) + 1} {_how(code)}; the others are stopped"
        return ""

    def release(self) -> None:
        """They are needed no more: how they end does not matter to this process."""
        self._over = True

    def end(self, seconds: float = 3.0) -> None:
        """Wait for all to end; end those that do not."""
        self.release()
        until = time.monotonic() + seconds
        for how in (None, signal.SIGTERM, signal.SIGKILL):
            for process in self._started:
                if how is not None and process.poll() is None:
                    process.send_signal(how)
            for process in self._started:
                try:
                    process.wait(max(0.0, until - time.monotonic()))
                except subprocess.TimeoutExpired:
                    continue
            until = time.monotonic() + 1.0

    def _watch(self) -> None:
        """End this process too when another one died and this one, busy or waiting, does not notice."""
        while not self._over:
            time.sleep(0.5)
            if said := self.fallen():
                until = time.monotonic() + _GRACE
                while time.monotonic() < until:
                    if self._over:
                        return
                    time.sleep(0.1)
                if not self._spoken():
                    print(f"phystrain: {said}. {AGAIN}", file=sys.stderr, flush=True)
                self.end(0.0)
                os._exit(2)


def _how(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed (signal 9, as where memory runs out)"
    return f"was killed (signal {-code})" if code < 0 else f"ended with exit code {code}"


def require_startable() -> None:
    """Refuse to start other processes, before there is work to lose, where that cannot be.

    Raises:
        UserError: the port that was asked for is taken, or there is no script to start again.
    """
    _port(os.environ.get("MASTER_PORT"))
    if getattr(sys.modules["__main__"], "__file__", None) is None:
        raise UserError("several processes need a script or the command line: none can start this session again")


def start_others(count: int, spoken: Callable[[], bool]) -> Others:
    """Start this command again, so that there are ``count`` processes on this machine, with this one as the first.

    Args:
        count: of processes, this one included.
        spoken: see :class:`Others`.
    """
    module = getattr(sys.modules["__main__"], "__spec__", None)
    command = [sys.executable, "-m", module.name] if module else [sys.executable, str(Path(sys.argv[0]).resolve())]
    port = str(_port(os.environ.get("MASTER_PORT")))
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0", "LOCAL_RANK": "0"})
    os.environ.update({"WORLD_SIZE": str(count), _CHILD: str(os.getpid())})
    started = [
        subprocess.Popen(
            [*command, *sys.argv[1:]], env={**os.environ, "LOCAL_RANK": str(number)}, stdin=subprocess.DEVNULL
        )
        for number in range(1, count)
    ]
    others = Others(started, spoken)
    atexit.register(others.end)  # of a script that does not use together()
    return others


def _port(asked: str | None) -> int:
    """A free port of this machine, or the one that was asked for if it is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("", int(asked or 0)))
        except (OSError, ValueError, OverflowError) as error:
            raise UserError(
                f"port {asked} of this machine cannot be used ({error}): set MASTER_PORT to another, or unset it"
            ) from error
        return int(probe.getsockname()[1])

"""How the processes of a run find one another, and what all of them must see."""

import logging
import os
import platform
import time
from pathlib import Path

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning_fabric.strategies import DDPStrategy
from torch.distributed.distributed_c10d import _set_pg_timeout

from phystrain.config import RunConfig
from phystrain.errors import UserError
from phystrain.train.launch import Processes
from phystrain.train.processes import MEETING, patience

_SEEN = 60.0
"""Seconds that a network file system may take to show a new file to other machines."""


def connected(config: RunConfig, processes: Processes) -> Fabric:
    """Fabric with the device of this process, which has met the others.

    Raises:
        UserError: they do not find one another.
    """
    accelerator = config.device if config.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    if processes.total == 1:
        return Fabric(accelerator=accelerator, devices=1, plugins=[LightningEnvironment()])
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # no greetings: the log says who is there
    fabric = Fabric(
        accelerator=accelerator,
        devices=processes.each,
        num_nodes=processes.nodes,
        strategy=DDPStrategy(timeout=MEETING),
        plugins=[_cluster(processes)],
    )
    try:
        fabric.launch()
        _set_pg_timeout(patience())
    except (torch.distributed.DistError, TimeoutError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        if "EADDRINUSE" in str(error):
            raise UserError(f"port {where} is in use: set MASTER_PORT to another, the same for all") from error
        raise UserError(
            f"not all of {processes.total} processes met at {where} within {MEETING.total_seconds():g} s: "
            f"see that all of them started and reach that machine"
        ) from error
    return fabric


def _cluster(processes: Processes) -> ClusterEnvironment:
    """What tells Fabric which process this is; it would guess by itself, and take a batch script for a step."""
    if processes.by == "torchrun":
        return TorchElasticEnvironment()
    if processes.by == "SLURM":
        os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(processes.each))  # Fabric wants it even where it follows
        return SLURMEnvironment()
    return LightningEnvironment()


def require_enough(config: RunConfig, processes: int) -> None:
    """Refuse more processes than a batch has structures, before anything is read.

    Raises:
        UserError: names the stage and the mend.
    """
    for stage in config.stages:
        if stage.fit is None and stage.budget is None and stage.batch_size < processes:
            raise UserError(
                f"stage {stage.name}: its batch_size {stage.batch_size} cannot feed {processes} processes: "
                f"use fewer, or raise it and learning_rate with it"
            )


def require_seen(file: Path) -> None:
    """Refuse a run folder that another machine does not see.

    Args:
        file: in it, written by the first process.

    Raises:
        UserError: not to be seen, even after a while.
    """
    deadline = time.monotonic() + _SEEN
    while not file.is_file():
        if time.monotonic() > deadline:
            raise UserError(f"{platform.node()} does not see {file}: put the run folder where all machines see it")
        time.sleep(0.2)

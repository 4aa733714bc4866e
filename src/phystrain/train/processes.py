"""What passes between processes. The one place that knows whether there are several."""

import itertools
import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed
from torch import Tensor

from phystrain.errors import Echo, LoneError, UserError, lacks_memory
from phystrain.train.others import AGAIN, Others

T = TypeVar("T")

PATIENCE = "PHYSTRAIN_TIMEOUT"
"""Variable of the environment: seconds that a process waits for another one in the middle of a step."""

MEETING = timedelta(minutes=10)
"""How long processes wait for one another at the start, where some may have to read programs from a slow disk."""

_DEFAULT_PATIENCE = 600.0

_FAILED, _LEFT = "phystrain/failed", "phystrain/left"
"""In the store of the processes: how many have failed, and how many know."""

_GRACE = 60.0
"""Seconds that the other processes have to end after a run, in which the first one has the most to do."""

_LOST = ("gloo", "pair closure", "closed by peer", "reset by peer")
"""Words of the errors, not always of a class of their own, by which a process learns that it waits in vain."""

_WAITED = ("imed out", "imeout")
"""Words of those that say for how long."""

_CHUNK = 1 << 26
_SMALL = 1 << 16

_calls = itertools.count()
_others: list[Others] = []


def patience() -> timedelta:
    """How long a process waits for another one in a step or a validation; see :data:`PATIENCE`.

    What one process does alone does not count: see :func:`alone`.

    Raises:
        UserError: the variable holds no such time.
    """
    given = os.environ.get(PATIENCE, str(_DEFAULT_PATIENCE))
    try:
        return timedelta(seconds=max(1.0, float(given)))
    except (ValueError, OverflowError) as error:
        raise UserError(f"{PATIENCE} is {given!r}: give a number of seconds") from error


def global_sum(values: Tensor) -> Tensor:
    """Sum of a tensor over all processes; the tensor itself where there is one."""
    if not torch.distributed.is_initialized():
        return values
    values = values.detach().clone()
    torch.distributed.all_reduce(values)
    return values


def same_everywhere(value: int, device: torch.device) -> bool:
    """Whether all processes hold the same number."""
    values = torch.zeros(world_size(), dtype=torch.int64, device=device)
    values[rank()] = value
    return bool((global_sum(values) == value).all())


def world_size() -> int:
    """Number of processes."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def alone(work: Callable[[], T]) -> T:
    """Let the first process work, and hand what it finds to all of them, however long it takes.

    The others wait outside collective operations, whose time-out is meant for steps.

    Args:
        work: called in the first process only; what it returns is pickled.

    Raises:
        UserError: ``work`` did, in all processes.
    """
    if world_size() == 1:
        return work()
    store, key = _store(), f"phystrain/alone/{next(_calls)}"
    if rank() == 0:
        found, problem = None, ""
        try:
            found = work()
        except UserError as error:
            problem = str(error)
        content = pickle.dumps((found, problem), protocol=5)
        store.set(key, pickle.dumps(len(content) if len(content) > _SMALL else content))
        if len(content) > _SMALL:
            _broadcast(content, len(content))
    else:
        _wait(store, key)
        told = pickle.loads(store.get(key))  # noqa: S301 - from the first process of this run
        content = told if isinstance(told, bytes) else _broadcast(b"", told)
        found, problem = pickle.loads(content)  # noqa: S301 - as above
    if problem:
        raise UserError(problem)
    return found  # type: ignore[return-value]


def _store() -> Any:
    """What the processes found one another by: a table of keys that outlives the connections between them."""
    return torch.distributed.distributed_c10d._get_default_store()


def _wait(store: Any, key: str) -> None:
    """Until the first process has set a key. By asking now and then: that leaves room for signals."""
    pause = 0.01
    while not store.check([key]):
        if store.check([_FAILED]):
            raise Echo
        time.sleep(pause)
        pause = min(0.5, 1.2 * pause)


def _broadcast(content: bytes, size: int) -> bytes:
    """Bytes of the first process in all of them, in pieces, so that they need little memory of a GPU."""
    device = "cpu" if torch.distributed.get_backend() == "gloo" else f"cuda:{torch.cuda.current_device()}"
    whole = torch.empty(size, dtype=torch.uint8)
    if rank() == 0:
        whole.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    for begin in range(0, size, _CHUNK):
        piece = whole[begin : begin + _CHUNK].to(device)
        torch.distributed.broadcast(piece, src=0)
        whole[begin : begin + _CHUNK] = piece.cpu()
    return whole.numpy().tobytes()


def answer_for(others: Others) -> None:
    """Let :func:`together` know of processes that this one started."""
    _others.append(others)


def release() -> None:
    """Let the other processes end: what is left is for the first one."""
    for others in _others:
        others.release()


def somebody_spoke() -> bool:
    """Whether a process has failed and said why."""
    try:
        return torch.distributed.is_initialized() and bool(_store().check([_FAILED]))
    except RuntimeError:
        return False


@contextmanager
def together() -> Iterator[None]:
    """Within, an error of one process ends all of them, and one of them says why.

    Raises:
        LoneError: what the person is to know, in the process that says it.
        Echo: in processes that end because another one did, or for the same reason.
    """
    try:
        yield
    except BaseException as error:
        several = world_size() > 1
        outcome = _outcome(error) if several else error
        if several:
            _leave()
        for others in _others:
            others.end()
        if outcome is error:
            raise
        raise outcome from (None if isinstance(outcome, Echo) else error)
    else:
        for others in _others:
            others.end(_GRACE)


def _outcome(error: BaseException) -> BaseException:
    """What this process ends with, after a word to the others."""
    if isinstance(error, Echo) or not isinstance(error, Exception):
        _first_to_fail()
        return error
    if is_lost(error):
        return _lost(error)
    first = _first_to_fail()
    if isinstance(error, UserError):
        return LoneError(str(error)) if first else Echo()
    return Echo() if lacks_memory(error) and not first else error


def _first_to_fail() -> bool:
    try:
        return bool(_store().add(_FAILED, 1) == 1)
    except RuntimeError:  # the store ended with the first process
        return False


def is_lost(error: Exception) -> bool:
    """Whether an error says that another process does not answer."""
    distributed = isinstance(error, torch.distributed.DistError)
    return distributed or (isinstance(error, RuntimeError) and any(words in str(error) for words in _LOST))


def waited(error: Exception) -> bool:
    """Whether it says that there was no answer for a time, and not that a connection has ended."""
    return any(words in str(error) for words in _WAITED)


def _lost(error: Exception) -> BaseException:
    """Another process ended or hangs. The first of those that are left says so, unless that one did itself."""
    until = time.monotonic() + 3.0
    while True:
        try:
            said = bool(_store().check([_FAILED]))
        except RuntimeError:
            if rank() == 1:
                return LoneError(f"the first of {world_size()} processes has ended, and the others with it. {AGAIN}")
            return Echo()
        if said:
            return Echo()
        fallen = next(filter(None, (others.fallen() for others in _others)), "")
        if "killed" in fallen or time.monotonic() > until:  # who was killed could not say anything
            break
        time.sleep(0.05)
    if rank() > 1 or not _first_to_fail():  # of the first two, at least one is left
        return Echo()
    unknown = (
        f"another process did not answer for {patience().total_seconds():g} s ({PATIENCE} sets how long to wait)"
        if waited(error)
        else f"another of the {world_size()} processes has ended without a word, as where memory runs out"
    )
    return LoneError(f"{fallen or unknown}. {AGAIN}")


def _leave() -> None:
    """Cut the connections, on which the others wait, and let them read why before the store goes."""
    first, others, store = rank() == 0, world_size() - 1, _store()
    with suppress(RuntimeError):
        store.add(_LEFT, 1)
        if torch.distributed.get_backend() == "gloo":  # NCCL would wait for the others here
            torch.distributed.destroy_process_group()
        until = time.monotonic() + 3.0
        while first and store.add(_LEFT, 0) <= others and time.monotonic() < until:
            if _others and not any(started.running for started in _others):
                return
            time.sleep(0.05)

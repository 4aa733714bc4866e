"""Processes that this command starts again on its own machine, and what happens when one of them dies."""

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from phystrain.errors import UserError
from phystrain.train.launch import CHILD

AGAIN = "The same command goes on from the last checkpoint."

_GRACE = 10.0
"""Seconds that processes have to end by themselves after one of them died."""


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
    os.environ.update({"WORLD_SIZE": str(count), CHILD: str(os.getpid())})
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

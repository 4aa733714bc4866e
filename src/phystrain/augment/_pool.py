"""Several processes that run calculators of ASE, one structure each at a time.

Processes of their own kind rather than those of ``multiprocessing``: these do not import the main script again, so
that scripts need no guard, and they start with one thread each before any numerical library is loaded.
"""

import contextlib
import os
import pickle
import queue
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from phystrain.data.structures import Structures
from phystrain.errors import UserError

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_SCRIPT = Path(__file__).with_name("_worker.py")

Answer = tuple[tuple[float, Any, Any] | None, str]


def geometry(structures: Structures, index: int) -> dict[str, Any]:
    """Arguments of ``ase.Atoms`` for one structure, without labels and facts."""
    part = slice(structures.offsets[index], structures.offsets[index + 1])
    return {
        "numbers": structures.species[part],
        "positions": structures.positions[part],
        "cell": structures.cell[index],
        "pbc": structures.pbc[index],
    }


class Pool:
    """Worker processes.

    Args:
        path: import path of what makes the calculator.
        arguments: keyword arguments of it.
        processes: how many.
    """

    def __init__(self, path: str, arguments: dict[str, Any], processes: int) -> None:
        self._task = (path, arguments)
        self._free: queue.Queue[_Worker] = queue.Queue()
        self._workers: list[_Worker] = []
        self._closed = False
        for _ in range(processes):
            self._add()

    def map(self, structures: Structures, want: list[frozenset[str]]) -> Iterator[Answer]:
        """The answers in order.

        Args:
            structures: to label.
            want: (systems,) quantities of each.
        """
        threads = ThreadPoolExecutor(len(self._workers))

        def task(index: int) -> Answer:
            return self._ask(geometry(structures, index), want[index])

        try:
            yield from threads.map(task, range(len(structures)))
        finally:
            self._closed = True
            threads.shutdown(wait=False, cancel_futures=True)
            for worker in list(self._workers):
                worker.kill()
            threads.shutdown(wait=True)  # those that were waiting for an answer find that none will come
            for worker in list(self._workers):
                worker.close()

    def _add(self) -> None:
        worker = _Worker(*self._task)
        self._workers.append(worker)
        self._free.put(worker)

    def _ask(self, atoms: dict[str, Any], want: frozenset[str]) -> Answer:
        worker = self._free.get()
        try:
            answer = worker.ask(atoms, want)
        except (EOFError, OSError, pickle.UnpicklingError):  # crashed: the others can still be labelled
            code = worker.close()
            self._workers.remove(worker)
            if not self._closed:
                self._add()
            return None, f"the process of the calculator ended by itself (exit code {code})"
        except UserError:
            self._free.put(worker)  # no thread may wait for a worker that does not come back
            raise
        self._free.put(worker)
        return answer


class _Worker:
    """One process."""

    def __init__(self, path: str, arguments: dict[str, Any]) -> None:
        environment = os.environ | dict.fromkeys(_THREADS, "1")
        # -P: without it the folder of the script would come first in the search path, and shadow other modules
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        self._path, self._ready = path, False
        self._send(sys.path)
        self._send((path, arguments))

    def ask(self, atoms: dict[str, Any], want: frozenset[str]) -> Answer:
        if not self._ready:
            _, error = pickle.load(self._output)  # noqa: S301
            if error:
                raise UserError(
                    f"{self._path} does not start in a process of its own ({error}). Put it in a module that can be "
                    "imported from everywhere, or give the teacher processes: 1"
                )
            self._ready = True
        self._send((atoms, want))
        answer: Answer = pickle.load(self._output)  # noqa: S301
        return answer

    def kill(self) -> None:
        """End the process."""
        self._process.kill()

    def close(self) -> int:
        """Wait for a process that ends, or has ended, and return its exit code."""
        try:
            code = self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        for stream in (self._input, self._output):
            with contextlib.suppress(OSError):
                stream.close()
        return code

    def _send(self, content: object) -> None:
        pickle.dump(content, self._input)
        self._input.flush()

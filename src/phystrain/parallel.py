"""Work for several threads, and how many cores there are for it."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
Item = TypeVar("Item")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def in_threads(work: Callable[[Item], T], items: Iterable[Item], threads: int) -> Iterator[T]:
    """Results of ``work`` in the order of the items.

    Few items are ahead of the one whose result is taken, so that memory stays bounded.

    Args:
        work: called with one item, in a thread.
        items: taken one by one, as there is room for them.
        threads: how many.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

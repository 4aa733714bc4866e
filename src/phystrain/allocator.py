"""Ask the C library to keep memory between operations.

With glibc's defaults, tensors of more than a few MB are mapped and unmapped at every operation, and up to half of
the time of a step goes into page faults. See docs/decisions.md for the measurement.
"""

import contextlib
import ctypes
import sys

_M_MMAP_MAX, _M_TRIM_THRESHOLD, _M_TOP_PAD = -4, -1, -2


def keep_memory() -> None:
    """Let freed memory stay with this process. Its peak is then held until it ends. Only glibc on Linux knows how."""
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_TOP_PAD, 2**28)

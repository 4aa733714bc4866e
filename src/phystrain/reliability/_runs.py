"""What tests in dynamics have in common: where runs start, and which rungs of a ladder of temperatures hold."""

from collections.abc import Iterable

import numpy as np

from phystrain.data.structures import Structures
from phystrain.dynamics import replicate
from phystrain.errors import UserError
from phystrain.reliability import Subject


def starting(subject: Subject, runs: int, test: str) -> Structures:
    """Starting structures, taken in turn, as many as there are runs.

    Raises:
        UserError: there is none.
    """
    start = subject.start
    if start is None or not len(start):
        raise UserError(f"{test}: there is no structure to start from; name a file with --start")
    return replicate(start, -(-runs // len(start))).select(np.arange(runs))


def highest_rung(rungs: Iterable[tuple[float, bool]]) -> float:
    """The highest temperature (K) that holds with every lower one; 0 if the lowest does not.

    Args:
        rungs: temperatures, and whether each holds.
    """
    highest = 0.0
    for kelvin, holds in sorted(rungs):
        if not holds:
            break
        highest = float(kelvin)
    return highest

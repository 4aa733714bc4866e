"""How a batch is dealt to processes: so that none waits long for another.

A step is over when the slowest process has done its share. Any way of dealing gives the same gradient, so structures go
where there is least to do, the largest first (Graham 1969, doi:10.1137/0117039: at most 4/3 of the best way's time).
"""

import heapq

import numpy as np
import numpy.typing as npt

from phystrain.data.structures import Ints


def deal(costs: npt.ArrayLike, processes: int) -> list[Ints]:
    """Share out structures by what they cost.

    Args:
        costs: (structures,) of a batch, in any unit.
        processes: how many.

    Returns:
        For each process the positions in the batch of its structures, ascending; none where there are fewer structures
        than processes.
    """
    values = np.asarray(costs)
    loads: list[tuple[float, int]] = [(0.0, number) for number in range(processes)]
    shares: list[list[int]] = [[] for _ in range(processes)]
    for position in np.argsort(-values, kind="stable").tolist():
        load, number = loads[0]
        shares[number].append(position)
        heapq.heapreplace(loads, (load + max(1.0, float(values[position])), number))
    return [np.array(sorted(share), dtype=np.int64) for share in shares]

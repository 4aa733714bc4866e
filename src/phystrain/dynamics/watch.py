"""Models that watch a simulation: how far they disagree about the forces, noted for every structure."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from torch import Tensor

from phystrain.dynamics import guards
from phystrain.dynamics.guards import Failure, Guards
from phystrain.graph import AtomGraph

Spread = Callable[[AtomGraph], Float[Tensor, " atoms"]]
"""(atoms,) eV/Å, how far models disagree about each force; see :mod:`phystrain.uncertainty.ensemble`."""


class Watch:
    """Looks at the spread now and then, and remembers.

    Args:
        spread: of the atoms of a graph.
        limits: the limit, how often to look, and what follows.
        count: structures of the batch at the start.

    Attributes:
        largest: (systems,) eV/Å, largest spread of an atom so far; not a number where nobody looked.
        warnings: by structure: where the spread first went beyond the limit; empty if it did not.
    """

    def __init__(self, spread: Spread, limits: Guards, count: int) -> None:
        self._spread, self._limits = spread, limits
        self.largest = np.full(count, np.nan)
        self.warnings = [""] * count

    def look(
        self, graph: AtomGraph, numbers: npt.NDArray[np.int64], step: int, timestep: Float[Tensor, " systems"]
    ) -> dict[int, Failure]:
        """Structures that the spread is to stop, by their number in the graph; none between looks.

        Args:
            graph: the structures that are running.
            numbers: (systems,) which structures of the batch these are.
            step: of the simulation.
            timestep: (systems,) fs.
        """
        if step % self._limits.spread_interval:
            return {}
        spread = self._spread(graph)
        nothing = spread.new_zeros(len(numbers))
        largest = nothing.scatter_reduce(0, graph.system, spread, "amax").cpu().numpy()
        self.largest[numbers] = np.fmax(self.largest[numbers], largest)
        if self._limits.spread is None:
            return {}
        failures = guards.doubtful(spread, graph.system, graph.species, self._limits.spread)
        for local, failure in failures.items():
            number = int(numbers[local])
            time = step * float(timestep[local]) / 1000
            self.warnings[number] = self.warnings[number] or f"{failure.finding} at {time:.3f} ps"
        return failures if self._limits.spread_stops else {}

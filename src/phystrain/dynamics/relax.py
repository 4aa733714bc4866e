"""Relaxation of many structures at once by FIRE, cells fixed; each is stopped by itself.

The fast inertial relaxation engine (Bitzek et al. 2006, doi:10.1103/PhysRevLett.97.170201) with the parameters and the
order of operations of ASE, so that a structure takes the steps that it takes there, whatever else is in the batch.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from phystrain.data.structures import Floats, Structures
from phystrain.derive import evaluate
from phystrain.dynamics import guards
from phystrain.dynamics.guards import Failure, Guards
from phystrain.dynamics.moving import Moving

_FIRST, _LONGEST, _STEP = 0.1, 1.0, 0.2  # time step at first and at most; largest move of a structure, Å
_DELAY, _FASTER, _SLOWER, _MIXING, _FADING = 5, 1.1, 0.5, 0.1, 0.99
_SKIN = 0.8


@dataclass(frozen=True, eq=False)
class Relaxation:
    """What became of each structure.

    Attributes:
        final: relaxed as far as it came.
        converged: (systems,) whether the largest force fell below the limit.
        steps: (systems,) taken.
        first, last: (systems,) eV, energies at the start and at the end.
        largest: (systems,) eV/Å, largest force at the end.
        failures: by structure: why a guard stopped it, or ``None``.
    """

    final: Structures
    converged: npt.NDArray[np.bool_]
    steps: npt.NDArray[np.int64]
    first: Floats
    last: Floats
    largest: Floats
    failures: tuple[Failure | None, ...]


def relax(
    potential: nn.Module, structures: Structures, *, fmax: float = 0.05, steps: int = 500, limits: Guards | None = None
) -> Relaxation:
    """Relax positions of all structures side by side.

    Args:
        potential: a :class:`phystrain.derive.Potential`, on its device and in its precision.
        structures: where to start.
        fmax: eV/Å, largest force of a relaxed structure.
        steps: at most.
        limits: short contacts and non-finite numbers stop a structure; the defaults if not given.
    """
    return _Batch(potential, structures, fmax, limits or Guards()).run(steps)


class _Batch(Moving):
    """Structures that are still moving, and what is known of all."""

    per_system = (*Moving.per_system, "timestep", "mixing", "downhill")
    per_atom = (*Moving.per_atom, "velocities")

    def __init__(self, potential: nn.Module, structures: Structures, fmax: float, limits: Guards) -> None:
        super().__init__(potential, structures, limits, _SKIN)
        self.structures, self.fmax, self.limits = structures, fmax, limits
        count = len(structures)
        self.velocities = torch.zeros_like(self.positions)
        self.timestep = torch.full((count,), _FIRST, dtype=torch.float64, device=self.positions.device)
        self.mixing = torch.full_like(self.timestep, _MIXING)
        self.downhill = torch.zeros_like(self.numbers)
        self.end = self.structures.positions.copy()
        self.first, self.last, self.largest = (np.full(count, np.nan) for _ in range(3))
        self.steps = np.zeros(count, dtype=np.int64)
        self.converged = np.zeros(count, dtype=bool)
        self.failures: list[Failure | None] = [None] * count

    def run(self, steps: int) -> Relaxation:
        for step in range(steps + 1):
            forces = self._evaluate(step)
            if forces is None or step == steps:
                break
            self._move(forces, step == 0)
        moving = self.places.cpu().numpy()
        self.end[moving] = self.positions.cpu().numpy()
        return Relaxation(
            final=replace(self.structures.without_labels(), positions=self.end),
            converged=self.converged,
            steps=self.steps,
            first=self.first,
            last=self.last,
            largest=self.largest,
            failures=tuple(self.failures),
        )

    def _evaluate(self, step: int) -> Float[Tensor, "kept 3"] | None:
        """Forces on what is still moving, which is less afterwards by what has converged or failed."""
        graph = self.neighbours.graph(self.positions)
        failures: dict[int, Failure] = {}
        predicted = evaluate(self.potential, graph, ("energy", "forces"))
        assert predicted.energy is not None and predicted.forces is not None  # noqa: PT018
        energy, forces = predicted.energy, predicted.forces.to(torch.float64)
        if self.limits.contact is not None:
            failures |= guards.short_contacts(self.neighbours, self.limits.contact)
        failures |= guards.not_finite(energy, forces, self.system)
        squared = forces.square().sum(dim=1)
        largest = squared.new_zeros(self.running).scatter_reduce(0, self.system, squared, "amax").sqrt()
        numbers = self.numbers.cpu().numpy()
        self.last[numbers], self.largest[numbers] = energy.cpu().numpy(), largest.cpu().numpy()
        self.steps[numbers] = step
        if step == 0:
            self.first = self.last.copy()
        relaxed = largest < self.fmax
        for local, failure in failures.items():
            self.failures[numbers[local]] = failure
            relaxed[local] = False
        self.converged[numbers[relaxed.cpu().numpy()]] = True
        staying = ~relaxed
        staying[list(failures)] = False
        if bool(staying.all()):
            return forces
        return self._leave(staying, forces)

    def _leave(
        self, staying: Bool[Tensor, " systems"], forces: Float[Tensor, "atoms 3"]
    ) -> Float[Tensor, "kept 3"] | None:
        """Note where all but these structures have ended; forces on the rest, ``None`` if there is no rest."""
        atoms = staying[self.system]
        self.end[self.places[~atoms].cpu().numpy()] = self.positions[~atoms].cpu().numpy()
        self.keep(atoms, staying)
        return forces[atoms] if self.running else None

    def _move(self, forces: Float[Tensor, "atoms 3"], first: bool) -> None:
        if not first:
            down = self.total(forces * self.velocities) > 0
            speed, strength = self.total(self.velocities.square()).sqrt(), self.total(forces.square()).sqrt()
            share = self.mixing * speed / strength.clamp(min=1e-300)
            mixed = (1 - self.mixing)[self.system, None] * self.velocities + share[self.system, None] * forces
            self.velocities = torch.where(down[self.system, None], mixed, 0.0)
            faster = down & (self.downhill > _DELAY)
            quickened = (self.timestep * _FASTER).clamp(max=_LONGEST)
            self.timestep = torch.where(down, torch.where(faster, quickened, self.timestep), self.timestep * _SLOWER)
            self.mixing = torch.where(down, torch.where(faster, self.mixing * _FADING, self.mixing), _MIXING)
            self.downhill = torch.where(down, self.downhill + 1, 0)
        timestep = self.timestep[self.system, None]
        self.velocities = self.velocities + timestep * forces
        move = timestep * self.velocities
        size = self.total(move.square()).sqrt()
        self.positions = self.positions + move * (_STEP / size.clamp(min=_STEP))[self.system, None]

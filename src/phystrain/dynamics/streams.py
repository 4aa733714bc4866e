"""Random numbers of molecular dynamics: functions of a structure's key, the atom and the step."""

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from phystrain import noise
from phystrain.units import BOLTZMANN, VELOCITY

_START, _THERMOSTAT, _BAROSTAT = 1, 2, 3
_BLOCK = 200_000  # random numbers made at a time


class Streams:
    """The random streams of a batch, which do not depend on what else is in it.

    Args:
        keys: (systems,) of each structure.
        seed: common to all.
        system: (atoms,) structure of each atom, ascending.
        sizes: (systems,) atoms of each.
    """

    def __init__(
        self, keys: npt.NDArray[np.int64], seed: int, system: Int[Tensor, " atoms"], sizes: Int[Tensor, " systems"]
    ) -> None:
        self._seed = seed
        self._systems = torch.from_numpy(keys).to(system.device)
        self._atoms = noise.mix(self._systems[system], seed, noise.index_in_system(system, sizes))
        self._made, self._from = torch.empty(0, 0, 3, dtype=torch.float64, device=system.device), 0

    def velocities(
        self,
        system: Int[Tensor, " atoms"],
        masses: Float[Tensor, "atoms 1"],
        kelvin: Float[Tensor, " systems"],
    ) -> Float[Tensor, "atoms 3"]:
        """(atoms, 3) Å/fs, Maxwell-Boltzmann, without net momentum in any structure.

        Args:
            system: (atoms,) structure of each atom.
            masses: (atoms, 1) u.
            kelvin: (systems,) K.
        """
        drawn = noise.normal(self._atoms[:, None], _START, torch.arange(3, device=system.device))
        drawn = drawn * torch.sqrt(BOLTZMANN * kelvin[system, None] / masses) * VELOCITY
        momentum = drawn.new_zeros(len(kelvin), 3).index_add(0, system, drawn * masses)
        mass = drawn.new_zeros(len(kelvin), 1).index_add(0, system, masses)
        return drawn - (momentum / mass)[system]

    def thermostat(self, step: int) -> Float[Tensor, "atoms 3"]:
        """(atoms, 3) standard normal numbers of a step; made for many steps at a time, which is much cheaper."""
        if not self._from <= step < self._from + len(self._made):
            count = max(1, min(_BLOCK // (3 * len(self._atoms)), 64))
            steps = torch.arange(step, step + count, device=self._atoms.device)[:, None, None]
            component = torch.arange(3, device=self._atoms.device)
            self._made = noise.normal(self._atoms[None, :, None], _THERMOSTAT, steps, component)
            self._from = step
        return self._made[step - self._from]

    def barostat(self, step: int) -> Float[Tensor, " systems"]:
        """(systems,) standard normal numbers of a step."""
        return noise.normal(self._systems, self._seed, _BAROSTAT, step)

    def keep(self, atoms: Bool[Tensor, " atoms"], systems: Bool[Tensor, " systems"]) -> None:
        """Forget all structures but these."""
        self._systems, self._atoms = self._systems[systems], self._atoms[atoms]
        if self._made.shape[1] == len(atoms):
            self._made = self._made[:, atoms]

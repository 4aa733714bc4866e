"""Energies of isolated atoms, kept outside the networks and in float64.

Total energies reach -17,700 eV for a molecule of 21 atoms: in float32 the millielectronvolts would be lost.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from ase.data import atomic_numbers
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.layers.species import SpeciesRows
from phystrain.potentials import PotentialConfig
from phystrain.statistics import Statistics


class Config(PotentialConfig):
    """Energy of each atom by itself."""

    kind: Literal["reference_energy"] = "reference_energy"
    energies: dict[str, float] | None = Field(
        None, description="eV by element symbol or atomic number; those of the training data if not given"
    )
    trainable: bool = Field(False, description="whether the energies are trained with the rest")

    def build(self, statistics: Statistics) -> "ReferenceEnergy":
        return ReferenceEnergy(self, statistics)


class ReferenceEnergy(nn.Module):
    """A table of energies by element.

    Args:
        config: settings.
        statistics: elements, and their energies where the settings give none.

    Raises:
        UserError: an energy is given for some elements of the data but not for all.
    """

    cutoff = 0.0
    energies: Tensor

    def __init__(self, config: Config, statistics: Statistics) -> None:
        super().__init__()
        given: Mapping[int, float] = statistics.reference_energies
        if config.energies is not None:
            given = {int(atomic_numbers.get(name, name)): energy for name, energy in config.energies.items()}
            if missing := [number for number in statistics.species if number not in given]:
                raise UserError(f"reference_energy: no energy for atomic number {missing[0]}; give one in energies")
        table = torch.tensor([given.get(number, 0.0) for number in statistics.species], dtype=torch.float64)
        self.species = statistics.species
        self.rows = SpeciesRows(statistics.species)
        if config.trainable:
            self.energies = nn.Parameter(table)
        else:
            self.register_buffer("energies", table)

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV, float64."""
        return self.energies[self.rows(graph.species)]

    @torch.no_grad()
    def shift(self, offsets: Mapping[int, float]) -> None:
        """Add an offset (eV) to the energy of each element given by its atomic number."""
        for row, number in enumerate(self.species):
            self.energies[row] += offsets.get(number, 0.0)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ReferenceEnergy":
        """Follow a change of device, but stay in float64."""
        exact = self.energies.detach().clone()
        super()._apply(fn, recurse)
        self.energies.data = exact.to(self.energies.device)
        return self

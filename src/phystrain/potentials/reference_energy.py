"""Energies of isolated atoms: a constant for each element, kept in float64 whatever the precision of the rest.

They are large against all that a potential has to learn (a silicon atom has thousands of eV in an all-electron
calculation), so they stay outside the networks and are added by a sum.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from ase.data import atomic_numbers, chemical_symbols
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor, nn

from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.layers.species import SpeciesRows
from phystrain.potentials import PotentialConfig
from phystrain.statistics import Statistics


class Config(PotentialConfig):
    """A constant for each element. Without ``energies``, those of the data's statistics."""

    kind: Literal["reference_energy"] = "reference_energy"
    energies: dict[int | str, float] | None = Field(
        None, description="eV by chemical symbol or atomic number; if not given, those found in the data"
    )
    trainable: bool = Field(False, description="let training change the energies")

    @field_validator("energies")
    @classmethod
    def _known_elements(cls, energies: dict[int | str, float] | None) -> dict[int | str, float] | None:
        for element in energies or {}:
            _atomic_number(element)
        return energies

    def build(self, statistics: Statistics) -> "ReferenceEnergy":
        if self.energies is not None:
            energies = {_atomic_number(element): energy for element, energy in self.energies.items()}
        else:
            energies = dict(statistics.reference_energies) or dict.fromkeys(statistics.species, 0.0)
        if missing := sorted(set(statistics.species) - set(energies)):
            names = ", ".join(chemical_symbols[number] for number in missing)
            raise UserError(f"reference_energy: no energy for {names}, which the data contain; add it to 'energies'.")
        return ReferenceEnergy(energies, trainable=self.trainable)


def _atomic_number(element: int | str) -> int:
    """Of a chemical symbol or a number, also one written as text (keys of JSON are)."""
    if isinstance(element, str) and not element.isdecimal():
        if element not in atomic_numbers:
            raise ValueError(f"{element!r} is not a chemical symbol")
        return int(atomic_numbers[element])
    if not 0 < int(element) < len(chemical_symbols):
        raise ValueError(f"{element} is not an atomic number")
    return int(element)


class ReferenceEnergy(nn.Module):
    """A table of energies.

    Args:
        energies: eV by atomic number.
        trainable: whether they are parameters.
    """

    energies: Tensor

    def __init__(self, energies: dict[int, float], *, trainable: bool = False) -> None:
        super().__init__()
        self.cutoff = 0.0
        self.species = tuple(sorted(energies))
        self.rows = SpeciesRows(self.species)
        table = torch.tensor([energies[number] for number in sorted(energies)], dtype=torch.float64)
        if trainable:
            self.energies = nn.Parameter(table)
        else:
            self.register_buffer("energies", table)

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV, float64."""
        return self.energies.index_select(0, self.rows(graph.species))

    @torch.no_grad()
    def shift(self, offsets: Mapping[int, float]) -> None:
        """Add an offset (eV) to the energy of each element that is given by its atomic number."""
        for row, number in enumerate(self.species):
            self.energies[row] += offsets.get(number, 0.0)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Follow ``.to``, ``.float`` and the like to another device, but never to another precision."""
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)

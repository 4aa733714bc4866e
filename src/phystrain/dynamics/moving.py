"""Structures that move side by side until each has come to its end, whatever moves them."""

from typing import ClassVar, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from phystrain.data.structures import Structures
from phystrain.derive import Potential, placement
from phystrain.dynamics import guards
from phystrain.dynamics.guards import Guards
from phystrain.dynamics.verlet_list import VerletList


class Moving:
    """A batch of which those that still move are held; arrays over systems and atoms shrink with it.

    Args:
        potential: on its device and in its precision.
        structures: at the start.
        limits: what guards look at, which lists of neighbours must reach.
        skin: Å, reserve of the lists.

    Attributes:
        per_system, per_atom: names of the arrays that :meth:`keep` shortens.
        numbers: (systems,) which structures of the batch these are.
        places: (atoms,) which atoms of the batch.
        system: (atoms,) structure of each atom, ascending.
        positions: (atoms, 3) Å, float64, never wrapped.
        neighbours: their neighbour list.
    """

    per_system: ClassVar[tuple[str, ...]] = ("numbers",)
    per_atom: ClassVar[tuple[str, ...]] = ("places", "positions")

    def __init__(self, potential: nn.Module, structures: Structures, limits: Guards, skin: float) -> None:
        self.potential = cast(Potential, potential)
        device, dtype = placement(potential)
        self.numbers = torch.arange(len(structures), device=device)
        self.places = torch.arange(len(structures.positions), device=device)
        self.system = torch.from_numpy(structures.system).to(device)
        self.positions = torch.from_numpy(structures.positions.copy()).to(device)
        species = torch.from_numpy(structures.species).to(device)
        self.neighbours = VerletList(
            self.positions,
            species,
            self.system,
            torch.from_numpy(structures.cell).to(device),
            torch.from_numpy(structures.pbc).to(device),
            max(self.potential.cutoff, guards.listing_radius(species, limits)),
            skin,
            dtype,
        )

    @property
    def running(self) -> int:
        """How many structures have not been stopped."""
        return len(self.numbers)

    def keep(self, atoms: Bool[Tensor, " atoms"], systems: Bool[Tensor, " systems"]) -> None:
        """Forget all structures but these.

        Args:
            atoms: (atoms,) whether each atom stays.
            systems: (systems,) whether each structure stays, consistent with ``atoms``.
        """
        if bool(systems.any()):
            self.neighbours.keep(atoms, systems)
        self.system = (torch.cumsum(systems, 0) - 1)[self.system[atoms]]
        for name in self.per_atom:
            setattr(self, name, getattr(self, name)[atoms])
        for name in self.per_system:
            setattr(self, name, getattr(self, name)[systems])

    def total(self, values: Float[Tensor, "atoms 3"]) -> Float[Tensor, " systems"]:
        """(systems,) sum over atoms and components."""
        return values.new_zeros(self.running).index_add(0, self.system, values.sum(dim=1))

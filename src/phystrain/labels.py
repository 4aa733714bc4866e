"""Reference values and the batch that training sees. Inputs and labels never share a container."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from phystrain.graph import AtomGraph


class Labels(NamedTuple):
    """Reference values; not-a-number marks what is not labelled.

    Attributes:
        energy: (systems,) eV, float64, total energies.
        forces: (atoms, 3) eV/Å.
        stress: (systems, 3, 3) eV/Å³.
        weight: (systems,) factor of the structure in every loss.
        guide: (atoms, 3) eV/Å, forces from outside the network and not from the reference: those of a teacher, of a
            lower level of theory or of a committee; ``None`` if there is no such source.
    """

    energy: Float[Tensor, " systems"]
    forces: Float[Tensor, "atoms 3"]
    stress: Float[Tensor, "systems 3 3"]
    weight: Float[Tensor, " systems"]
    guide: Float[Tensor, "atoms 3"] | None = None

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Labels":
        """Move to a device; all but the energies, which stay in float64, are cast."""
        return Labels(
            energy=self.energy.to(device),
            forces=self.forces.to(device, dtype),
            stress=self.stress.to(device, dtype),
            weight=self.weight.to(device, dtype),
            guide=None if self.guide is None else self.guide.to(device, dtype),
        )

    def select(self, systems: Bool[Tensor, " systems"], atoms: Bool[Tensor, " atoms"]) -> "Labels":
        """Those of some structures, and of the atoms that belong to them."""
        return Labels(
            energy=self.energy[systems],
            forces=self.forces[atoms],
            stress=self.stress[systems],
            weight=self.weight[systems],
            guide=None if self.guide is None else self.guide[atoms],
        )


class Batch(NamedTuple):
    """Structures, their labels, and the random stream of each.

    Attributes:
        graph: the structures.
        labels: their reference values.
        key: (systems,) int64. Random numbers of a structure are a function of its key alone, so that they do
            not depend on what else is in the batch or on the number of processes. The loader derives it from
            seed, step and structure.
    """

    graph: AtomGraph
    labels: Labels
    key: Int[Tensor, " systems"]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Batch":
        return Batch(self.graph.to(device, dtype), self.labels.to(device, dtype), self.key.to(device))

    def select(self, systems: Bool[Tensor, " systems"]) -> "Batch":
        """The structures where a mask is true; random numbers stay theirs."""
        return Batch(
            self.graph.select(systems), self.labels.select(systems, systems[self.graph.system]), self.key[systems]
        )


def unlabelled(graph: AtomGraph) -> Labels:
    """Labels of structures about which nothing is known."""
    nan = torch.full_like(graph.cell[:, 0, 0], torch.nan)
    return Labels(
        energy=nan.to(torch.float64),
        forces=torch.full_like(graph.positions, torch.nan),
        stress=torch.full_like(graph.cell, torch.nan),
        weight=torch.ones_like(nan),
    )

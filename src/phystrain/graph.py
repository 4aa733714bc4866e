"""The one input type of every potential: a batch of atomic structures with its neighbour list.

Units and names are those of :mod:`phystrain.units`. A single structure is a batch of one; there is no
optional batch axis and no padding. Functions on graphs return new graphs and never change their input.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Bool, Float, Int
from torch import Tensor

from phystrain.neighbours import neighbour_list


@dataclass(frozen=True, eq=False)  # compared by identity: tensors have no truth value
class AtomGraph:
    """A batch of structures as flat tensors.

    Attributes:
        positions: (atoms, 3) Å, not wrapped.
        species: (atoms,) atomic numbers.
        system: (atoms,) index of the structure that each atom belongs to, ascending.
        cell: (systems, 3, 3) Å, lattice vectors in rows; zero where there is no cell.
        pbc: (systems, 3) periodic directions.
        edges: (2, edges) centre, neighbour; both directions of every pair are listed.
        shifts: (edges, 3) whole cells added to the neighbour.
        cutoff: Å, radius up to which the edges are complete. Longer edges may be present.
    """

    positions: Float[Tensor, "atoms 3"]
    species: Int[Tensor, " atoms"]
    system: Int[Tensor, " atoms"]
    cell: Float[Tensor, "systems 3 3"]
    pbc: Bool[Tensor, "systems 3"]
    edges: Int[Tensor, "2 edges"]
    shifts: Float[Tensor, "edges 3"]
    cutoff: float

    @property
    def n_atoms(self) -> int:
        return self.positions.shape[0]

    @property
    def n_systems(self) -> int:
        return self.cell.shape[0]

    @cached_property
    def atoms_per_system(self) -> Int[Tensor, " systems"]:
        """(systems,) number of atoms of each structure."""
        ones = torch.ones_like(self.system)
        return ones.new_zeros(self.n_systems).index_add(0, self.system, ones)

    @cached_property
    def volumes(self) -> Float[Tensor, " systems"]:
        """(systems,) Å³; not a number where the structure is not periodic in all three directions."""
        volume = torch.linalg.det(self.cell).abs()
        return torch.where(self.pbc.all(dim=1), volume, torch.full_like(volume, torch.nan))

    @cached_property
    def vectors(self) -> Float[Tensor, "edges 3"]:
        """(edges, 3) Å, from the centre to the neighbour's image."""
        centre, neighbour = self.edges
        shift = torch.einsum("ec,ecx->ex", self.shifts, self.cell[self.system[centre]])
        return self.positions[neighbour] - self.positions[centre] + shift

    @cached_property
    def distances(self) -> Float[Tensor, " edges"]:
        """(edges,) Å."""
        return torch.linalg.vector_norm(self.vectors, dim=1)

    def sum_per_system(self, values: Tensor) -> Tensor:
        """Sum a per-atom quantity, (atoms, ...), within each structure: (systems, ...)."""
        return values.new_zeros(self.n_systems, *values.shape[1:]).index_add(0, self.system, values)

    def displaced(self, displacement: Float[Tensor, "atoms 3"]) -> "AtomGraph":
        """Move the atoms and keep the neighbour list.

        The edges stay complete only up to ``cutoff`` minus twice the largest displacement; ``cutoff`` of the
        result is left as it was because the caller has built the list with that reserve (see
        :class:`phystrain.objectives.Objective`, attribute ``reach``).

        Args:
            displacement: (atoms, 3) Å.
        """
        return replace(self, positions=self.positions + displacement)

    def strained(self, strain: Float[Tensor, "systems 3 3"]) -> "AtomGraph":
        """Apply the deformation 1 + strain to positions and cells, the neighbour list kept.

        Args:
            strain: (systems, 3, 3), made symmetric here so that its derivative is the symmetric stress.
        """
        strain = (strain + strain.transpose(1, 2)) / 2
        positions = self.positions + torch.einsum("ai,aij->aj", self.positions, strain[self.system])
        return replace(self, positions=positions, cell=self.cell + self.cell @ strain)

    def within(self, radius: float) -> "AtomGraph":
        """Drop the edges longer than ``radius`` (Å); the graph itself if there are none to drop."""
        if radius >= self.cutoff:
            return self
        keep = self.distances.detach() < radius
        return replace(self, edges=self.edges[:, keep], shifts=self.shifts[keep], cutoff=radius)

    def select(self, systems: Bool[Tensor, " systems"]) -> "AtomGraph":
        """The structures where a mask is true, with their neighbour lists.

        Args:
            systems: (systems,) which ones.
        """
        atoms = systems[self.system]
        edges = atoms[self.edges[0]]
        number = torch.cumsum(atoms, 0) - 1
        return AtomGraph(
            positions=self.positions[atoms],
            species=self.species[atoms],
            system=(torch.cumsum(systems, 0) - 1)[self.system[atoms]],
            cell=self.cell[systems],
            pbc=self.pbc[systems],
            edges=number[self.edges[:, edges]],
            shifts=self.shifts[edges],
            cutoff=self.cutoff,
        )

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "AtomGraph":
        """Move to a device and cast the floating-point parts."""
        moved = {}
        for name in ("positions", "species", "system", "cell", "pbc", "edges", "shifts"):
            tensor = getattr(self, name)
            moved[name] = tensor.to(device, dtype if tensor.is_floating_point() else None)
        return replace(self, **moved)

    @staticmethod
    def from_ase(atoms: Atoms | Sequence[Atoms], cutoff: float, *, dtype: torch.dtype = torch.float64) -> "AtomGraph":
        """Build the graph of one ASE structure or of several, neighbour lists included.

        Args:
            atoms: structures; labels are ignored (see :mod:`phystrain.data` for those).
            cutoff: Å.
            dtype: of the floating-point parts.
        """
        frames = [atoms] if isinstance(atoms, Atoms) else list(atoms)
        graphs = []
        for frame in frames:
            edges, shifts = neighbour_list(frame.positions, frame.cell.array, frame.pbc, cutoff)
            graphs.append(
                AtomGraph(
                    positions=torch.tensor(frame.positions, dtype=dtype),
                    species=torch.tensor(frame.numbers, dtype=torch.int64),
                    system=torch.zeros(len(frame), dtype=torch.int64),
                    cell=torch.tensor(frame.cell.array[None], dtype=dtype),
                    pbc=torch.tensor(np.asarray(frame.pbc)[None], dtype=torch.bool),
                    edges=torch.from_numpy(edges),
                    shifts=torch.tensor(shifts, dtype=dtype),
                    cutoff=float(cutoff),
                )
            )
        return AtomGraph.concatenate(graphs)

    @staticmethod
    def concatenate(graphs: Sequence["AtomGraph"]) -> "AtomGraph":
        """Join batches into one; ``cutoff`` is the smallest of theirs."""
        atoms = _starts(graph.n_atoms for graph in graphs)
        systems = _starts(graph.n_systems for graph in graphs)
        return AtomGraph(
            positions=torch.cat([graph.positions for graph in graphs]),
            species=torch.cat([graph.species for graph in graphs]),
            system=torch.cat([graph.system + start for graph, start in zip(graphs, systems, strict=True)]),
            cell=torch.cat([graph.cell for graph in graphs]),
            pbc=torch.cat([graph.pbc for graph in graphs]),
            edges=torch.cat([graph.edges + start for graph, start in zip(graphs, atoms, strict=True)], dim=1),
            shifts=torch.cat([graph.shifts for graph in graphs]),
            cutoff=min(graph.cutoff for graph in graphs),
        )


def _starts(sizes: Iterable[int]) -> list[int]:
    """First index of each block of the given sizes."""
    starts, total = [], 0
    for size in sizes:
        starts.append(total)
        total += size
    return starts

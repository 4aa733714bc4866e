"""Neighbour lists of moving structures, rebuilt only when atoms have moved far.

A list that reaches a little beyond the cut-off (by the *skin*) stays complete until two atoms have together moved by
the skin (Verlet 1967, doi:10.1103/PhysRev.159.98); the test here is the usual safe one, no atom beyond half of it.
"""

import numpy as np
import numpy.typing as npt
import torch
from ase.data import covalent_radii
from jaxtyping import Bool, Float, Int
from torch import Tensor

from phystrain.graph import AtomGraph
from phystrain.neighbours import neighbour_list

_SOON = 0.5
"""Lists are renewed from this part of the largest squared way on when any list has to be."""

_GRID = 32.0
"""Å, whose multiples structures are moved by along directions that are not periodic; those near the origin stay."""


class VerletList:
    """The neighbour list of a batch of structures whose atoms move, and whose cells only change by :meth:`rescale`.

    Positions are those of an integrator: float64 and never wrapped. Graphs are handed out with positions brought back
    into the cell, and where there is none near the origin, so that a potential in single precision loses nothing when
    atoms have diffused far.

    Args:
        positions: (atoms, 3) Å, float64.
        species: (atoms,) atomic numbers.
        system: (atoms,) structure of each atom, ascending.
        cell: (systems, 3, 3) Å, float64.
        pbc: (systems, 3).
        cutoff: Å, radius up to which the graphs are complete, and beyond which they have no edges.
        skin: Å, reserve of the list.
        dtype: of the floating-point parts of the graphs.

    Attributes:
        distances: (listed,) Å, of all listed pairs at the positions of the last graph; those of the skin included.
        rebuilds: how many lists of single structures have been built.
    """

    def __init__(
        self,
        positions: Float[Tensor, "atoms 3"],
        species: Int[Tensor, " atoms"],
        system: Int[Tensor, " atoms"],
        cell: Float[Tensor, "systems 3 3"],
        pbc: Bool[Tensor, "systems 3"],
        cutoff: float,
        skin: float,
        dtype: torch.dtype,
    ) -> None:
        self.cutoff, self.skin, self.dtype = float(cutoff), float(skin), dtype
        self.species, self.system = species, system
        self.rebuilds = 0
        self._shift_vectors: Tensor
        self._radii = torch.tensor(covalent_radii, dtype=torch.float64, device=species.device)
        self._take_cells(cell, pbc)
        self._reference = positions.clone()
        self._origin = torch.zeros_like(positions)
        self._scale = torch.ones(len(cell), dtype=torch.float64, device=species.device)
        self._set_limits()
        nothing = (np.empty((2, 0), np.int64), np.empty((0, 3)))
        self._lists: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]] = [nothing] * len(cell)
        self._rebuild(positions, np.arange(len(cell)))
        self.graph(positions)

    def _take_cells(self, cell: Float[Tensor, "systems 3 3"], pbc: Bool[Tensor, "systems 3"]) -> None:
        self._cell, self._pbc = cell, pbc
        self._graph_cell = cell.to(self.dtype)
        self._pbc_array = pbc.cpu().numpy()
        sizes = torch.bincount(self.system, minlength=len(cell)).cpu().numpy()
        self._offsets = np.concatenate([[0], np.cumsum(sizes)])

    def graph(self, positions: Float[Tensor, "atoms 3"]) -> AtomGraph:
        """The graph at these positions; lists of structures that have moved too far are built anew.

        Args:
            positions: (atoms, 3) Å, finite.
        """
        self._refresh(positions)
        inside = positions - self._origin
        centre, neighbour = self._edges
        vectors = inside.index_select(0, neighbour) - inside.index_select(0, centre) + self._shift_vectors
        self.distances = torch.linalg.vector_norm(vectors, dim=1)
        kept = torch.nonzero(self.distances < self.cutoff).squeeze(1)
        return AtomGraph(
            positions=inside.to(self.dtype),
            species=self.species,
            system=self.system,
            cell=self._graph_cell,
            pbc=self._pbc,
            edges=self._edges.index_select(1, kept),
            shifts=self._shifts.index_select(0, kept),
            cutoff=self.cutoff,
        )

    def contacts(self) -> Float[Tensor, " listed"]:
        """(listed,) distance of each listed pair at the last graph, as a fraction of its sum of covalent radii."""
        return self.distances * self._inverse_radii

    @property
    def pairs(self) -> Int[Tensor, "2 listed"]:
        """(2, listed) atoms of the listed pairs, in the order of :attr:`distances`."""
        return self._edges

    @property
    def shift_vectors(self) -> Float[Tensor, "listed 3"]:
        """(listed, 3) Å to add to ``positions[second] - positions[first]``, for positions that are not wrapped."""
        first, second = self._edges
        return self._shift_vectors - self._origin[second] + self._origin[first]

    def keep(self, atoms: Bool[Tensor, " atoms"], systems: Bool[Tensor, " systems"]) -> None:
        """Forget all structures but these.

        Args:
            atoms: (atoms,) whether each atom stays.
            systems: (systems,) whether each structure stays, consistent with ``atoms``.
        """
        self.distances = self.distances[atoms[self._edges[0]]]
        numbers = torch.cumsum(systems, 0) - 1
        self.species, self.system = self.species[atoms], numbers[self.system[atoms]]
        self._reference, self._origin = self._reference[atoms], self._origin[atoms]
        self._scale = self._scale[systems]
        self._set_limits()
        self._lists = [item for item, stays in zip(self._lists, systems.tolist(), strict=True) if stays]
        self._take_cells(self._cell[systems], self._pbc[systems])
        self._assemble()

    def rescale(self, factor: Float[Tensor, " systems"]) -> None:
        """Change all lengths; to be called when the positions that are handed in have been scaled by the same.

        Args:
            factor: (systems,) of each structure.
        """
        of_atoms = factor[self.system][:, None]
        self._reference, self._origin = self._reference * of_atoms, self._origin * of_atoms
        self._shift_vectors = self._shift_vectors * of_atoms[self._edges[0]]
        self._cell = self._cell * factor[:, None, None]
        self._graph_cell = self._cell.to(self.dtype)
        self._scale = self._scale * factor
        self._set_limits()

    @property
    def cell(self) -> Float[Tensor, "systems 3 3"]:
        """(systems, 3, 3) Å, as they are now."""
        return self._cell

    def _set_limits(self) -> None:
        """Squares of how far atoms may move, by structure, before a pair that is not listed can be within the cut-off.

        Pairs that are not listed were further apart than cut-off and skin, lengths since scaled by ``_scale``.
        """
        reserve = (self._scale * (self.cutoff + self.skin) - self.cutoff).clamp(min=0)
        self._limits = (reserve / 2).square()
        self._least = float(self._limits.min())

    def _refresh(self, positions: Float[Tensor, "atoms 3"]) -> None:
        moved = (positions - self._reference).square_().sum(dim=1)
        if self._least > 0 and float(moved.max()) <= self._least:  # the usual case costs one reduction
            return
        worst = moved.new_zeros(len(self._cell)).scatter_reduce(0, self.system, moved, "amax")
        stale = (worst > self._limits) | (self._limits == 0)
        if bool(stale.any()):  # those that would be next come along: putting the lists of all together costs more
            stale |= worst > _SOON * self._limits
        self._rebuild(positions, torch.nonzero(stale).squeeze(1).cpu().numpy())

    def _rebuild(self, positions: Float[Tensor, "atoms 3"], stale: npt.NDArray[np.int64]) -> None:
        if not len(stale):
            return
        arrays, cells = positions.cpu().numpy(), self._cell.cpu().numpy()
        origin = self._origin.cpu().numpy()
        for number in stale:
            part = slice(self._offsets[number], self._offsets[number + 1])
            cell, pbc = cells[number], self._pbc_array[number]
            origin[part] = _origin(arrays[part], cell, pbc)
            self._lists[number] = neighbour_list(arrays[part] - origin[part], cell, pbc, self.cutoff + self.skin)
        self._origin = torch.from_numpy(origin).to(positions.device)
        chosen = torch.zeros(len(self._cell), dtype=torch.bool)
        chosen[torch.from_numpy(stale)] = True
        self._reference = torch.where(chosen.to(positions.device)[self.system][:, None], positions, self._reference)
        self._scale = torch.where(chosen.to(positions.device), 1.0, self._scale)
        self._set_limits()
        self.rebuilds += len(stale)
        self._assemble()

    def _assemble(self) -> None:
        device = self.species.device
        counts = [edges.shape[1] for edges, _ in self._lists]
        first = np.repeat(self._offsets[:-1], counts)
        self._edges = torch.from_numpy(np.concatenate([edges for edges, _ in self._lists], axis=1) + first).to(device)
        shifts = torch.from_numpy(np.concatenate([shifts for _, shifts in self._lists])).to(device)
        number = torch.from_numpy(np.repeat(np.arange(len(counts)), counts)).to(device)
        self._shifts = shifts.to(self.dtype)
        self._shift_vectors = (shifts[:, :, None] * self._cell[number]).sum(dim=1)
        radii = self._radii[self.species]
        self._inverse_radii = 1 / (radii[self._edges[0]] + radii[self._edges[1]])


def _origin(
    positions: npt.NDArray[np.float64], cell: npt.NDArray[np.float64], pbc: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """(atoms, 3) Å to subtract from positions of a structure, which brings it into its cell and near the origin.

    Lattice vectors, different for each atom, and along directions that are not periodic the same vector for all.
    """
    lattice = cell[pbc]
    # the pseudo-inverse gives fractions along the periodic directions, whether the cell has the others or not
    fractions = positions @ np.linalg.pinv(lattice)
    across = (positions - fractions @ lattice).mean(axis=0)
    return np.asarray(np.floor(fractions) @ lattice + _GRID * np.rint(across / _GRID))

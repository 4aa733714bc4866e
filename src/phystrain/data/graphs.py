"""Structures with their neighbour lists, ready to be batched. Lists are built once, by vesin."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from phystrain.data.structures import Floats, Structures, ragged
from phystrain.graph import AtomGraph
from phystrain.labels import Batch, Labels
from phystrain.neighbours import neighbour_list

Progress = Callable[[Iterable[int]], Iterable[int]]


class GraphStore:
    """Flat arrays of structures and edges from which any batch is cut without a loop over structures.

    Args:
        structures: the structures and their labels.
        cutoff: Å, radius of the neighbour lists, the reserve for displaced copies included.
        progress: wraps the iteration over structures, to show it.
        guide: (atoms, 3) eV/Å, forces that are no labels; see :class:`phystrain.labels.Labels`.

    Attributes:
        structures: as given.
        cutoff: as given.
    """

    def __init__(
        self, structures: Structures, cutoff: float, progress: Progress = iter, guide: Floats | None = None
    ) -> None:
        self.structures = structures
        self.cutoff = float(cutoff)
        self._guide = guide
        edges, shifts = [np.empty((2, 0), np.int32)], [np.empty((0, 3), np.int16)]
        for index in progress(range(len(structures))):
            part = slice(structures.offsets[index], structures.offsets[index + 1])
            pairs, cells = neighbour_list(
                structures.positions[part], structures.cell[index], structures.pbc[index], cutoff
            )
            edges.append(pairs.astype(np.int32))
            shifts.append(cells.astype(np.int16))
        self._edges = np.concatenate(edges, axis=1)
        self._shifts = np.concatenate(shifts)
        self._edge_offsets = np.cumsum([pairs.shape[1] for pairs in edges], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.structures)

    @property
    def edge_counts(self) -> npt.NDArray[np.int64]:
        """(systems,) number of directed edges of each structure: what a step's cost follows."""
        return np.diff(self._edge_offsets)

    def pairs(self, block: int = 1_000_000) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]:
        """All edges of all structures, in blocks of whole structures so that memory stays bounded.

        Args:
            block: number of edges that a block has at most, unless a single structure has more.

        Yields:
            edges: (2, edges) centre, neighbour, as numbers of atoms in the flat arrays of ``structures``.
            vectors: (edges, 3) Å, from the centre to the neighbour's image.
        """
        structures, first = self.structures, 0
        while first < len(self):
            last = int(np.searchsorted(self._edge_offsets, self._edge_offsets[first] + block, side="right")) - 1
            last = min(max(last, first + 1), len(self))
            part = slice(self._edge_offsets[first], self._edge_offsets[last])
            counts = self.edge_counts[first:last]
            edges = self._edges[:, part].astype(np.int64) + np.repeat(structures.offsets[first:last], counts)
            cells = np.repeat(structures.cell[first:last], counts, axis=0)
            vectors = structures.positions[edges[1]] - structures.positions[edges[0]]
            yield edges, vectors + np.einsum("ec,ecx->ex", self._shifts[part].astype(np.float64), cells)
            first = last

    def graph(self, indices: npt.ArrayLike, dtype: torch.dtype = torch.float32) -> AtomGraph:
        """The graph of the structures of the given numbers.

        Args:
            indices: (n,) numbers of structures.
            dtype: of the floating-point parts.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        structures = self.structures
        atoms = ragged(structures.offsets, chosen)
        edges = ragged(self._edge_offsets, chosen)
        sizes = structures.sizes[chosen]
        counts = self.edge_counts[chosen]
        first = np.repeat(np.cumsum(sizes) - sizes, counts)
        return AtomGraph(
            positions=torch.from_numpy(structures.positions[atoms]).to(dtype),
            species=torch.from_numpy(structures.species[atoms]),
            system=torch.from_numpy(np.repeat(np.arange(len(chosen)), sizes)),
            cell=torch.from_numpy(structures.cell[chosen]).to(dtype),
            pbc=torch.from_numpy(structures.pbc[chosen]),
            edges=torch.from_numpy(self._edges[:, edges] + first),
            shifts=torch.from_numpy(self._shifts[edges]).to(dtype),
            cutoff=self.cutoff,
        )

    def batch(
        self, indices: npt.ArrayLike, keys: torch.Tensor | None = None, dtype: torch.dtype = torch.float32
    ) -> Batch:
        """Graph, labels and random streams of the structures of the given numbers.

        Args:
            indices: (n,) numbers of structures.
            keys: (n,) int64, random stream of each; their numbers if not given.
            dtype: of the floating-point parts; energies stay in float64.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        structures = self.structures
        atoms = ragged(structures.offsets, chosen)
        labels = Labels(
            energy=torch.from_numpy(structures.energy[chosen]),
            forces=torch.from_numpy(structures.forces[atoms]).to(dtype),
            stress=torch.from_numpy(structures.stress[chosen]).to(dtype),
            weight=torch.from_numpy(structures.weight[chosen]).to(dtype),
            guide=None if self._guide is None else torch.from_numpy(self._guide[atoms]).to(dtype),
        )
        keys = torch.from_numpy(chosen.copy()) if keys is None else keys
        return Batch(self.graph(chosen, dtype), labels, keys)

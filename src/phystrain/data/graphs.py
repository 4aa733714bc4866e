"""Structures with their neighbour lists, ready to be batched. Lists are made by vesin, once or when they are needed."""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from phystrain.data.structures import Floats, Ints, Structures, ragged, spans
from phystrain.graph import AtomGraph
from phystrain.labels import Batch, Labels
from phystrain.neighbours import neighbour_list
from phystrain.parallel import cores, in_threads

T = TypeVar("T")
Progress = Callable[[Iterable[int]], Iterable[int]]
When = Literal["auto", "held", "built"]

HELD = 1_000_000_000
"""Bytes up to which neighbour lists are held: see docs/decisions.md."""

_SMALL = 100_000
"""Atoms up to which lists are held unseen."""

_PIECE = 5_000
"""Atoms whose lists one thread builds at a time."""

_EDGE = 2 * 4 + 3 * 2
"""Bytes of an edge: two atoms, and whole cells along three directions."""

WORKERS = min(8, cores())
"""Threads that build lists ahead: vesin lets go of Python's lock while it searches."""


class Lists(NamedTuple):
    """Neighbour lists of structures one after another.

    Attributes:
        edges: (2, edges) centre, neighbour, as numbers of atoms within their structure.
        shifts: (edges, 3) whole cells added to the neighbour.
        counts: (structures,) edges of each.
    """

    edges: npt.NDArray[np.int32]
    shifts: npt.NDArray[np.int16]
    counts: Ints


class GraphStore:
    """Flat arrays of structures and edges from which any batch is cut.

    Lists of sets of usual size are built at once and held. Those of a large set would outgrow the set itself; they
    are built for each batch anew, which gives the same batches, bit for bit.

    Args:
        structures: the structures and their labels.
        cutoff: Å, radius of the neighbour lists, the reserve for displaced copies included.
        progress: wraps the iteration over structures, to show it.
        guide: (atoms, 3) eV/Å, forces that are no labels; see :class:`phystrain.labels.Labels`.
        lists: ``held`` in memory, ``built`` when they are needed, or ``auto``: held up to :data:`HELD` bytes, as
            estimated from structures at equal distances in the set.

    Attributes:
        structures: as given.
        cutoff: as given.
        held: whether lists are held.
    """

    def __init__(
        self,
        structures: Structures,
        cutoff: float,
        progress: Progress = iter,
        guide: Floats | None = None,
        lists: When = "auto",
    ) -> None:
        self.structures = structures
        self.cutoff = float(cutoff)
        self._guide, self._progress = guide, progress
        self.held = lists == "held" or (lists == "auto" and self._estimated_bytes() <= HELD)
        if self.held:
            self._all = self._built(progress(range(len(structures))))
            self._edge_offsets = np.concatenate([[0], np.cumsum(self._all.counts)])

    def __len__(self) -> int:
        return len(self.structures)

    @cached_property
    def edge_counts(self) -> Ints:
        """(systems,) number of directed edges of each structure: what a step's cost follows.

        Where lists are not held, all of them are built once for this.
        """
        if self.held:
            return self._all.counts
        return np.concatenate([lists.counts for lists in self._pieces(lambda *piece: self._built(range(*piece)))])

    def listed(self, block: int = 1_000_000) -> Iterator[tuple[Structures, Ints, Floats]]:
        """All structures and their edges, in blocks of whole structures so that memory stays bounded.

        Args:
            block: number of edges that a block has at most, unless a single structure has more.

        Yields:
            structures: of the block.
            edges: (2, edges) centre, neighbour, as numbers of atoms in the flat arrays of the block.
            vectors: (edges, 3) Å, from the centre to the neighbour's image.
        """
        for first, lists in self._blocks(block):
            structures = self.structures.select(np.arange(first, first + len(lists.counts)))
            edges = lists.edges.astype(np.int64) + np.repeat(structures.offsets[:-1], lists.counts)
            cells = np.repeat(structures.cell, lists.counts, axis=0)
            vectors = structures.positions[edges[1]] - structures.positions[edges[0]]
            yield structures, edges, vectors + np.einsum("ec,ecx->ex", lists.shifts.astype(np.float64), cells)

    def pairs(self, block: int = 1_000_000) -> Iterator[tuple[Ints, Floats]]:
        """All edges of all structures as numbers of atoms in the flat arrays of the whole set, and their vectors.

        Args:
            block: as for :meth:`listed`.
        """
        first = 0
        for structures, edges, vectors in self.listed(block):
            yield edges + first, vectors
            first += int(structures.offsets[-1])

    def graph(self, indices: npt.ArrayLike, dtype: torch.dtype = torch.float32) -> AtomGraph:
        """The graph of the structures of the given numbers.

        Args:
            indices: (n,) numbers of structures.
            dtype: of the floating-point parts.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        structures, numbers = self.structures.located(chosen)
        atoms = ragged(structures.offsets, numbers)
        sizes = structures.offsets[numbers + 1] - structures.offsets[numbers]
        lists = self._lists(chosen)
        first = np.repeat(np.cumsum(sizes) - sizes, lists.counts)
        return AtomGraph(
            positions=torch.from_numpy(structures.positions[atoms]).to(dtype),
            species=torch.from_numpy(structures.species[atoms]),
            system=torch.from_numpy(np.repeat(np.arange(len(chosen)), sizes)),
            cell=torch.from_numpy(structures.cell[numbers]).to(dtype),
            pbc=torch.from_numpy(structures.pbc[numbers]),
            edges=torch.from_numpy(lists.edges + first),
            shifts=torch.from_numpy(lists.shifts).to(dtype),
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
        structures, numbers = self.structures.located(chosen)
        atoms = ragged(structures.offsets, numbers)
        guide = None
        if self._guide is not None:
            guide = torch.from_numpy(self._guide[ragged(self.structures.offsets, chosen)]).to(dtype)
        labels = Labels(
            energy=torch.from_numpy(structures.energy[numbers]),
            forces=torch.from_numpy(structures.forces[atoms]).to(dtype),
            stress=torch.from_numpy(structures.stress[numbers]).to(dtype),
            weight=torch.from_numpy(structures.weight[numbers]).to(dtype),
            guide=guide,
        )
        keys = torch.from_numpy(chosen.copy()) if keys is None else keys
        return Batch(self.graph(chosen, dtype), labels, keys)

    def _lists(self, chosen: Ints) -> Lists:
        """Neighbour lists of some structures, from memory or built now."""
        if not self.held:
            return self._built(chosen.tolist())
        edges = ragged(self._edge_offsets, chosen)
        return Lists(self._all.edges[:, edges], self._all.shifts[edges], self._all.counts[chosen])

    def _built(self, chosen: Iterable[int]) -> Lists:
        edges, shifts = [np.empty((2, 0), np.int32)], [np.empty((0, 3), np.int16)]
        for index in chosen:
            home, (number,) = self.structures.located(np.array([index]))
            atoms = slice(home.offsets[number], home.offsets[number + 1])
            pairs, cells = neighbour_list(home.positions[atoms], home.cell[number], home.pbc[number], self.cutoff)
            edges.append(pairs.astype(np.int32))
            shifts.append(cells.astype(np.int16))
        counts = np.array([pairs.shape[1] for pairs in edges[1:]], dtype=np.int64)
        return Lists(np.concatenate(edges, axis=1), np.concatenate(shifts), counts)

    def _pieces(self, work: Callable[[int, int], T]) -> Iterator[T]:
        """What is found for consecutive structures, first and the one after the last, by threads, in order."""
        pieces = list(spans(self.structures.offsets, _PIECE))
        return in_threads(lambda number: work(*pieces[number]), self._progress(range(len(pieces))), WORKERS)

    def _blocks(self, block: int) -> Iterator[tuple[int, Lists]]:
        """Lists of consecutive structures with at most ``block`` edges, each with the number of the first."""
        if not self.held:
            yield from self._built_blocks(block)
            return
        first = 0
        while first < len(self):
            last = int(np.searchsorted(self._edge_offsets, self._edge_offsets[first] + block, side="right")) - 1
            last = min(max(last, first + 1), len(self))
            part = slice(self._edge_offsets[first], self._edge_offsets[last])
            yield first, Lists(self._all.edges[:, part], self._all.shifts[part], self._all.counts[first:last])
            first = last

    def _built_blocks(self, block: int) -> Iterator[tuple[int, Lists]]:
        """The same blocks as of lists that are held: sums over them must not differ in the last digit."""
        pending: list[Lists] = []
        first, edges = 0, 0
        for lists in self._pieces(lambda *piece: [self._built([index]) for index in range(*piece)]):
            for one in lists:
                count = int(one.counts[0])
                if pending and edges + count > block:
                    yield first, _joined(pending)
                    first, edges, pending = first + len(pending), 0, []
                pending.append(one)
                edges += count
        if pending:
            yield first, _joined(pending)

    def _estimated_bytes(self) -> float:
        atoms = int(self.structures.offsets[-1])
        if atoms <= _SMALL:
            return 0.0
        some = np.unique(np.linspace(0, len(self) - 1, 100).astype(np.int64))
        sizes = self.structures.offsets[some + 1] - self.structures.offsets[some]
        return _EDGE * atoms * float(self._built(some.tolist()).counts.sum() / sizes.sum())


def _joined(lists: list[Lists]) -> Lists:
    return Lists(
        np.concatenate([one.edges for one in lists], axis=1),
        np.concatenate([one.shifts for one in lists]),
        np.concatenate([one.counts for one in lists]),
    )

"""Periodic neighbour lists, by vesin. The one place where pairs are searched."""

import numpy as np
import numpy.typing as npt
import vesin

Array = npt.NDArray[np.float64]


def neighbour_list(
    positions: Array, cell: Array, pbc: npt.NDArray[np.bool_], cutoff: float
) -> tuple[npt.NDArray[np.int64], Array]:
    """All directed pairs within a cut-off, periodic images included, sorted by centre.

    Cells thinner than the cut-off are handled through as many images as it takes.

    Args:
        positions: (atoms, 3) Å, wrapped or not.
        cell: (3, 3) Å, lattice vectors in rows; may be zero along directions that are not periodic.
        pbc: (3,) periodic directions.
        cutoff: Å.

    Returns:
        edges: (2, pairs) centre, neighbour.
        shifts: (pairs, 3) whole cells added to the neighbour.
    """
    search = vesin.NeighborList(cutoff=cutoff, full_list=True, sorted=True, n_threads=1)
    pbc = np.asarray(pbc, dtype=bool)
    centre, neighbour, shifts = search.compute(
        points=np.asarray(positions, dtype=np.float64),
        box=_completed(np.asarray(cell, dtype=np.float64), pbc),
        periodic=pbc,
        quantities="ijS",
    )
    edges = np.stack([centre, neighbour]).astype(np.int64)
    return edges, np.asarray(shifts, dtype=np.float64)


def _completed(cell: Array, pbc: npt.NDArray[np.bool_]) -> Array:
    """Replace the lattice vectors of directions that are not periodic by unit vectors normal to the others."""
    if pbc.all() or not pbc.any():
        return cell
    cell = np.where(pbc[:, None], cell, 0.0)
    _, _, directions = np.linalg.svd(cell[pbc])
    cell[~pbc] = directions[pbc.sum() :]
    return cell


def shortest_distance(positions: Array, cell: Array, pbc: npt.NDArray[np.bool_], start: float = 3.0) -> float:
    """Shortest distance between two atoms (Å), periodic images included; infinite for a lone atom in vacuum.

    Args:
        positions, cell, pbc: as in :func:`neighbour_list`.
        start: Å, first search radius; doubled until a pair is found.
    """
    if len(positions) < 2 and not np.any(pbc):
        return np.inf
    radius = start
    while radius < 200.0:
        edges, shifts = neighbour_list(positions, cell, pbc, radius)
        if edges.shape[1]:
            vectors = positions[edges[1]] - positions[edges[0]] + shifts @ cell
            return float(np.linalg.norm(vectors, axis=1).min())
        radius *= 2
    return np.inf

"""Periodic neighbour lists, by vesin. The one place where pairs are searched."""

import numpy as np
import numpy.typing as npt
import vesin

from phystrain.errors import UserError

_FAR = 1e4
"""Å, extent without periodicity from which empty space is left out: the search fills it with boxes."""

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

    Raises:
        UserError: positions or cell are not finite.
    """
    positions, cell = np.asarray(positions, dtype=np.float64), np.asarray(cell, dtype=np.float64)
    if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
        raise UserError("positions or cell are not finite: no neighbours can be found")
    search = vesin.NeighborList(cutoff=cutoff, full_list=True, sorted=True, n_threads=1)
    pbc = np.asarray(pbc, dtype=bool)
    box = _completed(cell, pbc)
    centre, neighbour, shifts = search.compute(
        points=_without_voids(positions, box[~pbc] if pbc.any() else np.eye(3), cutoff),
        box=box,
        periodic=pbc,
        quantities="ijS",
    )
    edges = np.stack([centre, neighbour]).astype(np.int64)
    return edges, np.asarray(shifts, dtype=np.float64)


def _without_voids(positions: Array, normals: Array, cutoff: float) -> Array:
    """Positions with gaps narrowed to twice the cut-off, where structures are very long: the pairs are the same.

    Args:
        positions: (atoms, 3) Å.
        normals: (directions, 3) unit vectors along which nothing repeats.
        cutoff: Å.
    """
    for normal in normals:
        along = positions @ normal
        if not len(along) or np.ptp(along) < _FAR:
            continue
        order = np.argsort(along)
        gaps = np.diff(along[order])
        excess = np.zeros(len(along))
        excess[order[1:]] = np.cumsum((gaps - 2 * cutoff).clip(min=0))
        positions = positions - excess[:, None] * normal
    return positions


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

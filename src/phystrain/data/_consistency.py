"""Whether forces are the slope of the energy, and stresses its slope against strain, judged from the labels alone.

Between two similar structures the work of the mean force, -<d, (F1 + F2) / 2>, equals the change of the energy up to
third order in the displacement d (trapezoidal rule), so it is exact for harmonic motion. A wrong sign or unit of
either label shows as a slope other than one.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from phystrain.data.structures import Structures

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST = 1500
"""Structures of one composition that are compared with each other."""

FAR = 0.3
"""Å, root mean square displacement of an atom beyond which a pair says nothing."""

LARGEST_STRAIN = 0.04
FEWEST = 8
"""Pairs below which nothing is judged."""

SCATTER = 0.25
"""Typical deviation from the line over the typical change of energy, above which nothing is judged."""

FORCE_FACTORS = {
    27.2114: "energies in eV and forces in Hartree/Å",
    51.4221: "energies in eV and forces in Hartree/Bohr",
    0.036749: "energies in Hartree and forces in eV/Å",
    0.069446: "energies in Hartree and forces in eV/Bohr",
    23.0605: "energies in kcal/mol and forces in eV/Å",
    0.0433641: "energies in eV and forces in kcal/mol/Å",
    96.4853: "energies in kJ/mol and forces in eV/Å",
    0.0103643: "energies in eV and forces in kJ/mol/Å",
    1.88973: "forces per Bohr where they should be per Å",
    0.529177: "positions in Bohr where they should be in Å",
    1000.0: "energies in meV and forces in eV/Å",
    0.001: "energies in eV and forces in meV/Å",
}
"""By slope, the mixture of units that causes it."""

STRESS_FACTORS = {
    1 / 160.21766: "stresses in GPa where they should be in eV/Å³",
    1 / 1602.1766: "stresses in kbar where they should be in eV/Å³",
    1 / 0.0160217663: "stresses multiplied by a conversion to GPa twice",
}


class Slope(NamedTuple):
    """Slope of the change of the energy against the work.

    Attributes:
        value: 1 where labels agree.
        scatter: typical deviation from the line over the typical change of energy.
        pairs: pairs of structures that it comes from.
        rms: Å, root mean square displacement of an atom in these pairs.
    """

    value: float
    scatter: float
    pairs: int
    rms: float

    @property
    def judged(self) -> bool:
        """Whether the pairs are close and many enough for the slope to mean something."""
        return self.pairs >= FEWEST and self.scatter < SCATTER


class Pairs(NamedTuple):
    """Similar structures of one composition, all (pairs,): eV, and Å for the displacement.

    Attributes:
        rise: change of the energy.
        work: -<d, (F1 + F2) / 2>.
        strain_work: V <(sigma1 + sigma2) / 2, strain>; not-a-number without stress labels.
        rms: root mean square displacement of an atom.
        strain: largest component of the strain.
    """

    rise: Floats
    work: Floats
    strain_work: Floats
    rms: Floats
    strain: Floats


def slopes(structures: Structures) -> tuple[Slope, Slope]:
    """Slope of the energy against the work of the forces, and against that of the stresses.

    The second takes the forces for granted and is only meaningful if the first is near one or there are no
    displacements but the strain.
    """
    found = [_pairs(structures, members) for members in _alike(structures)]
    pairs = Pairs(*(np.concatenate([getattr(part, name) for part in found] or [np.empty(0)]) for name in Pairs._fields))
    still = pairs.strain < 1e-6
    forces = _nearest_fit(pairs.work[still], pairs.rise[still], pairs.rms[still])
    strained = (pairs.strain > 1e-4) & np.isfinite(pairs.strain_work)
    rest = pairs.rise - pairs.work
    stress = _nearest_fit(pairs.strain_work[strained], rest[strained], pairs.rms[strained])
    return forces, stress


def _alike(structures: Structures) -> list[Ints]:
    """Numbers of the structures with the same atoms in the same order and all labels that are needed."""
    usable = structures.labelled("energy") & structures.labelled("forces") & (structures.sizes > 1)
    groups: dict[tuple[bytes, bytes], list[int]] = {}
    for index in np.flatnonzero(usable).tolist():
        atoms = slice(structures.offsets[index], structures.offsets[index + 1])
        groups.setdefault((structures.species[atoms].tobytes(), structures.pbc[index].tobytes()), []).append(index)
    return [np.array(members[:MOST]) for members in groups.values() if len(members) > 1]


def _pairs(structures: Structures, members: Ints) -> Pairs:
    """Consecutive and mutually nearest structures of a group."""
    nothing = np.empty(0)
    pbc, count = structures.pbc[members[0]], int(structures.sizes[members[0]])
    if pbc.any() and not pbc.all():
        return Pairs(nothing, nothing, nothing, nothing, nothing)
    atoms = structures.offsets[members][:, None] + np.arange(count)
    positions, forces = structures.positions[atoms], structures.forces[atoms]
    positions = positions if pbc.any() else positions - positions.mean(axis=1, keepdims=True)
    cell = structures.cell[members]
    first, second = _candidates(_coordinates(positions, cell, bool(pbc.all())))
    if pbc.all():
        displacement, strain, tilt = _crystal_step(positions, cell, first, second)
        mean = (forces[first] + forces[second]) / 2
    else:
        turn = _rotation(positions[second], positions[first])
        displacement = positions[second] @ turn - positions[first]
        mean = (forces[first] + forces[second] @ turn) / 2
        strain, tilt = np.zeros((len(first), 3, 3)), np.zeros(len(first))
    stress = (structures.stress[members][first] + structures.stress[members][second]) / 2
    volume = np.abs(np.linalg.det((cell[first] + cell[second]) / 2))
    result = Pairs(
        rise=structures.energy[members][second] - structures.energy[members][first],
        work=-np.einsum("pai,pai->p", displacement, mean),
        strain_work=volume * np.einsum("pij,pij->p", stress, strain) if pbc.all() else np.full(len(first), np.nan),
        rms=np.sqrt((displacement**2).sum(axis=(1, 2)) / count),
        strain=np.abs(strain).max(axis=(1, 2), initial=0.0),
    )
    close = (result.rms < FAR) & (result.strain < LARGEST_STRAIN) & (tilt < 1e-3)
    close &= (result.rms > 1e-4) | (result.strain > 1e-4)
    return Pairs(*(values[close] for values in result))


def _coordinates(positions: Floats, cell: Floats, periodic: bool) -> Floats:
    """(structures, n) coordinates in which similar structures are near: free of rotations, or of whole cells."""
    if not periodic:
        turned = positions @ _rotation(positions, np.broadcast_to(positions[:1], positions.shape))
        return turned.reshape(len(positions), -1)
    angle = 2 * np.pi * positions @ np.linalg.inv(cell)
    radius = np.linalg.norm(cell, axis=2).mean(axis=0) / (2 * np.pi)
    circles = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=2).reshape(len(positions), -1)
    return np.concatenate([circles, cell.reshape(len(cell), 9) * np.sqrt(positions.shape[1]) / 2], axis=1)


def _candidates(coordinates: Floats) -> tuple[Ints, Ints]:
    """Pairs of consecutive structures and of each with its nearest, every pair once."""
    centred = coordinates - coordinates.mean(axis=0)
    squares = (centred**2).sum(axis=1)
    distance = squares[:, None] + squares - 2 * centred @ centred.T
    np.fill_diagonal(distance, np.inf)
    every = np.arange(len(coordinates))
    pairs = np.concatenate(
        [np.stack([every[:-1], every[1:]], axis=1), np.stack([every, distance.argmin(axis=1)], axis=1)]
    )
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    return pairs[:, 0], pairs[:, 1]


def _crystal_step(positions: Floats, cell: Floats, first: Ints, second: Ints) -> tuple[Floats, Floats, Floats]:
    """Displacements by nearest images, the strain, and how much the cell turns (which must be nothing)."""
    scaled = positions @ np.linalg.inv(cell)
    step = scaled[second] - scaled[first]
    step -= np.round(step)
    step -= step.mean(axis=1, keepdims=True)  # a shift of everything does no work; rounding cannot follow it
    deformation = np.linalg.inv(cell[first]) @ cell[second] - np.eye(3)
    strain = (deformation + deformation.transpose(0, 2, 1)) / 2
    tilt = np.abs(deformation - deformation.transpose(0, 2, 1)).max(axis=(1, 2), initial=0.0)
    return step @ ((cell[first] + cell[second]) / 2), strain, tilt


def _rotation(moving: Floats, fixed: Floats) -> Floats:
    """(n, 3, 3) rotations R with moving @ R nearest to fixed (Kabsch 1976, doi:10.1107/S0567739476001873)."""
    left, _, right = np.linalg.svd(moving.transpose(0, 2, 1) @ fixed)
    left[:, :, 2] *= np.sign(np.linalg.det(left @ right))[:, None]
    return left @ right


def _nearest_fit(work: Floats, rise: Floats, rms: Floats) -> Slope:
    """The slope from the nearest pairs that lie on a line; from all of them where none do."""
    moved = np.abs(work) > 1e-9
    work, rise, rms = work[moved], rise[moved], rms[moved]
    slope = Slope(np.nan, np.inf, len(work), np.nan)
    for limit in (0.03, 0.06, 0.1, 0.15, 0.2, FAR):
        near = rms <= limit
        if near.sum() < FEWEST:
            continue
        ratio, weight = rise[near] / work[near], np.abs(work[near])
        order = np.argsort(ratio)
        half = np.searchsorted(np.cumsum(weight[order]), weight.sum() / 2)
        value = float(ratio[order[min(half, len(order) - 1)]])
        off = np.abs(rise[near] - value * work[near])
        scatter = float(np.median(off) / max(np.median(np.abs(rise[near])), 1e-12))
        slope = Slope(value, scatter, int(near.sum()), float(np.median(rms[near])))
        if slope.judged:
            return slope
    return slope


def nearest_factor(slope: float, factors: dict[float, str], tolerance: float = 0.08) -> str | None:
    """The mixture of units whose slope this is, if any."""
    offsets = {text: abs(np.log(abs(slope) / factor)) for factor, text in factors.items()}
    best = min(offsets, key=offsets.__getitem__)
    return best if offsets[best] < tolerance else None

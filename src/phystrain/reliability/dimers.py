"""Energy curves of pairs of atoms: holes at short range, jumps and wiggles show here first.

Measures as in mlip-arena's diatomics task (Chiang et al. 2025, arXiv 2509.20630): force flips, tortuosity, energy
jump; with forces below 10 meV/Å and energy steps below 1 meV counted as nothing.
"""

from itertools import combinations_with_replacement
from typing import ClassVar, Literal, NamedTuple, cast

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols, covalent_radii
from pydantic import Field
from torch import nn

from phystrain.data.structures import Floats, Structures
from phystrain.derive import Potential, cutoff_known, evaluate, placement
from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.layers.pair import REPULSIVE
from phystrain.reliability import Curve, Figures, ReliabilityTest, Result, Subject
from phystrain.reliability._static import (
    cluster,
    energies_of,
    finite,
)
from phystrain.statistics import pair_label

SMALL_FORCE = 0.010  # eV/Å
SMALL_STEP = 0.001  # eV
FAR = 6.0  # Å, end of the curves if the potential names no cut-off, as in mlip-arena
LONGEST = 30.0  # Å, a longer cut-off is none


class Config(ReliabilityTest):
    """Curves of isolated pairs of the user's elements."""

    kind: Literal["dimers"] = "dimers"
    cost: ClassVar[int] = 0
    pairs: tuple[str, ...] | None = Field(
        default=None, description="such as O-Si; all pairs of the training elements if not given"
    )
    start: float = Field(default=0.6, gt=0, description="shortest distance, as a fraction of the sum of covalent radii")
    points: int = Field(default=200, ge=20, description="distances of each curve")
    repulsive_below: float = Field(
        default=REPULSIVE, gt=0, description="fraction of the sum of covalent radii below which pairs must repel"
    )
    most_flips: int = Field(default=1, ge=0, description="most sign changes of the force")
    tortuosity_limit: float = Field(default=1.1, ge=1, description="largest tortuosity; 1 is a single smooth well")
    apart: float = Field(default=1.0, gt=0, description="meV, largest energy of two atoms out of reach, less lone ones")

    def __call__(self, subject: Subject) -> Result:
        """Judge every pair.

        Raises:
            UserError: a pair that is not one of two elements.
        """
        pairs = _pairs(self.pairs, subject.statistics.species)
        findings, conditions = {}, []
        figures: Figures = {}
        curves = {}
        for curve in dimer_curves(subject.potential, pairs, self.start, self.points):
            measured = measure(curve)
            findings[curve.name] = self._faults(curve, measured)
            figures |= {f"{what}, {curve.name}": value for what, value in measured.items()}
            if findings[curve.name]:
                conditions.append(_condition(curve, self._hole(curve)))
            curves[curve.name] = Curve(
                x=curve.distance.tolist(),
                y=finite(curve.energy),
                x_label="distance, Å",
                y_label="energy relative to the largest distance, eV",
            )
        bad = {name: faults for name, faults in findings.items() if faults}
        sentence = (
            f"{len(bad)} of {len(findings)} pairs faulty: "
            + "; ".join(f"{name} {', '.join(faults)}" for name, faults in list(bad.items())[:4])
            if bad
            else f"All {len(findings)} pair curves are smooth and repel at short range."
            if len(findings) > 1
            else "The pair curve is smooth and repels at short range."
        )
        return Result(
            test=self.kind,
            title="Pair curves",
            figures={"faulty pairs": len(bad), "pairs": len(findings)} | figures,
            passed=not bad,
            threshold=(
                f"repulsion from {self.start:g} to {self.repulsive_below:g} of the sum of covalent radii, at most "
                f"{self.most_flips} sign change of the force, tortuosity <= {self.tortuosity_limit:g}"
            ),
            sentence=sentence,
            curves=curves,
            # two atoms in vacuum are not the user's system: the compression test says what becomes of that
            grade="limited" if bad else "safe",
            conditions=conditions,
            score=1 - len(bad) / max(len(findings), 1),
        )

    def _hole(self, curve: "DimerCurve") -> int | None:
        """The innermost point of the wall that stands before a hole; ``None`` where the wall is sound.

        The last point where there is no wall at all.
        """
        repels = curve.force >= SMALL_FORCE
        inner = (curve.distance < self.repulsive_below * curve.radii) & ~repels
        if not inner.any():
            return None
        fault = int(np.flatnonzero(inner)[-1])
        wall = np.flatnonzero(repels[fault:])
        return fault + int(wall[0]) if len(wall) else len(repels) - 1

    def _faults(self, curve: "DimerCurve", measured: dict[str, float | int]) -> list[str]:
        if not (np.isfinite(curve.energy).all() and np.isfinite(curve.force).all()):
            return ["has energies that are not finite"]
        faults = []
        inner = curve.distance < self.repulsive_below * curve.radii
        if (hole := inner & (curve.force < SMALL_FORCE)).any():
            faults.append(f"does not repel at {curve.distance[hole].max():.2f} Å")
        if measured["force flips"] > self.most_flips:
            faults.append(f"changes the sign of its force {measured['force flips']} times")
        if measured["tortuosity"] > self.tortuosity_limit:
            faults.append(f"has tortuosity {measured['tortuosity']:.2f}")
        if not abs(curve.apart) <= self.apart / 1000:
            faults.append(f"is off by {1000 * curve.apart:.2g} meV from two lone atoms at the largest distance")
        return faults


class DimerCurve(NamedTuple):
    """Energy of two isolated atoms.

    Attributes:
        name: such as ``O-Si``.
        radii: Å, sum of covalent radii.
        distance: (points,) Å, ascending.
        energy: (points,) eV, relative to the last point.
        force: (points,) eV/Å along the bond, positive where the atoms repel.
        pair: atomic numbers.
        apart: eV, energy at the last point less that of two lone atoms; 0 if the potential names no cut-off.
    """

    name: str
    radii: float
    distance: Floats
    energy: Floats
    force: Floats
    pair: tuple[int, int] = (0, 0)
    apart: float = 0.0


def dimer_curves(potential: nn.Module, pairs: list[tuple[int, int]], start: float, points: int) -> list[DimerCurve]:
    """Curves from ``start`` times the sum of covalent radii to the cut-off, all in one pass.

    Args:
        potential: on its device and in its precision.
        pairs: atomic numbers.
        start: fraction of the sum of covalent radii.
        points: of each curve.
    """
    device, dtype = placement(potential)
    model = cast(Potential, potential)
    radii = np.array([covalent_radii[first] + covalent_radii[second] for first, second in pairs])
    local = cutoff_known(model) and 0 < model.cutoff < LONGEST
    distance = np.linspace(
        start * radii, max(model.cutoff if local else FAR, 1.01 * start * radii.max()), points, axis=1
    )
    r = torch.from_numpy(distance.ravel())
    count = len(r)
    positions = torch.zeros(2 * count, 3, dtype=torch.float64)
    positions[1::2, 2] = r
    atoms = torch.arange(2 * count)
    graph = AtomGraph(
        positions=positions,
        species=torch.tensor(pairs).repeat_interleave(points, dim=0).reshape(-1),
        system=torch.arange(count).repeat_interleave(2),
        cell=torch.zeros(count, 3, 3, dtype=torch.float64),
        pbc=torch.zeros(count, 3, dtype=torch.bool),
        edges=torch.stack([atoms, atoms ^ 1]),  # each atom with the other of its pair
        shifts=torch.zeros(2 * count, 3, dtype=torch.float64),
        cutoff=model.cutoff,
    )
    predicted = evaluate(model, graph.to(device, dtype))
    assert predicted.energy is not None and predicted.forces is not None  # noqa: PT018
    energy = predicted.energy.cpu().numpy().reshape(len(pairs), points)
    force = predicted.forces.to(torch.float64).cpu().numpy()[1::2, 2].reshape(len(pairs), points)
    elements = sorted({number for pair in pairs for number in pair})
    singles = Structures.concatenate([cluster(np.array([number]), np.zeros((1, 3))) for number in elements])
    lone = dict(zip(elements, energies_of(potential, singles, len(elements)).tolist(), strict=True))
    return [
        DimerCurve(
            pair_label(*pair),
            float(radii[row]),
            distance[row],
            energy[row] - energy[row, -1],
            force[row],
            pair,
            float(energy[row, -1] - lone[pair[0]] - lone[pair[1]]) if local else 0.0,
        )
        for row, pair in enumerate(pairs)
    ]


def measure(curve: DimerCurve) -> dict[str, float | int]:
    """Force flips, tortuosity, energy jump (eV) and height of the wall (eV) of a curve."""
    steps = np.diff(curve.energy)
    steps[np.abs(steps) < SMALL_STEP] = 0
    moves = steps[steps != 0]
    turns = np.flatnonzero(np.diff(np.sign(moves)))
    lowest = curve.energy.min()
    rise = abs(curve.energy[0] - lowest) + abs(curve.energy[-1] - lowest)
    return {
        "force flips": force_flips(curve),
        "tortuosity": float(np.abs(steps).sum() / rise) if rise > SMALL_STEP else 1.0,
        "energy jump eV": float(np.abs(moves[turns]).sum() + np.abs(moves[turns + 1]).sum()),
        "wall eV": float(curve.energy[0] - lowest),
    }


def force_flips(curve: DimerCurve) -> int:
    """Sign changes of the force; forces below 10 meV/Å and stretches of one sign that work less than 1 meV are none."""
    kept = np.flatnonzero(np.abs(curve.force) >= SMALL_FORCE)
    if not len(kept):
        return 0
    signs = np.sign(curve.force[kept])
    stretch = np.concatenate([[0], np.cumsum(np.diff(signs) != 0)])
    work = np.bincount(stretch, weights=np.abs(curve.force[kept]) * np.gradient(curve.distance)[kept])
    lasting = signs[np.flatnonzero(np.diff(stretch, prepend=-1))][work >= SMALL_STEP]
    return int(np.count_nonzero(np.diff(lasting)))


def _condition(curve: DimerCurve, hole: int | None) -> str:
    """What is not supported."""
    if hole is None:
        return f"{curve.name} pairs in vacuum are described roughly"
    if hole == len(curve.distance) - 1:
        return f"collisions of {curve.name} are unsupported: the pair does not repel"
    return f"{curve.name} below {curve.distance[hole]:.2f} Å is unsupported"


def _pairs(names: tuple[str, ...] | None, species: tuple[int, ...]) -> list[tuple[int, int]]:
    if names is None:
        return list(combinations_with_replacement(species, 2))
    pairs = []
    for name in names:
        numbers = [atomic_numbers.get(symbol, 0) for symbol in name.split("-")]
        if len(numbers) != 2 or not set(numbers) <= set(species):
            known = ", ".join(chemical_symbols[number] for number in species)
            raise UserError(f"dimers: {name!r} is no pair of the potential's elements ({known}); write it as O-Si")
        pairs.append((numbers[0], numbers[1]))
    return pairs

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

from phystrain.data.structures import Floats
from phystrain.derive import Potential, evaluate, placement
from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.layers.pair import REPULSIVE
from phystrain.reliability import Curve, ReliabilityTest, Result, Subject

SMALL_FORCE = 0.010  # eV/Å
SMALL_STEP = 0.001  # eV


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

    def __call__(self, subject: Subject) -> Result:
        """Judge every pair.

        Raises:
            UserError: a pair that is not one of two elements.
        """
        pairs = _pairs(self.pairs, subject.statistics.species)
        findings = {}
        figures: dict[str, float | int | str | None] = {}
        curves = {}
        for curve in dimer_curves(subject.potential, pairs, self.start, self.points):
            measured = measure(curve)
            findings[curve.name] = self._faults(curve, measured)
            figures |= {f"{what}, {curve.name}": value for what, value in measured.items()}
            curves[curve.name] = Curve(
                x=curve.distance.tolist(),
                y=[float(value) if np.isfinite(value) else None for value in curve.energy],
                x_label="distance, Å",
                y_label="energy relative to the largest distance, eV",
            )
        bad = {name: faults for name, faults in findings.items() if faults}
        sentence = (
            f"{len(bad)} of {len(findings)} pairs are faulty: "
            + "; ".join(f"{name} {', '.join(faults)}" for name, faults in list(bad.items())[:4])
            if bad
            else f"All {len(findings)} pair curves are smooth and repel at short range."
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
            score=1 - len(bad) / max(len(findings), 1),
        )

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
        return faults


class DimerCurve(NamedTuple):
    """Energy of two isolated atoms.

    Attributes:
        name: such as ``O-Si``.
        radii: Å, sum of covalent radii.
        distance: (points,) Å, ascending.
        energy: (points,) eV, relative to the last point.
        force: (points,) eV/Å along the bond, positive where the atoms repel.
    """

    name: str
    radii: float
    distance: Floats
    energy: Floats
    force: Floats


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
    distance = np.linspace(start * radii, max(model.cutoff, 1.01 * start * radii.max()), points, axis=1)
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
    return [
        DimerCurve(
            "-".join(sorted(chemical_symbols[number] for number in pair)),
            float(radii[row]),
            distance[row],
            energy[row] - energy[row, -1],
            force[row],
        )
        for row, pair in enumerate(pairs)
    ]


def measure(curve: DimerCurve) -> dict[str, float | int]:
    """Force flips, tortuosity, energy jump (eV) and height of the wall (eV) of a curve."""
    steps = np.diff(curve.energy)
    steps[np.abs(steps) < SMALL_STEP] = 0
    forces = np.where(np.abs(curve.force) < SMALL_FORCE, 0, curve.force)
    signs = np.sign(forces[forces != 0])
    moves = steps[steps != 0]
    turns = np.flatnonzero(np.diff(np.sign(moves)))
    lowest = curve.energy.min()
    rise = abs(curve.energy[0] - lowest) + abs(curve.energy[-1] - lowest)
    return {
        "force flips": int(np.count_nonzero(np.diff(signs))),
        "tortuosity": float(np.abs(steps).sum() / rise) if rise > SMALL_STEP else 1.0,
        "energy jump eV": float(np.abs(moves[turns]).sum() + np.abs(moves[turns + 1]).sum()),
        "wall eV": float(curve.energy[0] - lowest),
    }


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

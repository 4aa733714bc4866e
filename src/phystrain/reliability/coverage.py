"""What the training data holds: elements, distances, coordination, densities. Beyond them everything is a guess.

Nothing is judged. What a potential was never shown is named, so that a verdict can say so and a plot can shade it.
"""

from itertools import combinations_with_replacement
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from pydantic import Field

from phystrain.data.graphs import GraphStore
from phystrain.data.structures import Floats, Ints, Structures
from phystrain.dynamics.guards import BOND_FACTOR
from phystrain.reliability import Curve, Figures, ReliabilityTest, Result, Subject
from phystrain.reliability._static import evenly
from phystrain.statistics import pair_label, pair_name

_BLOCK = 4000  # structures of which neighbours are listed at a time, so that memory stays bounded


class Config(ReliabilityTest):
    """Distances, neighbours and densities of the training structures."""

    kind: Literal["coverage"] = "coverage"
    cost: ClassVar[int] = 0
    radius: float = Field(default=6.0, gt=0, description="Å, up to which distances are counted")
    local: float = Field(default=5.0, gt=0, description="Å, radius of the sphere for the local density")
    bins: int = Field(default=120, ge=10, description="of the histograms")
    structures: int = Field(default=2000, ge=1, description="how many structures to count, equally spaced")
    margin: float = Field(default=0.02, ge=0, description="Å, distances shorter by less than this are within the data")

    def __call__(self, subject: Subject) -> Result:
        """Count the structures of ``subject.train``."""
        title = "Coverage of the data"
        if subject.train is None or not len(subject.train):
            sentence = "The training structures are not at hand."
            return Result(test=self.kind, title=title, applies=False, sentence=sentence)
        count = min(self.structures, len(subject.train))
        chosen = subject.train.select(evenly(len(subject.train), count))
        elements = chosen.elements
        found = self._counted(chosen)
        figures: Figures = {
            "structures": len(subject.train),
            "structures counted": len(chosen),
            "elements": " ".join(chemical_symbols[z] for z in elements),
        }
        conditions, curves, never = [], {}, []
        for number, pair in enumerate(combinations_with_replacement(elements, 2)):
            label = pair_label(*pair)
            # the statistics know all structures, not only those counted here
            found.shortest[number] = min(
                found.shortest[number], subject.statistics.shortest.get(pair_name(*pair), np.inf)
            )
            shortest = found.shortest[number]
            if not np.isfinite(shortest):
                never.append(label)
                continue
            figures[f"shortest distance {label}, Å"] = float(shortest)
            conditions.append(f"{label} below {shortest:.2f} Å is outside the data")
            curves[label] = self._curve(found.histogram[number])
        for element in elements:
            of_element = chosen.species == element
            name = chemical_symbols[element]
            figures[f"neighbours bonded to {name}"] = _range(found.bonded[of_element], "{:.0f}")
            figures[f"atoms within {self.local:g} Å of {name}"] = _range(found.near[of_element], "{:.0f}")
        periodic = chosen.pbc.all(axis=1)
        if periodic.any():
            volumes = np.abs(np.linalg.det(chosen.cell[periodic])) / chosen.sizes[periodic]
            figures["smallest volume, Å³/atom"] = float(volumes.min())
            figures["largest volume, Å³/atom"] = float(volumes.max())
            conditions.append(
                f"volumes outside {volumes.min():.1f} to {volumes.max():.1f} Å³/atom are outside the data"
            )
        if never:
            figures["pairs never within the radius"] = " ".join(never)
            conditions.append(f"{', '.join(never)} within {self.radius:g} Å is outside the data")
        beyond = self._beyond(subject, elements, found)
        conditions += beyond
        closest = min((f for f in found.shortest if np.isfinite(f)), default=None)
        return Result(
            test=self.kind,
            title=title,
            figures=figures,
            sentence=(
                f"{len(subject.train)} structures of {figures['elements']}"
                + ("" if closest is None else f", no two atoms closer than {closest:.2f} Å")
                + (f"; the structures to run go beyond: {beyond[0]}" if beyond else "")
                + "."
            ),
            curves=curves,
            conditions=conditions,
        )

    def _beyond(self, subject: Subject, elements: tuple[int, ...], found: "Counts") -> list[str]:
        """In what the structures that dynamics starts from leave the data."""
        if subject.start is None or not len(subject.start):
            return []
        unknown = [chemical_symbols[z] for z in subject.start.elements if z not in elements]
        if unknown:
            return [f"{', '.join(unknown)} of the structures to run is outside the data"]
        start = self._counted(subject.start.select(np.arange(min(self.structures, len(subject.start)))), elements)
        pairs = list(combinations_with_replacement(elements, 2))
        return [
            f"{pair_label(*pair)} at {start.shortest[number]:.2f} Å, in the structures to run, is outside the data"
            for number, pair in enumerate(pairs)
            if start.shortest[number] < found.shortest[number] - self.margin
        ]

    def _counted(self, structures: Structures, elements: tuple[int, ...] | None = None) -> "Counts":
        elements = structures.elements if elements is None else elements
        n = len(elements)
        code = np.zeros((n, n), dtype=np.int64)
        code[np.triu_indices(n)] = np.arange(n * (n + 1) // 2)
        code = np.maximum(code, code.T)
        shortest = np.full(n * (n + 1) // 2, np.inf)
        histogram = np.zeros(len(shortest) * self.bins, dtype=np.int64)
        bonded, near = [], []
        radius = max(self.radius, self.local)
        for first in range(0, len(structures), _BLOCK):
            part = structures.select(np.arange(first, min(first + _BLOCK, len(structures))))
            element, radii = np.searchsorted(elements, part.species), covalent_radii[part.species]
            of_bonds, of_near = (np.zeros(len(part.species), dtype=np.int64) for _ in range(2))
            for edges, vectors in GraphStore(part, radius).pairs():
                distance = np.linalg.norm(vectors, axis=1)
                pair = code[element[edges[0]], element[edges[1]]]
                np.minimum.at(shortest, pair, distance)
                place = (distance * (self.bins / self.radius)).astype(np.int64)
                inside = place < self.bins
                histogram += np.bincount((pair * self.bins + place)[inside], minlength=len(histogram))
                touching = distance < BOND_FACTOR * radii[edges].sum(axis=0)
                of_bonds += np.bincount(edges[0][touching], minlength=len(of_bonds))
                of_near += np.bincount(edges[0][distance < self.local], minlength=len(of_near))
            bonded.append(of_bonds)
            near.append(of_near)
        return Counts(
            shortest, histogram.reshape(len(shortest), self.bins), np.concatenate(bonded), np.concatenate(near)
        )

    def _curve(self, histogram: Ints) -> Curve:
        """Of pairs, each counted once, to the first bin that is not empty and on to the radius."""
        edges = np.linspace(0, self.radius, self.bins + 1)
        first = max(0, int(np.flatnonzero(histogram)[0]) - 1) if histogram.any() else 0
        return Curve(
            x=((edges[1:] + edges[:-1]) / 2)[first:].tolist(),
            y=(histogram[first:] / 2).tolist(),
            x_label="distance, Å",
            y_label="pairs in the training data",
        )


class Counts(NamedTuple):
    """What a set of structures holds.

    Attributes:
        shortest: (pairs,) Å, of each pair of elements; infinite where they never meet.
        histogram: (pairs, bins) directed pairs by distance.
        bonded: (atoms,) neighbours that count as bonds.
        near: (atoms,) atoms in the sphere of the local density.
    """

    shortest: Floats
    histogram: Ints
    bonded: Ints
    near: Ints


def _range(values: Ints, form: str) -> str:
    """Smallest, mean and largest, as text."""
    low, mean, high = form.format(values.min()), f"{values.mean():.1f}", form.format(values.max())
    return f"{low} to {high}, mean {mean}"

"""Whether dynamics has the angles of the reference: angular distribution functions of every triple of elements.

An angle is that between two near neighbours of an atom, near being within a multiple of the usual distance of nearest
neighbours of the two elements in the reference. The error of a triple is that of the radial functions, with directions
at random in the place of the ideal gas: 100 min(1, integral of |p_ref - p| over integral of |p_ref - sin(angle)/2|)
per cent, bounded as in matbench-discovery's molecular dynamics task (DynaMat 1.0, arXiv 2607.03433). Over all triples
the errors are averaged by how many angles each has in the reference.
"""

from collections.abc import Iterator
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from ase.data import chemical_symbols, covalent_radii
from pydantic import Field

from phystrain.data.graphs import GraphStore
from phystrain.data.structures import Floats, Ints, Structures
from phystrain.reliability import Curve, Result
from phystrain.reliability._reference_run import Compared, ComparedTest
from phystrain.reliability._static import evenly

_REACH = 2.5  # multiples of the sum of covalent radii up to which a nearest neighbour is looked for, at first
_BLOCK = 2_000_000  # ordered pairs of neighbours looked at together


class Config(ComparedTest):
    """Angles between near neighbours in dynamics against those of a reference trajectory or of labelled frames."""

    kind: Literal["angles"] = "angles"
    title: ClassVar[str] = "Angular distribution functions"
    needs_order: ClassVar[bool] = False
    bins: int = Field(default=90, ge=10, description="of the angle")
    reach: float = Field(
        default=1.3, gt=1, description="multiple of the usual distance of nearest neighbours within which angles count"
    )
    rare: float = Field(
        default=0.001, ge=0, lt=1, description="fraction of all angles below which a triple is left out of the mean"
    )
    limit: float | None = Field(
        default=None, gt=0, description="largest error, per cent; beside a trajectory 15 if not given, else not judged"
    )

    def judged(self, compared: Compared, result: Result) -> Result:
        """What a run beside its reference says."""
        made, reference = compared.frames(self.frames), compared.reference_frames(self.frames * self.replicas)
        limit = 15.0 if self.limit is None and compared.interval is not None else self.limit
        judged = "not judged" if limit is None else f"error <= {limit:g} or twice that between halves of the reference"
        result = result.model_copy(
            update={
                "figures": compared.figures | {"frames": 0 if made is None else len(made)},
                "threshold": f"{judged}; 0 is the reference, 100 are directions at random (DynaMat)",
            }
        )
        if made is None:
            sentence = f"Nothing could be compared:{compared.lost}"
            return result.model_copy(update={"passed": False, "grade": "unsafe", "kelvin": 0.0, "sentence": sentence})
        near = {pair: self.reach * distance for pair, distance in nearest(reference).items()}
        theirs, ours = (distribution(frames, near, self.bins) for frames in (reference, made))
        first, second = (distribution(half, near, self.bins) for half in compared.halves(self.frames * self.replicas))
        errors = difference(theirs, ours)
        if not errors:
            sentence = "No atom of the reference has two near neighbours: there is no angle."
            return result.model_copy(update={"applies": False, "sentence": sentence})
        error, least = self._mean(theirs, errors), self._mean(first, difference(first, second))
        complete, close = bool(compared.run.survived.all()), limit is None or error <= max(limit, 2 * least)
        worst = max(errors, key=lambda name: errors[name] * (theirs.counts[name] >= self.rare * theirs.total))
        figures = result.figures | {"error, %": error, "error between halves of the reference, %": least}
        return result.model_copy(
            update={
                "figures": figures | {f"error {name}, %": value for name, value in errors.items()},
                "passed": None if limit is None else complete and close,
                "grade": None if limit is None else "unsafe" if not complete else "safe" if close else "limited",
                "kelvin": None if complete else 0.0,
                "conditions": [] if close else [f"angles at {compared.kelvin:g} K are off by {error:.1f} %"],
                "sentence": f"At {compared.kelvin:g} K the angles between neighbours are off by {error:.1f} %, most of "
                f"all {worst} ({errors[worst]:.1f} %).{compared.lost}",
                "curves": _curves(theirs, ours, "reference" if compared.interval else "labelled frames", self.rare),
            }
        )

    def _mean(self, reference: "Angles", errors: dict[str, float]) -> float:
        weights = {name: reference.counts[name] for name in errors if name in reference.counts}
        weights = {name: count for name, count in weights.items() if count >= self.rare * reference.total}
        total = sum(weights.values())
        return sum(errors[name] * count for name, count in weights.items()) / total if total else 0.0


class Angles(NamedTuple):
    """Densities of angles between near neighbours.

    Attributes:
        edges: (bins + 1,) degrees.
        values: by triple, its centre in the middle, such as ``O-Si-O``: (bins,) 1/degree.
        counts: by triple, how many angles there are.
    """

    edges: Floats
    values: dict[str, Floats]
    counts: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def nearest(frames: Structures) -> dict[tuple[int, int], float]:
    """Å by ordered pair of elements: mean distance of an atom of the first to its nearest one of the second.

    Atoms that have none nearby (twice what holds for most) do not count; a pair without any is left out.
    """
    elements = np.array(frames.elements)
    largest = 2 * float(covalent_radii[elements].max())
    radius = _REACH * largest
    some = frames.select(evenly(len(frames), 20))
    found: dict[tuple[int, int], float] = {}
    place = np.searchsorted(elements, some.species)
    shortest = np.full((len(some.species), len(elements)), np.inf)
    for (centre, neighbour), vectors in GraphStore(some, radius).pairs():
        np.minimum.at(shortest, (centre, place[neighbour]), np.sqrt(np.square(vectors).sum(axis=1)))
    for row, one in enumerate(elements.tolist()):
        for column, other in enumerate(elements.tolist()):
            distances = shortest[place == row, column]
            distances = distances[np.isfinite(distances)]
            if len(distances):
                found[one, other] = float(distances[distances <= 2 * np.median(distances)].mean())
    return found


def distribution(frames: Structures, near: dict[tuple[int, int], float], bins: int) -> Angles:
    """Angular distribution functions, averaged over frames.

    Args:
        frames: of the same atoms, in any order.
        near: Å by ordered pair of elements (centre, neighbour), up to which a neighbour counts.
        bins: how many, from 0 to 180 degrees.
    """
    elements = np.array(frames.elements)
    n = len(elements)
    limit = np.zeros((n, n))
    for (one, other), distance in near.items():
        rows = np.flatnonzero(elements == one), np.flatnonzero(elements == other)
        limit[np.ix_(*rows)] = distance
    place = np.searchsorted(elements, frames.species)
    counts = np.zeros(n**3 * bins, dtype=np.int64)
    for (centre, neighbour), vectors in GraphStore(frames, max(near.values(), default=1.0)).pairs():
        distance = np.sqrt(np.square(vectors).sum(axis=1))
        kept = distance < limit[place[centre], place[neighbour]]
        unit = vectors[kept] / distance[kept, None]
        middle, kind = centre[kept], place[neighbour[kept]]
        for first, second in _pairs_of_edges(middle):
            cosine = np.einsum("px,px->p", unit[first], unit[second]).clip(-1, 1)
            angle = np.minimum((np.arccos(cosine) * (bins / np.pi)).astype(np.int64), bins - 1)
            low, high = np.minimum(kind[first], kind[second]), np.maximum(kind[first], kind[second])
            code = (place[middle[first]] * n + low) * n + high
            counts += np.bincount(code * bins + angle, minlength=len(counts))
    table = counts.reshape(n, n, n, bins)
    symbol = [chemical_symbols[element] for element in elements.tolist()]
    width = 180 / bins
    values, numbers = {}, {}
    for middle, low, high in zip(*(axis.tolist() for axis in np.nonzero(table.sum(axis=3))), strict=True):
        name = f"{symbol[low]}-{symbol[middle]}-{symbol[high]}"
        numbers[name] = int(table[middle, low, high].sum())
        values[name] = table[middle, low, high] / (numbers[name] * width)
    return Angles(np.linspace(0, 180, bins + 1), values, numbers)


def _pairs_of_edges(centre: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Numbers of two different edges of the same centre, each pair once, in blocks.

    Args:
        centre: (edges,) sorted.
    """
    # of every edge, those of the same centre that come after it
    last = np.searchsorted(centre, centre, side="right")
    after = last - np.arange(len(centre)) - 1
    total = np.cumsum(after)
    begin = 0
    while begin < len(centre):
        done = total[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(total, done + _BLOCK, side="right")))
        number = after[begin:end]
        first: npt.NDArray[np.int64] = np.repeat(np.arange(begin, end), number)
        offset = np.arange(len(first)) - np.repeat(np.cumsum(number) - number, number)
        yield first, first + 1 + offset
        begin = end


def difference(reference: Angles, other: Angles) -> dict[str, float]:
    """By triple of the reference: bounded error, per cent."""
    width = np.diff(reference.edges)
    # the density of directions at random, exact over each bin
    random = -np.diff(np.cos(np.radians(reference.edges))) / (2 * width)
    errors = {}
    for name, values in reference.values.items():
        gap = float((np.abs(values - other.values.get(name, np.zeros_like(values))) * width).sum())
        errors[name] = 100 * min(1.0, gap / max(float((np.abs(values - random) * width).sum()), 1e-12))
    return errors


def _curves(reference: Angles, ours: Angles, source: str, rare: float) -> dict[str, Curve]:
    middle = (reference.edges[1:] + reference.edges[:-1]) / 2
    names = [name for name, count in reference.counts.items() if count >= rare * reference.total]
    return {
        f"{name}{suffix}": Curve(
            x=middle.tolist(),
            y=found.values.get(name, np.zeros_like(middle)).tolist(),
            x_label="angle, degrees",
            y_label="density of angles, 1/degree",
        )
        for found, suffix in ((ours, ""), (reference, f", {source}"))
        for name in names
    }

"""Whether dynamics has the structure of the labelled frames: radial distribution functions at one temperature.

Periodic systems: g(r) of every pair of elements, and as its error 100 min(1, integral of |g_ref - g| over integral of
|g_ref - 1|) per cent, so that 0 is the reference and 100 no better than an ideal gas; r up to half the shortest cell
height, 500 bins, as in matbench-discovery's molecular dynamics task (DynaMat 1.0, arXiv 2607.03433). Molecules: the
density h(r) of interatomic distances up to 10 Å and the integral of |h_ref - h|, as in Fu et al. 2023
(arXiv 2210.07237, there the mean over the range times its length).

The reference is a trajectory where there is one, else labelled frames; see :mod:`phystrain.reliability._reference_run`.
What two halves of it differ by is reported too: no error below that means anything, and twice it is always allowed.
"""

from collections.abc import Iterator
from itertools import combinations_with_replacement
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from phystrain.data._geometry import heights
from phystrain.data.graphs import GraphStore
from phystrain.data.structures import Floats, Structures
from phystrain.reliability import Curve, Result
from phystrain.reliability._reference_run import Compared, ComparedTest, volumes
from phystrain.statistics import pair_label

FARTHEST = 10.0
"""Å, largest distance that counts where no cell sets one."""

LIMIT = {True: 15.0, False: 0.3}
"""Largest error beside a trajectory: per cent for periodic systems, the integral for molecules. Our own choice."""


class Config(ComparedTest):
    """Radial distribution functions in dynamics against those of a reference trajectory or of labelled frames."""

    kind: Literal["rdf"] = "rdf"
    title: ClassVar[str] = "Radial distribution functions"
    cost: ClassVar[int] = 1
    needs_order: ClassVar[bool] = False
    bins: int = Field(default=500, ge=10, description="of the distance")
    radius: float | None = Field(
        default=None,
        gt=0,
        description="largest distance, Å; half the shortest cell height, 10 Å for molecules, if not given",
    )
    limit: float | None = Field(
        default=None,
        gt=0,
        description="largest error, per cent (molecules: the integral); beside a trajectory 15 (0.3) if not given, "
        "else not judged",
    )

    def judged(self, compared: Compared, result: Result) -> Result:
        """What a run beside its reference says."""
        made, reference = compared.frames(self.frames), compared.reference_frames(self.frames * self.replicas)
        result = result.model_copy(update={"threshold": self._threshold(compared)})
        figures = compared.figures | {"frames": 0 if made is None else len(made)}
        if made is None:
            sentence = f"Nothing could be compared:{compared.lost}"
            return result.model_copy(
                update={"figures": figures, "passed": False, "grade": "unsafe", "kelvin": 0.0, "sentence": sentence}
            )
        radius = self._radius(Structures.concatenate([reference.without_labels(), made]))
        ours, theirs = (distribution(frames, radius, self.bins) for frames in (made, reference))
        first, second = (distribution(half, radius, self.bins) for half in compared.halves(self.frames * self.replicas))
        errors, noise = difference(theirs, ours), difference(first, second)
        figures["largest distance, Å"] = radius
        if not errors:
            sentence = (
                f"Not done: the cells are so thin that no two atoms are within {radius:.1f} Å, half their "
                "height; use larger cells, or set radius."
            )
            return result.model_copy(update={"figures": figures, "sentence": sentence})
        unit = ", %" if theirs.periodic else ""
        error, least = _overall(errors), _overall(noise)
        figures |= {f"error{unit}": error, f"error between halves of the reference{unit}": least}
        figures |= {f"error {name}{unit}": value for name, value in errors.items() if name != "all"}
        limit = self._limit(compared)
        complete, near = bool(compared.run.survived.all()), limit is None or error <= max(limit, 2 * least)
        size = f"{error:.1f} %" if theirs.periodic else f"{error:.3f}"
        return result.model_copy(
            update={
                "figures": figures,
                "passed": None if limit is None else complete and near,
                "grade": None if limit is None else "unsafe" if not complete else "safe" if near else "limited",
                "kelvin": None if complete else 0.0,
                "conditions": [] if near else [f"distances at {compared.kelvin:g} K are off by {size}"],
                "sentence": f"At {compared.kelvin:g} K the distances between atoms are off by {size}.{compared.lost}",
                "curves": _curves(theirs, ours, "reference" if compared.interval else "labelled frames"),
            }
        )

    def _limit(self, compared: Compared) -> float | None:
        if self.limit is not None or compared.interval is None:
            return self.limit
        return LIMIT[bool(compared.reference.pbc.all())]

    def _threshold(self, compared: Compared) -> str:
        limit = self._limit(compared)
        judged = "not judged" if limit is None else f"error <= {limit:g} or twice that between halves of the reference"
        scale = "100 is an ideal gas (DynaMat)" if compared.reference.pbc.all() else "2 is no overlap (Fu et al.)"
        return f"{judged}; 0 is the reference, {scale}"

    def _radius(self, frames: Structures) -> float:
        if self.radius is not None:
            return self.radius
        return min(FARTHEST, float(heights(frames).min()) / 2)


class Distribution(NamedTuple):
    """Densities of distances between atoms.

    Attributes:
        edges: (bins + 1,) Å.
        values: by pair such as ``O-Si``, and ``all``, each (bins,): g(r), or h(r) in 1/Å where nothing is periodic.
        periodic: which of the two.
    """

    edges: Floats
    values: dict[str, Floats]
    periodic: bool


def distribution(frames: Structures, radius: float, bins: int) -> Distribution:
    """Radial distribution functions, averaged over frames.

    Args:
        frames: of the same atoms, in any order.
        radius: Å, largest distance.
        bins: how many.
    """
    elements = np.array(frames.elements)
    names = [pair_label(*pair) for pair in combinations_with_replacement(frames.elements, 2)]
    n = len(elements)
    code = np.zeros((n, n), dtype=np.int64)
    code[np.triu_indices(n)] = np.arange(len(names))
    code = np.maximum(code, code.T)
    element = np.searchsorted(elements, frames.species)
    periodic = bool(frames.pbc.all())
    weight = volumes(frames) if periodic else np.ones(len(frames))
    system, counts = frames.system, np.zeros(len(names) * bins)
    for edges, vectors in GraphStore(frames, radius).pairs():
        distance = np.sqrt(np.square(vectors).sum(axis=1))
        place = np.minimum((distance * (bins / radius)).astype(np.int64), bins - 1)
        place += bins * code[element[edges[0]], element[edges[1]]]
        counts += np.bincount(place, weights=weight[system[edges[0]]], minlength=len(counts))
    table = counts.reshape(len(names), bins) / len(frames)
    limits = np.linspace(0, radius, bins + 1)
    first = element[: frames.sizes[0]]
    return Distribution(
        limits, dict(_normalised(names, table, limits, np.bincount(first, minlength=n), periodic)), periodic
    )


def _normalised(
    names: list[str], table: Floats, limits: Floats, atoms: npt.NDArray[np.int64], periodic: bool
) -> Iterator[tuple[str, Floats]]:
    """Counts of directed pairs by bin (times the volume, if periodic) to densities; pairs that cannot be are left out.

    Args:
        names: of the pairs.
        table: (pairs, bins).
        limits: (bins + 1,) Å.
        atoms: (elements,) how many of each.
        periodic: to g(r), else to h(r).
    """
    shells = 4 / 3 * np.pi * np.diff(limits**3)
    rows, columns = np.triu_indices(len(atoms))
    # ordered pairs of different atoms
    possible = np.where(rows == columns, atoms[rows] * (atoms[rows] - 1), 2 * atoms[rows] * atoms[columns])
    if not periodic:
        yield "all", table.sum(axis=0) / max(table.sum(), 1e-300) / np.diff(limits)
    for name, counts, number in zip(names, table, possible, strict=True):
        if periodic and number:
            yield name, counts / (number * shells)
        elif not periodic and counts.sum() > 0:
            yield name, counts / counts.sum() / np.diff(limits)


def difference(reference: Distribution, other: Distribution) -> dict[str, float]:
    """By pair: bounded error of g(r), per cent; or integral of the absolute difference of h(r)."""
    width = np.diff(reference.edges)
    errors = {}
    for name, values in reference.values.items():
        if not values.any() and not other.values.get(name, values).any():
            continue  # never that near in either
        gap = float((np.abs(values - other.values.get(name, np.zeros_like(values))) * width).sum())
        if reference.periodic:
            structure = float((np.abs(values - 1) * width).sum())
            gap = 100 * min(1.0, gap / max(structure, 1e-12))
        errors[name] = gap
    return errors


def _overall(errors: dict[str, float]) -> float:
    """Of all distances together where they were counted so, else the mean over pairs of elements."""
    return errors["all"] if "all" in errors else float(np.mean(list(errors.values())))


def _curves(reference: Distribution, ours: Distribution, source: str) -> dict[str, Curve]:
    """Both functions of every pair, bins taken together in twos."""
    pairs = len(reference.edges) // 2
    middle = reference.edges[1 : 2 * pairs : 2]
    label = "g(r)" if reference.periodic else "density of distances, 1/Å"
    return {
        f"{name}{suffix}": Curve(
            x=middle.tolist(),
            y=values[: 2 * len(middle)].reshape(-1, 2).mean(axis=1).tolist(),
            x_label="distance, Å",
            y_label=label,
        )
        for found, suffix in ((ours, ""), (reference, f", {source}"))
        for name, values in found.values.items()
    }

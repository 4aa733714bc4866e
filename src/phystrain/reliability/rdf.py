"""Whether dynamics has the structure of the labelled frames: radial distribution functions at one temperature.

Periodic systems: g(r) of every pair of elements, and as its error 100 min(1, integral of |g_ref - g| over integral of
|g_ref - 1|) per cent, so that 0 is the reference and 100 no better than an ideal gas; r up to half the shortest cell
height, 500 bins, as in matbench-discovery's molecular dynamics task (DynaMat 1.0, arXiv 2607.03433). Molecules: the
density h(r) of interatomic distances up to 10 Å and the integral of |h_ref - h|, as in Fu et al. 2023
(arXiv 2210.07237, there the mean over the range times its length).

The reference is the frames of the test data that have the same atoms as the starting structure and nearly its density;
they should come from dynamics at the temperature of the test. What two halves of them differ by is reported too: no
error below that means anything.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations_with_replacement
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from ase.data import chemical_symbols
from pydantic import Field

from phystrain.data._geometry import heights
from phystrain.data.graphs import GraphStore
from phystrain.data.structures import Floats, Structures
from phystrain.dynamics import Settings, Trajectory, replicate, simulate
from phystrain.errors import UserError
from phystrain.guards import Guards
from phystrain.reliability import Curve, ReliabilityTest, Result, Subject

FARTHEST = 10.0
"""Å, largest distance that counts where no cell sets one."""


class Config(ReliabilityTest):
    """Radial distribution functions in dynamics against those of the labelled frames."""

    kind: Literal["rdf"] = "rdf"
    cost: ClassVar[int] = 1
    level: ClassVar[Literal[0, 1, 2]] = 2
    temperature: float | None = Field(default=None, gt=0, description="K; the first of the subject's if not given")
    picoseconds: float = Field(default=4.0, gt=0, description="length of each run, ps")
    burn_in: float = Field(default=0.25, ge=0, lt=1, description="fraction of the run dropped at its start")
    frames: int = Field(default=100, ge=1, description="frames of each run that are looked at")
    timestep: float | None = Field(default=None, gt=0, description="fs; 1, or 0.5 with hydrogen, if not given")
    friction: float = Field(default=0.01, gt=0, description="of the thermostat, 1/fs")
    replicas: int = Field(default=4, ge=1, description="runs; they take turns over the starting structures")
    bins: int = Field(default=500, ge=10, description="of the distance")
    radius: float | None = Field(
        default=None,
        gt=0,
        description="largest distance, Å; half the shortest cell height, 10 Å for molecules, if not given",
    )
    density: float = Field(default=0.05, gt=0, description="relative difference of volume allowed to reference frames")
    fewest: int = Field(default=10, ge=2, description="reference frames without which nothing is compared")
    limit: float | None = Field(
        default=None, gt=0, description="largest error, per cent (molecules: the integral); not judged by default"
    )
    guards: Guards = Field(default=Guards(), description="when to stop a run")

    def __call__(self, subject: Subject) -> Result:
        """Run from ``subject.start`` and compare with ``subject.test``.

        Raises:
            UserError: there is no structure to start from or to compare with.
        """
        if subject.start is None or not len(subject.start):
            raise UserError("rdf: there is no structure to start from; name a file with --start")
        if subject.test is None or not len(subject.test):
            raise UserError("rdf: there are no frames to compare with; give a test set, or keep some data aside")
        start, reference = self._matching(subject.start, subject.test)
        title = "Radial distribution functions"
        if len(reference) < self.fewest:
            sentence = (
                f"Not done: {len(reference)} test structures have the atoms and the density of a starting structure, "
                f"at least {self.fewest} are needed."
            )
            return Result(test=self.kind, title=title, sentence=sentence, threshold=self._threshold(reference))
        run = self.run(subject, start)
        return self.judge(run, reference).model_copy(update={"title": title})

    def run(self, subject: Subject, start: Structures) -> Trajectory:
        """The dynamics, with stored frames."""
        settings = Settings(
            ensemble="nvt",
            temperature=self.temperature or subject.kelvin,
            timestep=self.timestep,
            picoseconds=self.picoseconds,
            friction=self.friction,
            record_interval=50,
            seed=subject.seed,
            guards=self.guards,
        )
        settings = settings.model_copy(update={"timestep": settings.step_of(start.species)})
        interval = max(1, math.ceil(settings.n_steps * (1 - self.burn_in) / self.frames))
        return simulate(
            subject.potential,
            replicate(start, -(-self.replicas // len(start))).select(np.arange(self.replicas)),
            settings.model_copy(update={"frame_interval": interval}),
            description=f"radial distributions of {subject.name}",
        )

    def judge(self, run: Trajectory, reference: Structures) -> Result:
        """What a trajectory of :meth:`run` says.

        Args:
            run: with frames.
            reference: frames with the same atoms.
        """
        made = frames_of(run, self.burn_in)
        figures: dict[str, float | int | str | None] = {
            "temperature, K": float(run.temperatures[0]),
            "length, ps": self.picoseconds,
            "runs": len(run.reasons),
            "runs completed": int(run.survived.sum()),
            "frames": 0 if made is None else len(made),
            "reference frames": len(reference),
        }
        threshold = self._threshold(reference)
        if made is None:
            first = next(sentence for sentence in run.sentences if sentence)
            return Result(
                test=self.kind,
                title="",
                figures=figures,
                passed=False,
                threshold=threshold,
                sentence=f"All {len(run.reasons)} runs broke off before anything could be compared: {first}.",
            )
        radius = self._radius(Structures.concatenate([reference.without_labels(), made]))
        ours, theirs = (distribution(frames, radius, self.bins) for frames in (made, reference))
        halves = [
            distribution(reference.select(np.arange(part, len(reference), 2)), radius, self.bins) for part in (0, 1)
        ]
        errors, noise = difference(theirs, ours), difference(halves[0], halves[1])
        figures["largest distance, Å"] = radius
        if not errors:
            return Result(
                test=self.kind,
                title="",
                figures=figures,
                passed=None,
                threshold=threshold,
                sentence=f"Not done: the cells are so thin that no two atoms are within {radius:.1f} Å, half their "
                f"height; use larger cells, or set radius",
            )
        unit = ", %" if theirs.periodic else ""
        figures |= {f"error{unit}": _overall(errors), f"error between halves of the reference{unit}": _overall(noise)}
        figures |= {f"error {name}{unit}": value for name, value in errors.items() if name != "all"}
        error = _overall(errors)
        complete = bool(run.survived.all())
        lost = "" if complete else f" {int((~run.survived).sum())} of {len(run.reasons)} runs broke off."
        size = f"{error:.1f} %" if theirs.periodic else f"{error:.3f}"
        return Result(
            test=self.kind,
            title="",
            figures=figures,
            passed=None if self.limit is None else complete and error <= self.limit,
            threshold=threshold,
            sentence=f"At {run.temperatures[0]:g} K the distances between atoms are off by {size}.{lost}",
            curves=_curves(theirs, ours),
        )

    def _threshold(self, reference: Structures) -> str:
        judged = "not judged" if self.limit is None else f"error <= {self.limit:g}"
        scale = (
            "100 is an ideal gas (DynaMat)" if reference.pbc.all() and len(reference) else "2 is no overlap (Fu et al.)"
        )
        return f"{judged}; 0 is the reference, {scale}"

    def _matching(self, start: Structures, test: Structures) -> tuple[Structures, Structures]:
        """The starting structures of the composition with most reference frames, and those frames."""
        kinds: dict[tuple[object, ...], list[int]] = {}
        for number in range(len(start)):
            kinds.setdefault(_kind(start, number), []).append(number)
        wanted = [_kind(test, number) for number in range(len(test))]
        best = (start.select([0]), test.select([]))
        for kind, members in kinds.items():
            same = np.flatnonzero([other == kind for other in wanted])
            if start.pbc[members[0]].all():
                volume = np.median(_volumes(start.select(members)))
                same = same[np.abs(_volumes(test.select(same)) / volume - 1) <= self.density]
            if len(same) > len(best[1]):
                best = (start.select(members), test.select(same))
        return best

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
    names = ["-".join(sorted(chemical_symbols[e] for e in pair)) for pair in combinations_with_replacement(elements, 2)]
    n = len(elements)
    code = np.zeros((n, n), dtype=np.int64)
    code[np.triu_indices(n)] = np.arange(len(names))
    code = np.maximum(code, code.T)
    element = np.searchsorted(elements, frames.species)
    periodic = bool(frames.pbc.all())
    weight = _volumes(frames) if periodic else np.ones(len(frames))
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


def frames_of(run: Trajectory, burn_in: float) -> Structures | None:
    """The stored frames of all structures after the burn-in, before any guard stopped them; ``None`` if none is left.

    Args:
        run: with frames.
        burn_in: fraction of the run's steps to drop.
    """
    assert run.frames is not None
    assert run.settings.frame_interval is not None
    steps = np.arange(len(run.frames)) * run.settings.frame_interval
    parts = []
    for number in range(len(run.reasons)):
        last = run.steps[number] if run.reasons[number] is None else run.steps[number] - 1
        kept = np.flatnonzero((steps > burn_in * run.settings.n_steps) & (steps <= last))
        atoms = slice(run.final.offsets[number], run.final.offsets[number + 1])
        if len(kept):
            copies = run.final.select(np.full(len(kept), number))
            parts.append(replace(copies, positions=run.frames[kept, atoms].reshape(-1, 3), info={}))
    return Structures.concatenate(parts) if parts else None


def _overall(errors: dict[str, float]) -> float:
    """Of all distances together where they were counted so, else the mean over pairs of elements."""
    return errors["all"] if "all" in errors else float(np.mean(list(errors.values())))


def _curves(reference: Distribution, ours: Distribution) -> dict[str, Curve]:
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
        for found, suffix in ((ours, ""), (reference, ", labelled frames"))
        for name, values in found.values.items()
    }


def _kind(structures: Structures, number: int) -> tuple[object, ...]:
    """What structures must share to be compared: periodic directions and atoms."""
    part = slice(structures.offsets[number], structures.offsets[number + 1])
    return (*structures.pbc[number].tolist(), *np.sort(structures.species[part]).tolist())


def _volumes(structures: Structures) -> Floats:
    """(systems,) Å³."""
    return np.abs(np.linalg.det(structures.cell))

"""Frames at which dynamics was stopped: what failed, and a picture of its surroundings."""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors
from ase.neighborlist import natural_cutoffs, neighbor_list
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from phystrain.errors import UserError
from phystrain.report.comparison import Variant
from phystrain.report.drawing import ALARM, INK, Array, Drawing, render
from phystrain.statistics import pair_label

SECTION = "failing"

DRAWN = 3
"""Frames of each variant that are drawn."""

AROUND = 5.0
"""Å about the failing contact within which atoms are drawn: further out they would hide it."""

BONDED = 1.2
"""Times the sum of covalent radii, up to which two atoms are joined by a line."""

CLOSE = 0.85
"""Times the sum of covalent radii, below which the closest pair is pointed at where the message names none."""

_NAMED = re.compile(r"\b([A-Z][a-z]?)-([A-Z][a-z]?)\b")
_OF = re.compile(r"([0-9.]+) Å")


@dataclass(frozen=True)
class Contact:
    """Two atoms that are too close, or too far apart.

    Attributes:
        first, second: atoms.
        vector: (3,) Å, from the first to the second, or to its image.
    """

    first: int
    second: int
    vector: Array

    @property
    def distance(self) -> float:
        return float(np.linalg.norm(self.vector))


@dataclass(frozen=True)
class Failing:
    """A frame at which a run was stopped.

    Attributes:
        index: of the variant.
        name: of the variant.
        atoms: the frame.
        reason: in words.
        contact: what the reason is about; ``None`` if it is about no pair of atoms.
    """

    index: int
    name: str
    atoms: Atoms
    reason: str
    contact: Contact | None


def failing_frames(variants: Sequence[Variant]) -> list[Failing]:
    """All failing frames of all variants, the earliest of each variant first; those with lost atoms are left out.

    Raises:
        UserError: a file of frames is damaged.
    """
    found = []
    for index, variant in enumerate(variants):
        if variant.failing is None or not variant.failing.is_file():
            continue
        frames = [atoms for atoms in _read(variant.failing) if len(atoms) and np.isfinite(atoms.positions).all()]
        for atoms in sorted(frames, key=_time):
            reason = str(atoms.info.get("failure", "stopped"))
            found.append(Failing(index, variant.name, atoms, reason, find_contact(atoms, reason)))
    return found


def chosen(frames: Sequence[Failing]) -> list[Failing]:
    """Those that are drawn: of each variant the earliest of every kind of failure, then the next ones."""
    picked: list[Failing] = []
    for _, group in itertools.groupby(frames, key=lambda frame: frame.index):
        own = list(group)
        kinds: dict[str, Failing] = {}
        for frame in own:
            kinds.setdefault(re.sub(r"[0-9.,]+", "", frame.reason), frame)
        order = [*kinds.values(), *(frame for frame in own if all(frame is not first for first in kinds.values()))]
        picked += order[:DRAWN]
    return picked


def failing_drawings(variants: Sequence[Variant]) -> Iterator[Drawing]:
    """A picture of the surroundings of every chosen failure."""
    for frame in chosen(failing_frames(variants)):
        title = frame.name + (f": {_pair(frame)} {frame.contact.distance:.2f} Å" if frame.contact else "")
        elements = dict.fromkeys(sorted(frame.atoms.numbers.tolist()))
        legend = [(_dot(number), chemical_symbols[number]) for number in list(elements)[:8]]
        yield render(SECTION, title, describe(frame), partial(_paint, frame=frame), [], legend)


def describe(frame: Failing) -> str:
    """One line: variant, formula, what happened, and how hot it was."""
    kelvin = frame.atoms.info.get("temperature_K")
    where = f"{frame.name}, {frame.atoms.get_chemical_formula()}: {frame.reason}"
    return where + (f", at {float(kelvin):.0f} K" if kelvin is not None else "")


def find_contact(atoms: Atoms, reason: str) -> Contact | None:
    """The pair that a message such as ``O-Si contact of 1.06 Å`` is about, or else the closest pair if it is close."""
    named = _NAMED.search(reason)
    told = _OF.search(reason) if named else None  # of a bond that changes "from 1.10 to 1.60 Å" the present length
    length = float(told[1]) if told else 0.0
    reach = np.maximum(natural_cutoffs(atoms, mult=1.3), 0.55 * length)
    first, second, vector, distance = neighbor_list("ijDd", atoms, reach)
    if not len(distance):
        return None
    radii = covalent_radii[atoms.numbers]
    ratio = distance / (radii[first] + radii[second])
    if named:
        kinds = {named[1], named[2]}
        symbols = np.array(atoms.get_chemical_symbols())
        alike = [{a, b} == kinds for a, b in zip(symbols[first], symbols[second], strict=True)]
        fits = np.flatnonzero(np.array(alike) & (np.abs(distance - length) < 0.006))
        if len(fits):
            best = int(fits[0])
            return Contact(int(first[best]), int(second[best]), vector[best])
    best = int(ratio.argmin())
    return Contact(int(first[best]), int(second[best]), vector[best]) if ratio[best] < CLOSE else None


def _read(path: Path) -> list[Atoms]:
    try:
        return list(ase.io.iread(path, index=":", format="extxyz"))
    except (ValueError, KeyError, IndexError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): delete it, or run 'phystrain audit' again.") from error


def _time(atoms: Atoms) -> float:
    return float(atoms.info.get("time_ps", math.inf))


def _pair(frame: Failing) -> str:
    assert frame.contact is not None
    return pair_label(*frame.atoms.numbers[[frame.contact.first, frame.contact.second]].tolist())


def _dot(number: int) -> Line2D:
    return Line2D([], [], marker="o", linestyle="", color=jmol_colors[number], markeredgecolor=INK, markersize=7)


def _paint(axes: Any, *, frame: Failing) -> None:
    """Circles from the back to the front, the failing pair on top; what is before it is pale."""
    numbers, positions, marked = _surroundings(frame)
    turned = positions @ _view(positions, marked, frame.contact).T
    radii = 0.5 * covalent_radii[numbers]
    shift = 2 * turned[:, 2].max(initial=1.0)
    for first, second in _bonds(numbers, positions):
        low = min(turned[first, 2], turned[second, 2])
        axes.plot(*turned[[first, second], :2].T, color=INK, lw=1.1, alpha=0.5, zorder=shift + low)
    for atom in np.argsort(turned[:, 2]).tolist():
        front = marked is not None and atom not in marked and turned[atom, 2] > 0.4
        patch = Circle(
            (turned[atom, 0], turned[atom, 1]), radii[atom], facecolor=jmol_colors[numbers[atom]], edgecolor=INK,
            linewidth=0.6, alpha=0.35 if front else 1.0, zorder=shift + turned[atom, 2] + 0.01,
        )  # fmt: skip
        axes.add_patch(patch)
    if marked is not None and frame.contact is not None:
        ends = turned[list(marked), :2]
        top = 4 * shift + 10
        axes.plot(*ends.T, color=ALARM, linewidth=2.5, zorder=top)
        for atom in marked:
            place = (turned[atom, 0], turned[atom, 1])
            ring = Circle(place, radii[atom], fill=False, edgecolor=ALARM, linewidth=2.2, zorder=top)
            axes.add_patch(ring)
        axes.annotate(
            f"{frame.contact.distance:.2f} Å", ends.mean(axis=0), xytext=(0, 30), textcoords="offset points",
            ha="center", fontsize=10, fontweight="bold", zorder=top + 1,
            bbox={"boxstyle": "round,pad=0.2", "facecolor": "#ffffff", "edgecolor": ALARM}, color=ALARM,
        )  # fmt: skip
    margin = 1.0
    low, high = turned[:, :2].min(axis=0) - margin, turned[:, :2].max(axis=0) + margin
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    axes.set_axis_off()


def _surroundings(frame: Failing) -> tuple[np.ndarray, Array, tuple[int, int] | None]:
    """Atomic numbers and places (atoms, 3) about the middle of the contact, images included; which two it is."""
    atoms, contact = frame.atoms, frame.contact
    if contact is None:
        return atoms.numbers, atoms.positions - atoms.positions.mean(axis=0), None
    middle = atoms.positions[contact.first] + 0.5 * contact.vector
    reach = max(AROUND, 0.75 * contact.distance)
    shifts = np.zeros((1, 3))
    if atoms.pbc.any():
        heights = 1 / np.maximum(np.linalg.norm(atoms.cell.reciprocal(), axis=1), 1e-9)
        # an atom may lie outside the cell, by as many cells as its fractional coordinates say
        spread = np.abs(atoms.cell.scaled_positions(atoms.positions - middle)).max(axis=0)
        most = np.where(atoms.pbc, np.minimum(np.ceil(reach / heights + spread), 6), 0).astype(int)
        shifts = np.array(list(itertools.product(*(range(-n, n + 1) for n in most)))) @ atoms.cell.array
    places = (atoms.positions[None] + shifts[:, None] - middle).reshape(-1, 3)
    near = np.flatnonzero(np.linalg.norm(places, axis=1) < reach)
    numbers = np.tile(atoms.numbers, len(shifts))[near]
    places = places[near]
    ends = [int(np.linalg.norm(places - sign * 0.5 * contact.vector, axis=1).argmin()) for sign in (-1, 1)]
    return numbers, places, (ends[0], ends[1])


def _view(positions: Array, marked: tuple[int, int] | None, contact: Contact | None) -> Array:
    """(3, 3) rotation: the contact lies along x, seen from the side from which the fewest atoms hide it."""
    if marked is None or contact is None or contact.distance < 1e-6:
        axes = np.linalg.svd(positions - positions.mean(axis=0), full_matrices=True)[2]
        return np.asarray(axes)  # the flattest side to the front
    x = contact.vector / contact.distance
    helper = np.eye(3)[np.abs(x).argmin()]
    one = np.cross(x, helper)
    one /= np.linalg.norm(one)
    two = np.cross(x, one)
    others = np.delete(positions, marked, axis=0)
    best, fewest = np.stack([x, one, two]), math.inf
    for angle in np.linspace(0, 2 * np.pi, 48, endpoint=False):
        z = math.cos(angle) * one + math.sin(angle) * two
        turned = others @ np.stack([x, np.cross(z, x), z]).T
        aside = np.hypot(np.maximum(np.abs(turned[:, 0]) - 0.5 * contact.distance, 0), turned[:, 1])
        hidden = float(np.exp(-((aside / 1.2) ** 2))[turned[:, 2] > 0].sum())
        if hidden < fewest - 1e-9:
            best, fewest = np.stack([x, np.cross(z, x), z]), hidden
    return best


def _bonds(numbers: np.ndarray, positions: Array) -> Iterator[tuple[int, int]]:
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    radii = covalent_radii[numbers]
    first, second = np.nonzero(np.triu(distance < BONDED * (radii[:, None] + radii[None]), k=1))
    yield from zip(first.tolist(), second.tolist(), strict=True)

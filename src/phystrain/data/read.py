"""Labelled structures from files: extended XYZ, ASE databases, and whatever else ASE reads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from phystrain.data import _geometry
from phystrain.data._frame import Frame, Texts, read_database, read_other
from phystrain.data._keys import Found, LabelFinder, LabelKeys, require_finite
from phystrain.data._xyz import base_suffix, numbers_in, read_xyz
from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.progress import track
from phystrain.registry import did_you_mean

__all__ = ["Dataset", "LabelKeys", "read"]

XYZ = (".xyz", ".extxyz")
DATABASES = (".db", ".aselmdb")
LONG = 200
"""Facts of more characters than this are kept only if they are asked for."""

BIG = 20_000_000
"""Bytes from which reading shows its progress."""


@dataclass(frozen=True)
class Dataset:
    """Structures and how they were read.

    Attributes:
        structures: with their labels; ``info["frame"]`` is the number in the file, counted from 0.
        found: by label (energy, forces, stress, weight), the names it was found under and in how many frames.
        path: the file.
        warnings: what is odd about the file but no error, one line each.
    """

    structures: Structures
    found: dict[str, dict[str, int]]
    path: Path
    warnings: tuple[str, ...] = field(default=())

    def summary(self) -> str:
        """What is in the file, for people: size, elements, periodicity, labels with names and counts, warnings."""
        structures = self.structures
        sizes, periodic = structures.sizes, structures.pbc.sum(axis=1)
        spread = f"{sizes.min()}" if sizes.min() == sizes.max() else f"{sizes.min()} to {sizes.max()}"
        kinds = {3: "periodic", 2: "periodic in two directions", 1: "periodic in one direction", 0: "not periodic"}
        counts = {text: int((periodic == number).sum()) for number, text in kinds.items()}
        lines = [
            f"{self.path}: {len(structures)} frames, {sizes.sum()} atoms ({spread} a frame)",
            f"  elements  {' '.join(chemical_symbols[number] for number in structures.elements)}",
            f"  cells     {', '.join(f'{count} {text}' for text, count in counts.items() if count)}",
        ]
        for label, keys in self.found.items():
            if keys or label != "weight":
                listed = ", ".join(f"{key} in {count} of {len(structures)} frames" for key, count in keys.items())
                lines.append(f"  {label:<9} {listed or 'none'}")
        return "\n".join([*lines, *(f"  warning: {warning}" for warning in self.warnings)])


def read(path: Path | str, *, keys: LabelKeys | None = None, info: Sequence[str] | None = None) -> Dataset:
    """Read labelled structures.

    Labels are looked for under the user's own names only, where given, else under ``REF_*``, in the results of ASE's
    calculator (extended XYZ: ``energy``, ``forces``, ``stress``), under the other names of
    :data:`phystrain.units.LABEL_KEYS`, and last as ``free_energy``. What is not there is not-a-number.

    Args:
        path: extended XYZ (plain, .gz, .bz2, .xz), ASE database (.db, .aselmdb), or any file that ASE reads.
        keys: the user's own names of the labels.
        info: names of facts to keep as groups; every short one if not given.

    Raises:
        UserError: what a person has to put right, with the frame it is in.
    """
    path = Path(path)
    finder = LabelFinder(keys or LabelKeys())
    frames: list[Frame] = []
    labels: list[Found] = []
    for frame in _frames(path, finder.columns):
        require_finite(frame.where, "positions", frame.positions, per_atom=True)
        require_finite(frame.where, "the cell", frame.cell)
        labels.append(finder.take(frame))
        frame.columns = {}
        frames.append(frame)
    if not frames:
        raise UserError(f"{path} holds no structures.")
    finder.finish(str(path))
    structures = _assemble(frames, labels, _groups(path, frames, finder, info))
    _geometry.require_sound(structures, [frame.where for frame in frames])
    found = {label: {key: count for key, count in counts.items() if count} for label, counts in finder.found.items()}
    return Dataset(structures, found, path, _warnings(structures, finder, frames, found))


def _frames(path: Path, columns: frozenset[str]) -> Iterator[Frame]:
    if path.is_dir():
        raise UserError(f"{path} is a folder: give a file with structures.")
    if not path.is_file():
        there = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        near = did_you_mean(path.name, there) if there else ""
        raise UserError(f"no such file: {path}{f'; {near}' if near.startswith('did') else ''}")
    try:
        size = path.stat().st_size
        with path.open("rb") as handle:
            handle.read(1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from error
    if size == 0:
        raise UserError(f"{path} is empty.")
    suffix = base_suffix(path)
    if suffix in XYZ:
        frames = read_xyz(path, columns)
    else:
        frames = read_database(path) if suffix in DATABASES else read_other(path)
    return track(frames, f"reading {path.name}") if size > BIG else frames


def _assemble(frames: list[Frame], labels: list[Found], info: dict[str, Texts]) -> Structures:
    sizes = [len(frame.numbers) for frame in frames]
    missing = np.full((max(sizes), 3), np.nan)
    forces = [
        missing[:size] if label.forces is None else label.forces for size, label in zip(sizes, labels, strict=True)
    ]
    return Structures(
        positions=np.concatenate([frame.positions for frame in frames]),
        species=np.concatenate([frame.numbers for frame in frames]),
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        cell=np.stack([frame.cell for frame in frames]),
        pbc=np.stack([frame.pbc for frame in frames]),
        energy=np.array([np.nan if label.energy is None else label.energy for label in labels]),
        forces=np.concatenate(forces),
        stress=np.stack([np.full((3, 3), np.nan) if label.stress is None else label.stress for label in labels]),
        weight=np.array([1.0 if label.weight is None else label.weight for label in labels]),
        info=info,
    )


def _groups(path: Path, frames: list[Frame], finder: LabelFinder, wanted: Sequence[str] | None) -> dict[str, Texts]:
    """Facts to keep as text, by name, and the number of each frame. A fact of that name is kept as ``own_frame``."""
    if wanted is None:
        names = sorted(finder.names["facts"] - finder.reserved)
    else:
        names = list(wanted)
        for name in names:
            if name not in finder.names["facts"]:
                there = sorted(finder.names["facts"])
                hint = did_you_mean(name, there) if there else "the frames say nothing about themselves"
                raise UserError(f"{path}: no frame has {name!r}; {hint}.")
    texts = {name: [_text(frame.facts.get(name), named=wanted is not None) for frame in frames] for name in names}
    kept = {"own_frame" if name == "frame" else name: np.array(texts[name]) for name in names if any(texts[name])}
    return {"frame": np.arange(len(frames)).astype(str), **kept}


def _text(value: object, named: bool) -> str:
    """A fact as text; nothing for vectors of numbers and for long ones, unless named."""
    if value is None or isinstance(value, dict):
        return ""
    if not isinstance(value, str):
        numbers = np.asarray(value)
        return str(value) if numbers.ndim == 0 or named else ""
    if named:
        return value
    if len(value) > LONG or (" " in value and _is_numbers(value)):
        return ""
    return value


def _is_numbers(text: str) -> bool:
    try:
        return numbers_in(text).size > 1
    except ValueError:
        return False


def _warnings(
    structures: Structures, finder: LabelFinder, frames: list[Frame], found: dict[str, dict[str, int]]
) -> tuple[str, ...]:
    """One line for each thing that is odd; coincident atoms are refused."""
    lines = [f"{text} ({count} frames)" if count > 1 else text for text, count in finder.remarks.items()]
    for label, keys in found.items():
        if len(keys) > 1:
            listed = ", ".join(f"{key} in {count}" for key, count in keys.items())
            lines.append(f"{label} stands under several names ({listed} frames): are they of the same level of theory?")
    close = _geometry.contacts(structures)
    if len(close.structure):
        where, nearest = frames[close.structure[0]].where, _geometry.describe(structures, close, 0)
        overlapping = np.flatnonzero(close.distance < _geometry.COINCIDENT)
        if len(overlapping):
            pair = int(overlapping[0])
            raise UserError(
                f"{frames[close.structure[pair]].where}: {_geometry.describe(structures, close, pair)}. "
                "One of them is a copy; remove it, or the frame."
            )
        count = len(np.unique(close.structure))
        lines.append(
            f"{count} frame{'s' * (count > 1)} with atoms nearer than {_geometry.CLOSE} of the sum of their covalent "
            f"radii; nearest: frame {where.rpartition(': frame ')[2]}, {nearest}"
        )
    return tuple(lines)

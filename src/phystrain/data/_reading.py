"""Files of structures read in blocks: every frame is labelled and checked, and memory stays bounded.

The one way in which structures come in: :func:`phystrain.data.read.read` joins the blocks,
:func:`phystrain.data.convert.convert` writes them to a store.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from phystrain.data import _geometry
from phystrain.data._frame import Frame, Texts, read_database, read_other
from phystrain.data._keys import Found, LabelFinder, LabelKeys, require_finite
from phystrain.data._xyz import base_suffix, numbers_in, read_xyz
from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.progress import track
from phystrain.registry import did_you_mean

XYZ = (".xyz", ".extxyz")
DATABASES = (".db", ".aselmdb")
LONG = 200
"""Facts of more characters than this are kept only if they are asked for."""

BIG = 20_000_000
"""Bytes from which reading shows its progress."""

ATOMS = 20_000
"""Atoms of a block."""


class Reading:
    """A file that is being read.

    Args:
        path, keys, info: as for :func:`phystrain.data.read.read`.
        progress: whether to show how far it is, where the file is large.

    Raises:
        UserError: no such file, or nothing in it.

    Attributes:
        frames: that have been read.
        found: by label (energy, forces, stress, weight), the names it was found under and in how many frames.
    """

    def __init__(
        self,
        path: Path,
        *,
        keys: LabelKeys | None = None,
        info: Sequence[str] | None = None,
        progress: bool = True,
    ) -> None:
        self.path, self.frames = path, 0
        self._info, self._progress = info, progress
        self._finder = LabelFinder(keys or LabelKeys())
        self._close = 0
        self._nearest: tuple[float, str] = (np.inf, "")
        _require_file(path)

    def blocks(self) -> Iterator[Structures]:
        """All structures, some :data:`ATOMS` atoms at a time; ``info["frame"]`` counts the frames of the file from 0.

        An ``info`` name that no frame of a block has is missing there.

        Raises:
            UserError: what a person has to put right, with the frame it is in; after the last block, what is wrong
                with the file as a whole.
        """
        frames: list[Frame] = []
        labels: list[Found] = []
        atoms = 0
        for frame in self._each():
            require_finite(frame.where, "positions", frame.positions, per_atom=True)
            require_finite(frame.where, "the cell", frame.cell)
            labels.append(self._finder.take(frame))
            frame.columns = {}
            frames.append(frame)
            atoms += len(frame.numbers)
            if atoms >= ATOMS:
                yield self._block(frames, labels)
                frames, labels, atoms = [], [], 0
        if frames:
            yield self._block(frames, labels)
        if not self.frames:
            raise UserError(f"{self.path} holds no structures.")
        self._finder.finish(str(self.path))
        for name in self._info or ():
            if name not in self._finder.names["facts"]:
                there = sorted(self._finder.names["facts"])
                hint = did_you_mean(name, there) if there else "the frames say nothing about themselves"
                raise UserError(f"{self.path}: no frame has {name!r}; {hint}.")

    @property
    def found(self) -> dict[str, dict[str, int]]:
        return {label: {key: n for key, n in counts.items() if n} for label, counts in self._finder.found.items()}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about the file but no error, one line each; complete after the last block."""
        lines = [f"{text} ({count} frames)" if count > 1 else text for text, count in self._finder.remarks.items()]
        lines += several_names(self.found)
        if self._close:
            lines.append(
                f"{self._close} frame{'s' * (self._close > 1)} with atoms nearer than {_geometry.CLOSE} of the sum of "
                f"their covalent radii; nearest: frame {self._nearest[1]}"
            )
        return tuple(lines)

    def _each(self) -> Iterator[Frame]:
        suffix = base_suffix(self.path)
        if suffix in XYZ:
            frames = read_xyz(self.path, self._finder.columns)
        else:
            frames = read_database(self.path) if suffix in DATABASES else read_other(self.path)
        shown = self._progress and self.path.stat().st_size > BIG
        return track(frames, f"reading {self.path.name}") if shown else frames

    def _block(self, frames: list[Frame], labels: list[Found]) -> Structures:
        structures = _assemble(frames, labels, self._groups(frames))
        where = [frame.where for frame in frames]
        _geometry.require_sound(structures, where)
        self._note_contacts(structures, where)
        self.frames += len(frames)
        return structures

    def _groups(self, frames: list[Frame]) -> dict[str, Texts]:
        """Facts to keep as text, by name, and the number of each frame; a fact ``frame`` becomes ``own_frame``."""
        wanted = self._info
        names = {name for frame in frames for name in frame.facts} - self._finder.reserved if wanted is None else wanted
        texts = {name: [_text(frame.facts.get(name), named=wanted is not None) for frame in frames] for name in names}
        kept = {"own_frame" if name == "frame" else name: np.array(texts[name]) for name in names if any(texts[name])}
        return {"frame": np.arange(self.frames, self.frames + len(frames)).astype(str), **kept}

    def _note_contacts(self, structures: Structures, where: list[str]) -> None:
        """Count frames with atoms that are close; coincident ones are refused."""
        close = _geometry.contacts(structures)
        if not len(close.structure):
            return
        overlapping = np.flatnonzero(close.distance < _geometry.COINCIDENT)
        if len(overlapping):
            pair = int(overlapping[0])
            raise UserError(
                f"{where[close.structure[pair]]}: {_geometry.describe(structures, close, pair)}. "
                "One of them is a copy; remove it, or the frame."
            )
        self._close += len(np.unique(close.structure))
        if close.ratio[0] < self._nearest[0]:
            frame = where[close.structure[0]].rpartition(": frame ")[2]
            self._nearest = float(close.ratio[0]), f"{frame}, {_geometry.describe(structures, close, 0)}"


def in_order(names: Iterable[str], wanted: Sequence[str] | None = None) -> list[str]:
    """Names of facts as they stand in ``info``: ``frame`` first, then as asked for, or by the alphabet."""
    facts = {name: "frame" if name == "own_frame" else name for name in names if name != "frame"}
    places = {name: number for number, name in enumerate(sorted(facts.values()) if wanted is None else wanted)}
    return ["frame", *sorted(facts, key=lambda name: places[facts[name]])]


def several_names(found: dict[str, dict[str, int]]) -> list[str]:
    """A warning for each label that stands under more than one name."""
    lines = []
    for label, keys in found.items():
        if len(keys) > 1:
            listed = ", ".join(f"{key} in {count}" for key, count in keys.items())
            lines.append(f"{label} stands under several names ({listed} frames): are they of the same level of theory?")
    return lines


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{path} is a folder, and no store: give a file with structures, or a store.")
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

"""A set of structures on disk as flat arrays behind a JSON header: opened at once whatever its size, read in place.

A store is a folder: ``header.json`` and one raw little-endian array a file, in the types and the order in memory of
:class:`phystrain.data.structures.Structures`. Opening maps the files, so a frame costs what its bytes cost, and all
processes and workers of a machine share one copy, the page cache. It is written as a stream, in constant memory, under
another name that is changed at the very end, and the header is the last file in it: what has a header is whole.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from phystrain.data._keys import LabelKeys
from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.files import write_folder_with
from phystrain.registry import did_you_mean

FORMAT = "phystrain store"
VERSION = 1
HEADER = "header.json"
UNITS = {"length": "Å", "energy": "eV", "forces": "eV/Å", "stress": "eV/Å³, tensile positive"}
"""What the numbers of every store are in; see :mod:`phystrain.units`."""

_ATOMS, _STRUCTURES, _ENDS = "atoms", "structures", "ends"
_ARRAYS: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "positions": ("<f8", _ATOMS, (3,)),
    "species": ("<i8", _ATOMS, ()),
    "forces": ("<f8", _ATOMS, (3,)),
    "offsets": ("<i8", _ENDS, ()),
    "cell": ("<f8", _STRUCTURES, (3, 3)),
    "pbc": ("|b1", _STRUCTURES, (3,)),
    "energy": ("<f8", _STRUCTURES, ()),
    "stress": ("<f8", _STRUCTURES, (3, 3)),
    "weight": ("<f8", _STRUCTURES, ()),
}
"""By name: type, what the first axis counts, further axes. In this order they make the hash of the content."""

_PIECE = 1 << 22
"""Bytes that are read at a time where a whole file is."""


class Opened(NamedTuple):
    """A store.

    Attributes:
        structures: whose arrays are the mapped files, read-only.
        found: by label, the names it was found under and in how many frames.
        path: the folder.
        warnings: what was odd about the files that it was made from.
    """

    structures: Structures
    found: dict[str, dict[str, int]]
    path: Path
    warnings: tuple[str, ...]


def is_store(path: Path | str) -> bool:
    """Whether a path is a store; what is in it may still be damaged."""
    return (Path(path) / HEADER).is_file()


def open_store(path: Path | str, *, keys: LabelKeys | None = None, info: Sequence[str] | None = None) -> Opened:
    """Map a store into memory. Nothing but the header is read.

    Args:
        path: the folder.
        keys: names of the labels, if the user has given any: they must be those that the store was made with.
        info: names of facts to keep; all if not given.

    Raises:
        UserError: damaged, cut, of a later version, in other units, or made with other labels.
    """
    path = Path(path)
    header = _header(path)
    counts = {_ATOMS: header["atoms"], _STRUCTURES: header["structures"], _ENDS: header["structures"] + 1}
    arrays = {name: _mapped(path, name, dtype, (counts[axis], *rest)) for name, (dtype, axis, rest) in _ARRAYS.items()}
    offsets = arrays["offsets"]
    if offsets[0] != 0 or offsets[-1] != header["atoms"]:
        raise _damaged(path, "offsets do not end at the number of atoms")
    _require_labels(path, header, keys)
    texts: dict[str, dict[str, Any]] = header["info"]
    for name in info or ():
        if name not in texts:
            raise UserError(f"{path}: no frame has {name!r}; {did_you_mean(name, sorted(texts))}.")
    chosen = texts if info is None else {name: texts[name] for name in dict.fromkeys(("frame", *info)) if name in texts}
    groups = {
        name: _mapped(path, text["file"], f"<U{int(text['width'])}", (header["structures"],))
        for name, text in chosen.items()
    }
    structures = Structures(**arrays, info=groups)
    # read-only maps cannot change: what the header knows of them stays true
    object.__setattr__(structures, "_known", {"digest": header["digest"], "elements": header["elements"]})
    again = (_structures_of, (str(path.resolve()), tuple(groups), header["digest"]))
    object.__setattr__(structures, "_mapped_again", again)
    return Opened(structures, header["found"], path, tuple(header["warnings"]))


def _structures_of(path: str, info: tuple[str, ...], digest: str) -> Structures:
    """What another process has opened.

    Raises:
        UserError: this one does not see it, or sees another.
    """
    if not is_store(path):
        raise UserError(f"{path} is not seen by all processes: put it on a file system that all machines share")
    if open_store(path).structures.digest() != digest:
        raise UserError(f"{path} is not the same for all processes: it was changed, or machines hold different copies")
    return open_store(path, info=info).structures


def write_store(
    parts: Iterable[Structures],
    path: Path | str,
    *,
    facts: Callable[[], Mapping[str, Any]] = dict,
    order: Callable[[Iterable[str]], list[str]] = list,
) -> None:
    """Write a store, whole or not at all, in the memory that one part takes.

    Args:
        parts: of the set, in order; together one structure at least.
        path: the folder, which must not be there or be a store.
        facts: asked after the last part for entries of the header: ``found``, ``warnings``, ``sources``.
        order: of the names of facts.

    Raises:
        UserError: the folder is something else, or the place cannot be written to.
    """
    path = Path(path)
    require_place(path)

    def everything(folder: Path) -> None:
        writer = _Writer(folder)
        for part in parts:
            writer.append(part)
        writer.finish({"found": {}, "warnings": [], "sources": [], **facts()}, order)

    write_folder_with(path, everything)


def require_place(path: Path) -> None:
    """Refuse the name of a store that would take the place of something else.

    Raises:
        UserError: there is a file, or a folder that is no store.
    """
    if path.exists() and not is_store(path):
        raise UserError(f"{path} exists and is no store: give another --output.")


def content_hash(folder: Path) -> str:
    """Hash of the arrays in a folder, equal to :meth:`Structures.digest` of what they hold; reads all of them."""
    state = hashlib.sha256()
    for name in _ARRAYS:
        state.update(name.encode())
        with _file(folder, name).open("rb") as handle:
            while piece := handle.read(_PIECE):
                state.update(piece)
    return state.hexdigest()


def verify(path: Path) -> None:
    """Refuse a store whose arrays are not those that were written.

    Raises:
        UserError: the hash differs.
    """
    if content_hash(path) != _header(path)["digest"]:
        raise _damaged(path, "the arrays are not those that were written")


class _Writer:
    """Appends sets of structures to the arrays in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._atoms, self._structures = 0, 0
        self._elements: set[int] = set()
        # by name of the fact, pieces of its text: first structure, how many, characters of the longest
        self._texts: dict[str, list[tuple[int, int, int]]] = {}
        self._append("offsets", np.zeros(1, np.int64))

    def append(self, part: Structures) -> None:
        if not len(part):
            return
        for name in _ARRAYS:
            self._append(name, part.offsets[1:] + self._atoms if name == "offsets" else getattr(part, name))
        for name, values in part.info.items():
            width = max(1, int(np.char.str_len(values).max()))
            pieces = self._texts.setdefault(name, [])
            number = list(self._texts).index(name)
            with (self._folder / f"spool.{number}").open("ab") as handle:
                values.astype(f"<U{width}").tofile(handle)
            pieces.append((self._structures, len(part), width))
        self._elements |= {int(number) for number in np.unique(part.species)}
        self._atoms += int(part.offsets[-1])
        self._structures += len(part)

    def finish(self, facts: Mapping[str, Any], order: Callable[[Iterable[str]], list[str]]) -> None:
        """Give texts their common length, and write the header."""
        texts = {name: self._text(name, number) for number, name in enumerate(list(self._texts))}
        header = {
            "format": FORMAT,
            "version": VERSION,
            "units": UNITS,
            "structures": self._structures,
            "atoms": self._atoms,
            "arrays": {name: {"dtype": dtype, "axes": [axis, *rest]} for name, (dtype, axis, rest) in _ARRAYS.items()},
            "info": {name: texts[name] for name in order(texts)},
            "elements": sorted(self._elements),
            "digest": content_hash(self._folder),
            **facts,
        }
        text = json.dumps(header, indent=1, ensure_ascii=False)
        (self._folder / HEADER).write_text(text + "\n", encoding="utf-8")

    def _append(self, name: str, values: npt.NDArray[Any]) -> None:
        with _file(self._folder, name).open("ab") as handle:
            np.ascontiguousarray(values, dtype=_ARRAYS[name][0]).tofile(handle)

    def _text(self, name: str, number: int) -> dict[str, Any]:
        """Write a fact of all structures; where there is none, the file has zeros, which are an empty text."""
        width = max(piece[2] for piece in self._texts[name])
        file, spool = f"info.{number}", self._folder / f"spool.{number}"
        with spool.open("rb") as source, _file(self._folder, file).open("wb") as target:
            for first, count, own in self._texts[name]:
                values = np.fromfile(source, dtype=f"<U{own}", count=count)
                target.seek(4 * width * first)
                values.astype(f"<U{width}").tofile(target)
            target.truncate(4 * width * self._structures)
        spool.unlink()
        return {"file": file, "width": width}


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.bin"


def _header(path: Path) -> dict[str, Any]:
    """The header, with everything that is needed in it.

    Raises:
        UserError: not readable, of another format or version, in other units, or something is missing.
    """
    try:
        header = json.loads((path / HEADER).read_text(encoding="utf-8"))
        if header["format"] != FORMAT:
            raise _damaged(path, f"{HEADER} is that of {str(header['format'])[:40]!r}")
        if header["version"] != VERSION:
            raise UserError(
                f"{path} is a store of version {header['version']}, this phystrain reads version {VERSION}: "
                "convert the data again, or upgrade"
            )
        if header["units"] != UNITS:
            raise UserError(f"{path} is in other units than eV and Å ({header['units']}): convert the data again")
        if not all(isinstance(header[name], int) and header[name] > 0 for name in ("atoms", "structures")):
            raise _damaged(path, f"{HEADER} counts nothing")
        if not all(isinstance(header[name], dict) for name in ("info", "found")):
            raise _damaged(path, f"{HEADER} is not complete")
        return {name: header[name] for name in (*_NEEDED, "format")}
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from error
    except KeyError as error:
        raise _damaged(path, f"{HEADER} has no {error}") from error
    except (ValueError, TypeError) as error:
        raise _damaged(path, f"{HEADER} is no header") from error


_NEEDED = ("atoms", "structures", "info", "elements", "digest", "found", "warnings")


def _mapped(path: Path, name: str, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    file = _file(path, name)
    expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
    try:
        size = file.stat().st_size
    except OSError as error:
        raise _damaged(path, f"{file.name} is missing") from error
    if size != expected:
        raise _damaged(path, f"{file.name} has {size} bytes where {expected} are needed")
    # as a plain array: the class np.memmap makes every slice ten times as slow
    return np.asarray(np.memmap(file, dtype=dtype, mode="r", shape=shape))


def _require_labels(path: Path, header: dict[str, Any], keys: LabelKeys | None) -> None:
    """Refuse a name of the user's for a label that the store was not made with."""
    for label, key in (keys or LabelKeys()).model_dump().items():
        there = sorted(header["found"].get(label, {}))
        if key is not None and there != [key]:
            raise UserError(
                f"{path} was made with {label} under {', '.join(map(repr, there)) or 'no name'}, not {key!r}: labels "
                f"are chosen when a store is made. Convert the data again with that name, or leave it out"
            )


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path} is damaged ({what}): convert the data again, or use another copy")

"""Extended XYZ files, read line by line so that every message can name the frame and the line.

The format is that of ASE (key=value comment line, ``Properties`` naming the columns of the atoms). It is read here
rather than by ASE because ASE stops at an empty line without a word, ignores columns that ``Properties`` does not
name, refuses stresses of six numbers, and cannot say in which frame it failed.
"""

import bz2
import gzip
import json
import lzma
import re
import zlib
from collections.abc import Iterator
from functools import lru_cache
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from ase.data import atomic_numbers

from phystrain.data._frame import Frame, Texts, place
from phystrain.errors import UserError

COMPRESSED = (".gz", ".bz2", ".xz")
"""Suffixes of compressed files."""

_DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError)

_FACT = re.compile(
    r"""([^\s="']+|"[^"]*"|'[^']*')                    # name
        (?:\s*(=)\s*(?:"((?:\\.|[^"\\])*)"|'((?:\\.|[^'\\])*)'|\{([^}]*)\}|\[([^\]]*)\]|(\S*)))?""",
    re.VERBOSE,
)
_PUNCTUATION = re.compile(r"[\[\](){},]")
_NAMES = {"species": "species", "symbols": "species", "Z": "Z", "numbers": "Z", "pos": "pos", "positions": "pos"}
_TRUE, _FALSE = ("t", "true", "1"), ("f", "false", "0")


class Column(NamedTuple):
    """Columns of one property: its type letter, the first column and the one after the last."""

    kind: str
    start: int
    stop: int


def base_suffix(path: Path) -> str:
    """Suffix in lower case, that of the compression left out."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def read_xyz(path: Path, wanted: frozenset[str]) -> Iterator[Frame]:
    """Frames of an extended XYZ file, plain or compressed.

    Args:
        path: the file.
        wanted: names of the columns to read beside species and positions.

    Raises:
        UserError: damaged, cut, or not XYZ; names the frame and the line.
    """
    try:
        with _opened(path) as handle:
            yield from _frames(path, handle, wanted)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not a text file in UTF-8: give an extended XYZ file, or name it by its format."
        ) from error
    except _DAMAGED as error:
        raise UserError(f"{path} cannot be read ({error}): the file is damaged; use another copy.") from error


def _opened(path: Path) -> TextIOWrapper:
    match path.suffix.lower():
        case ".gz":
            return gzip.open(path, "rt", encoding="utf-8")
        case ".bz2":
            return bz2.open(path, "rt", encoding="utf-8")
        case ".xz":
            return lzma.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _frames(path: Path, handle: TextIOWrapper, wanted: frozenset[str]) -> Iterator[Frame]:
    line, number = 0, 0
    for header in handle:
        line += 1
        if not header.strip():
            continue
        where = place(path, number)
        try:
            count = int(header)
        except ValueError as error:
            if number == 0:
                raise UserError(
                    f"{path} is not an XYZ file: the first line is {_short(header)}, not the number of atoms."
                ) from error
            raise UserError(
                f"{where}: line {line} is {_short(header)} where the number of atoms of a new frame is expected; "
                f"does the number of atoms of frame {number - 1} agree with its lines?"
            ) from error
        if count < 1:
            raise UserError(f"{where}: line {line} announces {count} atoms. Remove the frame.")
        comment = next(handle, "")
        rows = list(islice(handle, count))
        if len(rows) < count:
            raise UserError(f"{where}: the file ends after {len(rows)} of {count} atoms. It is cut; use another copy.")
        yield _frame(where, comment, rows, line + 2, wanted)
        line += 1 + count
        number += 1


def parse_comment(comment: str) -> dict[str, str]:
    """``key=value`` pairs of a comment line as text; a word without a value is ``T``."""
    facts = {}
    for name, equals, *values in _FACT.findall(comment):
        text = "".join(values) if equals else "T"  # one way of quoting matches, the others are empty
        facts[name.strip("\"'")] = re.sub(r"\\(.)", r"\1", text) if "\\" in text else text
    return facts


def numbers_in(value: object) -> npt.NDArray[np.float64]:
    """All numbers of a fact, flat; of text such as ``1 2 3``, ``[1, 2, 3]`` or ``_JSON [[1, 2], [3, 4]]``.

    Raises:
        ValueError: something in it is not a number.
    """
    if isinstance(value, str):
        if value.startswith("_JSON "):
            value = json.loads(value.removeprefix("_JSON "))
        else:
            value = [float(word) for word in _PUNCTUATION.sub(" ", value).split()]
    return np.asarray(value, dtype=np.float64).ravel()


@lru_cache(maxsize=64)
def parse_properties(properties: str) -> dict[str, Column]:
    """Columns by name, species and positions under ``species`` or ``Z`` and ``pos``.

    Raises:
        ValueError: not of the form ``name:type:columns:...``.
    """
    parts = properties.split(":")
    if len(parts) % 3:
        raise ValueError("it is not made of name:type:columns")
    columns, start = {}, 0
    for name, kind, width in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        if kind not in tuple("RISL") or not width.isdigit():
            raise ValueError(f"{name}:{kind}:{width} is not name:type:columns with type R, I, S or L")
        columns[_NAMES.get(name, name)] = Column(kind, start, start + int(width))
        start += int(width)
    if "pos" not in columns or not {"species", "Z"} & columns.keys():
        raise ValueError("it names no species or no pos")
    return columns


def _frame(where: str, comment: str, rows: list[str], line: int, wanted: frozenset[str]) -> Frame:
    facts = parse_comment(comment)
    properties = facts.pop("Properties", "species:S:1:pos:R:3")
    try:
        columns = parse_properties(properties)
    except ValueError as error:
        raise UserError(f"{where}: cannot understand Properties={_short(properties)}: {error}") from error
    table, remarks = _table(where, rows, line, max(column.stop for column in columns.values()))
    cell, pbc = _cell(where, facts)
    read = {name: column for name, column in columns.items() if name in wanted and column.kind in "RI"}
    values = {
        name: _floats(where, table, column, name, line) for name, column in {**read, "pos": columns["pos"]}.items()
    }
    positions = values.pop("pos")
    if positions.shape[1] != 3:
        raise UserError(f"{where}: positions have {positions.shape[1]} columns, not 3.")
    # a column that is not read still has its name, so that a mistyped key can be answered
    unread = {name: np.empty((0, 0)) for name in columns if name not in values and name not in ("pos", "species", "Z")}
    return Frame(
        where, _species(where, table, columns, line), positions, cell, pbc, dict(facts), values | unread, remarks
    )


def _table(where: str, rows: list[str], line: int, width: int) -> tuple[Texts, tuple[str, ...]]:
    """(atoms, width) words of the atom lines."""
    split = [row.split() for row in rows]
    if set(map(len, split)) == {width}:
        return np.array(split), ()
    for atom, row in enumerate(split):
        if len(row) < width:
            raise UserError(
                f"{where}: atom {atom} (line {line + atom}) has {len(row)} columns where Properties promises {width}. "
                "The line is cut, or an atom is missing."
            )
    remark = f"lines have up to {max(map(len, split))} columns, Properties names {width}; the others are not read"
    return np.array([row[:width] for row in split]), (remark,)


def _floats(where: str, table: Texts, column: Column, name: str, line: int) -> npt.NDArray[np.float64]:
    block = table[:, column.start : column.stop]
    try:
        return block.astype(np.float64)
    except ValueError:
        for atom, words in enumerate(block):
            for word in words:
                try:
                    float(word)
                except ValueError as error:
                    shown = "positions" if name == "pos" else name
                    raise UserError(
                        f"{where}: {shown} of atom {atom} (line {line + atom}) holds {_short(word)}, "
                        "which is no number. The line is damaged or shifted."
                    ) from error
        raise


def _species(where: str, table: Texts, columns: dict[str, Column], line: int) -> npt.NDArray[np.int64]:
    if "species" not in columns:
        return _floats(where, table, columns["Z"], "Z", line)[:, 0].astype(np.int64)
    symbols = table[:, columns["species"].start]
    try:
        return np.array([atomic_numbers[symbol] for symbol in symbols.tolist()], dtype=np.int64)
    except KeyError:
        return np.array([_number(where, symbol, atom, line) for atom, symbol in enumerate(symbols.tolist())], np.int64)


def _number(where: str, symbol: str, atom: int, line: int) -> int:
    """Atomic number of a symbol in any case, or of a number."""
    if symbol.isdigit():
        return int(symbol)
    if symbol.capitalize() not in atomic_numbers:
        raise UserError(f"{where}: atom {atom} (line {line + atom}) has the unknown element {_short(symbol)}.")
    return int(atomic_numbers[symbol.capitalize()])


def _cell(where: str, facts: dict[str, str]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Cell, and periodic directions: all three where there is a Lattice and nothing else is said."""
    lattice, said = facts.pop("Lattice", None), facts.pop("pbc", None)
    cell = np.zeros((3, 3))
    if lattice is not None:
        try:
            cell = numbers_in(lattice).reshape(3, 3)
        except ValueError as error:
            raise UserError(f"{where}: Lattice={_short(lattice)} is not nine numbers.") from error
    if said is None:
        return cell, np.full(3, lattice is not None)
    words = _PUNCTUATION.sub(" ", said).lower().split()
    words = words * 3 if len(words) == 1 else words
    if len(words) != 3 or not set(words) <= {*_TRUE, *_FALSE}:
        raise UserError(f"{where}: pbc={_short(said)} is not three of T and F.")
    return cell, np.array([word in _TRUE for word in words])


def _short(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= 40 else f"{text[:37]}...")

"""Structures to ordinary extended XYZ, for any trainer."""

import bz2
import gzip
import lzma
from collections.abc import Iterable, Iterator
from io import BufferedIOBase, BufferedWriter
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from phystrain.data._xyz import base_suffix
from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.files import write_with


def write(structures: Structures | Iterable[Structures], path: Path | str) -> None:
    """Write extended XYZ with labels as ``REF_energy``, ``REF_forces`` and ``REF_stress``, whole or not at all.

    Numbers have all their digits: :func:`phystrain.data.read.read` gives the same structures back, bit for bit. The
    facts of ``structures.info`` go with them, except ``frame``, which is the number in whatever file is read.

    Args:
        structures: to write, or parts of a set that is too large for memory; what is not labelled is left out.
        path: ends in .xyz or .extxyz, and .gz, .bz2 or .xz after that to compress.

    Raises:
        UserError: another ending, or the place cannot be written to.
    """
    path = Path(path)
    require_ending(path)
    parts = [structures] if isinstance(structures, Structures) else structures

    def all_parts(temporary: Path) -> None:
        with temporary.open("wb") as plain, _packing(plain, path) as file:
            for part in parts:
                file.writelines(frame.encode() for frame in _frames(part))

    write_with(path, all_parts)


def require_ending(path: Path) -> None:
    """Refuse the name of a file that :func:`write` would not write.

    Raises:
        UserError: it does not end in .xyz or .extxyz, and a compression after that.
    """
    if base_suffix(path) not in (".xyz", ".extxyz"):
        raise UserError(f"cannot write {path}: let the name end in .xyz (and .gz, .bz2 or .xz to compress).")


def _packing(file: BufferedWriter, path: Path) -> BufferedIOBase:
    """A file that compresses into ``file`` as the name ``path`` says."""
    match path.suffix.lower():
        case ".gz":
            # no time stamp and no name: the same structures give the same file
            return gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)
        case ".bz2":
            return bz2.BZ2File(file, "wb")
        case ".xz":
            return lzma.LZMAFile(file, "wb")
    return file


def _frames(structures: Structures) -> Iterator[str]:
    symbols = np.array(chemical_symbols)[structures.species].tolist()
    for index in range(len(structures)):
        first, last = int(structures.offsets[index]), int(structures.offsets[index + 1])
        forces = structures.forces[first:last]
        labelled = bool(np.isfinite(forces).all())
        table = [structures.positions[first:last], forces] if labelled else [structures.positions[first:last]]
        numbers = np.concatenate(table, axis=1).tolist()
        rows = zip(symbols[first:last], numbers, strict=True)
        atoms = "".join(f"{symbol} {' '.join(map(repr, row))}\n" for symbol, row in rows)
        yield f"{last - first}\n{_comment(structures, index, labelled)}\n{atoms}"


def _comment(structures: Structures, index: int, forces: bool) -> str:
    """The comment line of one frame."""
    parts = []
    if structures.cell[index].any():
        parts.append(f"Lattice={_vector(structures.cell[index])}")
    parts.append(f"Properties=species:S:1:pos:R:3{':REF_forces:R:3' if forces else ''}")
    parts.append(f'pbc="{" ".join("FT"[int(flag)] for flag in structures.pbc[index])}"')
    if np.isfinite(structures.energy[index]):
        parts.append(f"REF_energy={float(structures.energy[index])!r}")
    if np.isfinite(structures.stress[index]).all():
        parts.append(f"REF_stress={_vector(structures.stress[index])}")
    if structures.weight[index] != 1:
        parts.append(f"config_weight={float(structures.weight[index])!r}")
    facts = {name: str(values[index]) for name, values in structures.info.items() if name != "frame"}
    parts += [f"{name}={_quoted(text)}" for name, text in facts.items() if text]
    return " ".join(parts)


def _vector(values: np.ndarray) -> str:
    return f'"{" ".join(map(repr, values.ravel().tolist()))}"'


def _quoted(text: str) -> str:
    """Text as the value of a key, in quotes unless it is a plain word."""
    text = " ".join(text.splitlines())
    if text.replace("_", "").replace("-", "").replace(".", "").isalnum():
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

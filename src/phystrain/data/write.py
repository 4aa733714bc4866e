"""Structures to ordinary extended XYZ, for any trainer."""

import bz2
import gzip
import lzma
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from phystrain.data._xyz import base_suffix
from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.files import write_with


def write(structures: Structures, path: Path | str) -> None:
    """Write extended XYZ with labels as ``REF_energy``, ``REF_forces`` and ``REF_stress``, whole or not at all.

    Numbers have all their digits: :func:`phystrain.data.read.read` gives the same structures back, bit for bit. The
    facts of ``structures.info`` go with them, except ``frame``, which is the number in whatever file is read.

    Args:
        structures: to write; what is not labelled is left out.
        path: ends in .xyz or .extxyz, and .gz, .bz2 or .xz after that to compress.

    Raises:
        UserError: another ending, or the place cannot be written to.
    """
    path = Path(path)
    require_ending(path)
    write_with(path, lambda temporary: temporary.write_bytes(_packed("".join(_frames(structures)).encode(), path)))


def require_ending(path: Path) -> None:
    """Refuse the name of a file that :func:`write` would not write.

    Raises:
        UserError: it does not end in .xyz or .extxyz, and a compression after that.
    """
    if base_suffix(path) not in (".xyz", ".extxyz"):
        raise UserError(f"cannot write {path}: let the name end in .xyz (and .gz, .bz2 or .xz to compress).")


def _packed(content: bytes, path: Path) -> bytes:
    match path.suffix.lower():
        case ".gz":
            return gzip.compress(content, mtime=0)  # no time stamp: the same structures give the same file
        case ".bz2":
            return bz2.compress(content)
        case ".xz":
            return lzma.compress(content)
    return content


def _frames(structures: Structures) -> Iterator[str]:
    symbols = np.array(chemical_symbols)[structures.species].tolist()
    for index in range(len(structures)):
        first, last = int(structures.offsets[index]), int(structures.offsets[index + 1])
        forces = structures.forces[first:last]
        labelled = bool(np.isfinite(forces).all())
        table = [structures.positions[first:last], forces] if labelled else [structures.positions[first:last]]
        numbers = np.concatenate(table, axis=1).tolist()
        yield f"{last - first}\n{_comment(structures, index, labelled)}\n"
        for symbol, row in zip(symbols[first:last], numbers, strict=True):
            yield f"{symbol} {' '.join(map(repr, row))}\n"


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

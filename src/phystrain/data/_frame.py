"""One structure as it stands in a file, before its labels are looked for."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import numpy.typing as npt
from ase import Atoms

from phystrain.errors import UserError

Floats = npt.NDArray[np.float64]
Texts = npt.NDArray[Any]
"""Arrays of str. The checker of the test run takes ``np.str_`` for strings of no length."""


@dataclass
class Frame:
    """A structure and everything the file says about it.

    Attributes:
        where: place for messages, such as ``a.xyz: frame 17 (counted from 0)``.
        numbers: (atoms,) atomic numbers.
        positions: (atoms, 3) Å.
        cell: (3, 3) Å, zero where there is none.
        pbc: (3,) periodic directions.
        facts: what is said about the whole structure: text as in the file, or numbers.
        columns: what is said about each atom, (atoms, n).
        remarks: things that are odd but no error.
    """

    where: str
    numbers: npt.NDArray[np.int64]
    positions: Floats
    cell: Floats
    pbc: npt.NDArray[np.bool_]
    facts: dict[str, Any]
    columns: dict[str, Floats]
    remarks: tuple[str, ...] = field(default=())


def place(path: Path, number: int) -> str:
    """How messages name a frame: with the number that ASE's ``file@number`` takes."""
    return f"{path}: frame {number} (counted from 0)"


def from_ase(atoms: Atoms, where: str) -> Frame:
    """A frame from what ASE has read; results of a calculator stand beside the other facts and override them."""
    facts: dict[str, Any] = {}
    columns: dict[str, Any] = {
        name: values for name, values in atoms.arrays.items() if name not in ("numbers", "positions")
    }
    nested = {key: atoms.info[key] for key in ("key_value_pairs", "data") if isinstance(atoms.info.get(key), dict)}
    given = {name: value for name, value in atoms.info.items() if name not in nested}
    given.update(nested.get("data", {}), **nested.get("key_value_pairs", {}))
    given.update({} if atoms.calc is None else atoms.calc.results)
    for name, value in given.items():
        if isinstance(value, list | np.ndarray) and _is_per_atom(name, value, len(atoms)):
            columns[name] = value
        elif value is not None:
            facts[name] = value
    return Frame(
        where=where,
        numbers=np.asarray(atoms.numbers, dtype=np.int64),
        positions=np.asarray(atoms.positions, dtype=np.float64),
        cell=np.array(atoms.cell.array, dtype=np.float64),
        pbc=np.array(atoms.pbc, dtype=bool),
        facts=facts,
        columns={
            name: np.asarray(values, dtype=np.float64).reshape(len(atoms), -1)
            for name, values in columns.items()
            if np.asarray(values).dtype.kind in "fiu"
        },
    )


def _is_per_atom(name: str, value: object, count: int) -> bool:
    """Whether a fact is a table with a row for each atom; a 3 by 3 stress of three atoms is not."""
    values = np.asarray(value)
    tensor = any(word in name.lower() for word in ("stress", "virial", "cell", "lattice"))
    return values.ndim == 2 and len(values) == count and not tensor


def read_database(path: Path) -> Iterator[Frame]:
    """Frames of an ASE database, its key-value pairs and data included.

    Raises:
        UserError: not a database, or the package that reads it is missing.
    """
    import ase.db

    # LMDB would lock a file that is opened for writing, which nobody may be allowed to
    options = {"readonly": True} if path.suffix.lower() == ".aselmdb" else {}
    try:
        with ase.db.connect(str(path), use_lock_file=False, **options) as database:
            for number, row in enumerate(_rows(database)):
                yield from_ase(row.toatoms(add_additional_information=True), place(path, number))
    except ImportError as error:
        raise UserError(
            f"{path} needs a database backend that is not installed ({error}): pip install ase-db-backends"
        ) from error
    except UserError:
        raise
    except Exception as error:  # ASE passes on whatever the backend raises
        raise UserError(f"{path} cannot be read as an ASE database ({_one_line(error)}).") from error


def _rows(database: Any) -> Iterator[Any]:
    """All rows in the order of their numbers; of SQLite a thousand at a time, because ASE fetches what it selects."""
    from ase.db.sqlite import SQLite3Database

    if not isinstance(database, SQLite3Database):
        yield from database.select()
        return
    last = 0
    while rows := list(database.select(f"id>{last}", limit=1000)):
        yield from rows
        last = rows[-1].id


def read_other(path: Path) -> Iterator[Frame]:
    """Frames of any other format that ASE recognises: vasprun.xml, OUTCAR, trajectories and so on.

    Raises:
        UserError: ASE does not know the format or cannot parse the file.
    """
    number = 0
    try:
        for number, atoms in enumerate(ase.io.iread(str(path), ":", do_not_split_by_at_sign=True)):
            yield from_ase(atoms, place(path, number))
    except UserError:
        raise
    except Exception as error:  # each of ASE's readers raises something else
        raise UserError(
            f"{path} cannot be read ({_one_line(error)}): give an extended XYZ file (.xyz), an ASE database (.db) "
            "or an output file that ASE reads."
        ) from error


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__

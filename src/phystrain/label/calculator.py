"""PySCF as a calculator of ASE that keeps every result on disk: an hour of coupled cluster is never computed twice."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from phystrain.files import write_text
from phystrain.label.compute import Label, compute
from phystrain.label.level import Level, require_pyscf


class ReferenceCalculator(Calculator):
    """Energies and forces by PySCF.

    Args:
        level: settings of :class:`phystrain.label.level.Level`, as plain data: they travel to other processes.
        cache: folder of results.
        charge: of the molecules.
        spin: number of unpaired electrons.
        memory: MB that PySCF may use.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self, level: dict[str, Any], cache: str, charge: int = 0, spin: int = 0, memory: int = 4000) -> None:
        super().__init__()
        self._level, self._cache = Level.model_validate(level), Path(cache)
        self._charge, self._spin, self._memory = charge, spin, memory

    def calculate(
        self, atoms: Atoms, properties: Sequence[str] = ("energy",), system_changes: Sequence[str] = tuple(all_changes)
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        entry = self._cache / entry_name(atoms.numbers, atoms.positions, self._level, self._charge, self._spin)
        label = load(entry)
        if label is None:
            label = compute(
                atoms.numbers,
                atoms.positions,
                self._level,
                charge=self._charge,
                spin=self._spin,
                memory=self._memory,
            )
            store(entry, label)
        forces = {} if label.forces is None else {"forces": label.forces}
        self.results = {"energy": label.energy, **forces}


def entry_name(
    numbers: npt.NDArray[np.integer], positions: npt.NDArray[np.float64], level: Level, charge: int, spin: int
) -> str:
    """File name of a result: a hash of all that it depends on, PySCF's version included.

    Args:
        numbers: (atoms,) atomic numbers.
        positions: (atoms, 3) Å.
        level: of theory.
        charge: of the molecule.
        spin: number of unpaired electrons.
    """
    # More cycles allowed do not change a result that has converged.
    settings = level.model_dump_json(exclude={"cycles"})
    state = hashlib.sha256(f"reference 1 PySCF {require_pyscf().__version__} {settings} {charge} {spin}".encode())
    state.update(np.ascontiguousarray(numbers, dtype=np.int64).tobytes())
    state.update(np.ascontiguousarray(positions, dtype=np.float64).tobytes())
    return f"{state.hexdigest()}.json"


def load(entry: Path) -> Label | None:
    """A result from the disk; ``None`` if there is none, or a damaged one."""
    try:
        found = json.loads(entry.read_text(encoding="utf-8"))
        forces = None if found["forces"] is None else np.array(found["forces"], dtype=np.float64)
        return Label(float(found["energy"]), forces, dict(found["facts"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def store(entry: Path, label: Label) -> None:
    """Write a result, whole or not at all."""
    forces = None if label.forces is None else label.forces.tolist()
    write_text(entry, json.dumps({"energy": label.energy, "forces": forces, "facts": label.facts}) + "\n")

"""A set of structures as flat arrays: constant cost per structure, whatever its size."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from phystrain.units import full_to_voigt, voigt_to_full

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_PER_ATOM = ("positions", "species", "forces")
_PER_SYSTEM = ("cell", "pbc", "energy", "stress", "weight")


@dataclass(frozen=True, eq=False)
class Structures:
    """Structures and their labels; not-a-number marks what is not labelled.

    Attributes:
        positions: (atoms, 3) Å.
        species: (atoms,) atomic numbers.
        offsets: (systems + 1,) first atom of each structure, and the end.
        cell: (systems, 3, 3) Å.
        pbc: (systems, 3).
        energy: (systems,) eV, total energies.
        forces: (atoms, 3) eV/Å.
        stress: (systems, 3, 3) eV/Å³.
        weight: (systems,) factor of each structure in every loss.
        info: further facts by name, (systems,) arrays of str: groups such as ``config_type``, and the origin ``frame``.
    """

    positions: Floats
    species: Ints
    offsets: Ints
    cell: Floats
    pbc: npt.NDArray[np.bool_]
    energy: Floats
    forces: Floats
    stress: Floats
    weight: Floats
    info: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def sizes(self) -> Ints:
        """(systems,) number of atoms of each structure."""
        return np.diff(self.offsets)

    @property
    def system(self) -> Ints:
        """(atoms,) structure of each atom."""
        return np.repeat(np.arange(len(self)), self.sizes)

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that occur, ascending."""
        return tuple(int(number) for number in np.unique(self.species))

    def labelled(self, quantity: str) -> npt.NDArray[np.bool_]:
        """(systems,) whether each structure has a label (for forces: on any of its atoms)."""
        if quantity == "forces":
            finite = np.isfinite(self.forces).all(axis=1)
            return np.bincount(self.system, weights=finite, minlength=len(self)) > 0
        values = getattr(self, quantity)
        return np.asarray(np.isfinite(values).all(axis=tuple(range(1, values.ndim))))

    def select(self, indices: npt.ArrayLike) -> "Structures":
        """The structures of the given numbers, in that order, or where a boolean mask is true."""
        chosen = np.asarray(indices)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        atoms = ragged(self.offsets, chosen)
        return Structures(
            offsets=np.concatenate([[0], np.cumsum(self.sizes[chosen])]).astype(np.int64),
            info={name: values[chosen] for name, values in self.info.items()},
            **{name: getattr(self, name)[atoms] for name in _PER_ATOM},
            **{name: getattr(self, name)[chosen] for name in _PER_SYSTEM},
        )

    def with_labels(
        self, energy: Floats | None = None, forces: Floats | None = None, stress: Floats | None = None
    ) -> "Structures":
        """The same structures with these labels and no others."""
        nan = self.without_labels()
        return Structures(
            **{item.name: getattr(self, item.name) for item in fields(self) if item.name not in _LABELS},
            energy=nan.energy if energy is None else energy,
            forces=nan.forces if forces is None else forces,
            stress=nan.stress if stress is None else stress,
        )

    def without_labels(self) -> "Structures":
        """The same structures, unlabelled."""
        kept = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in _LABELS}
        return Structures(**kept, **{name: np.full_like(getattr(self, name), np.nan) for name in _LABELS})

    @staticmethod
    def concatenate(parts: Sequence["Structures"]) -> "Structures":
        """Join sets; an ``info`` name that a set lacks is empty there."""
        names = list(dict.fromkeys(name for part in parts for name in part.info))
        return Structures(
            offsets=np.concatenate([[0], np.cumsum(np.concatenate([part.sizes for part in parts]))]).astype(np.int64),
            info={
                name: np.concatenate([part.info.get(name, np.full(len(part), "")) for part in parts]) for name in names
            },
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in (*_PER_ATOM, *_PER_SYSTEM)},
        )

    def digest(self) -> str:
        """Hash of geometry, labels and weights: what a training result depends on."""
        state = hashlib.sha256()
        for name in (*_PER_ATOM, "offsets", *_PER_SYSTEM):
            state.update(name.encode())
            state.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        return state.hexdigest()

    def to_ase(self, index: int) -> Atoms:
        """One structure, its labels in ASE's own slots (a single-point calculator) and its facts in ``info``."""
        part = slice(self.offsets[index], self.offsets[index + 1])
        atoms = Atoms(
            numbers=self.species[part], positions=self.positions[part], cell=self.cell[index], pbc=self.pbc[index]
        )
        results: dict[str, object] = {}
        if np.isfinite(self.energy[index]):
            results["energy"] = float(self.energy[index])
        if np.isfinite(self.forces[part]).all():
            results["forces"] = self.forces[part].copy()
        if np.isfinite(self.stress[index]).all():
            results["stress"] = full_to_voigt(self.stress[index])
        if results:
            atoms.calc = SinglePointCalculator(atoms, **results)
        atoms.info.update({name: str(values[index]) for name, values in self.info.items() if values[index]})
        return atoms

    def frames(self) -> Iterator[Atoms]:
        """Every structure as ASE atoms."""
        return (self.to_ase(index) for index in range(len(self)))

    @staticmethod
    def from_ase(frames: Iterable[Atoms], info: Iterable[str] = ()) -> "Structures":
        """Take structures whose labels stand in ASE's own slots (``atoms.calc.results``).

        Use :func:`phystrain.data.read.read` for files: it finds labels under other names too.

        Args:
            frames: structures.
            info: names in ``atoms.info`` to keep.
        """
        frames = list(frames)
        names = tuple(info)
        results = [{} if frame.calc is None else frame.calc.results for frame in frames]
        nothing = np.full((3, 3), np.nan)
        return Structures(
            positions=np.concatenate([frame.positions for frame in frames], dtype=np.float64),
            species=np.concatenate([frame.numbers for frame in frames], dtype=np.int64),
            offsets=np.concatenate([[0], np.cumsum([len(frame) for frame in frames])]).astype(np.int64),
            cell=np.stack([frame.cell.array for frame in frames]),
            pbc=np.stack([frame.pbc for frame in frames]),
            energy=np.array([float(result.get("energy", np.nan)) for result in results]),
            forces=np.concatenate(
                [
                    np.asarray(result.get("forces", np.full((len(frame), 3), np.nan)), dtype=np.float64)
                    for frame, result in zip(frames, results, strict=True)
                ]
            ),
            stress=np.stack([voigt_to_full(r["stress"]) if "stress" in r else nothing for r in results]),
            weight=np.ones(len(frames)),
            info={name: np.array([str(frame.info.get(name, "")) for frame in frames]) for name in names},
        )


_LABELS = ("energy", "forces", "stress")


def ragged(offsets: Ints, chosen: Ints) -> Ints:
    """Flat indices of the blocks ``chosen`` of a ragged array.

    Args:
        offsets: (blocks + 1,) first entry of each block, and the end.
        chosen: (n,) block numbers, in any order, repetitions allowed.
    """
    sizes = offsets[chosen + 1] - offsets[chosen]
    ends = np.cumsum(sizes)
    return np.asarray(np.arange(ends[-1] if len(ends) else 0) + np.repeat(offsets[chosen] - ends + sizes, sizes))

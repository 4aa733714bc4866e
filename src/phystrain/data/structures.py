"""A set of structures as flat arrays: constant cost per structure, whatever its size.

A set may be larger than memory: its arrays may be memory maps (:mod:`phystrain.data.store`), a :meth:`Structures.part`
of it gathers nothing before it is asked to, and what looks at every structure does so by :meth:`Structures.blocks`.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from phystrain.units import full_to_voigt, voigt_to_full

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_PER_ATOM = ("positions", "species", "forces")
_PER_SYSTEM = ("cell", "pbc", "energy", "stress", "weight")

BLOCK = 250_000
"""Atoms that are looked at together in what goes through a whole set: some 50 MB."""


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

    if not TYPE_CHECKING:  # a type checker would take any name for an attribute

        def __getattr__(self, name: str) -> Any:
            """Arrays of a part that were not asked for yet; read-only, because batches are cut from the whole set."""
            if name not in _GATHERED or "_origin" not in self.__dict__:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            values = self._gathered(name, 0, len(self))
            for array in values.values() if isinstance(values, dict) else [values]:
                array.flags.writeable = False
            object.__setattr__(self, name, values)
            return values

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A set that is mapped from a file goes to another process by the file's name."""
        return self.__dict__.get("_mapped_again") or super().__reduce_ex__(protocol)

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
        return tuple(self._remembered("elements", self._elements))

    def labelled(self, quantity: str) -> npt.NDArray[np.bool_]:
        """(systems,) whether each structure has a label (for forces: on any of its atoms)."""
        return np.concatenate([_labelled(block, quantity) for block in self.blocks()])

    def select(self, indices: npt.ArrayLike) -> "Structures":
        """A copy of the structures of the given numbers, in that order, or where a boolean mask is true."""
        chosen = _numbers(indices)
        if "_origin" in self.__dict__:
            home, numbers = self.located(chosen)
            return home.select(numbers)
        atoms = ragged(self.offsets, chosen)
        return Structures(
            offsets=self._offsets_of(chosen),
            info={name: values[chosen] for name, values in self.info.items()},
            **{name: getattr(self, name)[atoms] for name in _PER_ATOM},
            **{name: getattr(self, name)[chosen] for name in _PER_SYSTEM},
        )

    def part(self, indices: npt.ArrayLike) -> "Structures":
        """What :meth:`select` gives, without the copy: 16 bytes a structure until an array is asked for.

        The part can be used like any other set. Its arrays are gathered, and then kept, when they are first asked
        for; cutting batches, :meth:`select`, :meth:`blocks` and :meth:`labelled` do not ask for them.
        """
        chosen = _numbers(indices)
        part = object.__new__(Structures)
        object.__setattr__(part, "offsets", self._offsets_of(chosen))
        object.__setattr__(part, "_origin", self.located(chosen))
        object.__setattr__(part, "_known", {})
        return part

    def located(self, chosen: Ints) -> tuple["Structures", Ints]:
        """The set that holds the arrays of the structures of the given numbers, and their numbers in it."""
        origin = self.__dict__.get("_origin")
        return (self, chosen) if origin is None else (origin[0], origin[1][chosen])

    def blocks(self, atoms: int = BLOCK) -> Iterator["Structures"]:
        """The set in consecutive pieces, so that memory stays bounded; where it is small, the set itself.

        Args:
            atoms: that a piece has at most, unless a single structure has more.
        """
        for first, last in spans(self.offsets, atoms):
            yield self if last - first == len(self) else self._span(first, last)

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
        return str(self._remembered("digest", self._digest))

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

    def _offsets_of(self, chosen: Ints) -> Ints:
        """(chosen + 1,) first atom of each of the chosen, were they a set of their own."""
        return np.concatenate([[0], np.cumsum(self.offsets[chosen + 1] - self.offsets[chosen])]).astype(np.int64)

    def _span(self, first: int, last: int) -> "Structures":
        """Consecutive structures, sharing memory with this set where it holds its arrays."""
        if "_origin" in self.__dict__:
            return self.select(np.arange(first, last))
        atoms = slice(self.offsets[first], self.offsets[last])
        return Structures(
            offsets=self.offsets[first : last + 1] - self.offsets[first],
            info={name: values[first:last] for name, values in self.info.items()},
            **{name: getattr(self, name)[atoms] for name in _PER_ATOM},
            **{name: getattr(self, name)[first:last] for name in _PER_SYSTEM},
        )

    def _gathered(self, name: str, first: int, last: int) -> Any:
        """An array of consecutive structures, from wherever it is."""
        if "_origin" not in self.__dict__:
            atoms = slice(self.offsets[first], self.offsets[last])
            return getattr(self, name)[atoms if name in _PER_ATOM else slice(first, last)]
        home, chosen = self.located(np.arange(first, last))
        if name == "info":
            return {key: values[chosen] for key, values in home.info.items()}
        return getattr(home, name)[ragged(home.offsets, chosen) if name in _PER_ATOM else chosen]

    def _remembered(self, name: str, find: Callable[[], Any]) -> Any:
        """A fact about all structures, found once if the set cannot change: a part, or a file."""
        known: dict[str, Any] | None = self.__dict__.get("_known")
        if known is None:
            return find()
        if name not in known:
            known[name] = find()
        return known[name]

    def _elements(self) -> list[int]:
        pieces = (self._gathered("species", *span) for span in spans(self.offsets, BLOCK))
        return sorted({int(number) for piece in pieces for number in np.unique(piece)})

    def _digest(self) -> str:
        state = hashlib.sha256()
        for name in (*_PER_ATOM, "offsets", *_PER_SYSTEM):
            state.update(name.encode())
            if name == "offsets":
                state.update(np.ascontiguousarray(self.offsets).tobytes())
                continue
            for span in spans(self.offsets, BLOCK):
                state.update(np.ascontiguousarray(self._gathered(name, *span)).tobytes())
        return state.hexdigest()


_LABELS = ("energy", "forces", "stress")
_GATHERED = (*_PER_ATOM, *_PER_SYSTEM, "info")


def _numbers(indices: npt.ArrayLike) -> Ints:
    """Numbers of structures, given as they are or by a mask."""
    chosen = np.asarray(indices)
    return np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)


def _labelled(structures: Structures, quantity: str) -> npt.NDArray[np.bool_]:
    if quantity == "forces":
        finite = np.isfinite(structures.forces).all(axis=1)
        return np.bincount(structures.system, weights=finite, minlength=len(structures)) > 0
    values = getattr(structures, quantity)
    return np.asarray(np.isfinite(values).all(axis=tuple(range(1, values.ndim))))


def groups(sizes: npt.NDArray[Any], limit: int) -> list[Ints]:
    """Consecutive numbers whose sizes sum to about ``limit``, at least one at a time.

    Args:
        sizes: (n,) of each, such as atoms or edges.
        limit: of a group; the last of it may exceed that.

    Returns:
        (members,) of each group; none where there is nothing.
    """
    if not len(sizes):
        return []
    group = (np.cumsum(sizes) - 1).clip(min=0) // limit
    return np.split(np.arange(len(sizes)), np.flatnonzero(np.diff(group)) + 1)


def spans(offsets: Ints, atoms: int) -> Iterator[tuple[int, int]]:
    """Consecutive blocks of a ragged array, of at most so many atoms unless a single structure has more.

    Args:
        offsets: (structures + 1,) first atom of each structure, and the end.
        atoms: of a block.

    Yields:
        The first structure of a block, and the one after its last; one block at least.
    """
    first, total = 0, len(offsets) - 1
    while True:
        last = int(np.searchsorted(offsets, offsets[first] + atoms, side="right")) - 1
        last = min(max(last, first + 1), total)
        yield first, last
        if last >= total:
            return
        first = last


def ragged(offsets: Ints, chosen: Ints) -> Ints:
    """Flat indices of the blocks ``chosen`` of a ragged array.

    Args:
        offsets: (blocks + 1,) first entry of each block, and the end.
        chosen: (n,) block numbers, in any order, repetitions allowed.
    """
    sizes = offsets[chosen + 1] - offsets[chosen]
    ends = np.cumsum(sizes)
    return np.asarray(np.arange(ends[-1] if len(ends) else 0) + np.repeat(offsets[chosen] - ends + sizes, sizes))

"""Labelled structures from files: extended XYZ, ASE databases, and whatever else ASE reads."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ase.data import chemical_symbols

from phystrain.data._keys import LabelKeys
from phystrain.data._reading import Reading, in_order
from phystrain.data.store import is_store, open_store
from phystrain.data.structures import Structures

__all__ = ["Dataset", "LabelKeys", "read"]


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
    if is_store(path):
        return Dataset(*open_store(path, keys=keys, info=info))
    reading = Reading(path, keys=keys, info=info)
    parts = list(reading.blocks())
    structures = parts[0] if len(parts) == 1 else Structures.concatenate(parts)
    structures = replace(structures, info={name: structures.info[name] for name in in_order(structures.info, info)})
    return Dataset(structures, reading.found, path, reading.warnings)

"""Reference labels for a whole file, on all cores, resumable."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from phystrain.augment import default_cache
from phystrain.augment._calculators import CalculatorTeacher
from phystrain.data.read import LabelKeys, read
from phystrain.data.structures import Ints, Structures
from phystrain.data.write import write
from phystrain.errors import UserError
from phystrain.files import require_writable
from phystrain.label.calculator import entry_name, load
from phystrain.label.compute import Label
from phystrain.label.electrons import electrons
from phystrain.label.level import CORRELATED, Level, require_known, require_pyscf
from phystrain.preflight import checked, require_new
from phystrain.progress import bar

Say = Callable[[str], None]

_CALCULATOR = "phystrain.label.calculator:ReferenceCalculator"
_HOPELESS = 5
_MULTIREFERENCE = 0.02
_NAMED = 5


@dataclass(frozen=True)
class Labelling:
    """What came of a file.

    Attributes:
        structures: those that have labels now.
        kept: their numbers in the file.
        failed: number in the file of each that has none, and why.
        computed: how many were computed now rather than found on disk.
        seconds: that took.
    """

    structures: Structures
    kept: Ints
    failed: dict[int, str]
    computed: int
    seconds: float


def label_file(
    data: Path,
    output: Path,
    *,
    settings: Mapping[str, Any],
    charge: int | None = None,
    spin: int | None = None,
    processes: int | None = None,
    memory: int = 4000,
    cache: Path | None = None,
    keys: Mapping[str, str | None] | None = None,
    say: Say = print,
) -> Labelling:
    """Label every structure of a file by PySCF and write them as extended XYZ, whole or not at all.

    A structure whose calculation does not converge is named and left out. Each result goes to disk as soon as it is
    there, under a hash of structure and level, so an interrupted labelling goes on where it stopped.

    Args:
        data: molecules; labels they have are dropped.
        output: file.
        settings: of :class:`phystrain.label.level.Level`.
        charge: of every molecule; that which each frame says if not given, else 0.
        spin: number of unpaired electrons of every molecule; that which each frame says if not given, else 0, and
            the ground state for a neutral atom alone.
        processes: how many molecules at a time, one core each; the number of cores if not given.
        memory: MB that each may use.
        cache: folder of results; ``reference`` in phystrain's cache folder if not given.
        keys: names of the labels in ``data``, where reading would stumble over them.
        say: told what happens.

    Raises:
        UserError: a mistake in settings or data, PySCF is missing, or no calculation succeeded.
    """
    require_new(output, data)
    level = checked(Level, "label", dict(settings))
    program = f"PySCF {require_pyscf().__version__}"
    structures = read(data, keys=LabelKeys(**(keys or {}))).structures.without_labels()
    _require_molecules(structures)
    require_known(level, structures.elements)
    charges, spins = electrons(structures, charge, spin)
    folder = cache or default_cache().parent / "reference"
    require_writable(folder / "entry")
    quantities = "energies and forces" if level.gives_forces else "energies only"
    frozen = level.method in CORRELATED and not level.all_electron
    say(f"{level.name} by {program}: {len(structures)} structures, {quantities}" + ", core frozen" * frozen)
    found = _labelled(structures, level, charges, spins, folder, processes, memory)
    part = found.structures
    part.info["level"] = np.full(len(part), level.name)
    part.info["program"] = np.full(len(part), program)
    for name, values in (("charge", charges), ("spin", spins)):
        if values.any():
            part.info[name] = values[found.kept].astype(str)
    write(part, output)
    _tell(found, level, say)
    say(f"wrote {len(part)} structures to {output}")
    return found


def _require_molecules(structures: Structures) -> None:
    periodic = int(structures.pbc.any(axis=1).sum())
    if periodic:
        raise UserError(
            f"{periodic} of {len(structures)} structures are periodic, and labels are for molecules here: take those "
            'out, or set pbc="F F F" where the cell is only a box'
        )


def _labelled(
    structures: Structures, level: Level, charges: Ints, spins: Ints, folder: Path, processes: int | None, memory: int
) -> Labelling:
    """Compute what is not on disk yet, and collect."""
    entries = [
        folder / entry_name(structures.species[a:b], structures.positions[a:b], level, int(charge), int(spin))
        for a, b, charge, spin in zip(structures.offsets, structures.offsets[1:], charges, spins, strict=False)
    ]
    labels = {index: label for index, entry in enumerate(entries) if (label := load(entry)) is not None}
    todo = np.setdiff1d(np.arange(len(structures)), list(labels))
    failed: dict[int, str] = {}
    want = frozenset({"energy", "forces"} if level.gives_forces else {"energy"})
    began = time.perf_counter()
    with bar() as display:
        task = display.add_task(level.name, total=len(structures), completed=len(labels), note="")
        for charge, spin in sorted({(int(charges[index]), int(spins[index])) for index in todo}):
            group = todo[(charges[todo] == charge) & (spins[todo] == spin)]
            arguments = {"level": level.model_dump(mode="json"), "cache": str(folder.absolute()), "memory": memory}
            teacher = CalculatorTeacher(
                _CALCULATOR, arguments | {"charge": charge, "spin": spin}, processes, level.name
            )
            for answer in teacher.label(structures.select(group), want, 0):
                index = int(group[answer.indices[0]])
                label = load(entries[index])
                if label is None:
                    failed[index] = answer.error or f"{entries[index]} cannot be read back"
                else:
                    labels[index] = label
                if not labels and len(failed) >= min(_HOPELESS, len(structures)):
                    raise UserError(f"{level.name}: no calculation succeeded. Frame {_named(failed)}. {_mend(failed)}")
                display.update(task, advance=1, note=f"{len(failed)} failed" if failed else "")
    kept = np.array(sorted(labels), dtype=np.int64)
    part = _with(structures.select(kept), [labels[index] for index in kept.tolist()])
    return Labelling(part, kept, failed, len(todo) - len(failed), time.perf_counter() - began)


def _with(structures: Structures, labels: list[Label]) -> Structures:
    """The structures with these labels, and T1 diagnostics and S² as facts."""
    forces = [
        np.full((size, 3), np.nan) if label.forces is None else label.forces
        for label, size in zip(labels, structures.sizes, strict=True)
    ]
    energy = np.array([label.energy for label in labels])
    part = structures.with_labels(energy=energy, forces=np.concatenate(forces))
    for name in sorted({name for label in labels for name in label.facts}):
        part.info[name] = np.array([f"{label.facts[name]:.4f}" if name in label.facts else "" for label in labels])
    return part


def _tell(found: Labelling, level: Level, say: Say) -> None:
    if found.computed:
        say(f"{found.computed} computed in {found.seconds:.0f} s, {found.seconds / found.computed:.2g} s each")
    if before := len(found.kept) - found.computed:
        say(f"{before} were on disk already")
    if found.failed:
        say(f"{len(found.failed)} of them have no label and are left out: frame {_named(found.failed)}")
        say(_mend(found.failed))
    t1 = np.array([label or "nan" for label in found.structures.info.get("t1", np.empty(0, str)).tolist()], dtype=float)
    if (t1 > _MULTIREFERENCE).any():
        frames = ", ".join(str(frame) for frame in found.kept[t1 > _MULTIREFERENCE][:_NAMED])
        say(
            f"warning: T1 is above {_MULTIREFERENCE} in {int((t1 > _MULTIREFERENCE).sum())} structures (frames {frames}"
            f"{', ...' if (t1 > _MULTIREFERENCE).sum() > _NAMED else ''}), where {level.method.upper()} is not reliable"
        )


def _named(failed: Mapping[int, str]) -> str:
    """The first failures with their reasons."""
    listed = [f"{index} ({reason})" for index, reason in sorted(failed.items())[:_NAMED]]
    return ", ".join(listed) + ", ..." * (len(failed) > _NAMED)


def _mend(failed: Mapping[int, str]) -> str:
    if all("converge" in reason for reason in failed.values()):
        return "More --cycles may help, or another --spin; run again to try only these"
    return "Run again to try only these"

"""Labels from a teacher, kept on disk so that no calculation is made twice."""

import hashlib
import logging
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy
from ase import Atoms
from torch import nn

from phystrain.augment._align import Alignment, align
from phystrain.augment._teachers import CalculatorTeacher, Labelled, PotentialTeacher, Teacher, load_teacher
from phystrain.data.structures import Floats, Ints, Structures, ragged
from phystrain.derive import QUANTITIES
from phystrain.errors import UserError
from phystrain.files import write_bytes
from phystrain.progress import bar

__all__ = [
    "CalculatorTeacher",
    "Outcome",
    "PotentialTeacher",
    "Teacher",
    "align",
    "alignment",
    "default_cache",
    "label",
    "load_teacher",
    "relabel",
]

log = logging.getLogger(__name__)

_SAVE_EVERY = 30.0
_HOPELESS = 20
_TODO, _DONE, _FAILED = 0, 1, 2


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/phystrain/labels``, else ``~/.cache/phystrain/labels``. May be deleted at any time."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".cache") / "phystrain" / "labels"


class Outcome(NamedTuple):
    """What a teacher made of a set.

    Attributes:
        structures: those that could be labelled.
        kept: (their number,) which ones they are of the set.
        computed: how many were labelled now rather than read from the cache.
        seconds: that took.
        reason: why the first one failed that failed now; empty if none did.
        entry: the cache entry, if one is used.
    """

    structures: Structures
    kept: Ints
    computed: int
    seconds: float
    reason: str
    entry: Path | None


def relabel(
    structures: Structures,
    teacher: Teacher | nn.Module | str | Path | dict[str, Any] | Sequence[str],
    *,
    want: Iterable[str] = QUANTITIES,
    batch_edges: int = 200_000,
    cache: Path | None = None,
    use_cache: bool = True,
    progress: bool = True,
) -> Structures:
    """The structures with a teacher's labels and no others.

    Labels are kept in ``cache`` under a hash of the geometries, of ``want`` and of the teacher, so the same question is
    never computed twice. A calculation that was interrupted goes on where it stopped.

    Args:
        structures: to label; labels they have are dropped.
        teacher: anything :func:`load_teacher` takes.
        want: quantities. Stress is for structures that are periodic in all three directions; where an ASE calculator
            has none, or for other structures, it stays unlabelled.
        batch_edges: directed edges that a potential evaluates at once: what bounds its memory.
        cache: folder; :func:`default_cache` if not given.
        use_cache: whether to read and write it.
        progress: whether to show a bar on a terminal.

    Returns:
        The structures that could be labelled. Those whose calculation failed (an exception, or a label that is not
        finite) are left out, counted and reported as a warning in the log.

    Raises:
        UserError: no calculation succeeded, or the teacher is not to be found.
    """
    teacher = load_teacher(teacher)
    found = label(
        structures, teacher, want=want, batch_edges=batch_edges, cache=cache, use_cache=use_cache, progress=progress
    )
    if "stress" in want and structures.pbc.all(axis=1).any() and not teacher.gives_stress:
        log.warning("%s gives no stress: the structures stay without one.", teacher.name)
    if found.reason:
        log.warning("The first calculation that failed: %s", found.reason)
    failed = np.setdiff1d(np.arange(len(structures)), found.kept)
    if len(failed):
        first = ", ".join(str(number) for number in failed[:5]) + (", ..." if len(failed) > 5 else "")
        log.warning(
            "%s could not label %d of %d structures; they are left out (numbers %s).%s",
            teacher.name, len(failed), len(structures), first,
            f" Delete {found.entry} to try them again." if found.entry is not None and found.entry.is_file() else "",
        )  # fmt: skip
    return found.structures


def label(
    structures: Structures,
    teacher: Teacher,
    *,
    want: Iterable[str] = QUANTITIES,
    batch_edges: int = 200_000,
    cache: Path | None = None,
    use_cache: bool = True,
    progress: bool = True,
    patient: bool = False,
) -> Outcome:
    """As :func:`relabel`, but what failed is told by the result and not in the log.

    Args:
        structures, want, batch_edges, cache, use_cache, progress: as in :func:`relabel`.
        teacher: who labels.
        patient: go on where every calculation fails, for a piece of a larger set.

    Raises:
        UserError: no calculation succeeded, unless patient.
    """
    wanted = frozenset(want)
    if unknown := wanted - set(QUANTITIES):
        raise UserError(f"unknown label {sorted(unknown)[0]!r}; choose from {', '.join(QUANTITIES)}")
    if not structures.pbc.all(axis=1).any():
        wanted -= {"stress"}
    work = _Work.blank(structures)
    path = None
    if use_cache:
        path = (cache or default_cache()) / f"{_key(structures, teacher, wanted)}.safetensors"
        work = _read(path, work)
    todo, began, reason = int((work.state == _TODO).sum()), time.perf_counter(), ""
    if todo:
        reason = _complete(work, structures, teacher, wanted, batch_edges, path, progress, patient)
    kept = np.flatnonzero(work.state == _DONE)
    complete = structures.with_labels(work.energy, work.forces, work.stress)
    if len(kept) < len(structures):
        complete = complete.select(kept)
    return Outcome(complete, kept, todo, time.perf_counter() - began, reason, path)


def alignment(
    reference: Structures, teacher: Teacher, *, cache: Path | None = None, use_cache: bool = True, progress: bool = True
) -> Alignment:
    """The shift of a teacher's energies that makes them meet those of labelled structures.

    Args:
        reference: structures, some with energies.
        teacher: who labels; asked for the energies of these structures and of isolated atoms.
        cache, use_cache, progress: as in :func:`relabel`.

    Raises:
        UserError: no structure has an energy that the teacher can give one for, too.
    """
    options: dict[str, Any] = {"want": ("energy",), "cache": cache, "use_cache": use_cache, "progress": progress}
    known = reference.select(reference.labelled("energy"))
    if not len(known):
        raise UserError("the teacher's energies cannot be aligned: no structure has a reference energy.")
    found = label(known, teacher, **options)
    single: dict[int, float] = {}
    if teacher.for_isolated_atoms:
        atoms = Structures.from_ase([Atoms(numbers=[number]) for number in known.elements])
        alone = label(atoms, teacher, patient=True, **options)
        single = dict(zip(alone.structures.species.tolist(), alone.structures.energy.tolist(), strict=True))
    return Alignment(known.select(found.kept), found.structures.energy, single)


@dataclass
class _Work:
    """Labels found so far, and the state of each structure."""

    energy: Floats
    forces: Floats
    stress: Floats
    state: npt.NDArray[np.uint8]

    @staticmethod
    def blank(structures: Structures) -> "_Work":
        nan = structures.without_labels()
        return _Work(nan.energy, nan.forces, nan.stress, np.full(len(structures), _TODO, dtype=np.uint8))

    def checksum(self) -> str:
        arrays = (self.energy, self.forces, self.stress, self.state)
        return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def _key(structures: Structures, teacher: Teacher, want: frozenset[str]) -> str:
    state = hashlib.sha256(f"labels 1 {teacher.identity()} {sorted(want)}".encode())
    for name in ("positions", "species", "offsets", "cell", "pbc"):
        state.update(np.ascontiguousarray(getattr(structures, name)).tobytes())
    return state.hexdigest()


def _read(path: Path, blank: _Work) -> _Work:
    """What the cache holds, else ``blank``; a damaged entry is as good as none."""
    if not path.is_file():
        return blank
    try:
        with safetensors.safe_open(path, framework="numpy") as opened:
            work = _Work(*(opened.get_tensor(name) for name in ("energy", "forces", "stress", "state")))
            whole = (opened.metadata() or {}).get("checksum") == work.checksum()
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        log.warning("Cached labels %s are damaged (%s): they are computed again.", path, error)
        return blank
    if not whole or work.state.shape != blank.state.shape or work.forces.shape != blank.forces.shape:
        log.warning("Cached labels %s are damaged: they are computed again.", path)
        return blank
    return work


def _write(path: Path | None, work: _Work) -> None:
    if path is None:
        return
    arrays = {name: np.ascontiguousarray(getattr(work, name)) for name in ("energy", "forces", "stress", "state")}
    try:
        write_bytes(path, safetensors.numpy.save(arrays, metadata={"checksum": work.checksum()}))
    except UserError as error:  # the labels themselves are in hand: losing them over a full cache helps nobody
        log.warning("Labels are not kept for next time: %s", error)


def _complete(
    work: _Work,
    structures: Structures,
    teacher: Teacher,
    want: frozenset[str],
    batch_edges: int,
    path: Path | None,
    progress: bool,
    patient: bool,
) -> str:
    """Label what is still to do, in place, and keep the labels on disk, also when interrupted.

    Returns why the first calculation failed that did.
    """
    todo = np.flatnonzero(work.state == _TODO)
    if len(todo) < len(structures):
        log.info("Labelling goes on with %d of %d structures.", len(todo), len(structures))
    saved = time.monotonic()
    reasons: list[str] = []
    with bar() as display:
        task = display.add_task(f"Labels by {teacher.name}", total=len(todo), note="", visible=progress)
        try:
            for found in teacher.label(structures.select(todo), want, batch_edges):
                chosen = todo[found.indices]
                finite = _store(work, structures, chosen, found, want if teacher.gives_stress else want - {"stress"})
                if not finite.all():
                    reasons.append(found.error or "a label is not finite")
                display.update(task, advance=len(chosen), note=f"{len(reasons)} failed" if reasons else "")
                if len(reasons) >= _HOPELESS and not patient and not (work.state == _DONE).any():
                    break
                if time.monotonic() - saved > _SAVE_EVERY:
                    _write(path, work)
                    saved = time.monotonic()
        finally:
            if (work.state == _DONE).any():  # nothing but failures is not worth keeping: the cause may be mended
                _write(path, work)
    first = reasons[0] if reasons else ""
    if not patient and not (work.state == _DONE).any():
        raise UserError(
            f"{teacher.name} labelled none of the {int((work.state == _FAILED).sum())} structures it tried; "
            f"the first reason: {first or 'nothing was tried'}."
        )
    return first


def _store(
    work: _Work, structures: Structures, chosen: npt.NDArray[np.int64], found: Labelled, want: frozenset[str]
) -> npt.NDArray[np.bool_]:
    """Take labels over; returns (n,) whether those of each structure are whole."""
    atoms = ragged(structures.offsets, chosen)
    work.energy[chosen], work.forces[atoms], work.stress[chosen] = found.energy, found.forces, found.stress
    finite = np.full(len(chosen), not found.error)
    if "energy" in want:
        finite &= np.isfinite(found.energy)
    if "forces" in want:
        bad = ~np.isfinite(found.forces).all(axis=1)
        owner = np.repeat(np.arange(len(chosen)), structures.sizes[chosen])
        finite &= np.bincount(owner, weights=bad, minlength=len(chosen)) == 0
    if "stress" in want:
        finite &= np.isfinite(found.stress).all(axis=(1, 2)) | ~structures.pbc[chosen].all(axis=1)
    work.state[chosen] = np.where(finite, _DONE, _FAILED)
    return finite

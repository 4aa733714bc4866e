"""Labels from a teacher, kept on disk so that no calculation is made twice."""

import hashlib
import logging
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy
from ase.data import chemical_symbols
from torch import nn

from phystrain.augment._teachers import CalculatorTeacher, Labelled, PotentialTeacher, Teacher, load_teacher
from phystrain.data.structures import Floats, Structures, ragged
from phystrain.derive import QUANTITIES
from phystrain.errors import UserError
from phystrain.files import write_bytes
from phystrain.progress import bar

__all__ = ["CalculatorTeacher", "PotentialTeacher", "Teacher", "align", "default_cache", "load_teacher", "relabel"]

log = logging.getLogger(__name__)

_SAVE_EVERY = 30.0
_HOPELESS = 20
_TODO, _DONE, _FAILED = 0, 1, 2


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/phystrain/labels``, else ``~/.cache/phystrain/labels``. May be deleted at any time."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".cache") / "phystrain" / "labels"


def relabel(
    structures: Structures,
    teacher: Teacher | nn.Module | str | Path | dict[str, Any],
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
    if (work.state == _TODO).any():
        _complete(work, structures, teacher, wanted, batch_edges, path, progress)
    return _report(work, structures, teacher, path)


def align(labelled: Structures, reference: Structures, predicted: npt.ArrayLike) -> Structures:
    """Shift a teacher's energies by an offset per element, so that they meet the quantum reference.

    The offsets are fitted by least squares to the differences on the reference structures: two methods count energy
    from different zeros, and pretraining must not teach the wrong one. Forces and stress do not change.

    Args:
        labelled: structures with the teacher's energies.
        reference: structures with quantum energies; those without are ignored.
        predicted: (systems of ``reference``,) eV, the teacher's energies of the reference structures.

    Raises:
        UserError: no reference energy, or an element that no reference structure holds.
    """
    difference = reference.energy - np.asarray(predicted, dtype=np.float64)
    use = np.isfinite(difference)
    if not use.any():
        raise UserError(
            "the teacher's energies cannot be aligned: no structure has both a reference and a teacher energy."
        )
    known = reference.select(use)
    if missing := sorted(set(labelled.elements) - set(known.elements)):
        raise UserError(
            f"the teacher's energies cannot be aligned: no structure with a reference energy holds "
            f"{chemical_symbols[missing[0]]}. Add one that does."
        )
    counts = _composition(known, known.elements)
    offsets, _, rank, _ = np.linalg.lstsq(counts, difference[use], rcond=None)
    asked = _composition(labelled, known.elements)
    if rank < counts.shape[1]:
        _, _, directions = np.linalg.svd(counts)
        if np.abs(asked @ directions[rank:].T).max() > 1e-6 * asked.max():
            log.warning(
                "Energy offsets of the elements are not determined by the reference structures alone; "
                "structures of other compositions get an estimate."
            )
    return replace(labelled, energy=labelled.energy + asked @ offsets)


def _composition(structures: Structures, elements: tuple[int, ...]) -> Floats:
    """(systems, elements) how many atoms of each element a structure holds."""
    column = np.searchsorted(elements, structures.species)
    flat = structures.system * len(elements) + column
    return np.bincount(flat, minlength=len(structures) * len(elements)).reshape(-1, len(elements)).astype(np.float64)


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
) -> None:
    """Label what is still to do, in place, and keep the labels on disk, also when interrupted."""
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
                if len(reasons) >= _HOPELESS and not (work.state == _DONE).any():
                    break
                if time.monotonic() - saved > _SAVE_EVERY:
                    _write(path, work)
                    saved = time.monotonic()
        finally:
            if (work.state == _DONE).any():  # nothing but failures is not worth keeping: the cause may be mended
                _write(path, work)
    if not (work.state == _DONE).any():
        raise UserError(
            f"{teacher.name} labelled none of the {int((work.state == _FAILED).sum())} structures it tried; "
            f"the first reason: {reasons[0] if reasons else 'nothing was tried'}."
        )
    if "stress" in want and not teacher.gives_stress:
        log.warning("%s gives no stress: the structures stay without one.", teacher.name)
    if reasons:
        log.warning("The first calculation that failed: %s", reasons[0])


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


def _report(work: _Work, structures: Structures, teacher: Teacher, path: Path | None) -> Structures:
    failed = work.state == _FAILED
    if failed.any():
        first = ", ".join(str(number) for number in np.flatnonzero(failed)[:5])
        more = ", ..." if failed.sum() > 5 else ""
        log.warning(
            "%s could not label %d of %d structures; they are left out (numbers %s%s).%s",
            teacher.name, failed.sum(), len(structures), first, more,
            f" Delete {path} to try them again." if path is not None and path.is_file() else "",
        )  # fmt: skip
    complete = structures.with_labels(work.energy, work.forces, work.stress)
    return complete.select(~failed) if failed.any() else complete

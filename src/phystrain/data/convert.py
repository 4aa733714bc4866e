"""Files of structures into one store, as a stream: any number of structures in constant memory."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from phystrain.data._keys import LabelKeys
from phystrain.data._reading import ATOMS, DATABASES, XYZ, Reading, in_order, several_names
from phystrain.data._xyz import base_suffix
from phystrain.data.store import Opened, is_store, open_store, require_place, write_store
from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.files import require_writable
from phystrain.progress import bar

Say = Callable[[str], None]


def convert(
    files: Sequence[Path | str],
    output: Path | str,
    *,
    keys: LabelKeys | None = None,
    info: Sequence[str] | None = None,
    say: Say = print,
) -> None:
    """Read files one after another, with the checks of :func:`phystrain.data.read.read`, and write them to a store.

    Args:
        files: anything that ``read`` takes, stores included.
        output: the store, a folder; one that is there is replaced at the end.
        keys, info: as for ``read``, for each of the files.
        say: told how much was written, and how fast.

    Raises:
        UserError: whatever is wrong with a file, or the place cannot be written to; nothing is left there then.
    """
    output = Path(output)
    paths = [Path(file) for file in files]
    _require_new(output, paths)
    job = _Job(paths, keys, info)
    began = time.perf_counter()
    write_store(job.parts(), output, facts=job.facts, order=lambda names: in_order(names, info))
    seconds = time.perf_counter() - began
    megabytes = sum(file.stat().st_size for file in output.iterdir()) / 1e6
    say(
        f"wrote {job.frames} frames, {job.atoms} atoms, {megabytes:.1f} MB to {output} in {seconds:.1f} s: "
        f"{job.frames / seconds:.0f} frames per second"
    )


class _Job:
    """Files on their way into a store."""

    def __init__(self, files: Sequence[Path], keys: LabelKeys | None, info: Sequence[str] | None) -> None:
        self._files, self._keys, self._info = files, keys, info
        self.frames, self.atoms = 0, 0
        self._found: dict[str, Counter[str]] = {}
        self._warnings: list[str] = []
        self._sources: list[dict[str, Any]] = []

    def parts(self) -> Iterator[Structures]:
        """All structures of all files, their frames numbered through."""
        with bar() as display:
            began = time.perf_counter()
            task = display.add_task("converting", total=None, note="")
            for file in self._files:
                first = self.frames
                source = self._opened(file)
                for block in source.structures.blocks(ATOMS) if isinstance(source, Opened) else source.blocks():
                    yield self._numbered(block)
                    self.frames += len(block)
                    self.atoms += int(block.offsets[-1])
                    rate = self.frames / (time.perf_counter() - began)
                    display.update(task, completed=self.frames, note=f"{rate:.0f} frames/s")
                self._sources.append({"file": file.name, "frames": self.frames - first})
                for label, names in source.found.items():
                    self._found.setdefault(label, Counter()).update(names)
                lead = f"{file.name}: " if len(self._files) > 1 else ""
                self._warnings += [f"{lead}{line}" for line in source.warnings]

    def facts(self) -> dict[str, Any]:
        """What the header says beside the arrays."""
        found = {label: dict(counts) for label, counts in self._found.items()}
        across = several_names(found) if len(self._files) > 1 else []
        return {"found": found, "warnings": [*self._warnings, *across], "sources": self._sources}

    def _opened(self, file: Path) -> Opened | Reading:
        if is_store(file):
            return open_store(file, keys=self._keys, info=self._info)
        return Reading(file, keys=self._keys, info=self._info, progress=False)

    def _numbered(self, block: Structures) -> Structures:
        numbers = np.arange(self.frames, self.frames + len(block)).astype(str)
        return replace(block, info={**block.info, "frame": numbers})


def _require_new(output: Path, files: Sequence[Path]) -> None:
    if not files:
        raise UserError("nothing to convert: name a file with structures")
    if base_suffix(output) in (*XYZ, *DATABASES):
        raise UserError(f"{output} would be a store, which is a folder: let its name not end in {output.suffix}")
    for file in files:
        if output.exists() and file.exists() and output.samefile(file):
            raise UserError(f"{output} is to be read: give another --output")
    require_place(output)
    require_writable(output)

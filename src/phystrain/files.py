"""Files are written whole or not at all."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from phystrain.errors import UserError

_BASE: ContextVar[Path] = ContextVar("base", default=Path())


@contextmanager
def relative_to(folder: Path) -> Iterator[None]:
    """Within this context, :func:`resolve` takes relative paths from ``folder`` instead of the working folder."""
    token = _BASE.set(folder)
    try:
        yield
    finally:
        _BASE.reset(token)


def resolve(path: Path | str) -> Path:
    """The place meant by a path in settings."""
    return _BASE.get() / path


def mend(error: OSError) -> str:
    """What to do about a place that cannot be written to, in a sentence."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Free some space, or write elsewhere."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Change its permissions, or write elsewhere."
    return "Write elsewhere."


def write_with(path: Path | str, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a temporary file beside ``path``, force it to disk, and move it into place.

    Whatever happens before the move (full disk, kill, power cut) leaves the previous file as it was.

    Args:
        path: the file to make or replace; its folder is made if need be.
        write: called with the temporary path.

    Raises:
        UserError: the disk is full or the place cannot be written to.
    """
    path = Path(path)
    temporary = None
    with _told(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
            os.close(descriptor)
            temporary = Path(name)
            write(temporary)
            _force_to_disk(temporary)
            temporary.replace(path)
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)


def write_folder_with(path: Path | str, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary folder beside ``path``, force it to disk, and move it into place.

    Whatever happens before the move leaves the previous folder as it was, and nothing under the name of the new one.

    Args:
        path: the folder to make or replace; its parent is made if need be.
        write: called with the temporary folder.

    Raises:
        UserError: the disk is full or the place cannot be written to.
    """
    path = Path(path)
    temporary = previous = None
    with _told(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
            write(temporary)
            for file in temporary.iterdir():
                _force_to_disk(file)
            temporary.chmod(0o755)
            if path.exists():  # a folder that is not empty cannot be replaced in one move
                previous = temporary.with_name(f"{temporary.name}.old")
                path.replace(previous)
            temporary.replace(path)
        finally:
            if previous is not None and path.exists():
                shutil.rmtree(previous, ignore_errors=True)
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Within, what the system says of a place that cannot be written to becomes a line that names the mend."""
    try:
        yield
    except OSError as error:
        previous = " The previous file is untouched." if path.is_file() else ""
        raise UserError(f"cannot write {path}: {error.strerror or error}.{previous} {mend(error)}") from error


def _force_to_disk(file: Path) -> None:
    """Have the content on the disk, readable by all."""
    with file.open("rb") as written:
        os.fsync(written.fileno())
    file.chmod(0o644)


def require_writable(path: Path | str) -> None:
    """Refuse a place that cannot be written to, before the work whose result would go there.

    Args:
        path: a file or folder to be made.

    Raises:
        UserError: the nearest folder that exists is read-only, or is no folder.
    """
    path = Path(path).absolute()
    there = next(parent for parent in path.parents if parent.exists())
    if not there.is_dir():
        raise UserError(f"cannot write {path}: {there} is a file, not a folder. Write elsewhere.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"cannot write {path}: {there} is read-only. Change its permissions, or write elsewhere.")


def write_text(path: Path | str, text: str) -> None:
    """Write a text file whole or not at all (UTF-8)."""
    write_with(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write a binary file whole or not at all."""
    write_with(path, lambda temporary: temporary.write_bytes(content))

"""What potentials read from a table file share: the file is looked for once, and a saved model does without it."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, model_validator

from phystrain.errors import UserError
from phystrain.files import resolve
from phystrain.potentials import PotentialConfig

T = TypeVar("T")


class TableConfig(PotentialConfig):
    """Settings of a potential that is read from a file.

    What a model needs in order to be built again, ``sizes``, is found when the file is first read and is kept with
    the settings; the numbers of the table are kept with the weights. Neither needs the file.
    """

    file: str = Field(description="the table, as LAMMPS reads it; relative to the run file")
    sha256: str = Field("", description="hash of the file; found when it is read")

    @classmethod
    def measure(cls, text: str, name: str) -> Any:
        """What has to be known of the table before weights are loaded, as plain data.

        Raises:
            UserError: the text is no such table.
        """
        raise NotImplementedError

    @model_validator(mode="before")
    @classmethod
    def _look(cls, values: Any, info: Any) -> Any:  # noqa: ARG003
        if not isinstance(values, dict) or not isinstance(values.get("file"), str) or values.get("sizes") is not None:
            return values
        path = resolve(values["file"]).absolute()
        content = _read(path)
        sizes = cls.measure(content.decode("utf-8", "replace"), path.name)
        return {**values, "file": str(path), "sha256": hashlib.sha256(content).hexdigest(), "sizes": sizes}

    def table(self, parse: Callable[[str, str], T]) -> T | None:
        """The parsed file; nothing if it is gone or was changed since it was first read."""
        path = Path(self.file)
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != self.sha256:
            return None
        return parse(content.decode("utf-8", "replace"), path.name)


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise UserError(f"no such file of a table: {path}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}. Change its permissions") from error

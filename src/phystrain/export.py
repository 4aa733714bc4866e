"""A finished potential in the files of another program."""

from collections.abc import Callable
from pathlib import Path

from phystrain.errors import UserError
from phystrain.files import require_writable
from phystrain.interfaces.lammps import write_lammps
from phystrain.registry import did_you_mean
from phystrain.saving import load_model

TARGETS = ("lammps",)
"""Programs that files are written for."""


def export_model(path: Path, output: Path, *, to: str = "lammps", say: Callable[[str], None] = print) -> list[Path]:
    """Write a classical potential for another program.

    Args:
        path: run folder or model file.
        output: folder for the files, new or empty.
        to: the program, one of :data:`TARGETS`.
        say: told what was written, line by line.

    Returns:
        The files.

    Raises:
        UserError: an unknown program, a folder that holds something, no model, or a potential that the program has no
            form for, such as a network.
    """
    if to not in TARGETS:
        raise UserError(f"cannot write for {to!r}: {did_you_mean(to, TARGETS)}")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} exists: choose another --output")
    require_writable(output / "in.potential")
    model = load_model(path)
    files = write_lammps(model.potential, output, model.statistics)
    for file in files:
        say(f"wrote {file}")
    say(f"in LAMMPS, once there is a box: include {files[0].name} (its first lines say what the energies leave out)")
    return files

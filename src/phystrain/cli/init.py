"""A run file for the user's data."""

import shlex
from pathlib import Path

from phystrain.cli._app import Keys, app, say
from phystrain.errors import UserError


@app.command
def init(
    data: Path,
    *,
    output: Path = Path("run.yaml"),
    test: Path | None = None,
    energy: Keys = None,
    forces: Keys = None,
    stress: Keys = None,
    force: bool = False,
) -> None:
    """Write a commented run file for your data that trains without editing.

    Parameters
    ----------
    data
        Labelled structures: extended XYZ (plain or compressed), an ASE database, or what ASE reads with energies.
    output
        The run file.
    test
        File of structures to test on, never trained on.
    force
        Replace the file if it exists.
    """
    from phystrain.data.read import LabelKeys
    from phystrain.files import require_writable, write_text
    from phystrain.init import propose

    if output.exists() and output in (data, test):
        raise UserError(f"{output} is the file to read: choose another --output")
    if output.exists() and not force:
        raise UserError(f"{output} exists: choose another --output, or --force to replace it")
    require_writable(output)
    keys = LabelKeys(energy=energy, forces=forces, stress=stress)
    write_text(output, propose(data, keys, test=test, base=output.parent))
    say(f"wrote {output}; train with: {shlex.join(['phystrain', 'train', str(output)])}")

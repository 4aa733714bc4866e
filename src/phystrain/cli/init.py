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
    temperature: list[float] | None = None,
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
    temperature
        K, of the data, for the tests in dynamics after training; repeat for several. Taken from the frames if they
        name it, asked for on a terminal if not.
    force
        Replace the file if it exists.
    """
    from phystrain.asking import ask_temperature
    from phystrain.data.read import LabelKeys, read
    from phystrain.files import require_writable, write_text
    from phystrain.init import UNKNOWN, propose

    if not data.exists():
        read(data)  # which says what is wrong
    if output.exists() and output in (data, test):
        raise UserError(f"{output} is the file to read: choose another --output")
    if output.exists() and not force:
        raise UserError(f"{output} exists: choose another --output, or --force to replace it")
    require_writable(output)
    keys = LabelKeys(energy=energy, forces=forces, stress=stress)
    if any(not 0 < kelvin < float("inf") for kelvin in temperature or ()):
        raise UserError("--temperature should be a number of K above 0")
    text = propose(data, keys, test=test, base=output.parent, temperatures=temperature)
    if UNKNOWN in text and (answer := ask_temperature()) is not None:
        text = propose(data, keys, test=test, base=output.parent, temperatures=[answer])
    write_text(output, text)
    if UNKNOWN in text:
        say(f"fill in reliability.temperatures in {output} first: the data does not tell its temperature")
    say(f"wrote {output}; train with: {shlex.join(['phystrain', 'train', str(output)])}")

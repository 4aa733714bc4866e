"""What is in a file."""

from pathlib import Path

from phystrain.cli._app import Keys, app, say


@app.command
def check(data: Path, *, energy: Keys = None, forces: Keys = None, stress: Keys = None) -> None:
    """Say what is in a file: labels and their keys, wrong units or signs, duplicates, overlaps, outliers.

    Ends with exit code 2 if something is so wrong that training would fail or mislead. The content of a store is
    compared with its hash.

    Parameters
    ----------
    data
        Labelled structures.
    """
    from phystrain.data.check import check as examine
    from phystrain.data.read import LabelKeys, read
    from phystrain.data.store import is_store, verify

    found = read(data, keys=LabelKeys(energy=energy, forces=forces, stress=stress))
    if is_store(data):
        verify(data)
    report = examine(found)
    say(str(report))
    if not report.ok:
        raise SystemExit(2)

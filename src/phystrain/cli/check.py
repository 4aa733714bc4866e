"""What is in a file."""

from pathlib import Path

from phystrain.cli._app import Keys, app, say


@app.command
def check(data: Path, *, energy: Keys = None, forces: Keys = None, stress: Keys = None) -> None:
    """Say what is in a file: labels and their keys, wrong units or signs, duplicates, overlaps, outliers.

    Ends with exit code 2 if something is so wrong that training would fail or mislead.

    Parameters
    ----------
    data
        Labelled structures.
    """
    from phystrain.data.check import check as examine
    from phystrain.data.read import LabelKeys, read

    report = examine(read(data, keys=LabelKeys(energy=energy, forces=forces, stress=stress)))
    say(str(report))
    if not report.ok:
        raise SystemExit(2)

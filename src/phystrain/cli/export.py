"""Files for other programs."""

from pathlib import Path

from phystrain.cli._app import app, say


@app.command
def export(model: Path, *, output: Path, to: str = "lammps") -> None:
    """Write a classical potential in the files of another program.

    Parameters
    ----------
    model
        Run folder or model file.
    output
        New folder for the files.
    to
        Program: lammps.
    """
    from phystrain.export import export_model

    export_model(model, output, to=to, say=say)

"""Errors of a model."""

from pathlib import Path

from phystrain.cli._app import Keys, app, say


@app.command
def evaluate(
    model: Path,
    data: Path,
    *,
    output: Path | None = None,
    energy: Keys = None,
    forces: Keys = None,
    stress: Keys = None,
    spread: bool = False,
) -> None:
    """Errors of a model on labelled structures: in all, per element and per group, with parity plots.

    Parameters
    ----------
    model
        Run folder or model file.
    data
        Labelled structures.
    output
        Folder for parity plots and figures; none are written if not given.
    spread
        Tell too how well the spread of models trained alike tells the errors; for models trained with snapshots or
        members.
    """
    from phystrain.trained import evaluate_model

    keys = {"energy": energy, "forces": forces, "stress": stress}
    evaluate_model(model, data, output=output, keys=keys, spread=spread, say=say)

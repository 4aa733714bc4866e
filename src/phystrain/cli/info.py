"""What a model is, and what kinds there are."""

from pathlib import Path

from phystrain.cli._app import app, say
from phystrain.errors import UserError


@app.command
def info(model: Path | None = None, *, kinds: bool = False) -> None:
    """Say what a model file is; with --kinds, what can be named in a run file.

    Parameters
    ----------
    model
        Run folder or model file.
    kinds
        List every potential (with its paper, heads and number of parameters), objective, augmentation and
        reliability test.
    """
    from phystrain.catalogue import describe_kinds
    from phystrain.trained import describe_model

    if model is None and not kinds:
        raise UserError("give a model file or run folder, or --kinds")
    if kinds:
        say(describe_kinds())
    if model is not None:
        say(describe_model(model))

"""Search of settings."""

from pathlib import Path

from phystrain.cli._app import app, say


@app.command
def tune(
    run_file: Path,
    *overrides: str,
    search: list[str] | None = None,
    metric: str | None = None,
    trials: int | None = None,
    minutes: float | None = None,
    pruner: str | None = None,
    output: Path | None = None,
    restart: bool = False,
) -> None:
    """Search weights of the loss and other settings of a run file that lower its validation error.

    Trials that promise little are ended early. The same command goes on where an interrupted one stopped.

    Parameters
    ----------
    run_file
        YAML file; its section tune may say what is searched. RUN.best.yaml is written beside it.
    overrides
        Changes by dotted path that every trial has, such as stages.finetune.steps=500.
    search
        PATH=low..high, PATH=log:low..high or PATH=a,b,c. Can be given several times. The learning rate, weights of the
        loss and displacements of the last stage if not given.
    metric
        Validation figure to lower, such as forces_rmse; energy and forces together if not given.
    trials
        In all, those included that the folder holds already; 30 if not given.
    minutes
        No trial begins after that.
    pruner
        How trials are ended early: median, hyperband or none.
    output
        Folder of the search; runs/NAME-tune beside the run file if not given.
    restart
        Forget what is in the folder.
    """
    from phystrain.tune.space import parse_option
    from phystrain.tune.study import tune as run_search

    ranges = dict(map(parse_option, search)) if search else None
    given = {"search": ranges, "metric": metric, "trials": trials, "minutes": minutes, "pruner": pruner}
    run_search(
        run_file,
        output or run_file.parent / "runs" / f"{run_file.stem}-tune",
        overrides=overrides,
        settings={name: value for name, value in given.items() if value is not None},
        restart=restart,
        say=say,
    )

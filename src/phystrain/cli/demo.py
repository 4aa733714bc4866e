"""The main job on data that ships."""

from pathlib import Path

from phystrain.cli._app import app, say


@app.command
def demo(*, output: Path = Path("phystrain-demo"), seed: int = 0) -> None:
    """Run the main job on data that ships with the package: about five minutes on two cores.

    The same small network learns the same few silica frames four ways: from labels only; with the weak losses; beside a
    fitted classical potential that is held fixed; and pretrained on one whose labels are then replayed. All are tested
    on held-out structures and in hot molecular dynamics. A table is printed and report.html written.

    Parameters
    ----------
    output
        Folder for models, plots and report. An interrupted demo goes on when run again.
    seed
        Of the choice of frames, the networks and the dynamics.
    """
    from phystrain.demo import run_demo

    run_demo(output, seed=seed, say=say)

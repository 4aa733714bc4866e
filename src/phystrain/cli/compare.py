"""Runs side by side."""

from pathlib import Path

from phystrain.cli._app import app, say


@app.command
def compare(*runs: Path, output: Path = Path("comparison")) -> None:
    """Put finished runs or audits side by side: one table, one page.

    Parameters
    ----------
    runs
        Run folders or audit folders.
    output
        Folder for the page and plots.
    """
    from phystrain.trained import compare_runs

    compare_runs(runs, output, say=say)

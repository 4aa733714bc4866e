"""A whole run."""

from pathlib import Path

from phystrain.cli._app import app, say


@app.command
def train(
    run_file: Path,
    *overrides: str,
    output: Path | None = None,
    restart: bool = False,
    devices: int | None = None,
    nodes: int | None = None,
) -> None:
    """Train all stages of a run file, test the potential and write the report.

    The same command goes on where an interrupted one stopped.

    Parameters
    ----------
    run_file
        YAML file; 'phystrain init' writes one, 'phystrain schema' describes every field.
    overrides
        Changes by dotted path, such as potential.channels=128 or stages.finetune.steps=5000.
    output
        Run folder; runs/NAME beside the run file if not given.
    restart
        Forget what is in the run folder.
    devices
        Processes on each machine, one to a GPU, that share every batch; instead of the run file's 'processes'. Under
        torchrun or SLURM the launcher decides.
    nodes
        Machines, each with that many processes; for more than one start the command with torchrun or srun.
    """
    from phystrain import config
    from phystrain.asking import with_temperature
    from phystrain.pipeline import run

    settings = with_temperature(config.load(run_file, overrides))
    folder = output or run_file.parent / "runs" / run_file.stem
    run(settings, folder, base=run_file.parent, restart=restart, say=say, asked=(devices, nodes))

"""The reliability tests."""

from pathlib import Path

from phystrain.cli._app import app, say


@app.command
def audit(
    model: Path,
    *,
    start: Path | None = None,
    temperature: list[float] | None = None,
    replicas: int = 4,
    minutes: float = 15.0,
    picoseconds: float | None = None,
    timestep: float | None = None,
    output: Path | None = None,
    seed: int = 0,
    reference: Path | None = None,
    reference_interval: float | None = None,
    reference_temperature: float | None = None,
) -> None:
    """Put a model to the reliability tests.

    Dimer curves of its element pairs, finite differences, compression, energy drift, survival in hot dynamics, heating
    to failure, and distances between atoms against labelled frames.

    Parameters
    ----------
    model
        Run folder or model file.
    start
        Structures to start dynamics from; labelled ones also give errors. The run's own held-out structures if not
        given, or else those it was trained on, of which no errors are measured.
    temperature
        K; repeat for several. That of the training data first; needed unless the run file named it.
    minutes
        Wall time for all tests, from which the lengths of the dynamics follow.
    picoseconds
        Length of every run in dynamics, instead of minutes.
    output
        Folder for results, plots and page; MODEL-audit if not given.
    reference
        Trajectory of the reference method, frames equally spaced in time: structure, diffusion and vibrations in
        dynamics are compared with it.
    reference_interval
        Time between its frames, fs; what the frames say if not given (interval_fs, time_fs, time_ps).
    reference_temperature
        K; what the frames say if not given (temperature_K).
    """
    from phystrain.reference import read_reference
    from phystrain.trained import audit_model

    audit_model(
        model,
        start=start,
        temperatures=temperature,
        replicas=replicas,
        minutes=minutes,
        picoseconds=picoseconds,
        timestep=timestep,
        output=output,
        seed=seed,
        reference=None if reference is None else read_reference(reference, reference_interval, reference_temperature),
        say=say,
    )

"""Molecular dynamics with guards."""

from pathlib import Path

from phystrain.cli._app import app, say


@app.command
def md(
    model: Path,
    start: Path,
    *,
    temperature: float,
    picoseconds: float = 10.0,
    timestep: float | None = None,
    ensemble: str = "nvt",
    replicas: int = 1,
    output: Path = Path("trajectory.xyz"),
    every: int = 100,
    seed: int = 0,
    spread: str | None = None,
    spread_interval: int = 10,
    spread_stops: bool = True,
) -> None:
    """Molecular dynamics with guards that stop what becomes unphysical, name the reason and keep the frame.

    Parameters
    ----------
    model
        Run folder or model file.
    start
        Structure, or several that run side by side.
    temperature
        K.
    timestep
        fs; 1, or 0.5 with hydrogen, if not given.
    ensemble
        nvt (Langevin) or nve (velocity Verlet).
    replicas
        Copies of each structure, with velocities of their own.
    output
        Frames, extended XYZ; failing frames go to OUTPUT with '-failed' in its name.
    every
        Steps between frames.
    spread
        Stop where models trained alike disagree about a force by more than this, eV/Å; auto for a limit from held-out
        structures. For models trained with snapshots or members.
    spread_interval
        Steps between looks at the spread.
    spread_stops
        Whether it stops a run or is only told.
    """
    from phystrain.md import run_md

    run_md(
        model,
        start,
        temperature=temperature,
        picoseconds=picoseconds,
        timestep=timestep,
        ensemble=ensemble,
        replicas=replicas,
        output=output,
        every=every,
        seed=seed,
        spread=spread,
        spread_interval=spread_interval,
        spread_stops=spread_stops,
        say=say,
    )

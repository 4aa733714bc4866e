"""Molecular dynamics with a finished potential, from a file of structures to files of frames."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from phystrain.allocator import keep_memory
from phystrain.data.read import read
from phystrain.data.structures import Structures
from phystrain.data.write import write
from phystrain.dynamics import Settings, Trajectory, replicate, simulate
from phystrain.dynamics.guards import Guards
from phystrain.errors import UserError
from phystrain.preflight import checked, require_new
from phystrain.saving import load_model
from phystrain.uncertainty.ensemble import Ensemble, load_ensemble


def run_md(
    path: Path,
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
    say: Callable[[str], None] = print,
) -> None:
    """Molecular dynamics with guards; writes frames and, apart from them, the frames that failed.

    Args:
        path: run folder or model file.
        start: one structure or several, which run side by side.
        temperature: K.
        picoseconds, timestep: length, and step in fs: 1, or 0.5 with hydrogen, if not given.
        ensemble: ``nvt`` or ``nve``.
        replicas: copies of each structure.
        output: file for the frames.
        every: steps between frames.
        seed: of velocities and thermostat.
        spread: eV/Å by which the models of the ensemble beside the model may disagree about a force, or ``auto`` for
            a limit from the held-out structures of the training.
        spread_interval: steps between looks at it.
        spread_stops: whether a run ends there, or it is only said.
        say: told what became of each run.
    """
    keep_memory()
    require_new(output, start)
    for field, value in {"replicas": replicas, "every": every}.items():
        if value < 1:
            raise UserError(f"md: {field} should be 1 or more, got {value}")
    given = {
        "ensemble": ensemble,
        "temperature": temperature,
        "timestep": timestep,
        "picoseconds": picoseconds,
        "frame_interval": every,
        "seed": seed,
    }
    model = load_model(path)
    committee = None
    if spread is not None:
        committee = load_ensemble(model)
        limits = {
            "spread": _limit(committee, spread),
            "spread_interval": spread_interval,
            "spread_stops": spread_stops,
        }
        given["guards"] = checked(Guards, "md", limits)
        say(f"spread of {len(committee.members)} models, limit {limits['spread']:.3g} eV/Å")
        if committee.remark:
            say(committee.remark)
    settings = checked(Settings, "md", given)
    structures = replicate(read(start).structures, replicas)
    look = None if committee is None else committee.spread
    trajectory = simulate(model.potential, structures, settings, description="dynamics", spread=look)
    write(_recorded(trajectory, structures, every), output)
    failed = output.with_name(f"{output.stem.removesuffix('.xyz')}-failed.xyz")
    if not trajectory.survived.all():
        write(trajectory.failing, failed)
    for number, survived in enumerate(trajectory.survived.tolist()):
        reached = trajectory.picoseconds[number]
        fate = f"survived {reached:g} ps" if survived else f"stopped at {reached:g} ps: {trajectory.sentences[number]}"
        if trajectory.spread is not None:
            fate += f"; largest spread {trajectory.spread[number]:.2f} eV/Å"
            if survived and trajectory.warnings[number]:
                fate += f", beyond the limit first by a {trajectory.warnings[number]}"
        say(f"run {number}: {fate}")
    say(f"frames {output}" + ("" if trajectory.survived.all() else f"; failing frames {failed}"))


def _limit(ensemble: Ensemble, given: str) -> float:
    """eV/Å that a setting of the spread stands for."""
    if given == "auto":
        if ensemble.calibration is None:
            raise UserError("the spread of this model was not calibrated: give --spread a number, in eV/Å")
        return ensemble.calibration.limit
    try:
        limit = float(given)
    except ValueError:
        limit = float("nan")
    if not 0 < limit < float("inf"):
        raise UserError(f"--spread should be auto or a positive number of eV/Å, got {given!r}")
    return limit


def _recorded(trajectory: Trajectory, start: Structures, every: int) -> Structures:
    """Every recorded frame of every run, run after run, as long as the run was going."""
    assert trajectory.frames is not None
    moments = []
    for number, positions in enumerate(trajectory.frames):
        going = trajectory.steps >= number * every
        times = np.full(len(start), f"{number * every * trajectory.settings.step / 1000:g}")
        info = {"run": np.arange(len(start)).astype(str), "time_ps": times}
        moments.append(replace(start.without_labels(), positions=positions, info=info).select(going))
    joined = Structures.concatenate(moments)
    return joined.select(np.argsort(joined.info["run"].astype(np.int64), kind="stable"))

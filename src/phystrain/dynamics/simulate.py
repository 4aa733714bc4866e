"""Molecular dynamics of many structures at once, with guards that stop each one when it becomes unphysical.

Structures advance in batches (:mod:`phystrain.dynamics.batch`). Random numbers of a structure are a function of its
key, the atom and the step, so that a trajectory does not depend on what else is in the batch. A structure that fails
leaves the batch and the others go faster.
"""

import time
from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
from torch import nn

from phystrain import compiled
from phystrain.data.structures import Floats, Structures, ragged, spans
from phystrain.derive import Potential
from phystrain.dynamics.batch import Batch
from phystrain.dynamics.trajectory import Settings, Trajectory, joined
from phystrain.dynamics.watch import Spread
from phystrain.errors import UserError
from phystrain.progress import bar

_REPORT_EVERY = 0.2  # seconds between updates of the progress bar


def replicate(structures: Structures, copies: int) -> Structures:
    """Each structure ``copies`` times, one set after the other: structure ``i`` of copy ``c`` is ``c * n + i``."""
    return structures.select(np.tile(np.arange(len(structures)), copies))


def simulate(
    potential: nn.Module,
    structures: Structures,
    settings: Settings,
    *,
    temperatures: npt.ArrayLike | None = None,
    final_temperatures: npt.ArrayLike | None = None,
    timesteps: npt.ArrayLike | None = None,
    velocities: Floats | None = None,
    keys: Sequence[int] | None = None,
    description: str | None = None,
    spread: Spread | None = None,
) -> Trajectory:
    """Run molecular dynamics of all structures side by side.

    Args:
        potential: a :class:`phystrain.derive.Potential`, on its device and in its precision.
        structures: where to start; cells stay as they are unless the settings name a barostat.
        settings: how to run.
        temperatures: (systems,) K, in place of ``settings.temperature``.
        final_temperatures: (systems,) K that the thermostat reaches at the end of the run, rising or falling linearly
            in time, and the guards' limits with it; ``temperatures`` throughout if not given.
        timesteps: (systems,) fs, in place of that of the settings, which still sets the number of steps, the same for
            all, and the times of the records.
        velocities: (atoms, 3) Å/fs; drawn from the Maxwell-Boltzmann distribution, without net momentum, if not given.
        keys: (systems,) random stream of each structure; its number if not given.
        description: shown beside a progress bar; no bar if not given.
        spread: what the guard of that name looks at; see :meth:`phystrain.uncertainty.ensemble.Ensemble.spread`.

    Raises:
        UserError: there is no structure, a starting position is not finite, an element is unknown to the potential,
            cells are to change of structures that have none, or the guard of the spread has nothing to look at.
        ValueError: final temperatures or a barostat without a thermostat, or frames of changing cells.
    """
    if settings.ensemble == "nve" and (final_temperatures is not None or settings.barostat is not None):
        raise ValueError("final_temperatures and barostat need the nvt ensemble: nothing follows them without")
    if settings.barostat is not None and settings.frame_interval is not None:
        raise ValueError("frames hold positions only: leave frame_interval out beside a barostat")
    if not len(structures):
        raise UserError("dynamics: there is no structure to start from")
    if settings.barostat is not None and not structures.pbc.all():
        raise UserError("pressure needs structures that are periodic in all three directions")
    if spread is None and settings.guards.spread is not None:
        raise UserError("guards.spread needs an ensemble, which is used by 'phystrain md --spread': leave it out here")
    if not np.isfinite(structures.positions).all():
        raise UserError("a starting structure has a position that is not finite: leave it out")
    settings = settings.model_copy(update={"timestep": settings.step_of(structures.species)})
    count = len(structures)
    kelvin = np.full(count, settings.temperature) if temperatures is None else np.asarray(temperatures, float)
    final = None if final_temperatures is None else np.asarray(final_temperatures, float)
    step_of = np.full(count, settings.step) if timesteps is None else np.asarray(timesteps, float)
    key = np.arange(count) if keys is None else np.asarray(keys, dtype=np.int64)
    groups = [np.arange(*span) for span in spans(structures.offsets, settings.batch_atoms)]
    steps = settings.n_steps
    parts = []
    with bar() as display:
        task = display.add_task(description or "", total=steps * len(groups), visible=description is not None, note="")
        for number, group in enumerate(groups):
            run = Batch(
                potential,
                structures.select(group),
                settings,
                kelvin[group],
                None if final is None else final[group],
                step_of[group],
                None if velocities is None else velocities[ragged(structures.offsets, group)],
                key[group],
                spread,
            )
            if run.is_worth_compiling():
                display.update(task, note="compiling the network")
                run.potential = cast(Potential, compiled.faster(potential))
            shown = time.perf_counter()
            for step in range(1, steps + 1):
                if not run.running:
                    break
                run.advance(step)
                if time.perf_counter() - shown > _REPORT_EVERY:
                    shown = time.perf_counter()
                    note = f"{run.running} of {len(group)} running"
                    display.update(task, completed=number * steps + step, note=note)
            parts.append(run.trajectory())
    return parts[0] if len(parts) == 1 else joined(parts)

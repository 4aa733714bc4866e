"""Settings of molecular dynamics and what comes out of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from phystrain.data.structures import Floats, Structures
from phystrain.dynamics.barostat import Barostat
from phystrain.dynamics.guards import Guards


class Settings(BaseModel):
    """How to run molecular dynamics."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    ensemble: Literal["nvt", "nve"] = Field(default="nvt", description="nvt: Langevin thermostat; nve: constant energy")
    temperature: float = Field(default=300.0, ge=0, description="K, of the thermostat and of the starting velocities")
    timestep: float | None = Field(default=None, gt=0, description="fs; if not given 1, or 0.5 with hydrogen")
    picoseconds: float = Field(default=10.0, gt=0, description="length of the run, ps")
    friction: float = Field(default=0.01, gt=0, description="of the thermostat, 1/fs")
    barostat: Barostat | None = Field(default=None, description="of runs with changing cells; else cells are fixed")
    skin: float = Field(default=0.8, gt=0, description="reserve of the neighbour lists, Å")
    record_interval: int = Field(default=20, ge=1, description="steps between records of energies and temperatures")
    frame_interval: int | None = Field(default=None, ge=1, description="steps between stored positions")
    seed: int = Field(default=0, description="of the starting velocities and of the thermostat")
    guards: Guards = Field(default=Guards(), description="when to stop a structure")
    compiled: bool | None = Field(
        default=None, description="compile networks first (half a minute, once); null: where the run is long enough"
    )
    batch_atoms: int = Field(default=4000, ge=1, description="atoms that advance together; the rest wait their turn")

    def step_of(self, species: npt.NDArray[np.int64]) -> float:
        """Time step, fs, for structures that hold these elements (atomic numbers)."""
        if self.timestep is not None:
            return self.timestep
        return 0.5 if np.any(species == 1) else 1.0

    @property
    def step(self) -> float:
        """Time step, fs; 1 where it is left open."""
        return 1.0 if self.timestep is None else self.timestep

    @property
    def n_steps(self) -> int:
        """How many steps the run has."""
        return max(1, round(self.picoseconds * 1000 / self.step))


@dataclass(frozen=True, eq=False)
class Trajectory:
    """What happened to each structure.

    Attributes:
        settings: of the run, the time step filled in.
        temperatures: (systems,) K, of the thermostat at the start.
        timesteps: (systems,) fs.
        steps: (systems,) step at which a guard stopped the structure, or the last one.
        reasons: by structure: ``distance``, ``temperature``, ``bond``, ``volume``, ``non-finite``, ``spread``, or
            ``None`` if it survived.
        sentences: by structure: what was found and when; empty if it survived.
        times: (records,) ps, of structures that have the time step of the settings.
        potential, kinetic: (records, systems) eV; not a number after a structure has been stopped.
        temperature: (records, systems) K, of the atoms.
        contact: (records, systems) shortest distance as a fraction of the sum of the two covalent radii.
        final: the last frame of each structure: the failing one where a guard stopped it. ``info`` tells
            ``failure`` and its ``reason``, ``time_ps``, ``temperature_K`` of the atoms and ``thermostat_K``.
        velocities: (atoms, 3) Å/fs, of the same frame.
        frames: (frames, atoms, 3) Å, not wrapped, every ``frame_interval`` steps; ``None`` if not asked for.
        seconds: wall time.
        pressure: (records, systems) GPa, the kinetic part included; ``None`` without a barostat.
        volume: (records, systems) Å³; ``None`` without a barostat.
        spread: (systems,) eV/Å, largest spread of an atom's force between models; ``None`` if nobody looked.
        warnings: by structure: where the spread first went beyond its limit; empty if it did not.
    """

    settings: Settings
    temperatures: Floats
    timesteps: Floats
    steps: npt.NDArray[np.int64]
    reasons: tuple[str | None, ...]
    sentences: tuple[str, ...]
    times: Floats
    potential: Floats
    kinetic: Floats
    temperature: Floats
    contact: Floats
    final: Structures
    velocities: Floats
    frames: Floats | None
    seconds: float
    pressure: Floats | None = None
    volume: Floats | None = None
    spread: Floats | None = None
    warnings: tuple[str, ...] = ()

    @property
    def survived(self) -> npt.NDArray[np.bool_]:
        """(systems,) whether each structure reached the end."""
        return np.array([reason is None for reason in self.reasons], dtype=bool)

    @property
    def picoseconds(self) -> Floats:
        """(systems,) ps, time until a guard stopped the structure, or the length of the run."""
        return np.asarray(self.steps * self.timesteps / 1000)

    @property
    def failing(self) -> Structures:
        """The frames at which guards stopped structures: the next ones to label."""
        return self.final.select(~self.survived)


def joined(parts: Sequence[Trajectory]) -> Trajectory:
    """Trajectories of several groups of structures, run alike, as one."""
    over_systems = {
        name: np.concatenate([getattr(part, name) for part in parts], axis=1)
        for name in (*("potential", "kinetic", "temperature", "contact"), *_of_cells(parts))
    }
    frames = [part.frames for part in parts if part.frames is not None]
    spreads = [part.spread for part in parts if part.spread is not None]
    return Trajectory(
        settings=parts[0].settings,
        temperatures=np.concatenate([part.temperatures for part in parts]),
        timesteps=np.concatenate([part.timesteps for part in parts]),
        steps=np.concatenate([part.steps for part in parts]),
        reasons=sum((part.reasons for part in parts), ()),
        sentences=sum((part.sentences for part in parts), ()),
        times=parts[0].times,
        **over_systems,
        final=Structures.concatenate([part.final for part in parts]),
        velocities=np.concatenate([part.velocities for part in parts]),
        frames=np.concatenate(frames, axis=1) if frames else None,
        seconds=sum(part.seconds for part in parts),
        spread=np.concatenate(spreads) if spreads else None,
        warnings=sum((part.warnings for part in parts), ()),
    )


def _of_cells(parts: Sequence[Trajectory]) -> tuple[str, ...]:
    return ("pressure", "volume") if parts[0].volume is not None else ()

"""What a batch of molecular dynamics leaves behind: records, last frames, and why structures were stopped."""

import time
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from phystrain.data.structures import Floats, Structures
from phystrain.dynamics.guards import Failure
from phystrain.dynamics.trajectory import Settings, Trajectory

QUANTITIES = ("potential", "kinetic", "temperature", "contact")
CELL_QUANTITIES = ("pressure", "volume")
"""What is recorded besides where a barostat changes cells."""


class Recorder:
    """Records of one batch. Structures and atoms are named by their numbers at the start, whoever has left since.

    Args:
        structures: at the start.
        settings: of the run, the time step filled in.
        temperatures: (systems,) K, of the thermostat at the start.
        timesteps: (systems,) fs.
    """

    def __init__(self, structures: Structures, settings: Settings, temperatures: Floats, timesteps: Floats) -> None:
        self._began = time.perf_counter()
        self._structures, self._settings = structures, settings
        self._temperatures, self._timesteps = temperatures, timesteps
        count, steps = len(structures), settings.n_steps
        names = QUANTITIES + (CELL_QUANTITIES if settings.barostat is not None else ())
        self._records = {name: np.full((steps // settings.record_interval + 1, count), np.nan) for name in names}
        self._steps = np.full(count, steps)
        self._reasons: list[str | None] = [None] * count
        self._sentences = [""] * count
        self._kelvin = np.full(count, np.nan)
        self._target = np.full(count, np.nan)
        self._positions = structures.positions.copy()
        self._velocities = np.zeros_like(self._positions)
        self._cell = structures.cell.copy()
        self._frames = [self._positions.copy()] if settings.frame_interval else []

    def stop(self, number: int, failure: Failure, step: int) -> None:
        """A guard stopped a structure.

        Args:
            number: of the structure.
            failure: why.
            step: at which.
        """
        self._steps[number] = step
        self._reasons[number] = failure.reason
        self._sentences[number] = f"{failure.finding} at {step * self._timesteps[number] / 1000:.3f} ps"

    def record(self, step: int, numbers: npt.NDArray[np.int64], values: dict[str, Floats]) -> None:
        """Note what is recorded by name, (running,) each."""
        for name, value in values.items():
            self._records[name][step // self._settings.record_interval, numbers] = value

    def last_frame(self, places: npt.NDArray[np.int64], positions: Floats, velocities: Floats) -> None:
        """Note positions (Å) and velocities (Å/fs) of atoms of structures that come to their end."""
        self._positions[places] = positions
        self._velocities[places] = velocities

    def last_state(self, numbers: npt.NDArray[np.int64], kelvin: Floats, target: Floats, cell: Floats) -> None:
        """Note temperature of atoms and thermostat (K), and cell (Å), of structures that come to their end."""
        self._kelvin[numbers], self._target[numbers], self._cell[numbers] = kelvin, target, cell

    def frame(self, places: npt.NDArray[np.int64], positions: Floats) -> None:
        """Store a frame: atoms that are still moving, and the last frame of those that were stopped."""
        everything = self._positions.copy()
        everything[places] = positions
        self._frames.append(everything)

    def trajectory(self) -> Trajectory:
        """What happened."""
        settings = self._settings
        interval = settings.record_interval * settings.step
        info = self._structures.info | {
            "failure": np.array(self._sentences),
            "reason": np.array([reason or "" for reason in self._reasons]),
            "time_ps": np.array([f"{value:.4f}" for value in self._steps * self._timesteps / 1000]),
            "temperature_K": np.array([f"{value:.0f}" for value in self._kelvin]),
            "thermostat_K": np.array([f"{value:.0f}" for value in self._target]),
        }
        unlabelled = self._structures.without_labels()
        return Trajectory(
            settings=settings,
            temperatures=self._temperatures,
            timesteps=self._timesteps,
            steps=self._steps,
            reasons=tuple(self._reasons),
            sentences=tuple(self._sentences),
            times=np.arange(settings.n_steps // settings.record_interval + 1) * interval / 1000,
            **self._records,  # type: ignore[arg-type]  # arrays all
            final=replace(unlabelled, positions=self._positions, cell=self._cell, info=info),
            velocities=self._velocities,
            frames=np.stack(self._padded_frames()) if self._frames else None,
            seconds=time.perf_counter() - self._began,
        )

    def _padded_frames(self) -> list[Floats]:
        """The stored frames, the last one repeated where every structure was stopped before the end."""
        assert self._settings.frame_interval is not None
        missing = self._settings.n_steps // self._settings.frame_interval + 1 - len(self._frames)
        return self._frames + [self._positions] * missing

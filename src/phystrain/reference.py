"""Reference trajectories from files, checked against the physics that they claim."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import atomic_masses

from phystrain.data.read import read
from phystrain.data.structures import Floats, Structures
from phystrain.errors import UserError
from phystrain.units import BOLTZMANN, VELOCITY

FEWEST = 10
"""Frames without which there is nothing to compare with."""

HOTTEST = 2.0
"""Multiple of the temperature at which the moves between frames are beyond belief."""

# names of facts of a frame, and what turns them into fs or K
_INTERVALS = {"interval_fs": 1.0, "interval_ps": 1000.0}
_TIMES = {"time_fs": 1.0, "time_ps": 1000.0}
_KELVIN = ("temperature_K", "temperature")


@dataclass(frozen=True)
class Reference:
    """A trajectory of the reference method, or of a potential that is trusted.

    Attributes:
        frames: of the same atoms in the same order, equally spaced in time, with forces if they are known.
        interval: fs between frames.
        temperature: K.
    """

    frames: Structures
    interval: float
    temperature: float


def read_reference(path: Path, interval: float | None = None, temperature: float | None = None) -> Reference:
    """A trajectory to compare dynamics with.

    What is not given is taken from the frames: the interval from ``interval_fs``, ``interval_ps``, ``time_fs`` or
    ``time_ps``, the temperature from ``temperature_K`` or ``temperature``. Of a file with several runs (``run``, as
    ``phystrain md`` writes it) the first is taken.

    Args:
        path: extended XYZ or what else can be read; frames in the order of time, all of the same atoms.
        interval: fs between frames.
        temperature: K.

    Raises:
        UserError: too few frames, other atoms in a frame, an interval or temperature that is missing or cannot be.
    """
    frames = read(path).structures
    if "run" in frames.info:
        frames = frames.select(frames.info["run"] == frames.info["run"][0])
    if len(frames) < FEWEST:
        raise UserError(f"{path}: {len(frames)} frames are no reference trajectory; at least {FEWEST} are needed")
    size = int(frames.sizes[0])
    if (frames.sizes != size).any() or (frames.species.reshape(-1, size) != frames.species[:size]).any():
        raise UserError(f"{path}: the frames differ in their atoms or in their order; a trajectory keeps both")
    if (frames.pbc != frames.pbc[0]).any():
        raise UserError(f"{path}: some frames are periodic and others are not; a trajectory keeps that")
    step = interval if interval is not None else _interval(frames, path)
    kelvin = temperature if temperature is not None else _mean(frames, _KELVIN)
    if step is None:
        raise UserError(f"{path} does not say how far apart its frames are: give --reference-interval FS")
    if kelvin is None:
        raise UserError(f"{path} does not say at which temperature it was run: give --reference-temperature K")
    if not (0 < step < np.inf and 0 < kelvin < np.inf):
        raise UserError(f"{path}: an interval of {step:g} fs and a temperature of {kelvin:g} K cannot be; both are > 0")
    apparent = apparent_temperature(frames, step)
    if apparent > HOTTEST * kelvin:
        raise UserError(
            f"{path}: the atoms move from frame to frame as at {apparent:.0f} K, not {kelvin:g} K. "
            f"Give frames in the order of time, or the right --reference-interval ({step:g} fs) and temperature"
        )
    return Reference(frames, float(step), float(kelvin))


def unwrapped(frames: Structures) -> Floats:
    """(frames, atoms, 3) Å, continuous: no atom jumps by more than half a cell between frames.

    Args:
        frames: of the same atoms in the same order, in the order of time, wrapped or not.
    """
    positions = frames.positions.reshape(len(frames), -1, 3)
    if not frames.pbc.any():
        return positions
    moves = np.diff(positions, axis=0)
    cell = np.where(frames.pbc[1:, :, None], frames.cell[1:], 0.0)
    moves = moves - np.rint(moves @ np.linalg.pinv(cell)) @ cell
    return np.concatenate([positions[:1], positions[0] + np.cumsum(moves, axis=0)])


def apparent_temperature(frames: Structures, interval: float) -> float:
    """K, of the velocities that the moves between frames amount to.

    It tends to the temperature as the interval tends to zero and falls below it for longer ones, since no atom moves
    farther in a straight line than at its thermal velocity; a larger value cannot be.

    Args:
        frames: of the same atoms in the same order.
        interval: fs between frames.
    """
    masses = atomic_masses[frames.species[: frames.sizes[0]]][:, None]
    velocities = np.diff(unwrapped(frames), axis=0) / interval
    velocities -= (masses * velocities).sum(axis=1, keepdims=True) / masses.sum()
    # twice the kinetic energy, eV, of a mean frame
    twice = float((masses * np.square(velocities)).sum(axis=(1, 2)).mean()) / VELOCITY**2
    return twice / (BOLTZMANN * max(3 * len(masses) - 3, 1))


def _interval(frames: Structures, path: Path) -> float | None:
    """Time between frames in fs, from what they say."""
    for name, unit in _INTERVALS.items():
        if (value := _mean(frames, (name,))) is not None:
            return unit * value
    for name, unit in _TIMES.items():
        times = _numbers(frames, name)
        if times is None:
            continue
        steps = np.diff(times)
        mean = float(steps.mean())
        # times are often written with few digits
        if mean <= 0 or np.abs(times - times[0] - mean * np.arange(len(times))).max() > 0.2 * mean:
            raise UserError(f"{path}: the frames are not equally spaced in time ({name}); a reference needs that")
        return unit * mean
    return None


def _mean(frames: Structures, names: Sequence[str]) -> float | None:
    """Mean of the first of these facts that all frames state as a number."""
    found = [values for name in names if (values := _numbers(frames, name)) is not None]
    return float(found[0].mean()) if found else None


def _numbers(frames: Structures, name: str) -> Floats | None:
    if name not in frames.info:
        return None
    try:
        return frames.info[name].astype(np.float64)
    except ValueError:
        return None

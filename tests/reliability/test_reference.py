"""Reference trajectories from files."""

from dataclasses import replace

import numpy as np
import pytest
from ase.io import write

from phystrain.errors import UserError
from phystrain.reference import apparent_temperature, read_reference, unwrapped


@pytest.fixture
def frames(argon_reference):
    """ASE frames, a picosecond of them."""
    return list(argon_reference.frames.select(np.arange(60)).frames())


def test_interval_and_temperature_are_given_or_told(frames, tmp_path):
    file = tmp_path / "run.xyz"
    write(file, frames)
    found = read_reference(file, 10.0, 40.0)
    assert (len(found.frames), found.interval, found.temperature) == (60, 10, 40)
    with pytest.raises(UserError, match="--reference-interval FS"):
        read_reference(file, temperature=40.0)
    with pytest.raises(UserError, match="--reference-temperature K"):
        read_reference(file, 10.0)
    for number, frame in enumerate(frames):
        frame.info |= {"time_ps": round(0.01 * number, 3), "temperature_K": 40, "run": number // 30}
    write(file, frames)
    found = read_reference(file)
    assert (len(found.frames), found.temperature) == (30, 40)  # the first of two runs
    assert found.interval == pytest.approx(10)
    assert read_reference(file, 9.0, 50.0).interval == 9
    write(file, [*frames[:10], *frames[15:30]])
    with pytest.raises(UserError, match="not equally spaced"):
        read_reference(file)


def test_what_is_no_trajectory(frames, tmp_path):
    file = tmp_path / "run.xyz"
    write(file, frames[:5])
    with pytest.raises(UserError, match="5 frames are no reference trajectory"):
        read_reference(file, 10.0, 40.0)
    write(file, [*frames[:20], frames[20][:30]])
    with pytest.raises(UserError, match="differ in their atoms"):
        read_reference(file, 10.0, 40.0)
    write(file, frames)
    with pytest.raises(UserError, match=r"as at .* K, not 40 K"):  # the interval is ten times as long
        read_reference(file, 1.0, 40.0)
    write(file, [frames[number] for number in np.random.default_rng(0).permutation(60)])
    with pytest.raises(UserError, match="in the order of time"):
        read_reference(file, 10.0, 40.0)


def test_moves_between_frames_have_the_temperature(argon_reference):
    assert apparent_temperature(argon_reference.frames, 10.0) == pytest.approx(40, rel=0.15)
    # at rare intervals they are lost in the vibrations
    assert apparent_temperature(argon_reference.frames.select(np.arange(0, 321, 40)), 400.0) < 20


def test_wrapped_positions_become_continuous(argon_reference):
    frames = argon_reference.frames
    wrapped = replace(frames, positions=frames.positions % 10.6)
    moved = unwrapped(wrapped) - unwrapped(wrapped)[0]
    straight = frames.positions.reshape(moved.shape)
    assert moved == pytest.approx(straight - straight[0])

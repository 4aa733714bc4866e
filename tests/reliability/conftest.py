"""Subjects made from the small potentials, and a trajectory to compare with."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from torch import nn

from phystrain.data.structures import Structures
from phystrain.dynamics import Settings, simulate
from phystrain.potentials import build
from phystrain.reliability import Reference, Subject
from phystrain.statistics import Statistics


@pytest.fixture
def subject_of(crystal: Structures) -> Callable[..., Subject]:
    def make(potential: nn.Module, **fields: object) -> Subject:
        given = {"statistics": Statistics.bare((18,)), "start": crystal, "temperatures": (40.0,), **fields}
        return Subject(name="small", potential=potential, **given)

    return make


def trajectory(
    potential: nn.Module, start: Structures, kelvin: float, *, step: float = 5.0, every: int = 2, picoseconds: float = 4
) -> Reference:
    """Of one structure, its first fifth dropped."""
    settings = Settings(
        temperature=kelvin, timestep=step, picoseconds=picoseconds, friction=0.001, frame_interval=every, seed=9
    )
    found = simulate(potential, start, settings)
    assert found.frames is not None
    kept = found.frames[len(found.frames) // 5 :]
    copies = start.without_labels().select(np.zeros(len(kept), dtype=int))
    return Reference(replace(copies, positions=kept.reshape(-1, 3)), step * every, kelvin)


@pytest.fixture
def trajectory_of() -> Callable[..., Reference]:
    return trajectory


@pytest.fixture(scope="session")
def argon_of() -> Callable[[float], nn.Module]:
    """Lennard-Jones argon with a well of a given depth, eV; 0.0103 is right."""

    def make(depth: float) -> nn.Module:
        settings = {"kind": "lennard_jones", "depth": depth, "minimum": {"Ar-Ar": 3.816}, "cutoff": 6.5}
        return build(settings, Statistics.bare((18,))).double()

    return make


@pytest.fixture(scope="session")
def argon_reference(argon_of) -> Reference:
    """Solid argon at 40 K, a frame every 10 fs."""
    return trajectory(argon_of(0.0103), Structures.from_ase([bulk("Ar", "fcc", a=5.3, cubic=True) * (2, 2, 2)]), 40.0)

from dataclasses import replace

import numpy as np
import pytest
import torch

from phystrain.data.structures import Structures
from phystrain.dynamics import Settings, replicate, simulate
from phystrain.dynamics.guards import Guards
from phystrain.errors import UserError
from phystrain.reliability.heating import Config, running_curve


@pytest.fixture
def sites(crystal: Structures) -> Structures:
    """The crystal without periodic images: the springs' sites are fixed in space."""
    return replace(crystal, pbc=np.zeros_like(crystal.pbc))


def test_thermostat_follows_the_ramp(einstein, sites):
    """Independent springs, heated steadily: their mean temperature is the target's, a little late."""
    potential = einstein(torch.from_numpy(sites.positions), stiffness=2.0)
    settings = Settings(temperature=100, timestep=5, picoseconds=10, friction=0.02, record_interval=1, seed=3)
    run = simulate(potential, replicate(sites, 4), settings, final_temperatures=[900] * 4)
    deviation = run.temperature.mean(axis=1) - (100 + 800 * run.times / 10)
    lag = 80 / 20  # K: the rate of heating, K/ps, over the friction, 1/ps
    assert abs(deviation[run.times > 1].mean() + lag) < 5
    assert run.temperatures.tolist() == [100] * 4


def test_ramp_without_rise_is_plain_dynamics(lennard_jones, crystal):
    settings = Settings(temperature=60, timestep=5, picoseconds=0.2, seed=1)
    plain = simulate(lennard_jones, crystal, settings)
    ramp = simulate(lennard_jones, crystal, settings, final_temperatures=[60.0])
    np.testing.assert_array_equal(plain.final.positions, ramp.final.positions)
    with pytest.raises(ValueError, match="nvt"):
        simulate(lennard_jones, crystal, settings.model_copy(update={"ensemble": "nve"}), final_temperatures=[60.0])


def test_guards_follow_the_target(einstein, sites):
    """With a limit of 1.8 times the target, a run at the target is never stopped, however hot it gets."""
    potential = einstein(torch.from_numpy(sites.positions), stiffness=2.0)
    settings = Settings(
        temperature=100, timestep=5, picoseconds=5, friction=0.05, guards=Guards(temperature_factor=1.8, contact=None)
    )
    run = simulate(potential, sites, settings, final_temperatures=[900.0])
    assert run.survived.all()
    assert run.temperature[-1, 0] > 500


def test_sound_potential_reaches_the_end(lennard_jones, subject_of):
    result = Config(picoseconds=1, timestep=5, replicas=2, highest=3)(subject_of(lennard_jones))
    assert result.passed
    assert result.figures["reached the end"] == 1
    assert result.figures["lowest temperature reached, K"] == result.figures["highest temperature, K"] == 120
    assert result.figures["earliest failure"] == ""
    assert result.curves["heating"].y == [1, 1]


def test_hole_is_fallen_into_when_hot(with_hole, subject_of):
    config = Config(picoseconds=2, timestep=4, replicas=3, highest=200)
    result = config(subject_of(with_hole))
    assert result.passed is True  # it is sound at twice the training temperature
    assert result.figures["reached the end"] == 0
    lowest = result.figures["lowest temperature reached, K"]
    assert 300 < lowest < 8000
    assert lowest <= result.figures["mean temperature reached, K"] < 8000
    assert f"earliest at {lowest:.0f} K: Ar-Ar contact" in result.sentence
    assert config(subject_of(with_hole)) == result
    strict = config.model_copy(update={"required": 190})
    assert strict(subject_of(with_hole)).passed is False
    assert (result.grade, result.kelvin) == ("safe", None)  # a ramp passes each temperature in no time
    assert result.conditions == [f"heating above {lowest:.0f} K is unsupported"]
    assert strict(subject_of(with_hole)).grade == "limited"
    assert strict.model_copy(update={"unsafe": 180})(subject_of(with_hole)).grade == "unsafe"


def test_curve():
    curve = running_curve(np.array([500.0, 900, 300, 900]), np.array([False, True, False, True]), 100.0, 900.0)
    assert curve.x == [100, 300, 300, 500, 500, 900]
    assert curve.y == [1, 1, 0.75, 0.75, 0.5, 0.5]


def test_needs_a_start(lennard_jones, subject_of):
    with pytest.raises(UserError, match="no structure to start from"):
        Config()(subject_of(lennard_jones, start=None))

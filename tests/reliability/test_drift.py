import numpy as np
import pytest
import torch
from torch import nn

from phystrain.dynamics import Settings, simulate
from phystrain.errors import UserError
from phystrain.reliability.drift import Config, slope_with_error


def test_sound_potential_conserves_energy(lennard_jones, subject_of):
    result = Config(picoseconds=3, timestep=5, replicas=1)(subject_of(lennard_jones))
    assert result.passed
    assert (result.grade, result.conditions, result.kelvin) == ("safe", [], None)
    assert 0 < result.figures["slope error, meV/atom/ps"] < 0.02
    assert abs(result.figures["slope, meV/atom/ps"]) < 0.02
    assert 3 < result.figures["fluctuation ratio dt to dt/2"] < 5
    assert result.curves["40 K"].y[0] == 0
    assert result.curves["40 K"].x[-1] == pytest.approx(3)


def test_both_temperatures_and_time_steps_run_at_once(lennard_jones, subject_of):
    config = Config(picoseconds=0.4, timestep=5, replicas=2)
    subject = subject_of(lennard_jones)
    run = config.run(subject)
    assert config.runs(subject) == 8
    assert run.temperatures.tolist() == [40, 40, 80, 80] * 2
    assert run.timesteps.tolist() == [5] * 4 + [2.5] * 4
    np.testing.assert_allclose(run.picoseconds, [0.4] * 4 + [0.2] * 4)
    # half the step is what a run of its own with that step is
    alone = Settings(ensemble="nve", temperature=40, timestep=2.5, picoseconds=0.2, record_interval=1)
    single = simulate(lennard_jones, subject.start, alone, keys=[0])
    np.testing.assert_allclose(run.potential[:, [4]], single.potential, atol=1e-10)


def test_error_of_the_slope():
    """Correlated noise about a line: the slope lies within a few of its errors."""
    random = np.random.default_rng(0)
    times = np.linspace(0, 5, 2000)
    off, errors = [], []
    for _ in range(40):
        noise = np.convolve(random.normal(size=2099), np.ones(100) / 10, "valid")
        slope, error = slope_with_error(times, 0.3 * times + noise)
        off.append(slope - 0.3)
        errors.append(error)
    assert 0.6 < np.mean(errors) / np.std(off) < 1.7


class Truncated(nn.Module):
    """Lennard-Jones whose energy falls off a step at the cut-off, where forces see nothing."""

    cutoff = 4.2

    def __init__(self, sound):
        super().__init__()
        self.sound = sound

    def atomic_energies(self, graph):
        step = torch.where(graph.distances < self.cutoff, -0.004, 0.0)
        return self.sound.atomic_energies(graph) + step.new_zeros(graph.n_atoms).index_add(0, graph.edges[0], step)


class Rounded(Truncated):
    """Lennard-Jones beside an offset in single precision, which takes three digits away."""

    def atomic_energies(self, graph):
        return (self.sound.atomic_energies(graph).float() - 17_000).double() + 17_000


@pytest.mark.parametrize("fault", [Truncated, Rounded])
def test_energies_that_jump_are_caught(lennard_jones, subject_of, fault):
    lennard_jones.cutoff = 4.2 if fault is Truncated else 6.5
    potential = fault(lennard_jones)
    potential.cutoff = lennard_jones.cutoff
    result = Config(picoseconds=1, timestep=5, replicas=2)(subject_of(potential))
    assert result.passed is False
    assert result.grade in ("limited", "unsafe")
    assert result.figures["fluctuation ratio dt to dt/2"] < 2
    assert "digits are lost" in result.sentence
    assert "(NVE) is unsupported" in result.conditions[0]


def test_too_long_a_step_is_told_from_a_fault(lennard_jones, subject_of):
    """A step of 80 fs drifts at 80 K, half of it does not: the surface is sound."""
    result = Config(picoseconds=8, timestep=80, replicas=1, limit=0.3)(subject_of(lennard_jones))
    assert result.figures["drift ratio at 80 K"] > 20 * result.figures["drift ratio at 80 K and half the step"]
    assert (result.passed, result.grade, result.kelvin) == (False, "limited", None)
    assert result.conditions == ["dynamics at constant energy needs a time step below 80 fs at 80 K"]


def test_swirl_is_caught(not_conservative, subject_of):
    result = Config(picoseconds=3, timestep=5, replicas=1)(subject_of(not_conservative))
    assert result.passed is False
    assert result.figures["drift ratio"] > 1
    assert result.figures["fluctuation ratio dt to dt/2"] < 2  # a smaller time step does not help
    assert result.grade == "unsafe"  # the swirl heats the argon by more than a thermostat can carry away
    assert result.figures["heating at 40 K with friction 10/ps, K"] > 4
    assert result.kelvin == 0


def test_broken_run_fails(with_hole, subject_of):
    result = Config(picoseconds=0.5, timestep=5, temperature=12000, halving=False)(subject_of(with_hole))
    assert result.passed is False
    assert "broke off" in result.sentence
    assert result.figures["runs completed"] < 2


def test_run_too_short_for_a_slope_has_no_heating(lennard_jones, subject_of):
    result = Config(picoseconds=0.05, timestep=5, replicas=1, halving=False)(subject_of(lennard_jones))
    assert (result.passed, result.grade) == (None, None)
    assert result.figures["heating at 40 K with friction 10/ps, K"] is None


def test_needs_a_start(lennard_jones, subject_of):
    with pytest.raises(UserError, match="start"):
        Config()(subject_of(lennard_jones, start=None))

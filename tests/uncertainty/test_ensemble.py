"""Ensembles: their spread, their file, and the guard that watches dynamics."""

import numpy as np
import pytest
import torch
from ase import Atoms

from phystrain.data.structures import Structures
from phystrain.dynamics import Settings, simulate
from phystrain.dynamics.guards import Guards
from phystrain.errors import UserError
from phystrain.potentials import build
from phystrain.reliability.errors import predict
from phystrain.saving import load_model, read_state, save_model
from phystrain.statistics import Statistics
from phystrain.uncertainty.calibration import Calibration
from phystrain.uncertainty.ensemble import Ensemble, file_beside, load_ensemble, save_ensemble, spread_of


def pair(distance: float) -> Atoms:
    return Atoms("Ar2", [[0, 0, 0], [0, 0, distance]])


def calibration(scale: float) -> Calibration:
    return Calibration(scale=scale, largest=0.3, structures=1, atoms=10, quality={})


def test_spread_is_the_deviation_of_a_component():
    forces = torch.randn(5, 400, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = spread_of(forces).numpy()
    np.testing.assert_allclose(found, np.sqrt(np.var(forces.numpy(), axis=0, ddof=1).mean(axis=1)))
    assert np.sqrt(np.mean(found**2)) == pytest.approx(1, abs=0.05)


def test_spread_is_where_models_differ(disagreeing, crystal, lennard_jones):
    both = Structures.concatenate([crystal, Structures.from_ase([pair(2.4)])])
    forces, spread = disagreeing.predict(both)
    np.testing.assert_allclose(forces, predict(lennard_jones, both).forces, atol=1e-12)
    assert spread[:32].max() < 1e-12
    theirs = predict(disagreeing.members[1], both).forces[-1, 2]
    assert spread[-1] == pytest.approx(abs(forces[-1, 2] - theirs) / np.sqrt(2) / np.sqrt(3))
    scaled = Ensemble(disagreeing.members, "seeds", calibration(2.0))
    np.testing.assert_allclose(scaled.predict(both)[1], 2 * spread)


def saved(tmp_path, count=2):
    """A model file with an ensemble beside it, whose members differ in the depth of the well."""
    statistics = Statistics.bare((18,))
    settings = {"kind": "sum", "terms": {"reference": {"kind": "reference_energy"}, "model": {"kind": "morse"}}}
    potential = build(settings, statistics)
    weights = potential.state_dict()
    own = next(name for name in weights if name.startswith("terms.model") and weights[name].is_floating_point())
    others = [weights | {own: weights[own] * (1 + 0.1 * (number + 1))} for number in range(count)]
    file = tmp_path / "model.safetensors"
    save_model(file, weights, settings, statistics)
    return file, own, others, weights


def test_file_holds_what_differs_and_comes_back(tmp_path):
    file, own, others, weights = saved(tmp_path)
    save_ensemble(file, weights, others, "snapshots", calibration(1.5))
    assert set(read_state(file_beside(file))[0]) == {own}
    found = load_ensemble(load_model(file))
    assert (found.source, found.scale, len(found.members)) == ("snapshots", 1.5, 3)
    for member, other in zip(found.members, [weights, *others], strict=True):
        torch.testing.assert_close(member.state_dict(), other)
    assert not any(member.training for member in found.members)
    file_beside(file).unlink()
    with pytest.raises(UserError, match="set snapshots: 8 or members: 4"):
        load_ensemble(load_model(file))  # the model itself loads all the same


def test_ensemble_of_another_model_is_refused(tmp_path):
    file, _, others, _ = saved(tmp_path)
    model = load_model(file)
    save_ensemble(file, others[0], others[1:], "seeds", None)
    with pytest.raises(UserError, match="belongs to another model"):
        load_ensemble(model)
    file_beside(file).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="belongs to another model"):
        load_ensemble(model)


def leaving(crystal, **limits):
    """Two atoms that fly into each other beside a crystal that stays, the other guards off."""
    both = Structures.concatenate([Structures.from_ase([pair(4.0)]), crystal])
    velocities = np.concatenate([[[0, 0, 0.05], [0, 0, -0.05]], np.zeros((32, 3))])
    guards = Guards(contact=None, temperature_rise=None, temperature_jump=None, **limits)
    settings = Settings(ensemble="nve", temperature=40, timestep=1, picoseconds=0.05, guards=guards, record_interval=1)
    return both, settings, velocities


def test_the_guard_stops_what_leaves_the_data_and_nothing_else(disagreeing, crystal):
    start, settings, velocities = leaving(crystal, spread=0.2, spread_interval=2)
    run = simulate(disagreeing.members[0], start, settings, velocities=velocities, spread=disagreeing.spread)
    assert run.reasons == ("spread", None)
    assert run.steps[0] % 2 == 0
    last = np.linalg.norm(run.final.positions[1] - run.final.positions[0])
    assert 2.4 < last < 2.6
    assert run.sentences[0].startswith("spread of ")
    assert "eV/Å of the force on Ar (limit 0.20) at 0.01" in run.sentences[0]
    assert run.spread[0] > 0.2
    assert run.spread[1] < 1e-12
    assert len(run.failing) == 1


def test_the_guard_may_only_note(disagreeing, crystal):
    start, settings, velocities = leaving(crystal, spread=0.2, spread_stops=False)
    run = simulate(disagreeing.members[0], start, settings, velocities=velocities, spread=disagreeing.spread)
    without = simulate(disagreeing.members[0], *leaving(crystal)[:2], velocities=velocities)
    assert run.survived.all()
    assert run.warnings[0].startswith("spread of ")
    assert run.warnings[1] == ""
    np.testing.assert_array_equal(run.final.positions, without.final.positions)
    assert without.spread is None
    split = settings.model_copy(update={"batch_atoms": 2})  # each in a batch of its own
    apart = simulate(disagreeing.members[0], start, split, velocities=velocities, spread=disagreeing.spread)
    assert apart.warnings == run.warnings
    np.testing.assert_allclose(apart.spread, run.spread, atol=1e-9)
    with pytest.raises(UserError, match="needs an ensemble"):
        simulate(disagreeing.members[0], start, settings)

"""Molecular dynamics: conservation, temperature, independence of the batch, guards, neighbour lists."""

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from torch import nn

from phystrain.data.structures import Structures
from phystrain.dynamics import Settings, replicate, simulate
from phystrain.dynamics.guards import Guards
from phystrain.dynamics.verlet_list import VerletList
from phystrain.errors import UserError
from phystrain.interfaces.ase import PhystrainCalculator
from phystrain.neighbours import neighbour_list
from phystrain.units import BOLTZMANN, VELOCITY


def nve(**fields: object) -> Settings:
    return Settings.model_validate({"ensemble": "nve", "temperature": 60.0, "record_interval": 1, **fields})


def approaching(distance: float, speed: float, **box: object) -> tuple[Atoms, np.ndarray]:
    """Two atoms that fly towards each other (or, with a negative speed, apart), speed in Å/fs."""
    atoms = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, distance]], **box)
    return atoms, np.array([[0, 0, speed], [0, 0, -speed]], dtype=float)


def test_energy_is_conserved_and_its_error_falls_fourfold(lennard_jones, crystal):
    fluctuation = []
    for timestep in (8.0, 4.0):
        run = simulate(lennard_jones, crystal, nve(timestep=timestep, picoseconds=1.6))
        total = (run.potential + run.kinetic)[:, 0]
        fluctuation.append(np.std(total))
        assert abs(np.polyfit(run.times, total, 1)[0]) * 1.6 < 0.05 * np.std(run.kinetic[:, 0])
    assert 3.3 < fluctuation[0] / fluctuation[1] < 4.7


def test_agrees_with_ase(lennard_jones, argon):
    argon.rattle(0.05, seed=1)
    argon.set_velocities(np.random.default_rng(2).normal(size=(32, 3)) * 0.013)
    start = Structures.from_ase([argon])
    velocities = argon.get_velocities() * VELOCITY
    run = simulate(lennard_jones, start, nve(timestep=5.0, picoseconds=0.5), velocities=velocities)
    argon.calc = PhystrainCalculator(lennard_jones)
    VelocityVerlet(argon, 5.0 * units.fs).run(100)
    np.testing.assert_allclose(run.final.positions, argon.positions, atol=1e-9)
    np.testing.assert_allclose(run.velocities, argon.get_velocities() * VELOCITY, atol=1e-11)
    assert run.kinetic[-1, 0] == pytest.approx(argon.get_kinetic_energy(), abs=1e-9)


def test_start_has_the_temperature_and_no_momentum(lennard_jones, crystal):
    run = simulate(lennard_jones, replicate(crystal, 60), nve(timestep=0.001, picoseconds=1e-6))
    assert run.temperature[0].mean() == pytest.approx(60, rel=0.05)  # 60 runs of 93 degrees of freedom: 2 %
    assert run.temperature[0].std() == pytest.approx(60 * np.sqrt(2 / 93), rel=0.35)
    momentum = run.velocities.reshape(60, 32, 3).sum(axis=1)
    assert np.abs(momentum).max() < 1e-12


@pytest.mark.parametrize("friction", [0.01, 0.1])
def test_thermostat_samples_the_harmonic_crystal(einstein, friction):
    sites = torch.from_numpy(np.stack(np.meshgrid(*[np.arange(3) * 6.0] * 3), -1).reshape(-1, 3))
    start = replicate(Structures.from_ase([Atoms("Al27", positions=sites.numpy())]), 8)
    settings = Settings(temperature=300, timestep=10, picoseconds=12, friction=friction, record_interval=5)
    run = simulate(einstein(sites), start, settings)
    later = run.times > 2
    expected = 1.5 * 27 * BOLTZMANN * 300
    assert run.temperature[later].mean() == pytest.approx(300, rel=0.04)
    assert run.potential[later].mean() == pytest.approx(expected, rel=0.06)


def test_batch_equals_singles(lennard_jones, argon):
    cluster = Atoms("Ar5", positions=[[0, 0, 0], [4, 0, 0], [0, 4, 0], [0, 0, 4], [4, 4, 0.5]])
    slab = Atoms("Ar4", positions=[[0, 0, 0], [2, 3.4, 0], [0, 0, 3.8], [2, 3.4, 3.8]], cell=[4, 6.8, 0], pbc=[1, 1, 0])
    together = Structures.from_ase([argon, cluster, slab])
    settings = Settings(temperature=40, timestep=4, picoseconds=0.4, seed=3, frame_interval=10)
    batch = simulate(lennard_jones, together, settings)
    assert batch.survived.all()
    for number in range(3):
        single = simulate(lennard_jones, together.select([number]), settings, keys=[number])
        part = slice(together.offsets[number], together.offsets[number + 1])
        np.testing.assert_allclose(batch.frames[:, part], single.frames, atol=1e-10)
        np.testing.assert_allclose(batch.potential[:, [number]], single.potential, atol=1e-10)
    grouped = simulate(lennard_jones, together, settings.model_copy(update={"batch_atoms": 6}))
    np.testing.assert_allclose(batch.frames, grouped.frames, atol=1e-10)
    assert len(batch.frames) == 11
    other = simulate(lennard_jones, together.select([0]), settings, keys=[7])
    assert np.abs(other.final.positions - batch.final.positions[:32]).max() > 1e-3


def test_short_contact_stops_one_and_leaves_the_others(lennard_jones, crystal):
    pair, speeds = approaching(5.0, 0.05)
    both = Structures.concatenate([Structures.from_ase([pair]), crystal])
    velocities = np.concatenate([speeds, np.zeros((32, 3))])
    settings = nve(timestep=2.0, picoseconds=0.2, guards=Guards(contact=1.2, temperature_rise=None))
    run = simulate(lennard_jones, both, settings, velocities=velocities)
    assert run.reasons == ("distance", None)
    assert run.sentences[0].startswith("Ar-Ar contact of 2.4")
    assert f"at {run.picoseconds[0]:.3f} ps" in run.sentences[0]
    failing = run.failing.positions
    assert 2.4 < np.linalg.norm(failing[1] - failing[0]) < 1.2 * 2 * 1.06
    assert run.failing.info["failure"][0] == run.sentences[0]
    alone = simulate(lennard_jones, crystal, settings, velocities=velocities[2:])
    np.testing.assert_allclose(run.final.positions[2:], alone.final.positions, atol=1e-10)
    assert run.steps.tolist() == [run.steps[0], 100]
    after = run.times > run.picoseconds[0]
    assert np.isnan(run.potential[after, 0]).all()
    assert np.isfinite(run.potential[:, 1]).all()


def test_contact_through_the_boundary_is_seen_at_the_start(lennard_jones):
    atoms = Atoms("Ar2", positions=[[0.3, 0, 0], [9.7, 0, 0]], cell=[10, 10, 10], pbc=True)
    run = simulate(lennard_jones, Structures.from_ase([atoms]), Settings(picoseconds=0.1))
    assert run.reasons == ("distance",)
    assert run.sentences == ("Ar-Ar contact of 0.60 Å at 0.000 ps",)
    assert run.steps[0] == 0


def test_explosion_is_a_temperature_failure(lennard_jones):
    pair, _ = approaching(1.6, 0.0)
    start = Structures.from_ase([pair])
    published = simulate(lennard_jones, start, nve(timestep=1.0, picoseconds=0.1))
    assert published.reasons == ("temperature",)
    assert "limit 10,060 K" in published.sentences[0]
    gentle = Structures.from_ase([approaching(2.9, 0.0)[0]])
    assert simulate(lennard_jones, gentle, nve(timestep=1.0, picoseconds=0.2)).reasons == (None,)
    tight = nve(timestep=1.0, picoseconds=0.2, guards=Guards(temperature_factor=5))
    assert "limit 300 K" in simulate(lennard_jones, gentle, tight).sentences[0]
    jump = nve(timestep=1.0, picoseconds=0.2, temperature=0, guards=Guards(temperature_rise=None, temperature_jump=3))
    assert simulate(lennard_jones, gentle, jump).reasons == ("temperature",)


def test_broken_bond(lennard_jones):
    sticky = type(lennard_jones)(epsilon=0.05, sigma=2.0, cutoff=5.0)
    (bound, slow), (leaving, fast) = approaching(2.25, -0.0001), approaching(2.25, -0.02)
    settings = nve(timestep=1.0, picoseconds=0.2, guards=Guards(bond_stretch=0.5, temperature_rise=None))
    run = simulate(sticky, Structures.from_ase([bound, leaving]), settings, velocities=np.concatenate([slow, fast]))
    assert run.reasons == (None, "bond")
    assert run.sentences[1].startswith("Ar-Ar bond changed from 2.25 to 2.7")


class Undefined(nn.Module):
    """Zero energy, not a number below 3 Å."""

    cutoff = 5.0

    def atomic_energies(self, graph):
        r = graph.distances
        energy = torch.where(r < 3.0, torch.nan, 0.0) * r
        return energy.new_zeros(graph.n_atoms).index_add(0, graph.edges[0], energy)


def test_non_finite_energy_stops_one():
    (near, closing), (far, parting) = approaching(4.0, 0.01), approaching(4.0, -0.001)
    start = Structures.from_ase([far, near, far])
    velocities = np.concatenate([parting, closing, parting])
    run = simulate(Undefined(), start, nve(timestep=1.0, picoseconds=0.1), velocities=velocities)
    assert run.reasons == (None, "non-finite", None)
    assert run.steps.tolist() == [100, 51, 100]
    assert "energy that is not a finite number" in run.sentences[1]


def test_hydrogen_halves_the_default_time_step():
    assert Settings().step_of(np.array([6, 8])) == 1.0
    assert Settings().step_of(np.array([6, 1])) == 0.5
    assert Settings(timestep=2).step_of(np.array([6, 1])) == 2


def test_start_that_is_not_finite_is_refused(lennard_jones, crystal):
    crystal.positions[3, 1] = np.nan
    with pytest.raises(UserError, match="not finite"):
        simulate(lennard_jones, crystal, Settings())


def test_nothing_to_start_from_is_refused(lennard_jones, crystal):
    with pytest.raises(UserError, match="no structure"):
        simulate(lennard_jones, crystal.select([]), Settings())


def test_warnings_tell_the_time_of_each_structure(lennard_jones, crystal):
    looks = iter((0.0, 1.0))
    guards = Guards(spread=0.5, spread_interval=4, spread_stops=False)
    run = simulate(
        lennard_jones,
        replicate(crystal, 2),
        nve(timestep=2.0, picoseconds=0.008, guards=guards, compiled=False),
        timesteps=[2.0, 1.0],
        spread=lambda graph: graph.positions.new_full((graph.n_atoms,), next(looks)),
    )
    assert [warning[-11:] for warning in run.warnings] == ["at 0.008 ps", "at 0.004 ps"]


@pytest.mark.parametrize("pbc", [(False, False, False), (True, False, True)])
def test_far_from_the_origin_single_precision_loses_nothing(pbc):
    slab = Atoms("Ar3", [[0, 0, 0], [2.1, 0.3, 0.7], [0.4, 3.3, 1.2]], cell=[6, 6, 6], pbc=pbc)
    found = []
    for move in (0.0, 1000.0):
        slab.positions += move * np.array([0.6, 1, -0.6])  # whole cells where it is periodic
        start = Structures.from_ase([slab])
        arrays = (start.positions, start.species, start.system, start.cell, start.pbc)
        graph = VerletList(*map(torch.from_numpy, arrays), 4.5, 0.5, torch.float32).graph(torch.from_numpy(arrays[0]))
        found.append(np.sort(graph.distances.numpy()))
    np.testing.assert_allclose(found[1], found[0], atol=3e-6)


@pytest.mark.parametrize("skin", [0.3, 1.5])
def test_lists_stay_complete_while_atoms_wander(argon, skin):
    """Against lists built from nothing, through boundaries, with one structure leaving half way."""
    slab = argon.copy()
    slab.pbc = [True, False, True]
    molecule = Atoms("Ar7", positions=np.random.default_rng(1).uniform(0, 6, (7, 3)))
    structures = Structures.from_ase([argon, molecule, slab])
    arrays = [torch.from_numpy(structures.cell), torch.from_numpy(structures.pbc)]
    positions = torch.from_numpy(structures.positions.copy())
    system = torch.from_numpy(structures.system)
    moving = VerletList(positions, torch.from_numpy(structures.species), system, *arrays, 4.5, skin, torch.float64)
    generator = torch.Generator().manual_seed(0)
    drift = torch.zeros_like(positions)
    drift[system == 2] = 0.2  # this one crosses its cell several times
    for step in range(90):
        if step == 45:
            stay = torch.tensor([True, False, True])
            moving.keep(stay[system], stay)
            positions, drift = positions[stay[system]], drift[stay[system]]
            structures = structures.select([0, 2])
        noise = torch.randn(positions.shape, generator=generator, dtype=torch.float64)
        positions = positions + 0.04 * noise + drift
        graph = moving.graph(positions)
        for number in range(len(structures)):
            part = slice(structures.offsets[number], structures.offsets[number + 1])
            inside = graph.positions[part].numpy()
            edges, shifts = neighbour_list(inside, structures.cell[number], structures.pbc[number], 4.5)
            vectors = inside[edges[1]] - inside[edges[0]] + shifts @ structures.cell[number]
            mine = graph.system[graph.edges[0]] == number
            np.testing.assert_allclose(
                np.sort(graph.distances[mine].numpy()), np.sort(np.linalg.norm(vectors, axis=1)), atol=1e-10
            )
    assert np.abs(graph.positions[structures.system == 0].numpy()).max() < 14  # brought back into the cell
    assert moving.rebuilds < 250

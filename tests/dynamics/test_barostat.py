"""Constant pressure: volumes of an ideal gas, pressures of a Lennard-Jones crystal, ramps, batches."""

import numpy as np
import pytest
import torch
from ase import Atoms, units
from torch import nn

from phystrain.data.structures import Structures
from phystrain.dynamics import Settings, replicate, simulate
from phystrain.dynamics.barostat import Barostat, bulk_moduli
from phystrain.dynamics.guards import Guards
from phystrain.dynamics.verlet_list import VerletList
from phystrain.errors import UserError
from phystrain.interfaces.ase import PhystrainCalculator
from phystrain.units import BOLTZMANN, GPA

FREE = Guards(contact=None, temperature_rise=None, temperature_jump=None)


class Free(nn.Module):
    """No energy at all."""

    cutoff = 3.0

    def atomic_energies(self, graph):
        return graph.positions.new_zeros(graph.n_atoms)


def test_volumes_of_an_ideal_gas():
    """N free atoms at constant pressure have volumes of a gamma distribution of shape N + 1."""
    atoms, kelvin, pressure, count = 10, 300.0, 0.05, 1000
    energy = BOLTZMANN * kelvin
    expected = (atoms + 1) * energy / (pressure * GPA)
    barostat = Barostat(pressure=pressure, relaxation=80)
    generator = torch.Generator().manual_seed(0)
    volume, every = torch.full((count,), expected, dtype=torch.float64), torch.ones(count, dtype=torch.float64)
    momenta = torch.randn(count, 3 * atoms, generator=generator, dtype=torch.float64) * np.sqrt(energy)
    volumes = []
    for step in range(3500):
        kinetic = momenta.square().sum(dim=1) / 2
        noise = torch.randn(count, 3 * atoms + 1, generator=generator, dtype=torch.float64)
        given = (2 * kinetic / (3 * volume), kelvin * every, 0.1 * GPA * every, 1.0 * every, noise[:, 0])
        factor = barostat.stretch(0.5, volume, *given)
        volume, momenta = volume * factor**3, momenta / factor[:, None]
        momenta = np.sqrt(1 - 0.02) * momenta + np.sqrt(0.02 * energy) * noise[:, 1:]
        if step > 1000 and step % 100 == 0:
            volumes.append(volume.numpy().copy())
    assert np.mean(volumes) == pytest.approx(expected, rel=0.02)
    assert np.std(volumes) == pytest.approx(expected / np.sqrt(atoms + 1), rel=0.04)


def test_crystal_has_the_pressure_that_was_set(lennard_jones, crystal, argon):
    barostat = Barostat(pressure=0.3, relaxation=200)
    settings = Settings(temperature=40, timestep=8, picoseconds=4, record_interval=2, friction=0.02, barostat=barostat)
    run = simulate(lennard_jones, replicate(crystal, 4), settings)
    later = run.times > 1
    assert run.survived.all()
    assert run.pressure[later].mean() == pytest.approx(0.3, abs=0.025)
    # at that volume, dynamics with a fixed cell has this pressure too
    scale = (run.volume[later].mean() / argon.get_volume()) ** (1 / 3)
    argon.set_cell(argon.cell * scale, scale_atoms=True)
    fixed = settings.model_copy(update={"barostat": Barostat(pressure=0.3, bulk_modulus=1e9)})
    held = simulate(lennard_jones, replicate(Structures.from_ase([argon]), 4), fixed)
    assert held.volume.std() < 1e-2
    assert held.pressure[later].mean() == pytest.approx(0.3, abs=0.03)
    # and ASE finds the static part of it in the last frame
    last = held.final.to_ase(0)
    last.calc = PhystrainCalculator(lennard_jones)
    kinetic = 2 * held.kinetic[-1, 0] / (3 * last.get_volume())
    found = (-last.get_stress()[:3].mean() + kinetic) / units.GPa
    assert held.pressure[-1, 0] == pytest.approx(found, rel=1e-6)


def test_bulk_modulus_against_energies(lennard_jones, argon):
    energies, volumes = [], []
    for scale in (0.996, 0.998, 1.0, 1.002, 1.004):
        strained = argon.copy()
        strained.set_cell(argon.cell * scale, scale_atoms=True)
        strained.calc = PhystrainCalculator(lennard_jones)
        energies.append(strained.get_potential_energy())
        volumes.append(strained.get_volume())
    fit = np.polynomial.Polynomial.fit(volumes, energies, 3)
    expected = argon.get_volume() * fit.deriv(2)(argon.get_volume())
    found = bulk_moduli(lennard_jones, Structures.from_ase([argon]))
    assert found[0] == pytest.approx(expected, rel=0.02)


def test_batch_equals_singles_while_cells_shrink(lennard_jones, crystal):
    wide = Structures.from_ase([crystal.to_ase(0) * (1, 1, 2)])
    together = Structures.concatenate([crystal, wide])
    barostat = Barostat(pressure=0, final_pressure=3, relaxation=60)
    settings = Settings(temperature=40, timestep=4, picoseconds=0.4, seed=3, barostat=barostat)
    batch = simulate(lennard_jones, together, settings)
    assert (batch.volume[-1] < 0.9 * batch.volume[0]).all()
    np.testing.assert_allclose(batch.volume[-1], np.linalg.det(batch.final.cell), rtol=1e-12)
    for number in range(2):
        single = simulate(lennard_jones, together.select([number]), settings, keys=[number])
        np.testing.assert_allclose(batch.volume[:, [number]], single.volume, rtol=1e-9)
        np.testing.assert_allclose(batch.pressure[:, [number]], single.pressure, atol=1e-9)
    grouped = simulate(lennard_jones, together, settings.model_copy(update={"batch_atoms": 32}))
    np.testing.assert_allclose(grouped.volume, batch.volume, rtol=1e-9)


def test_collapse_is_a_failure_of_the_volume(with_hole, crystal):
    barostat = Barostat(pressure=1, final_pressure=200, relaxation=100, smallest=0.5)
    settings = Settings(temperature=40, timestep=2, picoseconds=1, guards=FREE, barostat=barostat)
    run = simulate(with_hole, crystal, settings)
    assert run.reasons == ("volume",)
    assert run.sentences[0].startswith("volume 0.50 times that at the start")
    assert np.linalg.det(run.final.cell[0]) == pytest.approx(0.5 * np.linalg.det(crystal.cell[0]), rel=0.02)
    assert run.final.info["reason"][0] == "volume"


def test_bonds_through_the_boundary_shrink_with_the_cell():
    """Free atoms: bonds of 2 Å lose a tenth of it, far less than the cells lose."""

    def pair(side):
        return Atoms("Ar2", [[1, 1, 1], [1, 1, side - 1]], cell=[side] * 3, pbc=True)

    barostat = Barostat(pressure=5, relaxation=50, bulk_modulus=10)
    guards = Guards(contact=None, bond_stretch=0.5)
    settings = Settings(temperature=0, timestep=1, picoseconds=0.08, guards=guards, barostat=barostat)
    run = simulate(Free(), Structures.from_ase([pair(10), pair(20)]), settings)
    lost = 1 - np.cbrt(np.linalg.det(run.final.cell)) / [10, 20]
    assert ((lost > 0.05) & (lost < 0.2)).all()
    assert run.reasons == (None, None)


def test_what_cannot_be(lennard_jones, crystal):
    settings = Settings(barostat=Barostat())
    with pytest.raises(ValueError, match="nvt"):
        simulate(lennard_jones, crystal, settings.model_copy(update={"ensemble": "nve"}))
    with pytest.raises(ValueError, match="frame_interval"):
        simulate(lennard_jones, crystal, settings.model_copy(update={"frame_interval": 2}))
    with pytest.raises(UserError, match="periodic"):
        simulate(lennard_jones, Structures.from_ase([Atoms("Ar2", [[0, 0, 0], [0, 0, 4]])]), settings)


def test_list_stays_complete_while_cells_change(argon):
    argon.rattle(0.05, seed=0)
    positions = torch.from_numpy(argon.positions.copy())
    species, system = torch.from_numpy(argon.numbers), torch.zeros(32, dtype=torch.int64)
    cell, pbc = torch.from_numpy(argon.cell.array[None].copy()), torch.ones(1, 3, dtype=torch.bool)
    moving = VerletList(positions, species, system, cell, pbc, 4.5, 0.6, torch.float64)
    generator = torch.Generator().manual_seed(0)
    for step in range(60):
        factor = torch.tensor([1.004 if 20 <= step < 30 else 0.996], dtype=torch.float64)
        moving.rescale(factor)
        cell = cell * factor[:, None, None]
        positions = positions * factor + 0.01 * torch.randn(32, 3, generator=generator, dtype=torch.float64)
        fresh = VerletList(positions, species, system, cell, pbc, 4.5, 0.0, torch.float64).graph(positions)
        graph = moving.graph(positions)
        expected, found = (np.sort(g.distances.numpy()) for g in (fresh, graph))
        np.testing.assert_allclose(found, expected, atol=1e-10)
        np.testing.assert_allclose(graph.cell.numpy(), cell.numpy(), rtol=1e-12)
    assert moving.rebuilds < 40

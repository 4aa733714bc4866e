"""Denoising: the noise itself, what the loss compares, and that a network learns it."""

import math

import pytest
import torch
from pydantic import ValidationError

from phystrain import datasets
from phystrain.data.graphs import GraphStore
from phystrain.data.read import read
from phystrain.data.statistics import compute, reference_energies
from phystrain.derive import Denoised
from phystrain.errors import UserError
from phystrain.objectives import Evaluator
from phystrain.objectives.denoise import Config, corruption
from phystrain.potentials import build
from phystrain.testing import morse_cluster
from phystrain.testing.objectives import term


class Oracle(morse_cluster.Morse):
    """Knows the noise and gives the Morse energy of the original plus an error."""

    denoises = True

    def __init__(self, sigma, error=0.0, forces=None):
        super().__init__(20.0, 1.5)
        self.sigma, self.error, self.forces, self.told = sigma, error, forces, None

    def denoised(self, corrupted, forces, original):
        self.told = forces
        noise = (corrupted.positions - original.positions) / self.sigma
        return Denoised(self.atomic_energies(original) + self.error, noise, self.forces)


def labelled(batch, potential):
    """The batch with the potential's own energies, and random forces."""
    energy = batch.graph.sum_per_system(potential.atomic_energies(batch.graph)).detach()
    forces = torch.randn(batch.graph.positions.shape, generator=torch.Generator().manual_seed(4)).double()
    return batch._replace(labels=batch.labels._replace(energy=energy, forces=forces))


def test_noise_is_gaussian_and_ends(clusters):
    batch, settings = clusters(copies=400), Config(sigma=0.1)
    noise = corruption(batch.graph, batch.key, settings)
    n = batch.graph.n_atoms / batch.graph.n_systems
    assert noise.corrupted.all()
    assert float(noise.units.std()) == pytest.approx((1 - 1 / n) ** 0.5, rel=0.02)
    torch.testing.assert_close(noise.moves, 0.1 * noise.units)
    sums = batch.graph.sum_per_system(noise.moves)
    assert sums.abs().max() < 1e-14
    apart = corruption(batch.graph, batch.key, Config(sigma=0.1, fraction=0.999999))  # the mean stays in
    assert apart.moves.norm(dim=1).max() <= settings.reach
    assert apart.moves.norm(dim=1).max() > 0.8 * settings.reach


def test_part_of_the_atoms_and_many_scales(clusters):
    batch = clusters(copies=400)
    noise = corruption(batch.graph, batch.key, Config(sigma=0.2, sigma_low=0.02, fraction=0.3))
    assert float(noise.corrupted.double().mean()) == pytest.approx(0.3, abs=0.03)
    assert not noise.moves[~noise.corrupted].any()
    scale = (noise.moves[noise.corrupted] / noise.units[noise.corrupted])[:, 0]
    assert 0.02 <= scale.min() < 0.022
    assert 0.18 < scale.max() <= 0.2
    assert float(scale.log().mean()) == pytest.approx(math.log(0.2 * 0.02) / 2, abs=0.1)
    each = torch.zeros(400, dtype=torch.float64).scatter_reduce(0, batch.graph.system[noise.corrupted], scale, "amax")
    torch.testing.assert_close(each[batch.graph.system[noise.corrupted]], scale)


def test_what_is_compared(clusters):
    """Nothing is left for one who knows; an error of every part comes back with its weight."""
    batch, oracle = clusters(sizes=[3, 5]), Oracle(0.1)
    batch = labelled(batch, oracle)
    assert float(term(Config(), batch, oracle).total.detach()) < 1e-20
    energies = Config(energy_weight=7.0)
    found = term(energies, batch, Oracle(0.1, error=0.2))
    assert float(found.total.detach()) == pytest.approx(7 * 2 * 0.2**2)
    assert found.count == 2
    half = term(Config(noise_weight=3.0), batch, Oracle(0.2))  # half of the noise
    units = corruption(batch.graph, batch.key, Config()).units
    expected = sum(3 * units[batch.graph.system == number].square().mean() / 4 for number in (0, 1))
    torch.testing.assert_close(half.total.detach(), expected)


def test_forces_of_atoms_that_stay(clusters):
    batch = labelled(clusters(sizes=[7, 8]), Oracle(0.1))
    oracle = Oracle(0.1, forces=batch.labels.forces + 0.5)
    settings = Config(fraction=0.5, force_weight=2.0)
    assert float(term(settings, batch, oracle).total.detach()) == pytest.approx(2 * 2 * 0.5**2)
    corrupted = corruption(batch.graph, batch.key, settings).corrupted
    assert torch.equal(oracle.told, batch.labels.forces * corrupted[:, None])
    with pytest.raises(UserError, match="head: direct"):
        term(settings, batch, Oracle(0.1))


def test_without_encoding_nothing_is_told(clusters):
    batch, oracle = clusters(sizes=[3, 5]), Oracle(0.1)
    settings = Config(encode=False, energy_weight=0)
    assert settings.needs == frozenset()
    assert term(settings, batch, oracle).count == 2
    assert not oracle.told.any()
    assert term(Config(), batch, oracle).count == 0


@pytest.mark.parametrize(
    ("settings", "mend"),
    [
        ({"encode": False}, "set energy_weight"),
        ({"sigma_low": 0.3}, "exchange"),
        ({"force_weight": 1.0}, "set fraction"),
    ],
)
def test_ill_posed_settings_are_refused(settings, mend):
    with pytest.raises(ValidationError, match=mend):
        Config(**settings)


def test_a_network_learns_it():
    """On silica out of equilibrium, from fresh noise: lower than at the start, and better than no noise at all."""
    structures = read(datasets.path("silica")).structures
    frames = structures.select(range(4))
    settings = Config(sigma=0.1)
    store = GraphStore(frames, 4.0 + 2 * settings.reach)
    torch.manual_seed(0)
    potential = build(
        {
            "kind": "sum",
            "terms": {
                "reference": {"kind": "reference_energy"},
                "model": {"kind": "painn", "channels": 16, "cutoff": 4.0, "denoise": True},
            },
        },
        compute(frames, 4.0, reference_energies(frames)),
    )
    optimiser = torch.optim.Adam(potential.parameters(), 5e-3)
    losses = []
    for step in range(50):
        batch = store.batch([step % 4, (step + 1) % 4], dtype=torch.float32)
        batch = batch._replace(key=torch.tensor([2 * step, 2 * step + 1]) + 1000)
        total, count = settings(batch, Evaluator(potential))
        losses.append(float((total / count).detach()))
        optimiser.zero_grad()
        (total / count).backward()
        optimiser.step()
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    every = store.batch(range(4), dtype=torch.float32)
    only_noise = Config(sigma=0.1, energy_weight=0)
    total, count = only_noise(every, Evaluator(potential, create_graph=False))
    nothing = corruption(every.graph, every.key, only_noise).units.square().mean()
    assert total / count < 0.9 * nothing

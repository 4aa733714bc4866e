"""Networks that fade outside the local densities of the labels."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from phystrain.derive import evaluate
from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.layers.cutoffs import polynomial
from phystrain.potentials import build
from phystrain.statistics import Statistics

NEAREST = 2.8
PAINN = {"kind": "painn", "channels": 8, "layers": 1, "cutoff": 5.0, "radial_count": 6}


def made(**settings):
    """With one density unless told."""
    torch.manual_seed(0)
    statistics = Statistics(species=(42,), nearest={"42-42": NEAREST}, energy_mean=-1.5)
    return build({"kind": "confined", "potential": PAINN, "decays": (10.0,), **settings}, statistics).double()


def graph(atoms):
    return AtomGraph.from_ase(atoms, 5.0)


def dimer(distance):
    return Atoms("Mo2", [[0, 0, 0], [distance, 0, 0]])


def test_density_counts_neighbours_at_the_usual_distance():
    density = made().density
    for distance, expected in ((NEAREST, 1.0), (0.9 * NEAREST, np.e), (1.2 * NEAREST, np.exp(-2))):
        envelope = float(polynomial(torch.tensor([distance]), 5.0))
        assert density(graph(dimer(distance))).flatten().tolist() == pytest.approx(2 * [expected * envelope], rel=1e-6)
    assert density(graph(dimer(6.0))).tolist() == [[0], [0]]
    assert density(graph(Atoms("Mo"))).tolist() == [[0]]


def test_it_is_the_network_within_the_range_and_nothing_outside():
    crystal = graph(bulk("Mo", "bcc", a=3.15, cubic=True))
    plain = made()
    (rho,) = set(np.round(plain.density(crystal).flatten().tolist(), 9))
    inside, above, below = (
        made(densities={42: [bounds]})
        for bounds in ((0.9 * rho, 1.1 * rho), (0.1 * rho, 0.6 * rho), (2 * rho, 3 * rho))
    )
    energies = plain.potential.atomic_energies(crystal)
    assert torch.equal(inside.atomic_energies(crystal), energies)
    assert torch.equal(plain.atomic_energies(crystal), energies)  # no range: it never fades
    assert not above.atomic_energies(crystal).any()
    assert not below.atomic_energies(crystal).any()
    half = made(densities={42: [(0.1 * rho, rho / 1.25)]})  # in the middle between 1 and 1.5 times the highest
    assert torch.allclose(half.atomic_energies(crystal), energies / 2)


def test_a_pair_far_closer_or_far_apart_feels_nothing():
    potential = made(densities={42: [(1.0, 3.0)]})
    for distance in (1.0, 2.0, 3.5):
        prediction = evaluate(potential, graph(dimer(distance)), ("energy", "forces"))
        assert not prediction.energy.any()
        assert not prediction.forces.any()
    assert evaluate(potential, graph(dimer(NEAREST - 0.1)), ("energy",)).energy.any()


def test_the_slow_density_tells_a_close_pair_from_an_open_crystal():
    crystal = graph(bulk("Si", cubic=True))
    statistics = Statistics(species=(14,), nearest={"14-14": 2.35})

    def potential(*decays, **settings):
        torch.manual_seed(0)
        settings |= {"kind": "confined", "potential": PAINN, "decays": decays}
        return build(settings, statistics).double()

    def pairs(confined):
        return torch.cat(
            [confined.share(graph(Atoms("Si2", [[0, 0, 0], [r, 0, 0]]))) for r in np.arange(1.3, 3.5, 0.1)]
        )

    fast, both = (
        potential(*decays, densities={14: [(rho, rho) for rho in potential(*decays).density(crystal)[0].tolist()]})
        for decays in ((10.0,), (10.0, 2.0))
    )
    assert torch.allclose(both.share(crystal), torch.ones(8, dtype=torch.float64))
    assert pairs(fast).max() > 0.5
    assert not pairs(both).any()


def test_a_counted_neighbour_counts_once_however_close():
    density = made(counted=2.0).density
    for distance in (0.3, 1.0, NEAREST):
        counted = density(graph(dimer(distance)))[:, 1]
        envelope = float(polynomial(torch.tensor([distance]), 5.0))
        expected = envelope / (1 + np.exp(2 * (distance / NEAREST - 1)))
        assert counted.tolist() == pytest.approx([expected] * 2, rel=1e-6)
        assert counted.max() < 1


def test_counting_tells_elements_that_are_never_bonded_from_a_molecule():
    """Two nitrogen atoms of pyrimidine are second neighbours: close together they would be as dense as in it."""
    ring = molecule("C6H6")
    ring.numbers[[0, 2]] = 7
    del ring[[6, 8]]
    nearest = {"1-6": 1.09, "6-6": 1.4, "6-7": 1.4, "7-7": 2.42, "1-7": 2.15, "1-1": 2.48}

    def potential(**settings):
        settings |= {"kind": "confined", "potential": PAINN, "highest": None}
        return build(settings, Statistics(species=(1, 6, 7), nearest=nearest)).double()

    def of_the_ring(**settings):
        density = potential(**settings).density(graph(ring))
        lowest = {number: density[ring.numbers == number].amin(dim=0).tolist() for number in (1, 6, 7)}
        return potential(
            **settings, densities={number: [(low, low) for low in lows] for number, lows in lowest.items()}
        )

    counted, plain = of_the_ring(counted=2.0), of_the_ring()
    pairs = [graph(Atoms("N2", [[0, 0, 0], [r, 0, 0]])) for r in np.arange(0.8, 3.5, 0.1)]
    assert max(float(plain.share(pair).max()) for pair in pairs) > 0.1
    assert not any(counted.share(pair).any() for pair in pairs)
    assert torch.allclose(counted.share(graph(ring)), torch.ones(10, dtype=torch.float64))


def test_with_counting_a_stretched_bond_is_not_lonely():
    """By the fast density 5 % further apart than in any label would be next to nothing."""
    bounds = {counted: made(counted=counted).density(graph(dimer(NEAREST)))[0].tolist() for counted in (2.0, None)}
    counted, plain = (made(counted=n, densities={42: [(b, b) for b in bounds[n]]}) for n in (2.0, None))
    stretched, broken, close = (graph(dimer(factor * NEAREST)) for factor in (1.06, 1.5, 0.9))
    assert not plain.share(stretched).any()
    assert counted.share(stretched).min() > 0.7
    assert not counted.share(broken).any()
    assert not counted.share(close).any()  # crowded by the fast one


def test_a_labelled_bond_that_is_broken_is_no_bound():
    potential = made(densities={42: [(1e-15, 1.0)]})
    for distance in (NEAREST, 4.0, 4.95):
        assert torch.equal(potential.share(graph(dimer(distance))), torch.ones(2, dtype=torch.float64))


def test_each_density_has_its_range():
    with pytest.raises(ValueError, match="one range for each"):
        made(densities={42: [(1.0, 2.0)] * 2})


def test_direct_forces_cannot_fade():
    with pytest.raises(UserError, match="direct forces"):
        build({"kind": "confined", "potential": PAINN | {"head": "direct"}}, Statistics.bare((42,)))


def test_nothing_fades_above_if_so_asked():
    crystal = graph(bulk("Mo", "bcc", a=3.15, cubic=True))
    rho = float(made().density(crystal)[0, 0])
    dense = made(densities={42: [(0.1 * rho, 0.2 * rho)]}, highest=None)
    assert torch.equal(dense.share(crystal), torch.ones(2, dtype=torch.float64))
    lonely = made(densities={42: [(2 * rho, 3 * rho)]}, highest=None)
    assert not lonely.share(crystal).any()

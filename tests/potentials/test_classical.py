"""The classical potentials against formulas written a second time, and their walls at distances that no data hold."""

from itertools import product

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones as AseLennardJones
from ase.calculators.morse import MorsePotential as AseMorse
from ase.data import covalent_radii
from hypothesis import given, settings
from hypothesis import strategies as st

from phystrain.derive import evaluate
from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.layers.pair import atom_pairs, bond_lengths, positive, positive_parameter
from phystrain.layers.zbl import RepulsiveWall
from phystrain.potentials import build
from phystrain.statistics import Statistics
from phystrain.testing.potentials import perturbed

SILICA = Statistics(
    species=(8, 14),
    neighbours=28.5,
    cutoff=5.0,
    nearest={"8-8": 2.54, "8-14": 1.60, "14-14": 2.99},
    shortest={"8-8": 2.35, "8-14": 1.51, "14-14": 2.79},
)
ELEMENTS = [(1, 6, 8), (8, 14), (3, 8, 25), (42, 74), (1, 92)]


def silica():
    """A dozen atoms in a skew cell."""
    atoms = bulk("Si", "diamond", a=7.1)
    for fraction in ([0.12, 0.13, 0.14], [0.12, 0.62, 0.11], [0.61, 0.13, 0.12], [0.13, 0.12, 0.63]):
        atoms += Atoms("O", [np.array(fraction) @ atoms.cell.array], cell=atoms.cell)
    atoms.rattle(0.1, seed=1)
    return atoms


def energy(potential, atoms):
    graph = AtomGraph.from_ase(atoms, potential.cutoff)
    return float(evaluate(potential, graph, ("energy",)).energy[0])


def forces(potential, atoms):
    graph = AtomGraph.from_ase(atoms, potential.cutoff)
    return evaluate(potential, graph, ("forces",)).forces.numpy()


def quintic(r, inner, outer):
    s = np.clip((outer - r) / (outer - inner), 0, 1)
    return 6 * s**5 - 15 * s**4 + 10 * s**3


def softplus(raw):
    return np.log1p(np.exp(raw.detach().numpy()))


def eam_in_numpy(potential, atoms, inner, outer):
    """The closed form, by loops over atoms and over periodic images."""
    order = {pair: number for number, pair in enumerate(potential.kinds.pairs)}
    depth, alpha, minimum = (softplus(potential.get_parameter(f"raw_{name}")) for name in ("depth", "decay", "minimum"))
    beta, amplitude = softplus(potential.raw_beta), softplus(potential.raw_amplitude)
    amplitude = amplitude * np.exp(beta * potential.origin.numpy()[:, None])
    curvature, equilibrium = softplus(potential.raw_curvature), softplus(potential.raw_density)
    images = [np.array(n) @ atoms.cell.array for n in product((-2, -1, 0, 1, 2), repeat=3)] if atoms.pbc.all() else [0]
    total = 0.0
    for i, a in enumerate(atoms):
        density = 0.0
        for j, b in enumerate(atoms):
            for image in images:
                r = np.linalg.norm(b.position + image - a.position)
                if (i == j and r < 1e-9) or r >= outer:
                    continue
                p = order[tuple(sorted((a.number, b.number)))]
                fade = quintic(r, inner, outer)
                well = depth[p] * (1 - np.exp(-alpha[p] * (r - minimum[p]))) ** 2 - depth[p]
                total += fade * well / 2
                density += fade * sum(A * np.exp(-k * r) for A, k in zip(amplitude[p], beta[p], strict=True))
        z = potential.kinds.species.index(a.number)
        total += curvature[z] * (density - equilibrium[z]) ** 2 - curvature[z] * equilibrium[z] ** 2
    return total


@pytest.mark.parametrize("periodic", [True, False])
def test_eam_is_its_closed_form(periodic):
    potential = perturbed(build({"kind": "eam", "cutoff": 4.5, "exponentials": 3}, SILICA))
    atoms = silica()
    atoms.pbc = periodic
    expected = eam_in_numpy(potential, atoms, 0.66 * 4.5, 4.5)
    assert abs(expected) > 1
    assert energy(potential, atoms) == pytest.approx(expected, rel=1e-10)


def test_eam_exponentials_part_in_training():
    potential = build({"kind": "eam"}, SILICA).double()
    graph = AtomGraph.from_ase(silica(), potential.cutoff)
    evaluate(potential, graph, create_graph=True).forces.square().sum().backward()
    for gradient in potential.raw_beta.grad:
        assert (gradient.diff().abs() > 1e-3 * gradient.abs().max()).sum() >= 5


def test_eam_starts_near_the_data():
    """Density of order one, forces of order eV/Å, the bond of the data at the bottom of the well."""
    potential = build({"kind": "eam"}, SILICA).double()
    atoms = silica()
    assert np.abs(forces(potential, atoms)).max() < 20
    lengths = dict(zip(potential.kinds.pairs, positive(potential.raw_minimum).tolist(), strict=True))
    depths = dict(zip(potential.kinds.pairs, positive(potential.raw_depth).tolist(), strict=True))
    assert lengths[8, 14] == pytest.approx(1.60, abs=1e-6)
    assert depths[8, 14] > 5 * depths[8, 8]
    assert depths[8, 14] > 5 * depths[14, 14]


def test_eam_is_fitted_within_seconds():
    """Labels of another EAM are learned from energies and forces."""
    truth = perturbed(build({"kind": "eam", "cutoff": 4.0, "exponentials": 3}, SILICA), 0.3, seed=3)
    potential = build({"kind": "eam", "cutoff": 4.0, "exponentials": 3}, SILICA).double()
    frames = [silica() for _ in range(3)]
    for number, atoms in enumerate(frames):
        atoms.rattle(0.15, seed=number)
    graph = AtomGraph.from_ase(frames, 4.0)
    label = evaluate(truth, graph)
    error = float((evaluate(potential, graph).forces - label.forces).square().mean())
    optimiser = torch.optim.LBFGS(potential.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        prediction = evaluate(potential, graph, create_graph=True)
        value = (prediction.forces - label.forces).square().mean() + (prediction.energy - label.energy).square().mean()
        value.backward()
        return value

    optimiser.step(loss)
    assert float((evaluate(potential, graph).forces - label.forces).square().mean()) < 0.02 * error


def test_bond_lengths():
    """From the data; for a pair that is seldom near, from its shortest distance; for an unseen one, scaled radii."""
    data = Statistics(
        species=(6, 7, 42),
        nearest={"6-6": 1.4, "6-7": 4.0, "42-42": 2.6},
        shortest={"6-6": 1.3, "6-7": 1.3, "42-42": 2.4},
    )
    radius = covalent_radii
    ratio = np.mean([1.4 / (2 * radius[6]), 1.2 * 1.3 / (radius[6] + radius[7]), 2.6 / (2 * radius[42])])
    found = bond_lengths([(6, 6), (6, 7), (42, 42), (7, 42)], data)
    assert found == pytest.approx([1.4, 1.56, 2.6, ratio * (radius[7] + radius[42])])


def zbl_in_numpy(r, first, second):
    """Universal screened repulsion, eV."""
    length = 0.46850 / (first**0.23 + second**0.23)
    c, d = (0.18175, 0.50986, 0.28022, 0.02817), (3.19980, 0.94229, 0.40290, 0.20162)
    return 14.399645 * first * second / r * sum(a * np.exp(-b * r / length) for a, b in zip(c, d, strict=True))


@pytest.mark.parametrize("pair", [(1, 1), (8, 14), (14, 14), (29, 79)])
def test_zbl_is_the_universal_repulsion(pair):
    """Whole at short distance, zero where bonds begin, each pair counted once."""
    potential = build({"kind": "zbl"}, Statistics.bare(pair)).double()
    end = 0.6 * (covalent_radii[pair[0]] + covalent_radii[pair[1]])
    for r in (0.05, 0.1, 0.49 * end):
        dimer = Atoms(pair, [[0, 0, 0], [r, 0, 0]])
        assert energy(potential, dimer) == pytest.approx(zbl_in_numpy(r, *pair), rel=1e-6)
    assert energy(potential, Atoms(pair, [[0, 0, 0], [1.001 * end, 0, 0]])) == 0
    middle = Atoms(pair, [[0, 0, 0], [0.75 * end, 0, 0]])
    assert energy(potential, middle) == pytest.approx(zbl_in_numpy(0.75 * end, *pair) / 2, rel=1e-6)


def test_the_wall_leaves_the_data_alone():
    """With and without it, a structure at ordinary distances has the same energy and forces."""
    with_wall = build({"kind": "eam"}, SILICA).double()
    without = build({"kind": "eam", "zbl": False}, SILICA).double()
    without.load_state_dict({k: v for k, v in with_wall.state_dict().items() if not k.startswith("wall")})
    atoms = Atoms("SiO2", [[0, 0, 0], [1.6, 0, 0], [-1.2, 1.1, 0]])
    assert energy(with_wall, atoms) == energy(without, atoms)
    atoms.positions[1, 0] = 0.8
    assert energy(with_wall, atoms) > energy(without, atoms) + 10


@pytest.mark.parametrize("place", ["inner", "outer"])
@pytest.mark.parametrize("what", ["forward", "softened"])
def test_the_wall_is_smooth(place, what):
    """Value, slope and second derivative below and above a switching radius approach one another."""
    wall = RepulsiveWall(build({"kind": "zbl"}, SILICA).kinds, [1.0, 1.2, 1.4], 0.5).double()

    def differences(h):
        r = float(getattr(wall, place)[1]) + torch.tensor([-h, h], dtype=torch.float64)
        r.requires_grad_()
        value = getattr(wall, what)(r, torch.tensor([1, 1]))
        (slope,) = torch.autograd.grad(value.sum(), r, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum(), r)
        return torch.stack([value, slope, bend]).detach().diff(dim=1).abs()

    wide, narrow = differences(1e-3), differences(1e-4)
    assert (narrow <= 0.2 * wide + 1e-9).all()


def curve(potential, first, second, r):
    with torch.no_grad():
        return potential.components(r, first, second)["total"]


def pairs_of(species):
    return [(a, b) for a in species for b in species if a <= b]


@pytest.mark.parametrize("species", ELEMENTS)
def test_eam_dimers_repel_at_the_start(species):
    """From the nuclei to most of the bond length the total curve falls, for every pair, met in the data or not."""
    potential = build({"kind": "eam"}, SILICA if species == (8, 14) else Statistics.bare(species)).double()
    bonds = dict(zip(potential.kinds.pairs, positive(potential.raw_minimum).tolist(), strict=True))
    for pair in pairs_of(species):
        r = torch.linspace(0.05, 0.85 * bonds[pair], 300, dtype=torch.float64)
        total = curve(potential, *pair, r)
        assert (total.diff() < 0).all(), f"{pair} attracts at {r[1:][total.diff() >= 0]}"
        assert total[0] > 100


@given(seed=st.integers(0, 10_000), noise=st.floats(0.0, 3.0), species=st.sampled_from(ELEMENTS))
@settings(max_examples=25, deadline=None)
def test_eam_dimers_repel_whatever_is_fitted(seed, noise, species):
    """Where the nuclear repulsion is whole nothing else has a slope, so every pair repels, however wild the fit."""
    potential = perturbed(build({"kind": "eam", "exponentials": 3}, Statistics.bare(species)), noise, seed)
    for pair in pairs_of(species):
        whole = 0.5 * 0.6 * float(covalent_radii[list(pair)].sum())
        r = torch.linspace(0.02, 0.999 * whole, 50, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(potential.components(r, *pair)["total"].sum(), r)
        step = 1e-6
        r = r.detach().numpy()
        expected = (zbl_in_numpy(r + step, *pair) - zbl_in_numpy(r - step, *pair)) / (2 * step)
        assert slope.numpy() == pytest.approx(expected, rel=1e-5)
        assert (slope < -10).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("species", ELEMENTS)
def test_eam_walls_are_high(species, seed):
    """Two atoms half as far apart as their wall reaches have lost more energy than any bond gives."""
    potential = perturbed(build({"kind": "eam"}, Statistics.bare(species)), 0.3, seed)
    for pair in pairs_of(species):
        whole = 0.5 * 0.6 * float(covalent_radii[list(pair)].sum())
        assert curve(potential, *pair, torch.tensor([whole], dtype=torch.float64)) > 15


def test_components_add_up_to_the_dimer():
    potential = perturbed(build({"kind": "eam"}, SILICA))
    r = torch.tensor([0.4, 0.9, 1.6, 2.5, 4.8], dtype=torch.float64)
    parts = potential.components(r, 14, 8)
    assert torch.equal(parts["total"], parts["pair"] + parts["embedding"])
    dimers = [energy(potential, Atoms("SiO", [[0, 0, 0], [float(x), 0, 0]])) for x in r]
    assert parts["total"].tolist() == pytest.approx(dimers, rel=1e-10)


def test_morse_is_that_of_ase():
    """Within the part that no cut-off touches. ASE's rho0 is alpha rm."""
    potential = build(
        {"kind": "morse", "cutoff": 9.0, "depth": 0.7, "decay": 1.4, "minimum": {"Cu-Cu": 2.5}}, Statistics.bare((29,))
    ).double()
    atoms = Atoms("Cu4", [[0, 0, 0], [2.2, 0, 0], [0.3, 2.9, 0.1], [1.0, 1.1, 2.4]])
    atoms.calc = AseMorse(epsilon=0.7, rho0=1.4 * 2.5, r0=2.5, rcut1=8.0, rcut2=9.0)
    assert energy(potential, atoms) == pytest.approx(atoms.get_potential_energy(), rel=1e-6)
    assert forces(potential, atoms) == pytest.approx(atoms.get_forces(), rel=1e-5, abs=1e-6)


def test_lennard_jones_is_that_of_ase():
    minimum = 3.4 * 2 ** (1 / 6)
    potential = build(
        {"kind": "lennard_jones", "cutoff": 12.0, "depth": 0.0103, "minimum": {"Ar-Ar": minimum}},
        Statistics.bare((18,)),
    ).double()
    atoms = Atoms("Ar4", [[0, 0, 0], [3.3, 0, 0], [0.3, 3.9, 0.1], [1.5, 1.6, 3.4]])
    atoms.calc = AseLennardJones(sigma=3.4, epsilon=0.0103, rc=1e4)
    assert energy(potential, atoms) == pytest.approx(atoms.get_potential_energy(), rel=1e-5)
    assert forces(potential, atoms) == pytest.approx(atoms.get_forces(), rel=1e-5, abs=1e-7)


def test_pairs_are_counted_once():
    """Each of the directed edges has its opposite, also between an atom and its own images."""
    graph = AtomGraph.from_ase(bulk("Cu"), 6.0)
    pairs = atom_pairs(graph, 5.0)
    assert 2 * len(pairs.distance) == int((graph.distances < 5.0).sum()) > 0
    assert pairs.to_atoms(torch.ones_like(pairs.distance), 1).item() == 2 * len(pairs.distance)


@pytest.mark.parametrize("value", [1e-6, 0.02, 1.0, 19.0, 21.0, 400.0])
def test_positive_parameters_begin_where_they_should(value):
    torch.set_default_dtype(torch.float64)
    try:
        assert positive(positive_parameter([value])).item() == pytest.approx(value, rel=1e-9)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", ["O-Xx", "Cu-O", "O", "O-Si-O"])
def test_a_pair_that_does_not_exist_is_named(name):
    with pytest.raises(UserError, match=r"choose from O-O, O-Si, Si-Si"):
        build({"kind": "eam", "minimum": {name: 1.6}}, SILICA)


def test_a_pair_may_be_named_in_either_order():
    potential = build({"kind": "eam", "minimum": {"Si-O": 1.7, "Si-Si": 3.1}}, SILICA)
    assert positive(potential.raw_minimum).tolist() == pytest.approx([2.54, 1.7, 3.1], abs=1e-5)


def test_the_plain_wall_is_zero_in_the_data_and_rises_below():
    potential = build({"kind": "wall", "height": 7.0}, SILICA).double()
    contact = 0.6 * (covalent_radii[8] + covalent_radii[14])
    seen = torch.linspace(0.951 * SILICA.shortest["8-14"], 4.0, 50, dtype=torch.float64)
    assert not curve(potential, 8, 14, seen).any()
    assert float(curve(potential, 8, 14, torch.tensor([contact], dtype=torch.float64))) == pytest.approx(7.0)
    for pair in pairs_of((8, 14)):
        below = torch.linspace(0.05, 0.9 * SILICA.shortest["-".join(map(str, pair))], 200, dtype=torch.float64)
        assert (curve(potential, *pair, below).diff() <= 0).all()
    # lithium atoms that were seen closer than any bond: it begins there, and they repel as any two atoms must
    near = Statistics(species=(3,), shortest={"3-3": 1.98})
    lithium = build({"kind": "wall"}, near).double()
    energies = curve(lithium, 3, 3, torch.tensor([1.981, 1.92, 1.9], dtype=torch.float64))
    assert energies[0] == 0 < energies[1] < energies[2]
    # oxygen atoms that never met: the wall does not reach to where they are neighbours of one silicon
    assert not curve(potential, 8, 8, torch.tensor([1.501 * 2 * covalent_radii[8]], dtype=torch.float64)).any()


def test_the_plain_wall_repels_where_data_hold_hard_contacts():
    close = SILICA.model_copy(update={"shortest": {"8-14": 0.9}})
    potential = build({"kind": "wall"}, close).double()
    distances = torch.tensor([0.9, 0.8, 0.72], dtype=torch.float64)  # it begins at 0.9 and is 10 eV a fifth below
    assert curve(potential, 8, 14, distances).tolist() == pytest.approx([0, 10 * (0.1 / 0.18) ** 3, 10], rel=1e-5)

"""Born-Mayer and the cut-off Coulomb sum: an Ewald sum, closed forms, charges, walls."""

from itertools import product

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers
from scipy.special import erfc

from phystrain.derive import evaluate
from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.layers.coulomb import damped_coulomb, formal_charges, self_energy
from phystrain.layers.pair import positive
from phystrain.potentials import build
from phystrain.statistics import Statistics
from phystrain.testing.potentials import perturbed
from phystrain.units import COULOMB

SILICA = Statistics(
    species=(8, 14),
    nearest={"8-8": 2.54, "8-14": 1.60, "14-14": 2.99},
    shortest={"8-8": 2.35, "8-14": 1.51, "14-14": 2.79},
)
SALT = Statistics(species=(11, 17), nearest={"11-17": 2.82, "11-11": 3.99, "17-17": 3.99})
MADELUNG = 1.747565
"""Of rock salt, per distance of neighbours."""


def ewald(atoms, charges, eta=0.6, real=9.0, reciprocal=8.0):
    """Energy (eV) and forces (eV/Å) of point charges in a periodic cell; neutral, metallic boundary."""
    positions, cell = atoms.positions, atoms.cell.array
    energy, forces = -COULOMB * eta / np.sqrt(np.pi) * (charges**2).sum(), np.zeros_like(positions)
    reach = [int(np.ceil(real / height)) + 1 for height in 1 / np.linalg.norm(atoms.cell.reciprocal().array, axis=1)]
    separations = positions[None] - positions[:, None]
    for image in product(*(range(-n, n + 1) for n in reach)):
        vectors = separations + np.array(image) @ cell
        r = np.linalg.norm(vectors, axis=2)
        near = (r > 1e-9) & (r < real)
        r = np.where(near, r, 1.0)
        qq = np.where(near, COULOMB * charges[:, None] * charges, 0.0)
        energy += (qq * erfc(eta * r) / r).sum() / 2
        slope = erfc(eta * r) / r**2 + 2 * eta / np.sqrt(np.pi) * np.exp(-((eta * r) ** 2)) / r
        forces -= ((qq * slope / r)[:, :, None] * vectors).sum(1)
    waves = 2 * np.pi * atoms.cell.reciprocal().array
    counts = [int(np.ceil(reciprocal * length / (2 * np.pi))) for length in atoms.cell.lengths()]
    for index in product(*(range(-n, n + 1) for n in counts)):
        k = np.array(index) @ waves
        if not 1e-9 < k @ k < reciprocal**2:
            continue
        weight = COULOMB * 2 * np.pi / atoms.get_volume() * np.exp(-(k @ k) / (4 * eta**2)) / (k @ k)
        phase = np.exp(1j * positions @ k)
        total = (charges * phase).sum()
        energy += weight * abs(total) ** 2
        forces += 2 * weight * (charges * np.imag(phase * np.conj(total)))[:, None] * k
    return energy, forces


def ions(atoms, charges, damping, cutoff):
    """The same by the cut-off sum, self energies included."""
    graph = AtomGraph.from_ase(atoms, cutoff)
    position = graph.positions.clone().requires_grad_()
    graph = graph.displaced(position - position.detach())
    centre, neighbour = graph.edges
    q = torch.from_numpy(charges)
    pairs = q[centre] * q[neighbour] * damped_coulomb(graph.distances, damping, cutoff)
    energy = COULOMB * pairs.sum() / 2 + self_energy(damping, cutoff) * (q**2).sum()
    (gradient,) = torch.autograd.grad(energy, position)
    return float(energy), -gradient.numpy()


def silica_cell():
    """Disordered silica-like cell: beta cristobalite, rattled."""
    a = 7.16
    atoms = bulk("Si", "diamond", a=a, cubic=True)
    silicon, bonds = atoms.positions.copy(), set()
    for i, position in enumerate(silicon[:8]):
        for j, image in product(range(8), product((-1, 0, 1), repeat=3)):
            other = silicon[j] + a * np.array(image)
            if 1e-3 < np.linalg.norm(other - position) < 3.2 and i % 8 != j:
                middle = ((other + position) / 2 % a).round(6) % a
                bonds.add(tuple(middle))
    atoms += Atoms(f"O{len(bonds)}", sorted(bonds))
    assert len(bonds) == 16
    atoms.rattle(0.15, seed=2)
    return atoms


def test_ewald_reference_is_right():
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    charges = np.array([1.0, -1.0])
    energy, _ = ewald(atoms, charges)
    assert -energy * 2.82 / COULOMB == pytest.approx(MADELUNG, abs=2e-6)
    atoms = silica_cell()
    charges = np.where(atoms.numbers == 8, -1.0, 2.0)
    (one, forces), (other, again) = ewald(atoms, charges), ewald(atoms, charges, 0.5, 11.0, 7.0)
    assert one == pytest.approx(other, rel=1e-6)
    np.testing.assert_allclose(forces, again, atol=1e-4)


@pytest.mark.parametrize(
    ("damping", "cutoff", "error"),
    [
        (0.2, 8, 5.6e-2),
        (0.2, 10, 1.41e-2),
        (0.25, 8, 2.1e-2),
        (0.2, 12, 3.0e-3),
        (0.3, 8, 5.5e-3),
        (0.3, 10, 4.0e-4),
        (0.3, 12, 1.3e-4),
    ],
)
def test_madelung_constant_of_salt(damping, cutoff, error):
    """The error is that of the module's docstring: not more, and not much less."""
    energy, _ = ions(bulk("NaCl", "rocksalt", a=5.64), np.array([1.0, -1.0]), damping, float(cutoff))
    difference = abs(-energy * 2.82 / COULOMB - MADELUNG)
    assert 0.5 * error < difference < error


@pytest.mark.parametrize(("damping", "cutoff", "error"), [(0.25, 8.0, 0.025), (0.3, 8.0, 0.05), (0.2, 10.0, 0.01)])
def test_forces_on_ions_of_a_disordered_cell(damping, cutoff, error):
    """Root mean square deviation from the Ewald sum, as part of the forces."""
    atoms = silica_cell()
    charges = np.where(atoms.numbers == 8, -1.0, 2.0)
    _, expected = ewald(atoms, charges)
    _, found = ions(atoms, charges, damping, cutoff)
    assert np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()) < error


def test_value_slope_and_curvature_vanish_at_the_cutoff():
    r = torch.tensor([8.0 - 1e-5, 8.0 + 1e-5, 20.0], dtype=torch.float64, requires_grad=True)
    value = damped_coulomb(r, 0.25, 8.0)
    (slope,) = torch.autograd.grad(value.sum(), r, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), r)
    for derivative, scale in ((value, 1e-15), (slope, 1e-11), (curvature, 1e-6)):
        assert derivative.abs().max() < scale
    assert float(damped_coulomb(torch.tensor([1.0], dtype=torch.float64), 1e-6, 1e4)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("dispersion", [False, True])
def test_born_mayer_is_its_closed_form(dispersion):
    settings = {"kind": "born_mayer", "cutoff": 5.0, "dispersion": dispersion, "zbl": False}
    potential = perturbed(build(settings, SILICA))
    r = torch.linspace(1.2, 5.5, 60, dtype=torch.float64)
    for row, (first, second) in enumerate(potential.kinds.pairs):
        strength, alpha = (float(positive(raw)[row]) for raw in (potential.raw_repulsion, potential.raw_decay))
        origin = float(potential.origin[row])
        fade = np.clip((5.0 - r.numpy()) / (5.0 - 3.3), 0, 1)
        fade = 6 * fade**5 - 15 * fade**4 + 10 * fade**3
        expected = fade * strength * np.exp(-alpha * (r.numpy() - origin))
        if dispersion:
            c = float(positive(potential.raw_dispersion)[row]) * origin**6
            expected -= fade * c / (r.numpy() ** 6 + origin**6)
        one, other = (float(potential.charges()[potential.kinds.species.index(z)]) for z in (first, second))
        expected += COULOMB * one * other * damped_coulomb(r, 0.25, 5.0).numpy()
        curves = potential.components(r, first, second)
        np.testing.assert_allclose(curves["total"].detach().numpy(), expected, rtol=1e-10, atol=1e-12)
        assert ("dispersion" in curves) == dispersion


def test_nuclei_repel_whatever_was_fitted():
    """Large charges and dispersion, hardly any repulsion: the energy still falls with distance where the wall is."""
    settings = {
        "charges": {"Si": 4.0, "O": -2.0},
        "repulsion": 1e-3,
        "dispersion": True,
        "dispersion_energy": 20.0,
        "decay": 1.0,
    }
    r = torch.linspace(0.05, 0.5, 60, dtype=torch.float64)
    walled, bare = (
        build({"kind": "born_mayer", "zbl": zbl} | settings, SILICA).double().components(r, 8, 14)["total"]
        for zbl in (True, False)
    )
    assert (walled.diff() < 0).all()
    assert (bare.diff() > 0).any()


def test_starts_near_the_data():
    """Bonds of the data are about in balance, and forces of order eV/Å."""
    potential = build({"kind": "born_mayer"}, SILICA).double()
    prediction = evaluate(potential, AtomGraph.from_ase(silica_cell(), potential.cutoff))
    assert 0.1 < float(prediction.forces.abs().max()) < 30


def test_linear_parameters_are_linear():
    """Energy is affine in the positive values of those named in ``linear``."""
    potential = perturbed(build({"kind": "born_mayer"}, SILICA))
    graph = AtomGraph.from_ase(silica_cell(), potential.cutoff)
    for name in potential.linear:
        raw = potential.get_parameter(name)
        energies = []
        for value in (0.5, 1.0, 1.5):
            with torch.no_grad():
                raw.copy_(torch.log(torch.expm1(torch.full_like(raw, value))))
                energies.append(float(evaluate(potential, graph, ("energy",)).energy[0]))
        assert abs(energies[1] - energies[0]) > 0.1
        assert energies[2] - energies[1] == pytest.approx(energies[1] - energies[0], rel=1e-9)


@pytest.mark.parametrize(
    ("formula", "charges"),
    [
        ("SiO2", {"Si": 4, "O": -2}),
        ("TiO2", {"Ti": 4, "O": -2}),
        ("NaCl", {"Na": 1, "Cl": -1}),
        ("LiMnO2", {"Li": 1, "Mn": 2, "O": -2}),
        ("SiC", {"Si": 4, "C": -4}),
        ("CH4", {"C": -4, "H": 1}),
        ("LiH", {"Li": 1, "H": -1}),
        ("GaN", {"Ga": 3, "N": -3}),
        ("Li3PO4", {"Li": 1, "P": 5, "O": -2}),
        ("H2O", {"H": 1, "O": -2}),
    ],
)
def test_formal_charges(formula, charges):
    atoms = Atoms(formula)
    species = sorted(set(atoms.numbers.tolist()))
    found = formal_charges(species)
    assert found == [float(charges[symbol]) for symbol in sorted(charges, key=atomic_numbers.get)]
    if formula != "LiMnO2":
        assert sum(found[species.index(number)] for number in atoms.numbers) == 0


def test_charges_are_scaled_together():
    potential = build({"kind": "born_mayer"}, SILICA).double()
    oxygen, silicon = potential.charges().tolist()
    assert silicon == pytest.approx(-2 * oxygen)
    given = build({"kind": "born_mayer", "charges": {"Si": 2.4, "O": -1.2}}, SILICA).double()
    assert given.charges().tolist() == pytest.approx([-1.2, 2.4], rel=1e-6)
    neutral = build({"kind": "born_mayer", "charges": {"Si": 0.0, "O": 0.0}}, SILICA).double()
    assert not neutral.components(torch.linspace(1, 8, 5, dtype=torch.float64), 8, 14)["coulomb"].any()


@pytest.mark.parametrize(
    ("settings", "statistics", "named"),
    [
        ({}, Statistics(species=(42, 74)), "no charges of opposite sign"),
        ({"charges": {"Si": 2.4}}, SILICA, "O missing"),
        ({"charges": {"Si": 2.4, "Ox": -1.2}}, SILICA, "'Ox' is no element"),
        ({"length": {"C-O": 1.2}}, SILICA, "C-O"),
    ],
)
def test_mistakes_are_named(settings, statistics, named):
    with pytest.raises(UserError, match=named):
        build({"kind": "born_mayer"} | settings, statistics)

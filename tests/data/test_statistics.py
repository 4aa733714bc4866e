import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.geometry import get_distances

from phystrain.data.statistics import compute, isolated, reference_energies, residuals
from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.statistics import Statistics

E0 = {1: -13.5, 6: -1029.5, 8: -2041.25}


def total(atoms: Atoms, bound: float = 0.0) -> Atoms:
    atoms = atoms.copy()
    energy = sum(E0.get(number, -1.0) for number in atoms.numbers.tolist()) + bound * len(atoms)
    atoms.calc = SinglePointCalculator(atoms, energy=energy)
    return atoms


def test_isolated_atoms():
    marked = Atoms("H", cell=[4, 4, 4], pbc=True)
    marked.info["config_type"] = "IsolatedAtom"
    frames = [
        Atoms("H"),
        Atoms("H", cell=[9, 9, 9], pbc=True),
        Atoms("H", cell=[9, 9, 5], pbc=[True, True, False]),
        marked,
        bulk("Cu"),
        molecule("H2"),
    ]
    assert isolated(Structures.from_ase(frames, ("config_type",))).tolist() == [True, True, True, True, False, False]


def test_references_from_isolated_frames():
    frames = [total(molecule("H2O"), -2.0), total(Atoms("H")), total(Atoms("O"))]
    structures = Structures.from_ase(frames)
    for choice in ("auto", "isolated"):
        references = reference_energies(structures, choice)
        assert references.energies == {1: E0[1], 8: E0[8]}
        assert references.source == "isolated"
        assert not references.warnings
    np.testing.assert_allclose(residuals(structures, references.energies), [-2.0, 0, 0], atol=1e-12)
    with pytest.raises(UserError, match="no isolated atom of O"):
        reference_energies(structures.select([0, 1]), "isolated")


def test_the_lowest_isolated_frame_counts():
    frames = [total(Atoms("H")), total(Atoms("H"), 0.3)]
    references = reference_energies(Structures.from_ase(frames))
    assert references.energies == {1: E0[1]}
    assert "differ by 0.3" in references.warnings[0]


def test_fit_recovers_energies_that_compositions_determine():
    names = ("H2O", "CH4", "CO", "CH3OH", "CO2")
    references = reference_energies(Structures.from_ase([total(molecule(name)) for name in names]))
    assert references.source == "fitted"
    for number, energy in E0.items():
        assert references.energies[number] == pytest.approx(energy, abs=1e-8)
    assert not references.warnings


def test_fit_of_one_molecule_of_all_electron_energies():
    frames = [total(molecule("CH3CH2OH"), bound) for bound in (-3.0, -2.5, -2.0)]
    structures = Structures.from_ase(frames)
    references = reference_energies(structures)
    assert "compositions fix 1 of 3" in references.warnings[0]
    np.testing.assert_allclose(residuals(structures, references.energies), [-0.5, 0.0, 0.5], atol=1e-9)


def test_given_references():
    structures = Structures.from_ase([total(molecule("H2O"))])
    assert reference_energies(structures, {"H": -1, 8: -2.0, "Au": 3}).energies == {1: -1.0, 8: -2.0}
    assert "no binding explains" in reference_energies(structures, {"H": -1.0, "O": -2.0}).warnings[0]
    with pytest.raises(UserError, match="no energy of O"):
        reference_energies(structures, {"H": -1.0})
    with pytest.raises(UserError, match="'Hh' is no element"):
        reference_energies(structures, {"Hh": -1.0})
    assert reference_energies(structures, "zero").energies == {1: 0.0, 8: 0.0}
    with pytest.raises(UserError, match="did you mean 'isolated'"):
        reference_energies(structures, "isolatd")


def test_no_energies_at_all():
    structures = Structures.from_ase([molecule("H2O")])
    assert reference_energies(structures).source == "zero"
    with pytest.raises(UserError, match="no structure has an energy"):
        reference_energies(structures, "fit")


def test_distances_and_neighbours_of_a_crystal():
    structures = Structures.from_ase([bulk("NaCl", "rocksalt", a=5.64)])
    statistics = compute(structures, 4.5, reference_energies(structures, "zero"))
    assert statistics.nearest == pytest.approx({"11-17": 2.82, "11-11": 5.64 / 2**0.5, "17-17": 5.64 / 2**0.5})
    assert statistics.shortest == pytest.approx(statistics.nearest)
    assert statistics.neighbours == pytest.approx(6 + 12)
    assert statistics.cutoff == 4.5
    assert statistics.species == (11, 17)


def test_distances_against_a_direct_count():
    frames = []
    for seed in range(4):
        atoms = molecule("CH3CH2OH")
        atoms.rattle(0.1, seed=seed)
        frames.append(atoms)
    statistics = compute(Structures.from_ase(frames), 3.0, reference_energies(Structures.from_ase(frames), "zero"))
    means, shortest, edges = [], np.inf, 0
    for atoms in frames:
        distance = get_distances(atoms.positions)[1]
        edges += ((distance < 3.0) & (distance > 0)).sum()
        to_carbon = distance[np.ix_(atoms.numbers == 8, atoms.numbers == 6)]
        means += to_carbon.min(axis=1).tolist()
        shortest = min(shortest, to_carbon.min())
    assert statistics.nearest["6-8"] == pytest.approx(np.mean(means))
    assert statistics.shortest["6-8"] == pytest.approx(shortest)
    assert statistics.neighbours == pytest.approx(edges / (4 * 9))


def test_scales_leave_isolated_atoms_out():
    frames = [total(molecule("H2O"), bound) for bound in (-3.0, -1.0)] + [total(Atoms("H")), total(Atoms("O"))]
    frames[0].calc.results["forces"] = np.full((3, 3), 2.0)
    structures = Structures.from_ase(frames)
    statistics = compute(structures, 5.0, reference_energies(structures))
    assert statistics.energy_mean == pytest.approx(-2.0)
    assert statistics.energy_rms == pytest.approx(1.0)
    assert statistics.force_rms == pytest.approx(2.0)
    assert statistics.neighbours == pytest.approx(2.0)
    assert Statistics.model_validate_json(statistics.model_dump_json()) == statistics


def test_scales_can_be_divided_by():
    structures = Structures.from_ase([total(molecule("H2O")), Atoms("He")])
    statistics = compute(structures.select([0]), 5.0, reference_energies(structures.select([0]), "fit"))
    assert (statistics.energy_rms, statistics.force_rms) == (1.0, 1.0)
    alone = compute(structures.select([1]), 5.0, reference_energies(structures.select([1])))
    assert (alone.neighbours, alone.nearest, alone.energy_rms) == (0.0, {}, 1.0)

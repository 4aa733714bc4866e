from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import GPa

from phystrain.data._consistency import FORCE_FACTORS, slopes
from phystrain.data.check import CheckReport, check
from phystrain.data.read import read
from phystrain.data.structures import Structures
from phystrain.data.write import write


def with_emt(atoms: Atoms) -> Atoms:
    atoms.calc = EMT()
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    if atoms.pbc.all():
        results["stress"] = atoms.get_stress()
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


@pytest.fixture(scope="module")
def crystals() -> Structures:
    """Copper out of equilibrium, at rest positions shaken and, in the second half, strained."""
    random, frames = np.random.default_rng(0), []
    for number in range(40):
        atoms = bulk("Cu", cubic=True, a=3.75)
        if number >= 20:
            strain = random.normal(size=(3, 3)) * 0.005
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
        atoms.positions += random.normal(size=(4, 3)) * 0.03 + random.normal(size=3)
        atoms.wrap()
        frames.append(with_emt(atoms))
    return Structures.from_ase(frames)


@pytest.fixture(scope="module")
def molecules() -> Structures:
    """Water, shaken, turned and moved."""
    random, frames = np.random.default_rng(1), []
    for _ in range(40):
        atoms = molecule("CH3CH2OH")
        atoms.positions += random.normal(size=(9, 3)) * 0.03
        with_emt(atoms)
        results, turn = atoms.calc.results, np.linalg.qr(random.normal(size=(3, 3)))[0]
        turn *= np.sign(np.linalg.det(turn))
        atoms.positions = atoms.positions @ turn + random.normal(size=3)
        atoms.calc = SinglePointCalculator(atoms, energy=results["energy"], forces=results["forces"] @ turn)
        frames.append(atoms)
    return Structures.from_ase(frames)


def texts(report: CheckReport, level: str, topic: str = "") -> list[str]:
    return [item.text for item in report.findings if item.level == level and item.topic.startswith(topic)]


def test_sound_data_pass(crystals, molecules):
    for structures in (crystals, molecules):
        report = check(structures)
        assert report.ok, str(report)
        assert any("they agree" in text for text in texts(report, "report", "energy-forces"))
    assert any("they agree" in text for text in texts(check(crystals), "report", "energy-stress"))
    assert texts(check(crystals), "report", "thin cells")


def test_slopes_are_one(crystals, molecules):
    forces, stress = slopes(crystals)
    assert forces.judged
    assert forces.value == pytest.approx(1, abs=0.05)
    assert stress.judged
    assert stress.value == pytest.approx(1, abs=0.05)
    assert slopes(molecules)[0].value == pytest.approx(1, abs=0.05)


def test_gradients_stored_as_forces(crystals, molecules):
    for structures in (crystals, molecules):
        report = check(replace(structures, forces=-structures.forces))
        assert not report.ok
        assert "change their sign" in texts(report, "error", "energy-forces")[0]


@pytest.mark.parametrize("factor", FORCE_FACTORS)
@pytest.mark.parametrize("sign", [1, -1])
def test_mixed_units(molecules, factor, sign):
    report = check(replace(molecules, forces=sign * molecules.forces / factor))
    (text,) = texts(report, "error", "energy-forces")
    assert FORCE_FACTORS[factor] in text
    assert ("sign is wrong too" in text) == (sign < 0)


def test_labels_of_another_calculation_are_remarked_on(molecules):
    assert texts(check(replace(molecules, forces=1.7 * molecules.forces)), "warn", "energy-forces")
    shuffled = replace(molecules, energy=np.random.default_rng(0).permutation(molecules.energy))
    assert any("not judged" in text for text in texts(check(shuffled), "report", "energy-forces"))


def test_stress_sign_and_units(crystals):
    wrong = check(replace(crystals, stress=-crystals.stress))
    assert "change the sign" in texts(wrong, "error", "energy-stress")[0]
    pascal = check(replace(crystals, stress=crystals.stress / GPa))
    assert any("GPa" in text for text in texts(pascal, "error"))
    assert any("GPa" in text for text in texts(check(replace(crystals, stress=crystals.stress / GPa)), "error"))


def test_far_structures_are_not_judged():
    random = np.random.default_rng(0)
    frames = [with_emt(Atoms("Cu4", random.uniform(0, 6, size=(4, 3)))) for _ in range(20)]
    assert not slopes(Structures.from_ase(frames))[0].judged


def test_duplicates(crystals):
    twice = Structures.concatenate([crystals, crystals.select([3])])
    report = check(twice)
    assert "frame 3 and frame 40" in texts(report, "warn", "duplicates")[0]
    assert report.ok
    twice.energy[40] += 0.5
    assert "energies 0.5 eV apart" in texts(check(twice), "error", "duplicates")[0]


def test_other_sets(crystals, molecules):
    report = check(crystals, others={"valid": crystals.select([1, 2]), "test": molecules})
    assert any("2 frames are in training too" in text for text in texts(report, "warn", "valid"))
    assert any("noisily" in text for text in texts(report, "warn", "valid"))
    assert "H, C, O" in texts(report, "error", "test")[0]
    assert any("no stress" in text for text in texts(report, "warn", "test"))


def test_outliers(crystals):
    energy, forces = crystals.energy.copy(), crystals.forces.copy()
    energy[7] += 100
    forces[0] = (300.0, 0, 0)
    report = check(replace(crystals, energy=energy, forces=forces))
    assert "far from all others: frame 7" in texts(report, "warn", "energy")[0]
    assert texts(report, "warn", "forces")
    assert "largest: frame 0" in texts(report, "report", "forces")[0]
    assert "frame 0" in texts(report, "warn", "net force")[0]


def test_zero_forces_where_symmetry_does_not_make_them_so(crystals):
    perfect = Structures.from_ase([with_emt(bulk("Cu", cubic=True)), with_emt(bulk("Cu"))])
    perfect.forces[:] = 0
    assert not texts(check(perfect), "warn", "zero forces")
    forces = crystals.forces.copy()
    forces[4:8] = 0
    assert "all zero in 1 frames" in texts(check(replace(crystals, forces=forces)), "warn", "zero forces")[0]


def test_references_of_another_code(molecules):
    report = check(molecules, references={"H": -13.0, "C": -1029.0, "O": -2041.0})
    assert "no binding explains" in texts(report, "error", "references")[0]
    assert "compositions fix 1 of 3" in texts(check(molecules), "warn", "references")[0]


def test_labels(crystals):
    assert not check(crystals.without_labels()).ok
    energy = crystals.energy.copy()
    energy[:5] = np.nan
    assert "energy in 35 of 40" in texts(check(replace(crystals, energy=energy)), "report", "labels")[0]


def test_overlaps():
    frames = [Atoms("H2", [[0, 0, 0], [0, 0, 0.3]])]
    assert "0.3 Å" in texts(check(Structures.from_ase(frames)), "warn", "overlap")[0]
    frames[0].positions[1] = 0
    assert not check(Structures.from_ase(frames)).ok


def test_report_of_a_file_is_a_page(tmp_path, crystals):
    write(crystals, tmp_path / "a.xyz")
    page = str(check(read(tmp_path / "a.xyz")))
    assert page.startswith(str(tmp_path / "a.xyz"))
    assert page.endswith("0 errors, 0 warnings")
    assert "REF_energy in 40 of 40 frames" in page
    assert all(len(line) < 200 for line in page.splitlines() if "a.xyz" not in line)

"""Elastic constants against values from print and from symmetry, and crystals that are not stable."""

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from phystrain.data.structures import Structures
from phystrain.potentials import build
from phystrain.reliability.elastic import Config, moduli
from phystrain.statistics import Statistics

FILES = Path(__file__).parents[1] / "data_files" / "eam"


def test_silver_as_published(subject_of):
    """Foiles, Baskes, Daw 1986 (doi:10.1103/PhysRevB.33.7983), table IV: 129, 91 and 57 GPa with these functions."""
    potential = build({"kind": "eam_table", "file": str(FILES / "Ag_u3.eam")}, Statistics.bare((47,))).double()
    start = Structures.from_ase([bulk("Ag", "fcc", a=4.2, cubic=True)])
    result = Config()(subject_of(potential, start=start, statistics=Statistics.bare((47,))))
    assert (result.passed, result.grade) == (True, "safe"), result.sentence
    assert result.figures["C11, GPa"] == pytest.approx(129, abs=2)
    assert result.figures["C12, GPa"] == pytest.approx(91, abs=2)
    assert result.figures["C44, GPa"] == pytest.approx(57, abs=2)
    assert result.figures["C14, GPa"] == pytest.approx(0, abs=0.1)
    assert result.figures["bulk modulus, GPa"] == pytest.approx((129 + 2 * 91) / 3, abs=2)
    assert result.figures["volume change in relaxation, %"] == pytest.approx(100 * ((4.09 / 4.2) ** 3 - 1), abs=0.3)


def test_pair_potential_obeys_cauchy(argon_of, subject_of):
    """C12 = C44 where forces are central and every atom is a centre of inversion; a Lennard-Jones crystal is one."""
    start = Structures.from_ase([bulk("Ar", "fcc", a=5.3, cubic=True)])
    figures = Config()(subject_of(argon_of(0.0103), start=start)).figures
    assert figures["C12, GPa"] == pytest.approx(figures["C44, GPa"], rel=5e-3)
    assert figures["response of the ions, GPa"] == 0
    assert figures["asymmetry, GPa"] < 1e-3


def test_response_of_the_ions_is_that_of_a_relaxation(subject_of):
    """Silicon's C44 with ions at rest, against a sheared cell whose ions ASE has relaxed."""
    from ase.optimize import LBFGS

    from phystrain.interfaces.ase import PhystrainCalculator
    from phystrain.reliability._solids import relaxed

    silicon = Statistics.bare((14,))
    potential = build({"kind": "stillinger_weber"}, silicon).double()
    start = Structures.from_ase([bulk("Si", "diamond", a=5.4, cubic=False)])
    subject = subject_of(potential, start=start, statistics=silicon)
    found = Config()(subject).figures
    held = Config(relax_ions=False)(subject).figures
    assert found["C44, GPa"] < 0.8 * held["C44, GPa"]
    assert found["C11, GPa"] == pytest.approx(held["C11, GPa"], rel=1e-3)
    atoms = relaxed(potential, start, 0, 1e-4, 200).to_ase(0)
    stress = []
    for shear in (0.005, -0.005):
        sheared = atoms.copy()
        sheared.set_cell(atoms.cell.array @ (np.eye(3) + shear / 2 * np.eye(3)[[0, 2, 1]] * [[0], [1], [1]]), True)
        sheared.calc = PhystrainCalculator(potential)
        LBFGS(sheared, logfile=None).run(fmax=1e-4)
        stress.append(sheared.get_stress()[3])
    assert found["C44, GPa"] == pytest.approx(160.2177 * (stress[0] - stress[1]) / 0.01, rel=0.01)


def test_simple_cubic_is_not_stable(argon_of, subject_of):
    start = Structures.from_ase([bulk("Ar", "sc", a=3.7) * (2, 2, 2)])
    result = Config()(subject_of(argon_of(0.0103), start=start))
    assert result.passed is False, result.sentence
    assert result.conditions == ["crystalline Ar8 is not stable"]


def test_moduli_of_an_isotropic_body():
    matrix = np.diag([7.0, 7, 7, 2, 2, 2])
    matrix[:3, :3] += 3 - 3 * np.eye(3)
    assert moduli(matrix) == pytest.approx((13 / 3, 2))


def test_molecules_and_large_cells(argon_of, subject_of, crystal):
    from ase import Atoms

    molecule = Structures.from_ase([Atoms("Ar2", [[0, 0, 0], [0, 0, 3.8]])])
    assert not Config()(subject_of(argon_of(0.0103), start=molecule)).applies
    assert "has more than 20 atoms" in Config(most_atoms=20)(subject_of(argon_of(0.0103), start=crystal)).sentence

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from phystrain.errors import UserError
from phystrain.label.compute import NotConvergedError, compute
from phystrain.label.level import Level, require_known
from phystrain.units import BOHR, HARTREE

pytest.importorskip("pyscf")


def label(atoms, charge=0, spin=0, **settings):
    return compute(atoms.numbers, atoms.positions, Level(**settings), charge=charge, spin=spin)


def test_water_by_coupled_cluster_as_published():
    """Water in cc-pVDZ, all electrons, beside full configuration interaction (doi:10.1063/1.471518).

    Published for r = 1.84345 bohr and 110.565 degrees: -76.241860 hartree; CCSD is 3.744 and CCSD(T) 0.658 mE_h above.
    """
    half, r = np.radians(110.565 / 2), 1.84345 * BOHR
    across, up = r * np.sin(half), r * np.cos(half)
    water = Atoms("OH2", [[0, 0, 0], [across, 0, up], [-across, 0, up]])
    for method, above in (("ccsd", 0.003744), ("ccsd(t)", 0.000658)):
        found = label(water, method=method, basis="cc-pvdz", all_electron=True)
        assert found.energy / HARTREE == pytest.approx(-76.241860 + above, abs=2e-6)
        assert found.forces is None
        assert 0 < found.facts["t1"] < 0.01


def by_hand(atoms, basis):
    from pyscf import cc, gto, scf

    atom = list(zip(atoms.symbols, atoms.positions / BOHR, strict=True))
    field = scf.RHF(gto.M(atom=atom, unit="Bohr", basis=basis, verbose=0)).run(conv_tol=1e-11)
    solver = cc.CCSD(field, frozen=1).run(conv_tol=1e-9)
    return field.e_tot, solver.e_corr + solver.ccsd_t()


def test_the_core_is_frozen_and_energies_are_extrapolated():
    atoms = molecule("HF")
    small, large = by_hand(atoms, "cc-pvdz"), by_hand(atoms, "cc-pvtz")
    one = label(atoms, method="ccsd(t)", basis="cc-pvdz").energy
    assert one / HARTREE == pytest.approx(sum(small), abs=1e-7)
    limit = label(atoms, method="CCSD(T)", basis="cc-pVDZ, cc-pVTZ").energy
    weights = np.exp(-4.42 * np.sqrt([2, 3]))
    field = (large[0] * weights[0] - small[0] * weights[1]) / (weights[0] - weights[1])
    assert limit / HARTREE == pytest.approx(field + (27 * large[1] - 8 * small[1]) / 19, abs=1e-7)


@pytest.mark.parametrize(
    ("settings", "charge", "spin"),
    [
        ({"method": "pbe"}, 0, 0),
        ({"method": "pbe", "density_fit": True}, 1, 1),
        ({"method": "mp2"}, 0, 0),
        ({"method": "hf"}, 1, 1),
    ],
)
def test_forces_are_the_derivative_of_energies(settings, charge, spin):
    atoms = molecule("H2O")
    atoms.rattle(0.1, seed=3)
    settings = settings | {"basis": "6-31g", "grid": 1}
    forces = label(atoms, charge, spin, **settings).forces
    step, slope = 2e-3, 0.0
    for factor, weight in ((-2, 1), (-1, -8), (1, 8), (2, -1)):  # five points: the error falls with step^4
        moved = atoms.copy()
        moved.positions[1, 2] += factor * step
        slope += weight * label(moved, charge, spin, forces=False, **settings).energy / (12 * step)
    assert forces[1, 2] == pytest.approx(-slope, abs=1e-5)
    assert np.abs(forces.sum(axis=0)).max() < 1e-6


def test_one_electron_has_no_correlation_and_open_shells_are_unrestricted():
    hydrogen, oxygen = Atoms("H", [[0, 0, 0]]), Atoms("O", [[0, 0, 0]])
    exact = label(hydrogen, 0, 1, method="hf", basis="cc-pvtz").energy
    assert label(hydrogen, 0, 1, method="ccsd(t)", basis="cc-pvtz").energy == exact
    assert exact == pytest.approx(-HARTREE / 2, abs=0.01)
    found = label(oxygen, 0, 2, method="ccsd(t)", basis="cc-pvdz")
    assert found.facts["s2"] == pytest.approx(2, abs=0.02)
    assert found.energy < label(oxygen, 0, 0, method="ccsd(t)", basis="cc-pvdz").energy  # Hund's rule


def test_heavy_elements_have_their_core_potential():
    from pyscf import gto, scf

    silver = Atoms("AgH", [[0, 0, 0], [0, 0, 1.62]])
    atom = [("Ag", (0, 0, 0)), ("H", (0, 0, 1.62 / BOHR))]
    alike = scf.RHF(gto.M(atom=atom, unit="Bohr", basis="def2-svp", ecp={"Ag": "def2-svp"}, verbose=0)).run()
    found = label(silver, method="hf", basis="def2-svp", forces=False).energy
    assert found == pytest.approx(alike.e_tot * HARTREE, abs=1e-5)


def test_what_does_not_converge_has_no_label():
    with pytest.raises(NotConvergedError, match="SCF did not converge in 1 cycles"):
        label(molecule("H2O"), method="hf", basis="def2-svp", cycles=1)
    with pytest.raises(NotConvergedError, match="CCSD did not converge"):
        label(Atoms("N2", [[0, 0, 0], [0, 0, 2.4]]), method="ccsd", basis="cc-pvdz", cycles=12)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "pbe", "basis": "cc-pvdz,cc-pvtz"}, "one basis set"),
        ({"method": "mp2", "basis": "cc-pvdz,cc-pvqz"}, "consecutive"),
        ({"method": "mp2", "basis": "cc-pvtz,cc-pvdz"}, "the smallest first"),
        ({"method": "mp2", "basis": "cc-pvdz,aug-cc-pvtz"}, "one correlation-consistent"),
        ({"method": "mp2", "basis": "def2-svp,def2-tzvp"}, "correlation-consistent"),
    ],
)
def test_sets_that_cannot_be_extrapolated_from(settings, words):
    with pytest.raises(ValueError, match=words):
        Level(**settings)


def test_a_comma_inside_parentheses_belongs_to_the_name():
    assert Level(method="mp2", basis="6-311++G(2df,2pd)").basis == ("6-311++G(2df,2pd)",)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "pbee", "basis": "def2-svp"}, "did you mean 'pbe'"),
        ({"method": "ccsdt", "basis": "def2-svp"}, "did you mean 'ccsd"),
        ({"method": "b3lyp-d3bj", "basis": "def2-svp"}, "dispersion corrections are not added"),
        ({"method": "pbe", "basis": "def2-swp"}, "no basis set 'def2-swp' for H"),
    ],
)
def test_what_pyscf_does_not_have_is_refused_before_work_begins(settings, words):
    with pytest.raises(UserError, match=words):
        require_known(Level(**settings), [1, 8])

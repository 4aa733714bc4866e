import math

import pytest

from phystrain.label.extrapolation import cardinal_number, correlation_limit, hartree_fock_limit


def test_a_correlation_energy_that_falls_as_the_cube_has_its_limit_found():
    energies = [-0.3 + 0.7 * x**-3 for x in (2, 3, 4)]
    assert correlation_limit(energies[:2], [2, 3]) == pytest.approx(-0.3, abs=1e-14)
    assert correlation_limit(energies, [2, 3, 4]) == pytest.approx(-0.3, abs=1e-14)


@pytest.mark.parametrize(
    ("numbers", "error"),
    [
        ([2, 3], lambda x: math.exp(-4.42 * math.sqrt(x))),
        ([3, 4], lambda x: (x + 1) * math.exp(-9 * math.sqrt(x))),
        ([2, 3, 4], lambda x: math.exp(-1.3 * x)),
        ([3, 4, 5], lambda x: math.exp(-1.7 * x)),
    ],
)
def test_a_hartree_fock_energy_of_the_form_has_its_limit_found(numbers, error):
    energies = [-76.0 + 2.5 * error(x) for x in numbers]
    assert hartree_fock_limit(energies, numbers) == pytest.approx(-76.0, abs=1e-12)


def test_water_comes_near_its_limit_from_double_and_triple_zeta():
    """Hartree-Fock energies of one geometry: cc-pVDZ, TZ, QZ, 5Z. The limit is below that of 5Z by a mE_h or two."""
    double, triple, quadruple, quintuple = -76.02602772, -76.05613647, -76.06375661, -76.06600926
    for found in (
        hartree_fock_limit([double, triple], [2, 3]),
        hartree_fock_limit([double, triple, quadruple], [2, 3, 4]),
    ):
        assert quintuple - 0.0025 < found < quintuple + 0.0005


def test_energies_that_do_not_converge_are_refused():
    with pytest.raises(ValueError, match="do not converge"):
        hartree_fock_limit([-1.0, -1.1, -1.3], [2, 3, 4])


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("cc-pVDZ", ("cc-pvxz", 2)),
        ("aug-cc-pvqz", ("aug-cc-pvxz", 4)),
        ("cc-pV(T+d)Z", ("cc-pvx+dz", 3)),
        ("ccpvdz", None),
        ("def2-svp", None),
        ("cc-pvdz-jkfit", None),
    ],
)
def test_names(name, found):
    assert cardinal_number(name) == found

"""Energies at the complete-basis-set limit from those of two or three correlation-consistent basis sets.

X is the cardinal number of a set (2 for double zeta, and so on). Hartree-Fock and correlation energies converge
differently and are extrapolated apart:

correlation, two sets       E(X) = E + A X^-3
    Helgaker, Klopper, Koch, Noga 1997, doi:10.1063/1.473863; Halkier et al. 1998, doi:10.1016/S0009-2614(98)00111-0
Hartree-Fock, two sets      E(X) = E + A (X + 1) exp(-9 sqrt(X))
    Karton, Martin 2006, doi:10.1007/s00214-005-0028-6, from triple zeta on
Hartree-Fock, X = 2 and 3   E(X) = E + A exp(-4.42 sqrt(X))
    Neese, Valeev 2011, doi:10.1021/ct100396y: the form above does not hold for double zeta
Hartree-Fock, three sets    E(X) = E + A exp(-B X)
    Feller 1992, doi:10.1063/1.462652
"""

import math
import re
from collections.abc import Sequence

CARDINAL = {"d": 2, "t": 3, "q": 4, "5": 5, "6": 6}
_FAMILY = re.compile(r"((?:d-|t-)?(?:aug-)?cc-p(?:c|wc)?v)\(?([dtq56])(\+d)?\)?(z(?:-pp|-dk)?)")


def cardinal_number(basis: str) -> tuple[str, int] | None:
    """Family and cardinal number of a correlation-consistent basis set, or ``None`` for another.

    Args:
        basis: name, such as ``aug-cc-pVTZ`` or ``cc-pV(T+d)Z``.
    """
    found = _FAMILY.fullmatch(basis.lower())
    if found is None:
        return None
    return f"{found[1]}x{found[3] or ''}{found[4]}", CARDINAL[found[2]]


def correlation_limit(energies: Sequence[float], numbers: Sequence[int]) -> float:
    """Limit of the correlation energy from the two largest sets, by X^-3.

    Args:
        energies: of at least two sets, the smallest first.
        numbers: their cardinal numbers.
    """
    (small, large), (x, y) = energies[-2:], numbers[-2:]
    return (large * y**3 - small * x**3) / (y**3 - x**3)


def hartree_fock_limit(energies: Sequence[float], numbers: Sequence[int]) -> float:
    """Limit of the Hartree-Fock energy from two or three sets.

    Args:
        energies: of the sets, the smallest first.
        numbers: their cardinal numbers, consecutive.

    Raises:
        ValueError: the three energies do not converge as an exponential: differences must shrink and keep their sign.
    """
    if len(energies) == 3:
        first, second = energies[1] - energies[0], energies[2] - energies[1]
        if not 0 < second / first < 1:
            raise ValueError("Hartree-Fock energies do not converge with the basis sets: leave out the smallest one")
        return energies[2] + second * second / (first - second)
    decay = [_two_point(number, numbers[0]) for number in numbers]
    return (energies[1] * decay[0] - energies[0] * decay[1]) / (decay[0] - decay[1])


def _two_point(x: int, smallest: int) -> float:
    """What the error of the Hartree-Fock energy falls with, up to a factor."""
    return math.exp(-4.42 * math.sqrt(x)) if smallest == 2 else (x + 1) * math.exp(-9 * math.sqrt(x))

"""Coulomb energies of point charges cut off at a radius, and the charges that elements usually carry.

This is no Ewald sum. Every charge is screened by the sphere around it: the screened interaction erfc(alpha r)/r is
summed up to a cut-off and shifted so that it vanishes there, which is the sum with each sphere made neutral (Wolf et
al. 1999, doi:10.1063/1.478738) and its force continuous (Fennell and Gezelter 2006, doi:10.1063/1.2206581). Theirs is
shifted to first order; here to second, because potentials of this package are twice continuously differentiable.

Error against an Ewald sum, of the Madelung constant of rock salt and of the forces on formal charges in a disordered
silica (root mean square), in per cent, at alpha = 0.2, 0.25 and 0.3/Å (`tests/potentials/test_ionic.py`)::

    cut-off (Å)      6               8               10              12
    Madelung         11  7.7  4.4    3.2  1.2  0.3   0.8 0.15 0.02   0.2  0.01 0.007
    forces           8.0 6.9  7.1    2.2  2.2  4.3   0.6  1.6  4.2   0.4  1.6  4.2

Most of the former is a constant of each ion; the latter is what a fit sees. Too much damping drops part of the
long-range force at any cut-off.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from ase.data import atomic_numbers, chemical_symbols
from jaxtyping import Float
from torch import Tensor

from phystrain.errors import UserError
from phystrain.layers.elements import ELECTRONEGATIVITY
from phystrain.units import COULOMB

_ANIONS = {
    **{"F": -1, "O": -2, "Cl": -1, "N": -3, "Br": -1, "I": -1, "S": -2, "Se": -2, "C": -4, "Te": -2, "P": -3},
    **{"As": -3, "H": -1, "Sb": -3, "Si": -4, "Ge": -4, "B": -3},
}
"""Charges of the elements that can be anions."""

_BY_CHARGE = {
    -3: "N",
    -2: "O S Se Te",
    -1: "F Cl Br I At",
    0: "He Ne Ar Kr Xe Rn",
    1: "H Li Na K Rb Cs Fr Ag Cu Tl Au Hg",
    2: "Be Mg Ca Sr Ba Ra Mn Co Ni Zn Cd Pb Sn Pd Pt Po Eu",
    3: "B Al Ga In Sc Y La Ce Pr Nd Pm Sm Gd Tb Dy Ho Er Tm Yb Lu Cr Fe Ru Rh Ir As Sb Bi Ac Am Cm Bk Cf Es",
    4: "C Si Ge Ti Zr Hf Os Tc Th Pu",
    5: "P V Nb Ta Pa Np",
    6: "Mo W U",
    7: "Re",
}
_USUAL = {symbol: charge for charge, symbols in _BY_CHARGE.items() for symbol in symbols.split()}


def damped_coulomb(distance: Float[Tensor, " edges"], damping: float, cutoff: float) -> Float[Tensor, " edges"]:
    """(edges,) 1/Å, erfc(alpha r)/r less its Taylor polynomial of second order about the cut-off; zero beyond.

    Value, slope and curvature vanish at the cut-off.

    Args:
        distance: (edges,) Å, not zero.
        damping: 1/Å, alpha.
        cutoff: Å.
    """
    value, slope, curvature = _at_cutoff(damping, cutoff)
    beyond = distance - cutoff
    shifted = torch.erfc(damping * distance) / distance - (value + beyond * (slope + beyond * (curvature / 2)))
    return torch.where(distance < cutoff, shifted, torch.zeros_like(shifted))


def self_energy(damping: float, cutoff: float) -> float:
    """Energy of an ion with its own screening charge, in eV per squared elementary charge.

    Half of damped minus bare interaction at distance zero. Constant in every structure, so potentials leave it out
    (an isolated atom has energy zero) and reference energies take its place; lattice energies need it.

    Args:
        damping: 1/Å.
        cutoff: Å.
    """
    value, slope, curvature = _at_cutoff(damping, cutoff)
    limit = -2 * damping / math.sqrt(math.pi) - value + cutoff * slope - cutoff**2 / 2 * curvature
    return COULOMB * limit / 2


def _at_cutoff(damping: float, cutoff: float) -> tuple[float, float, float]:
    """Value, slope and curvature of erfc(alpha r)/r at the cut-off."""
    tail = math.erfc(damping * cutoff)
    gauss = 2 * damping / math.sqrt(math.pi) * math.exp(-((damping * cutoff) ** 2))
    value = tail / cutoff
    slope = -(tail / cutoff + gauss) / cutoff
    curvature = 2 * tail / cutoff**3 + 2 * gauss / cutoff**2 + 2 * damping**2 * gauss
    return value, slope, curvature


def formal_charges(species: Sequence[int], given: Mapping[str, float] | None = None) -> list[float]:
    """Elementary charges by element, in the order of ``species``.

    The most electronegative element is the anion, every other one carries its usual oxidation number. That makes the
    common oxides, halides and nitrides neutral; elements of several oxidation numbers (Fe, Mn, Cu) may leave a charge.

    Args:
        species: atomic numbers.
        given: by symbol, for all of them or none.

    Raises:
        UserError: elements missing in ``given``, or no two elements of opposite charge.
    """
    symbols = [chemical_symbols[number] for number in species]
    if given is not None:
        if wrong := [symbol for symbol in given if symbol not in atomic_numbers]:
            raise UserError(f"charges: {wrong[0]!r} is no element")
        if missing := [symbol for symbol in symbols if symbol not in given]:
            raise UserError(
                f"charges: {', '.join(missing)} missing; give all elements of the data: {', '.join(symbols)}"
            )
        return [float(given[symbol]) for symbol in symbols]
    possible = [symbol for symbol in symbols if symbol in _ANIONS]
    anion = max(possible, key=lambda symbol: ELECTRONEGATIVITY[symbol], default=None)
    if unknown := [symbol for symbol in symbols if symbol not in _USUAL]:
        raise UserError(f"no usual charge of {unknown[0]} is known: give all, as in charges: {{Si: 2.4, O: -1.2}}")
    charges = [float(_ANIONS[symbol] if symbol == anion else _USUAL[symbol]) for symbol in symbols]
    if not (min(charges) < 0 < max(charges)):
        raise UserError(
            f"the elements {', '.join(symbols)} have no charges of opposite sign that we know.\n"
            "Give them, as in charges: {Si: 2.4, O: -1.2}, or take a potential without charges, such as morse or eam."
        )
    return charges

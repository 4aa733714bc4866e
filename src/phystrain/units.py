"""Units, signs, orders and label names: the one page that everything else quotes.

=================  =======================================================================
length             Å
energy             eV
forces             eV/Å, minus the derivative of the energy
stress             eV/Å³, (1/V) dE/d(strain): positive when the cell wants to shrink (tension)
time               fs
temperature        K
mass               u
Voigt order        xx, yy, zz, yz, xz, xy (that of ASE)
=================  =======================================================================
"""

import numpy as np
import numpy.typing as npt
from ase import units as _ase

BOLTZMANN = _ase.kB
"""eV/K."""

VELOCITY = _ase.fs
"""Å/fs in units of sqrt(eV/u): multiply a time in fs by this to integrate with eV, Å and u."""

COULOMB = 14.399645478425668
"""e²/(4 pi eps0), eV Å (CODATA 2018)."""

HARTREE = 27.211386245988
"""eV (CODATA 2018)."""

BOHR = 0.529177210903
"""Å (CODATA 2018)."""

GPA = _ase.GPa
"""1 GPa in eV/Å³."""

PER_CM = 33.35641
"""1/cm in one THz."""

LABEL_KEYS = {
    "energy": ("REF_energy", "energy", "DFT_energy", "dft_energy", "Energy", "E"),
    "forces": ("REF_forces", "forces", "force", "DFT_forces", "dft_forces", "Forces"),
    "stress": ("REF_stress", "stress", "DFT_stress", "dft_stress"),
    "virial": ("REF_virial", "REF_virials", "virial", "virials", "DFT_virial", "dft_virial"),
}
"""Names under which labels are looked for, in this order, after the user's own."""


def voigt_to_full(voigt: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(..., 6) xx yy zz yz xz xy to symmetric (..., 3, 3)."""
    values = np.asarray(voigt, dtype=np.float64)
    return values[..., [[0, 5, 4], [5, 1, 3], [4, 3, 2]]]


def full_to_voigt(full: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(..., 3, 3) to (..., 6) xx yy zz yz xz xy; off-diagonal pairs are averaged."""
    values = np.asarray(full, dtype=np.float64)
    values = (values + np.swapaxes(values, -1, -2)) / 2
    return values[..., [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]

"""Charge and spin of molecules: asked for, said by the frames, or plain."""

import numpy as np
import numpy.typing as npt
from ase.data import ground_state_magnetic_moments

from phystrain.data.structures import Ints, Structures
from phystrain.errors import UserError


def electrons(structures: Structures, charge: int | None = None, spin: int | None = None) -> tuple[Ints, Ints]:
    """Charge and number of unpaired electrons of each structure.

    Args:
        structures: molecules, whose ``info`` may hold ``charge`` and ``spin``.
        charge: of all of them, instead.
        spin: of all of them, instead.

    Raises:
        UserError: not a whole number, or a spin that does not go with the number of electrons.
    """
    charges, given_charge = _stated(structures, "charge", charge)
    spins, given_spin = _stated(structures, "spin", spin)
    atom = (structures.sizes == 1) & ~given_spin & ~given_charge
    moments = np.nan_to_num(ground_state_magnetic_moments).astype(np.int64)
    spins = np.where(atom, moments[structures.species[structures.offsets[:-1]]], spins)
    count = np.bincount(structures.system, weights=structures.species, minlength=len(structures)).astype(int) - charges
    wrong = np.flatnonzero((count < 1) | (spins < 0) | (spins > count) | ((count - spins) % 2 != 0))
    if len(wrong):
        first = wrong[0]
        raise UserError(
            f"frame {structures.info['frame'][first]}: {spins[first]} unpaired electrons do not go with {count[first]} "
            f"electrons{f' ({len(wrong) - 1} more frames)' if len(wrong) > 1 else ''}. Give --spin, the number of "
            "unpaired electrons, and --charge; or charge= and spin= in the frames"
        )
    return charges, spins


def _stated(structures: Structures, name: str, chosen: int | None) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """What was chosen for all, else what each frame says, else zero; and where anything was said."""
    if chosen is not None:
        return np.full(len(structures), chosen), np.full(len(structures), True)
    texts = structures.info.get(name, np.full(len(structures), ""))
    try:
        values = np.array([float(text or 0) for text in texts.tolist()])
        if not np.equal(values, np.round(values)).all():
            raise ValueError
    except ValueError as error:
        raise UserError(f"{name} in the frames is not a whole number everywhere: mend it, or give --{name}") from error
    return values.astype(np.int64), texts != ""

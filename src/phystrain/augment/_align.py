"""A teacher's energies on the scale of the quantum energies: two methods count energy from different zeros."""

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from ase.data import chemical_symbols

from phystrain.data.statistics import composition
from phystrain.data.structures import Structures
from phystrain.errors import UserError

log = logging.getLogger(__name__)


class Alignment:
    """An offset of the energy per element, fitted by least squares to labelled structures.

    The energy of a structure is that of its atoms plus what binds them. The binding is the teacher's: its energy less
    that of its isolated atoms. The energies of the atoms are fitted to what remains of the quantum energies, of minimum
    norm where compositions leave them open. So structures of other compositions get energies that go with reference
    energies fitted in the same way, instead of keeping the teacher's own zero.

    Args:
        reference: structures with quantum energies; those without are ignored.
        predicted: (systems of ``reference``,) eV, the teacher's energies of them.
        single: eV by atomic number, the teacher's energies of isolated atoms; zero where not given for every element.

    Raises:
        UserError: no structure has both energies.
    """

    def __init__(
        self, reference: Structures, predicted: npt.ArrayLike, single: Mapping[int, float] | None = None
    ) -> None:
        predicted = np.asarray(predicted, dtype=np.float64)
        use = np.isfinite(reference.energy - predicted)
        if not use.any():
            raise UserError(
                "the teacher's energies cannot be aligned: no structure has both a reference and a teacher energy."
            )
        known = reference.select(use)
        self.elements = known.elements
        given = [(single or {}).get(element, np.nan) for element in self.elements]
        atoms = np.array(given) if np.isfinite(given).all() else np.zeros(len(given))
        counts = composition(known).astype(np.float64)
        binding = predicted[use] - counts @ atoms
        fitted, _, rank, _ = np.linalg.lstsq(counts, known.energy - binding, rcond=None)
        self.offsets = fitted - atoms
        _, _, directions = np.linalg.svd(counts)
        self._open = directions[rank:]
        self._warned = False

    def __call__(self, labelled: Structures) -> Structures:
        """The structures with shifted energies; forces and stress do not change.

        Raises:
            UserError: an element that no reference structure holds.
        """
        if missing := sorted(set(labelled.elements) - set(self.elements)):
            raise UserError(
                f"the teacher's energies cannot be aligned: no structure with a reference energy holds "
                f"{chemical_symbols[missing[0]]}. Add one that does."
            )
        if not len(labelled):
            return labelled
        counts = np.zeros((len(labelled), len(self.elements)))
        counts[:, np.searchsorted(self.elements, labelled.elements)] = composition(labelled)
        if len(self._open) and not self._warned and np.abs(counts @ self._open.T).max() > 1e-6 * counts.max():
            self._warned = True
            log.warning(
                "Energy offsets of the elements are not determined by the reference structures alone; "
                "structures of other compositions get an estimate."
            )
        return replace(labelled, energy=labelled.energy + counts @ self.offsets)


def align(
    labelled: Structures,
    reference: Structures,
    predicted: npt.ArrayLike,
    single: Mapping[int, float] | None = None,
) -> Structures:
    """Shift a teacher's energies so that they meet the quantum reference: see :class:`Alignment`.

    Args:
        labelled: structures with the teacher's energies.
        reference, predicted, single: as in :class:`Alignment`.

    Raises:
        UserError: no reference energy, or an element that no reference structure holds.
    """
    return Alignment(reference, predicted, single)(labelled)

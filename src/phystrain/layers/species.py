"""From atomic numbers to rows of a table with one row per known element."""

from collections.abc import Sequence

import torch
from ase.data import chemical_symbols
from jaxtyping import Int
from torch import Tensor, nn

from phystrain.errors import UserError

_UNKNOWN = -1


class SpeciesRows(nn.Module):
    """Row of each atom in tables whose rows are the known elements in ascending order.

    Args:
        species: atomic numbers of the known elements.
    """

    row_of: Tensor

    def __init__(self, species: Sequence[int]) -> None:
        super().__init__()
        known = torch.tensor(sorted(set(species)), dtype=torch.int64)
        rows = torch.full((len(chemical_symbols),), _UNKNOWN, dtype=torch.int64)
        rows[known] = torch.arange(len(known))
        self.register_buffer("row_of", rows)

    def forward(self, species: Int[Tensor, " atoms"]) -> Int[Tensor, " atoms"]:
        """(atoms,) rows of (atoms,) atomic numbers.

        Raises:
            UserError: an element that is not in the table.
        """
        rows = self.row_of.index_select(0, species)
        if not torch.compiler.is_compiling() and bool((rows == _UNKNOWN).any()):
            raise UserError(self._complaint(species[rows == _UNKNOWN]))
        return rows

    def _complaint(self, unknown: Int[Tensor, " unknown"]) -> str:
        names = ", ".join(chemical_symbols[number] for number in unknown.unique().tolist())
        known = ", ".join(chemical_symbols[number] for number in torch.nonzero(self.row_of >= 0).flatten().tolist())
        return (
            f"the potential knows {known}, not {names}.\nTrain it on data with {names}, or leave these structures out."
        )

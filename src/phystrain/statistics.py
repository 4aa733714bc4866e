"""What a potential may know about the data it is made for: computed once, passed explicitly, stored with the model."""

from ase.data import chemical_symbols
from pydantic import BaseModel, ConfigDict


def pair_name(first: int, second: int) -> str:
    """Key of an unordered pair of atomic numbers, such as ``8-14``."""
    return f"{min(first, second)}-{max(first, second)}"


def pair_label(first: int, second: int) -> str:
    """The same for people, such as ``O-Si``."""
    return "-".join(sorted((chemical_symbols[first], chemical_symbols[second])))


class Statistics(BaseModel):
    """Facts about the labelled training set; plain data, so that it can be stored as JSON.

    Attributes:
        species: atomic numbers that occur, ascending.
        reference_energies: eV, energy of one atom by atomic number: that of the isolated atom (given, or from
            isolated frames) or fitted to the total energies by least squares.
        reference_source: ``given``, ``isolated``, ``fitted`` or ``zero``.
        energy_mean: eV/atom, mean of what remains of the energies after the references.
        energy_rms: eV/atom, spread of the same about its mean.
        force_rms: eV/Å over all components; 1 where no forces are labelled.
        neighbours: mean number of neighbours of an atom within ``cutoff``.
        cutoff: Å, for ``neighbours``.
        nearest: Å by pair (see :func:`pair_name`): mean distance of an atom to its nearest one of the other element.
        shortest: Å by pair: shortest distance that occurs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    species: tuple[int, ...]
    reference_energies: dict[int, float] = {}
    reference_source: str = "zero"
    energy_mean: float = 0.0
    energy_rms: float = 1.0
    force_rms: float = 1.0
    neighbours: float = 1.0
    cutoff: float = 5.0
    nearest: dict[str, float] = {}
    shortest: dict[str, float] = {}

    @staticmethod
    def bare(species: tuple[int, ...]) -> "Statistics":
        """Neutral statistics for these elements: no reference energy, unit scales."""
        return Statistics(species=tuple(sorted(set(species))))

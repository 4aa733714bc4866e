"""What embedded-atom potentials share: pairs, the density that neighbours make, the energy of an atom in it.

    E = sum over atoms F(rho) + sum over pairs V(r),    rho of an atom = sum over its neighbours phi(r)

Source: Daw and Baskes 1984, doi:10.1103/PhysRevB.29.6443.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from phystrain.graph import AtomGraph
from phystrain.layers.pair import SpeciesPairs, atom_pairs


def smooth_root(density: Float[Tensor, " atoms"], smoothing: float) -> Float[Tensor, " atoms"]:
    """(atoms,) sqrt(rho + s) - sqrt(s), which is zero at rho = 0 and, for s > 0, smooth there.

    Args:
        density: (atoms,) at least zero.
        smoothing: s; with zero, the derivative at rho = 0 is taken as zero.
    """
    if smoothing > 0:
        # not the difference of the roots, which loses digits at small densities
        return density / ((density + smoothing).sqrt() + smoothing**0.5)
    some = density > 0
    return torch.where(some, torch.where(some, density, torch.ones_like(density)).sqrt(), torch.zeros_like(density))


class EmbeddedAtomPotential(nn.Module, ABC):
    """Base of potentials with a pair energy, a density and an embedding energy.

    No reference energy: an isolated atom has energy zero, because ``embedding`` is zero at zero density.

    Args:
        species: atomic numbers.
        cutoff: Å, beyond which ``pair_energies`` and ``densities`` are zero.

    Attributes:
        kinds: elements and pairs in the order of the tables.
        symmetric: whether two atoms cause the same density at one another, so that it is evaluated once for both.
        linear: see :class:`phystrain.layers.pair.PairPotential`.
        mixing: see :class:`phystrain.layers.pair.PairPotential`.
    """

    symmetric: bool = True
    linear: ClassVar[tuple[str, ...]] = ()
    mixing: ClassVar[dict[str, Literal["arithmetic", "geometric"]]] = {}

    def __init__(self, species: Sequence[int], cutoff: float) -> None:
        super().__init__()
        self.cutoff = float(cutoff)
        self.kinds = SpeciesPairs(species)

    @abstractmethod
    def pair_energies(self, distance: Float[Tensor, " edges"], pair: Int[Tensor, " edges"]) -> Float[Tensor, " edges"]:
        """(edges,) eV of pairs of atoms at ``distance`` (Å), cut-off included; ``pair`` indexes ``kinds.pairs``."""

    @abstractmethod
    def densities(
        self, distance: Float[Tensor, " edges"], first: Int[Tensor, " edges"], second: Int[Tensor, " edges"]
    ) -> Float[Tensor, " edges"]:
        """(edges,) density at an atom of element ``first`` that one of element ``second`` causes, cut-off included.

        Args:
            distance: (edges,) Å.
            first, second: (edges,) index of the elements as ``kinds.species_index`` gives it.
        """

    @abstractmethod
    def embedding(self, density: Float[Tensor, " atoms"], species: Int[Tensor, " atoms"]) -> Float[Tensor, " atoms"]:
        """(atoms,) eV of atoms in this density, zero at zero density; ``species`` as an index."""

    def pair_terms(
        self, distance: Float[Tensor, " edges"], first: Int[Tensor, " edges"], second: Int[Tensor, " edges"]
    ) -> tuple[Float[Tensor, " edges"], Float[Tensor, " edges"], Float[Tensor, " edges"]]:
        """(edges,) pair energy (eV), density at the first atom, density at the second one; all of it in one place.

        A potential whose energy and density have work in common may override this.
        """
        energy = self.pair_energies(distance, self.kinds.pair_index(first, second))
        at_first = self.densities(distance, first, second)
        return energy, at_first, at_first if self.symmetric else self.densities(distance, second, first)

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV: embedding, and half of the energy of each pair an atom takes part in."""
        species = self.kinds.species_index(graph.species)
        pairs = atom_pairs(graph, self.cutoff)
        energy, at_first, at_second = self.pair_terms(pairs.distance, species[pairs.first], species[pairs.second])
        density = at_first.new_zeros(graph.n_atoms).index_add(0, pairs.first, at_first)
        density = density.index_add(0, pairs.second, at_second)
        return self.embedding(density, species) + pairs.to_atoms(energy / 2, graph.n_atoms)

    def components(
        self, distance: Float[Tensor, " distances"], first: int, second: int
    ) -> dict[str, Float[Tensor, " distances"]]:
        """Curves of two atoms of these atomic numbers at ``distance`` (Å).

        Returns:
            ``pair``, ``embedding`` (of both atoms) and their sum ``total`` in eV, and ``density`` at the first atom,
            all (distances,).
        """
        numbers = torch.tensor([first, second], device=self.kinds.table.device)
        one, other = (index.expand(len(distance)) for index in self.kinds.species_index(numbers))
        energy, at_first, at_second = self.pair_terms(distance, one, other)
        embedding = self.embedding(at_first, one) + self.embedding(at_second, other)
        return {"pair": energy, "density": at_first, "embedding": embedding, "total": energy + embedding}

"""What pair potentials share: parameters by element pair, pairs of atoms counted once, the smooth cut-off."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal, NamedTuple

import torch
from ase.data import atomic_numbers, chemical_symbols, covalent_radii
from jaxtyping import Float, Int
from torch import Tensor, nn

from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.layers.species import SpeciesRows
from phystrain.statistics import Statistics, pair_name


def softplus_inverse(value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The number whose softplus is ``value`` (positive), without overflow for large values."""
    return value + torch.log(-torch.expm1(-value))


def positive_parameter(start: Sequence[float] | Sequence[Sequence[float]]) -> nn.Parameter:
    """A raw parameter whose softplus begins at ``start``; the inverse is taken in float64."""
    raw = softplus_inverse(torch.tensor(start, dtype=torch.float64))
    return nn.Parameter(raw.to(torch.get_default_dtype()))


def positive(raw: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """What :func:`positive_parameter` stands for."""
    return nn.functional.softplus(raw)


def smoothstep(fraction: Tensor) -> Tensor:
    """6 s^5 - 15 s^4 + 10 s^3: 0 for s <= 0, 1 for s >= 1, twice continuously differentiable."""
    s = fraction.clamp(0, 1)
    return s * s * s * (s * (6 * s - 15) + 10)


def smooth_cutoff(distance: Tensor, inner: Tensor | float, outer: Tensor | float) -> Tensor:
    """1 below ``inner``, 0 above ``outer`` (Å), a quintic between; twice continuously differentiable.

    Args:
        distance: (edges,) Å.
        inner, outer: Å, numbers or (edges,).
    """
    return smoothstep((outer - distance) / (outer - inner))


def morse_energies(
    distance: Float[Tensor, " edges"],
    depth: Float[Tensor, " edges"],
    decay: Float[Tensor, " edges"],
    minimum: Float[Tensor, " edges"],
) -> Float[Tensor, " edges"]:
    """(edges,) eV, D (1 - exp(-alpha (r - rm)))² - D, which is D x (x - 2) with x = exp(-alpha (r - rm)).

    Args:
        distance: (edges,) Å.
        depth: (edges,) eV, D.
        decay: (edges,) 1/Å, alpha.
        minimum: (edges,) Å, rm.
    """
    x = torch.exp(-decay * (distance - minimum))
    return depth * x * (x - 2)


class SpeciesPairs(nn.Module):
    """Numbers the elements of a data set and their unordered pairs, for tables of parameters.

    Args:
        species: atomic numbers, in any order.

    Attributes:
        species: atomic numbers, ascending.
        pairs: unordered pairs of atomic numbers, in the order of the tables.
    """

    table: Int[Tensor, "species species"]

    def __init__(self, species: Sequence[int]) -> None:
        super().__init__()
        self.species = tuple(sorted(set(species)))
        n = len(self.species)
        self.pairs = tuple((self.species[i], self.species[j]) for i in range(n) for j in range(i, n))
        self.rows = SpeciesRows(self.species)
        rows, columns = torch.triu_indices(n, n)  # in the order of ``pairs``
        table = torch.zeros(n, n, dtype=torch.int64)
        table[rows, columns] = table[columns, rows] = torch.arange(len(self.pairs))
        self.register_buffer("table", table, persistent=False)

    def species_index(self, numbers: Int[Tensor, " atoms"]) -> Int[Tensor, " atoms"]:
        """(atoms,) position of each atomic number in ``species``.

        Raises:
            UserError: an element the potential was not made for.
        """
        rows: Tensor = self.rows(numbers)
        return rows

    def pair_index(self, first: Int[Tensor, " edges"], second: Int[Tensor, " edges"]) -> Int[Tensor, " edges"]:
        """(edges,) position in ``pairs`` of two indices as :meth:`species_index` gives them."""
        return self.table[first, second]

    def pair_of(self, first: int, second: int, like: Tensor) -> Int[Tensor, " distances"]:
        """The index of one pair of atomic numbers, as often as ``like`` is long."""
        numbers = self.species_index(torch.tensor([first, second], device=self.table.device))
        return self.table[numbers[0], numbers[1]].expand(len(like))

    def complete(self, start: Sequence[float], given: Mapping[str, float]) -> list[float]:
        """Starting values by pair, those the user has given in place of ours.

        Args:
            start: by pair.
            given: by names such as ``O-Si``, in either order.

        Raises:
            UserError: a name that is not a pair of the data's elements.
        """
        values = list(start)
        for name, value in given.items():
            values[self.number(name)] = value
        return values

    def number(self, name: str) -> int:
        """The position in ``pairs`` of a pair given by a name such as ``O-Si``, in either order.

        Raises:
            UserError: a name that is not a pair of the data's elements.
        """
        symbols = name.split("-")
        wanted = tuple(sorted(atomic_numbers.get(symbol, -1) for symbol in symbols))
        if wanted not in self.pairs:
            known = ", ".join("-".join(chemical_symbols[z] for z in pair) for pair in self.pairs)
            raise UserError(f"{name!r} is no pair of elements of the data; choose from {known}")
        return self.pairs.index(wanted)


def covalent_distance(first: int, second: int) -> float:
    """Å, sum of two covalent radii (Cordero et al. 2008, doi:10.1039/b801115j, as in ASE)."""
    return float(covalent_radii[first] + covalent_radii[second])


BONDED = 1.25
"""A pair is bonded if its length is at most this multiple of the sum of covalent radii."""

REPULSIVE = 0.75
"""Below this multiple of the sum of covalent radii any two atoms must repel; no bond is as short."""

LONGEST = 1.2
"""A pair's length is at most this multiple of the shortest distance that occurs."""


def bond_lengths(pairs: Sequence[tuple[int, int]], statistics: Statistics) -> list[float]:
    """Å by pair, where a well or wall may begin: starting values for fits.

    The mean nearest distance in the data, unless the pair is seldom near and its shortest distance says more. For a
    pair that does not occur, the sum of covalent radii, scaled as the bonds are that do occur (metals are closer
    packed than their radii say).

    Args:
        pairs: atomic numbers.
        statistics: of the data.
    """
    seen = {}
    for pair in pairs:
        name = pair_name(*pair)
        if name in statistics.nearest:
            seen[pair] = min(statistics.nearest[name], LONGEST * statistics.shortest.get(name, math.inf))
    ratios = [length / covalent_distance(*pair) for pair, length in seen.items()]
    bonded = [ratio for ratio in ratios if ratio <= BONDED]
    scale = sum(bonded) / len(bonded) if bonded else 1.0
    return [seen.get(pair, scale * covalent_distance(*pair)) for pair in pairs]


class AtomPairs(NamedTuple):
    """Pairs of atoms within a cut-off, each once.

    Attributes:
        first, second: (pairs,) atoms; equal where an atom meets its own image.
        distance: (pairs,) Å.
    """

    first: Int[Tensor, " pairs"]
    second: Int[Tensor, " pairs"]
    distance: Float[Tensor, " pairs"]

    def to_atoms(self, values: Float[Tensor, " pairs"], n_atoms: int) -> Float[Tensor, " atoms"]:
        """(atoms,) sum over the pairs that an atom takes part in; an atom gets both ends of a pair with its image."""
        return values.new_zeros(n_atoms).index_add(0, self.first, values).index_add(0, self.second, values)


def atom_pairs(graph: AtomGraph, cutoff: float) -> AtomPairs:
    """The edges shorter than ``cutoff`` (Å), one of the two directions of each.

    Half the edges is half the work, from the vectors on: the others are dropped before anything is computed. Those
    beyond the cut-off (of a larger neighbour list) are dropped as soon as their length is known.
    """
    centre, neighbour = graph.edges
    # a lattice vector and its opposite differ in the sign of this number, up to 50 cells away
    order = graph.shifts @ graph.shifts.new_tensor([10201.0, 101.0, 1.0])
    once = torch.nonzero((centre < neighbour) | ((centre == neighbour) & (order > 0))).squeeze(1)
    half = replace(graph, edges=graph.edges.index_select(1, once), shifts=graph.shifts.index_select(0, once))
    kept = torch.nonzero(half.distances.detach() < cutoff).squeeze(1)
    first, second = half.edges
    return AtomPairs(first.index_select(0, kept), second.index_select(0, kept), half.distances.index_select(0, kept))


class PairPotential(nn.Module, ABC):
    """Base of potentials that are a sum over pairs of atoms: E = sum over pairs of ``pair_energies``.

    An atom's energy is half the sum over its pairs; no reference energy, so a lone atom has energy zero.

    Args:
        species: atomic numbers.
        cutoff: Å, beyond which ``pair_energies`` is zero.

    Attributes:
        kinds: elements and pairs in the order of the tables.
        linear: names of the parameters in which the energy is affine, the others fixed: in the positive value
            (:func:`positive`) of those called ``raw_...``, in the parameter itself of those called ``free_...``.
        mixing: for each parameter whose rows are ``kinds.pairs``, the mean of the values of the two like pairs that
            stands for an unlike pair that the data do not hold.
    """

    linear: ClassVar[tuple[str, ...]] = ()
    mixing: ClassVar[dict[str, Literal["arithmetic", "geometric"]]] = {}

    def __init__(self, species: Sequence[int], cutoff: float) -> None:
        super().__init__()
        self.cutoff = float(cutoff)
        self.kinds = SpeciesPairs(species)

    @abstractmethod
    def pair_energies(self, distance: Float[Tensor, " edges"], pair: Int[Tensor, " edges"]) -> Float[Tensor, " edges"]:
        """(edges,) eV of pairs of atoms at ``distance`` (Å); ``pair`` indexes the tables of ``kinds.pairs``."""

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV."""
        species = self.kinds.species_index(graph.species)
        pairs = atom_pairs(graph, self.cutoff)
        energies = self.pair_energies(
            pairs.distance, self.kinds.pair_index(species[pairs.first], species[pairs.second])
        )
        return pairs.to_atoms(energies / 2, graph.n_atoms)

    def components(
        self, distance: Float[Tensor, " distances"], first: int, second: int
    ) -> dict[str, Float[Tensor, " distances"]]:
        """Energy curve (eV) of two atoms of these atomic numbers at ``distance`` (Å), under the name ``total``."""
        return {"total": self.pair_energies(distance, self.kinds.pair_of(first, second, distance))}

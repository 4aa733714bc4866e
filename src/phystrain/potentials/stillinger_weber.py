"""Covalent bonds: pairs, and a penalty on angles between bonds.

    E = sum over pairs [ b (sigma/r)^p - a (sigma/r)^q ] exp(sigma/(r - R))
      + sum over angles l (cos theta - cos theta0)² exp(g/(r1 - R1)) exp(g/(r2 - R2))

Source: Stillinger and Weber 1985, doi:10.1103/PhysRevB.31.5262. In their letters a is A epsilon, b is A B epsilon, R is
a sigma, g is gamma sigma and l is lambda epsilon. Everything is zero at R and beyond, with all derivatives; R is fixed
and a different one for each pair of elements.

Angles are those between two *bonded* pairs of elements, by default the pairs that occur in the data no further apart
than 1.25 times the sum of their covalent radii, but not two metals beside a non-metal that binds them: in silica
O-Si-O and Si-O-Si, in TiO2 O-Ti-O and Ti-O-Ti, in water H-O-H (and O-H-O). All other pairs of elements have a
pair energy only, and no angle whatever the distance. With ``two_body: false`` only the angles remain, as a term to be
added to a pair potential: ``sum`` of ``born_mayer`` and this is of the form of Vashishta et al. 1990
(doi:10.1103/PhysRevB.41.12197).
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from ase.data import atomic_numbers, chemical_symbols
from jaxtyping import Float, Int
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.layers.elements import NON_METALS
from phystrain.layers.pair import (
    BONDED,
    SpeciesPairs,
    atom_pairs,
    bond_lengths,
    covalent_distance,
    positive,
    positive_parameter,
)
from phystrain.layers.triplets import cosines, triplets
from phystrain.potentials import PotentialConfig
from phystrain.statistics import Statistics, pair_name


class Config(PotentialConfig):
    """Stillinger-Weber potential, or only its angles; strengths, lengths and angles are fitted."""

    kind: Literal["stillinger_weber"] = "stillinger_weber"
    two_body: bool = Field(True, description="Pair energies as well as angles.")
    published: Literal["silicon"] | None = Field(
        None, description="Start from published parameters, for data of that element alone, instead of from the data."
    )
    bonded: list[str] | None = Field(
        None, description="Pairs such as O-Si whose angles count; else those as near in the data as bonds are."
    )
    minimum: dict[str, PositiveFloat] = Field(
        {}, description="Å by pair such as O-Si, place of the minimum (1.122 sigma); else the bond length in the data."
    )
    reach: float = Field(1.8, gt=1.2, description="R in units of sigma, for all pairs; fixed.")
    repulsive_power: float = Field(4.0, gt=0, description="p")
    attractive_power: float = Field(0.0, ge=0, description="q")
    depth: float = Field(1.0, gt=0, description="eV, epsilon at the start, of bonded pairs.")
    loose_depth: float = Field(0.05, gt=0, description="eV, epsilon at the start, of all other pairs.")
    strength: float = Field(10.0, gt=0, description="eV, lambda epsilon at the start, of all angles.")
    strengths: dict[str, PositiveFloat] = Field({}, description="eV by angle such as O-Si-O, in place of strength.")
    cosines: dict[str, float] = Field(
        {}, description="cos theta0 at the start by angle such as O-Si-O; else from distances in the data, or -1/3."
    )
    spread: float = Field(1.2, gt=0, description="gamma at the start, of all pairs.")

    def build(self, statistics: Statistics) -> "StillingerWeber":
        if self.attractive_power >= self.repulsive_power:
            raise UserError("stillinger_weber: repulsive_power must be larger than attractive_power")
        if self.published is None:
            return StillingerWeber(self, statistics)
        if statistics.species != (14,):
            raise UserError("stillinger_weber: published: silicon is for data of silicon alone; leave it out")
        epsilon, sigma = 2.1683, 2.0951  # eV, Å: cohesive energy and lattice constant of the crystal
        settings = {
            "published": None,
            "bonded": ["Si-Si"],
            "minimum": {"Si-Si": sigma * 2 ** (1 / 6)},
            "reach": 1.80,
            "repulsive_power": 4.0,
            "attractive_power": 0.0,
            "depth": epsilon,
            "strength": 21.0 * epsilon,
            "strengths": {},
            "cosines": {"Si-Si-Si": -1 / 3},
            "spread": 1.20,
        }
        made = StillingerWeber(self.model_copy(update=settings), statistics)
        if self.two_body:
            attraction = 7.049556277 * epsilon  # rounded in the paper, so not exactly that of ``_well``
            made.raw_attraction = positive_parameter([attraction])
            made.raw_repulsion = positive_parameter([0.6022245584 * attraction])
        return made


class StillingerWeber(nn.Module):
    """See the module.

    Args:
        config: settings.
        statistics: elements and distances of the data, for the starting values.

    Attributes:
        kinds: elements and pairs in the order of the parameters.
        angles: (first end, centre, second end) atomic numbers, in the order of the parameters.
    """

    linear: ClassVar[tuple[str, ...]] = ("raw_repulsion", "raw_attraction", "raw_strength")
    mixing: ClassVar[dict[str, Literal["arithmetic", "geometric"]]] = {
        "raw_repulsion": "geometric",
        "raw_attraction": "geometric",
        "raw_sigma": "arithmetic",
        "raw_spread": "arithmetic",
    }

    radius: Float[Tensor, " pairs"]
    angular_radius: Float[Tensor, " pairs"]
    angle_table: Int[Tensor, "species species species"]

    def __init__(self, config: Config, statistics: Statistics) -> None:
        super().__init__()
        self.kinds = SpeciesPairs(statistics.species)
        pairs = self.kinds.pairs
        lengths = self.kinds.complete(bond_lengths(pairs, statistics), config.minimum)
        bonded = _bonded_pairs(self.kinds, lengths, statistics, config.bonded)
        sigma = [length / 2 ** (1 / 6) for length in lengths]
        radius = torch.tensor([config.reach * length for length in sigma], dtype=torch.float64)
        angular = radius * torch.tensor(bonded, dtype=torch.float64)
        self.cutoff = float((radius if config.two_body else angular).max())
        if self.cutoff == 0:
            raise UserError("stillinger_weber: no bonded pairs in the data, hence no angles; name some: bonded: [O-Si]")
        self.two_body, self.powers = config.two_body, (config.repulsive_power, config.attractive_power)
        if config.two_body:
            repulsion, attraction = _well(*self.powers, config.reach)
            depths = [config.depth if bond else config.loose_depth for bond in bonded]
            self.raw_repulsion = positive_parameter([repulsion * depth for depth in depths])
            self.raw_attraction = positive_parameter([attraction * depth for depth in depths])
            self.raw_sigma = positive_parameter(sigma)
        self.angles = _angles(self.kinds, bonded)
        start = [_cosine(angle, dict(zip(pairs, lengths, strict=True)), bonded, pairs) for angle in self.angles]
        cosine = torch.tensor(_by_angle(self.angles, start, config.cosines), dtype=torch.float64)
        if not bool((cosine.abs() < 1).all()):
            raise UserError("stillinger_weber: cosines must lie between -1 and 1")
        strength = [config.strength] * len(self.angles)
        self.raw_strength = positive_parameter(_by_angle(self.angles, strength, config.strengths))
        self.free_cosine = nn.Parameter(torch.atanh(cosine).to(torch.get_default_dtype()))
        self.raw_spread = positive_parameter([config.spread * length for length in sigma])
        self.register_buffer("radius", radius.to(torch.get_default_dtype()))
        self.register_buffer("angular_radius", angular.to(torch.get_default_dtype()))
        self.register_buffer("angle_table", _angle_table(self.kinds, self.angles), persistent=False)

    def pair_energies(self, distance: Float[Tensor, " edges"], pair: Int[Tensor, " edges"]) -> Float[Tensor, " edges"]:
        """(edges,) eV of pairs of atoms at ``distance`` (Å); ``pair`` indexes ``kinds.pairs``. Zero if only angles."""
        if not self.two_body:
            return torch.zeros_like(distance)
        repulsion, attraction, sigma = (
            positive(raw).index_select(0, pair) for raw in (self.raw_repulsion, self.raw_attraction, self.raw_sigma)
        )
        p, q = self.powers
        ratio = sigma / distance
        return (repulsion * ratio**p - attraction * ratio**q) * _fade(distance, self.radius[pair], sigma)

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV: half of the pair energies, and the angles at the atom; zero for an isolated atom."""
        species = self.kinds.species_index(graph.species)
        energies = self._angle_energies(graph, species)
        if not self.two_body:
            return energies
        pairs = atom_pairs(graph, self.cutoff)
        found = self.pair_energies(pairs.distance, self.kinds.pair_index(species[pairs.first], species[pairs.second]))
        return energies + pairs.to_atoms(found / 2, graph.n_atoms)

    def _angle_energies(self, graph: AtomGraph, species: Int[Tensor, " atoms"]) -> Float[Tensor, " atoms"]:
        """(atoms,) eV of the angles at each atom; ``species`` as an index."""
        centre, neighbour = graph.edges
        pair = self.kinds.pair_index(species[centre], species[neighbour])
        near = torch.nonzero(graph.distances.detach() < self.angular_radius[pair]).squeeze(1)
        centre, neighbour, pair = centre[near], neighbour[near], pair[near]
        distance, vectors = graph.distances.index_select(0, near), graph.vectors.index_select(0, near)
        fade = _fade(distance, self.angular_radius[pair], positive(self.raw_spread).index_select(0, pair))
        found = triplets(centre, graph.n_atoms)
        at = centre.index_select(0, found.first)
        ends = species[neighbour]
        angle = self.angle_table[species[at], ends[found.first], ends[found.second]]
        strength = positive(self.raw_strength).index_select(0, angle)
        excess = cosines(vectors, distance, found) - torch.tanh(self.free_cosine).index_select(0, angle)
        both = fade.index_select(0, found.first) * fade.index_select(0, found.second)
        return distance.new_zeros(graph.n_atoms).index_add(0, at, strength * excess * excess * both)

    def components(
        self, distance: Float[Tensor, " distances"], first: int, second: int
    ) -> dict[str, Float[Tensor, " distances"]]:
        """Energy curve (eV) of two atoms of these atomic numbers at ``distance`` (Å), under the name ``total``."""
        return {"total": self.pair_energies(distance, self.kinds.pair_of(first, second, distance))}

    def lammps_entries(self) -> dict[tuple[str, str, str], dict[str, float]]:
        """What a file for LAMMPS' ``pair_style sw`` holds, in its units ``metal``.

        Returns:
            By (centre, end, end), every ordered triple of elements, the numbers ``epsilon sigma a lambda gamma
            costheta0 A B p q tol`` in this order. Energies are in A and lambda; epsilon is 1.

        Raises:
            UserError: an attraction so small that B, the ratio of repulsion and attraction, is no number.
        """
        rows: dict[tuple[str, str, str], dict[str, float]] = {}
        species, symbols = self.kinds.species, [chemical_symbols[number] for number in self.kinds.species]
        table, pairs = self.angle_table.tolist(), self.kinds.table.tolist()
        with torch.no_grad():
            strength, spread = (positive(raw.double()).tolist() for raw in (self.raw_strength, self.raw_spread))
            cosine = torch.tanh(self.free_cosine.double()).tolist()
        radius = (self.radius if self.two_body else self.angular_radius).double().tolist()
        for i in range(len(species)):
            for j in range(len(species)):
                for k in range(len(species)):
                    angle, pair = table[i][j][k], pairs[i][j]
                    sigma, repulsion, attraction = self._two_body_numbers(pair)
                    if repulsion and not repulsion < 1e12 * attraction:
                        raise UserError(
                            f"{symbols[i]}-{symbols[j]} has no attraction, so LAMMPS' sw cannot hold its repulsion "
                            "(A B with A = 0); raise loose_depth and fit again, or use the Python interface."
                        )
                    rows[symbols[i], symbols[j], symbols[k]] = {
                        "epsilon": 1.0,
                        "sigma": sigma,
                        "a": radius[pair] / sigma,
                        "lambda": strength[angle] if angle >= 0 else 0.0,
                        "gamma": spread[pair] / sigma,
                        "costheta0": cosine[angle] if angle >= 0 else -1 / 3,
                        "A": attraction,
                        "B": repulsion / attraction if attraction else 0.0,
                        "p": self.powers[0],
                        "q": self.powers[1],
                        "tol": 0.0,
                    }
        return rows

    def _two_body_numbers(self, pair: int) -> tuple[float, float, float]:
        """Sigma (Å), repulsion and attraction (eV) of a pair; 1, 0, 0 if there are only angles."""
        if not self.two_body:
            return 1.0, 0.0, 0.0
        with torch.no_grad():
            raws = (self.raw_sigma, self.raw_repulsion, self.raw_attraction)
            sigma, repulsion, attraction = (float(positive(raw[pair].double())) for raw in raws)
        return sigma, repulsion, attraction


GAP = 0.01
"""A distance nearer to the radius than this fraction of the length in the exponent counts as this near: exp(-100)."""


_NON_METALS = frozenset(atomic_numbers[symbol] for symbol in NON_METALS)
_BINDING = frozenset((6, 7, 8, 9, 15, 16, 17, 33, 34, 35, 52, 53))
"""Non-metals that metals are bonded to, rather than to one another."""


def _fade(distance: Tensor, radius: Tensor, length: Tensor) -> Tensor:
    """(edges,) exp(length/(r - R)), zero from R on, with finite derivatives of all orders in single precision too."""
    gap = torch.maximum(radius - distance, GAP * length.detach())
    return torch.where(distance < radius, torch.exp(-length / gap), torch.zeros_like(distance))


def _well(p: float, q: float, reach: float) -> tuple[float, float]:
    """Repulsion A B and attraction A with which the pair energy has its minimum, -1, at r = 2^(1/6) sigma.

    With p = 4, q = 0 and a reach of 1.8 these are the numbers of the paper, A = 7.0496 and B = 0.60222.
    """
    x = 2 ** (1 / 6)
    slope = 1 / (x - reach) ** 2
    b = x**-q * (q / x + slope) / (x**-p * (p / x + slope))
    a = -1 / ((b * x**-p - x**-q) * math.exp(1 / (x - reach)))
    return a * b, a


def _bonded_pairs(
    kinds: SpeciesPairs, lengths: Sequence[float], statistics: Statistics, given: Sequence[str] | None
) -> list[bool]:
    """By pair, whether its angles count: as named, else by the rule of the module."""
    if given is not None:
        marks = kinds.complete([0.0] * len(kinds.pairs), dict.fromkeys(given, 1.0))
        return [mark > 0 for mark in marks]
    ionic = not _BINDING.isdisjoint(kinds.species)
    near = [length <= BONDED * covalent_distance(*pair) for pair, length in zip(kinds.pairs, lengths, strict=True)]
    return [
        close
        and not (ionic and _NON_METALS.isdisjoint(pair))
        and (not statistics.nearest or pair_name(*pair) in statistics.nearest)
        for pair, close in zip(kinds.pairs, near, strict=True)
    ]


def _angles(kinds: SpeciesPairs, bonded: Sequence[bool]) -> list[tuple[int, int, int]]:
    """(end, centre, end) atomic numbers of all angles between bonds, the smaller end first."""
    bonds = {frozenset(pair) for pair, bond in zip(kinds.pairs, bonded, strict=True) if bond}
    return [
        (first, centre, second)
        for centre in kinds.species
        for first, second in kinds.pairs
        if frozenset((first, centre)) in bonds and frozenset((second, centre)) in bonds
    ]


def _angle_table(kinds: SpeciesPairs, angles: Sequence[tuple[int, int, int]]) -> Int[Tensor, "species species species"]:
    """(centre, end, end) to the row of the parameters, by index of element; -1 for angles that do not count."""
    number = {species: index for index, species in enumerate(kinds.species)}
    table = torch.full((len(number),) * 3, -1, dtype=torch.int64)
    for row, (first, centre, second) in enumerate(angles):
        table[number[centre], number[first], number[second]] = row
        table[number[centre], number[second], number[first]] = row
    return table


def _cosine(
    angle: tuple[int, int, int],
    lengths: Mapping[tuple[int, int], float],
    bonded: Sequence[bool],
    pairs: Sequence[tuple[int, int]],
) -> float:
    """Where an angle may begin: by the law of cosines if its ends are no bond, so that their distance is due to it.

    The tetrahedron's -1/3 otherwise, and where the distances make no sense as a triangle.
    """
    first, centre, second = angle
    ends = (min(first, second), max(first, second))
    if bonded[pairs.index(ends)]:
        return -1 / 3
    one, other = (lengths[min(centre, end), max(centre, end)] for end in (first, second))
    cosine = (one**2 + other**2 - lengths[ends] ** 2) / (2 * one * other)
    return cosine if -0.95 < cosine < 0.5 else -1 / 3


def _by_angle(
    angles: Sequence[tuple[int, int, int]], start: Sequence[float], given: Mapping[str, float]
) -> list[float]:
    """Starting values by angle, those the user has given (by names such as ``O-Si-O``) in place of ours.

    Raises:
        UserError: a name that is no angle between bonded pairs.
    """
    values = list(start)
    rows = {angle: row for row, angle in enumerate(angles)}
    for name, value in given.items():
        numbers = [atomic_numbers.get(symbol, -1) for symbol in name.split("-")]
        key = (min(numbers[0], numbers[-1]), numbers[len(numbers) // 2], max(numbers[0], numbers[-1]))
        if len(numbers) != 3 or key not in rows:
            known = ", ".join("-".join(chemical_symbols[z] for z in angle) for angle in angles)
            raise UserError(f"{name!r} is no angle between bonded pairs; choose from {known}, or set bonded")
        values[rows[key]] = value
    return values

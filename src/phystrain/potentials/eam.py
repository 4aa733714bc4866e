"""Embedded-atom potential: pairs, and the energy of an atom in the density of the others. The usual teacher.

    E = sum over atoms [ B (rho - rho0)² - B rho0² ] + sum over pairs fc(r) [ D (1 - exp(-alpha (r - rm)))² - D ]
    rho = sum over neighbours fc(r) sum over k A_k exp(-beta_k r)

Source: Daw and Baskes 1984, doi:10.1103/PhysRevB.29.6443, in the form that Zheng and Fung fit (arXiv 2602.19592). Three
things differ from theirs. The beta_k start apart: exponentials that start alike get the same gradient and stay one.
D, alpha, rm, A, beta and B are positive, so that the embedding is convex. The reference B rho0² is subtracted, so that
an isolated atom has energy zero.

With ``zbl``, nuclei repel at short distance whatever was fitted (:class:`phystrain.layers.zbl.RepulsiveWall`): Morse's
wall is finite, and embedding and density know nothing of distances that the data do not hold.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from phystrain.graph import AtomGraph
from phystrain.layers.pair import (
    BONDED,
    SpeciesPairs,
    atom_pairs,
    bond_lengths,
    covalent_distance,
    morse_energies,
    positive,
    positive_parameter,
    smooth_cutoff,
)
from phystrain.layers.zbl import RepulsiveWall, wall_radius
from phystrain.potentials import PotentialConfig
from phystrain.statistics import Statistics, pair_name


class Config(PotentialConfig):
    """Embedded-atom potential with a Morse pair term and a quadratic embedding; everything is fitted."""

    kind: Literal["eam"] = "eam"
    cutoff: float = Field(6.0, gt=0, description="Å; the source has 8")
    inner_fraction: float = Field(0.66, gt=0, lt=1, description="The cut-off acts from this fraction of its radius.")
    exponentials: int = Field(10, ge=1, description="Number of exponentials of the density, for each pair of elements.")
    decays: tuple[float, float] = Field((0.5, 5.0), description="1/Å, range over which beta is spread at the start.")
    depth: float = Field(1.0, gt=0, description="eV, D at the start, of pairs that are bonded in the data or unseen.")
    loose_depth: float = Field(0.1, gt=0, description="eV, D at the start, of pairs that occur but are not bonded.")
    decay: float = Field(2.0, gt=0, description="1/Å, alpha at the start.")
    minimum: dict[str, float] = Field(
        {}, description="Å by pair such as O-Si, rm at the start; else the bond length in the data."
    )
    curvature: float = Field(0.1, gt=0, description="eV, B at the start; the density starts at about one.")
    zbl: bool = Field(True, description="Add the repulsion of nuclei at distances shorter than any in the data.")

    def build(self, statistics: Statistics) -> "EAM":
        return EAM(self, statistics)


WALL_FRACTION, WALL_UNSEEN, WALL_INNER = 0.75, 0.6, 0.5
"""Where the repulsion ends and where it is whole: see :func:`phystrain.layers.zbl.wall_radius`."""


class EAM(nn.Module):
    """See the module.

    Args:
        config: settings.
        statistics: elements, distances and coordination of the data, for the starting values.

    Attributes:
        kinds: elements and pairs in the order of the parameters.
        origin: (pairs,) Å, distance at which the amplitudes are those of the exponentials.
    """

    origin: Float[Tensor, " pairs"]

    def __init__(self, config: Config, statistics: Statistics) -> None:
        super().__init__()
        self.cutoff = config.cutoff
        self.inner = config.inner_fraction * config.cutoff
        self.kinds = SpeciesPairs(statistics.species)
        pairs = self.kinds.pairs
        lengths = bond_lengths(self.kinds.pairs, statistics)
        bonded = [length <= BONDED * covalent_distance(*pair) for pair, length in zip(pairs, lengths, strict=True)]
        minimum = self.kinds.complete(lengths, config.minimum)
        self.raw_depth = positive_parameter([config.depth if bond else config.loose_depth for bond in bonded])
        self.raw_decay = positive_parameter([config.decay] * len(pairs))
        self.raw_minimum = positive_parameter(minimum)
        betas = _spread(*config.decays, config.exponentials)
        self.raw_beta = positive_parameter([betas] * len(pairs))
        shortest = [
            statistics.shortest.get(pair_name(*pair), length) for pair, length in zip(pairs, lengths, strict=True)
        ]
        self.raw_amplitude = positive_parameter([self._amplitudes(betas, start, statistics) for start in shortest])
        self.raw_curvature = positive_parameter([config.curvature] * len(self.kinds.species))
        self.raw_density = positive_parameter([1.0] * len(self.kinds.species))
        # amplitudes are fitted at the shortest distance: those at r = 0 would span orders of magnitude
        self.register_buffer("origin", torch.tensor(shortest, dtype=torch.get_default_dtype()))
        outer = [wall_radius(*pair, statistics, WALL_FRACTION, WALL_UNSEEN) for pair in pairs]
        self.wall = RepulsiveWall(self.kinds, outer, WALL_INNER) if config.zbl else None

    def _amplitudes(self, betas: list[float], start: float, statistics: Statistics) -> list[float]:
        """Amplitudes at ``start`` (Å) with which all exponentials together give a density of about one.

        Each is divided by its sum over neighbours spread evenly beyond ``start``, or by one where there are fewer.
        """
        number_density = statistics.neighbours / (4 / 3 * math.pi * statistics.cutoff**3)
        r = torch.linspace(start, max(self.cutoff, start + 1e-3), 400, dtype=torch.float64)
        shell = 4 * math.pi * number_density * r**2 * smooth_cutoff(r, self.inner, self.cutoff)
        sums = [float(torch.trapezoid(shell * torch.exp(-beta * (r - start)), r)) for beta in betas]
        return [1 / (len(betas) * max(total, 1.0)) for total in sums]

    def _density(self, distance: Tensor, pair: Tensor) -> Tensor:
        """(edges,) contribution of one atom to the density at the other, before the cut-off."""
        amplitude, beta = positive(self.raw_amplitude), positive(self.raw_beta)
        offset = (distance - self.origin[pair])[:, None]
        return (amplitude.index_select(0, pair) * torch.exp(-beta.index_select(0, pair) * offset)).sum(dim=1)

    def _edge_terms(
        self, distance: Float[Tensor, " edges"], pair: Int[Tensor, " edges"]
    ) -> tuple[Float[Tensor, " edges"], Float[Tensor, " edges"]]:
        """(edges,) pair energy in eV and density of pairs of atoms at ``distance`` (Å)."""
        soft = distance if self.wall is None else self.wall.softened(distance, pair)
        fade = smooth_cutoff(distance, self.inner, self.cutoff)
        depth, decay, minimum = (
            positive(raw).index_select(0, pair) for raw in (self.raw_depth, self.raw_decay, self.raw_minimum)
        )
        energy = fade * morse_energies(soft, depth, decay, minimum)
        if self.wall is not None:
            energy = energy + self.wall(distance, pair)
        return energy, fade * self._density(soft, pair)

    def _embedding(self, density: Float[Tensor, " atoms"], species: Int[Tensor, " atoms"]) -> Float[Tensor, " atoms"]:
        """(atoms,) eV, B (rho - rho0)² - B rho0²; ``species`` as an index."""
        curvature, equilibrium = positive(self.raw_curvature)[species], positive(self.raw_density)[species]
        return curvature * density * (density - 2 * equilibrium)

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV, zero for an isolated atom."""
        species = self.kinds.species_index(graph.species)
        pairs = atom_pairs(graph, self.cutoff)
        energy, density = self._edge_terms(
            pairs.distance, self.kinds.pair_index(species[pairs.first], species[pairs.second])
        )
        embedding = self._embedding(pairs.to_atoms(density, graph.n_atoms), species)
        return embedding + pairs.to_atoms(energy / 2, graph.n_atoms)

    def components(
        self, distance: Float[Tensor, " distances"], first: int, second: int
    ) -> dict[str, Float[Tensor, " distances"]]:
        """Curves of two atoms of these atomic numbers at ``distance`` (Å).

        Returns:
            ``pair``, ``embedding`` (of both atoms) and their sum ``total`` in eV, and ``density``, all (distances,).
        """
        energy, density = self._edge_terms(distance, self.kinds.pair_of(first, second, distance))
        numbers = torch.tensor([first, second], device=self.origin.device)
        one, other = (
            self._embedding(density, index.expand(len(distance))) for index in self.kinds.species_index(numbers)
        )
        embedding = one + other
        return {"pair": energy, "density": density, "embedding": embedding, "total": energy + embedding}


def _spread(low: float, high: float, n: int) -> list[float]:
    """``n`` numbers from ``low`` to ``high`` with equal ratios."""
    return [low * (high / low) ** (k / max(n - 1, 1)) for k in range(n)]

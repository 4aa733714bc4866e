"""Embedded-atom potential: pairs, and the energy of an atom in the density of the others. The usual teacher.

    E = sum over atoms F(rho) + sum over pairs fc(r) [ D (1 - exp(-alpha (r - rm)))² - D ]
    rho = sum over neighbours fc(r) sum over k A_k exp(-beta_k r)

The embedding F is convex and F(0) = 0, in one of three forms:

    quadratic    B (rho - rho0)² - B rho0²
    square_root  -C (sqrt(rho + s) - sqrt(s)); s keeps it differentiable where an atom has no neighbours
    spline       -S rho + sum over k B_k G_k(rho); F'' goes in straight lines from B_k to B_k+1 between even knots

Source: Daw and Baskes 1984, doi:10.1103/PhysRevB.29.6443, with pair term, density and quadratic embedding in the form
that Zheng and Fung fit (arXiv 2602.19592); the square root is that of Finnis and Sinclair 1984,
doi:10.1080/01418618408244210. Three things differ from Zheng and Fung. The beta_k start apart: exponentials that start
alike get the same gradient and stay one. All parameters are positive, so that the embedding is convex. The reference
B rho0² is subtracted, so that an isolated atom has energy zero.

Their starting point is ``{kind: eam, cutoff: 8, decays: [1, 1], amplitude: 1, depth: 1, loose_depth: 1, decay: 1,
curvature: 1, density: 1, minimum: covalent, zbl: false}``.

With ``zbl``, nuclei repel at short distance whatever was fitted (:class:`phystrain.layers.zbl.RepulsiveWall`): Morse's
wall is finite, and embedding and density know nothing of distances that the data do not hold.
"""

import math
from abc import abstractmethod
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveFloat
from torch import Tensor

from phystrain.layers.embedded_atom import EmbeddedAtomPotential, smooth_root
from phystrain.layers.pair import (
    BONDED,
    bond_lengths,
    covalent_distance,
    morse_energies,
    positive,
    positive_parameter,
    smooth_cutoff,
)
from phystrain.layers.zbl import wall_below_bonds
from phystrain.potentials import PotentialConfig
from phystrain.statistics import Statistics, pair_name


class Config(PotentialConfig):
    """Embedded-atom potential with a Morse pair term and a convex embedding; everything is fitted."""

    kind: Literal["eam"] = "eam"
    cutoff: float = Field(6.0, gt=0, description="Å; the source has 8")
    inner_fraction: float = Field(0.66, gt=0, lt=1, description="The cut-off acts from this fraction of its radius.")
    embedding: Literal["quadratic", "square_root", "spline"] = Field(
        "quadratic", description="Energy of an atom as a function of the density: see the head of the file."
    )
    exponentials: int = Field(10, ge=1, description="Number of exponentials of the density, for each pair of elements.")
    decays: tuple[PositiveFloat, PositiveFloat] = Field(
        (0.5, 5.0), description="1/Å, range over which beta is spread at the start."
    )
    amplitude: float | None = Field(
        None,
        gt=0,
        description="A at the start, of each exponential; none: such that the density in the data is about one.",
    )
    depth: float = Field(1.0, gt=0, description="eV, D at the start, of pairs that are bonded in the data or unseen.")
    loose_depth: float = Field(0.1, gt=0, description="eV, D at the start, of pairs that occur but are not bonded.")
    decay: float = Field(2.0, gt=0, description="1/Å, alpha at the start.")
    minimum: dict[str, PositiveFloat] | Literal["covalent"] = Field(
        {},
        description="Å by pair such as O-Si, rm at the start; else the bond length in the data. "
        "covalent: sums of covalent radii.",
    )
    curvature: float = Field(0.1, gt=0, description="eV, B at the start (quadratic, spline).")
    density: float = Field(1.0, gt=0, description="rho0 at the start; a spline's knots end at twice as much.")
    strength: float = Field(0.5, gt=0, description="eV, C at the start (square_root).")
    smoothing: float = Field(0.01, gt=0, description="s, a density much smaller than that in the data (square_root).")
    knots: int = Field(8, ge=2, description="intervals between the knots (spline)")
    zbl: bool = Field(True, description="Add the repulsion of nuclei at distances shorter than any in the data.")

    def build(self, statistics: Statistics) -> "EAM":
        return EMBEDDINGS[self.embedding](self, statistics)


class EAM(EmbeddedAtomPotential):
    """Pair energy and density; sub-classes add the embedding.

    Args:
        config: settings.
        statistics: elements, distances and coordination of the data, for the starting values.

    Attributes:
        origin: (pairs,) Å, distance at which the amplitudes are those of the exponentials.
    """

    linear: ClassVar[tuple[str, ...]] = ("raw_depth", "raw_curvature")
    mixing: ClassVar[dict[str, Literal["arithmetic", "geometric"]]] = {
        "raw_depth": "geometric",
        "raw_decay": "arithmetic",
        "raw_minimum": "arithmetic",
        "raw_beta": "arithmetic",
        "raw_amplitude": "geometric",
    }

    origin: Float[Tensor, " pairs"]

    def __init__(self, config: Config, statistics: Statistics) -> None:
        super().__init__(statistics.species, config.cutoff)
        self.inner = config.inner_fraction * config.cutoff
        pairs = self.kinds.pairs
        lengths = bond_lengths(pairs, statistics)
        covalent = [covalent_distance(*pair) for pair in pairs]
        bonded = [length <= BONDED * radii for length, radii in zip(lengths, covalent, strict=True)]
        minimum = covalent if config.minimum == "covalent" else self.kinds.complete(lengths, config.minimum)
        self.raw_depth = positive_parameter([config.depth if bond else config.loose_depth for bond in bonded])
        self.raw_decay = positive_parameter([config.decay] * len(pairs))
        self.raw_minimum = positive_parameter(minimum)
        betas = _spread(*config.decays, config.exponentials)
        self.raw_beta = positive_parameter([betas] * len(pairs))
        if config.amplitude is None:
            # amplitudes are fitted at the shortest distance: those at r = 0 would span orders of magnitude
            origin = [
                statistics.shortest.get(pair_name(*pair), length) for pair, length in zip(pairs, lengths, strict=True)
            ]
            self.raw_amplitude = positive_parameter([self._amplitudes(betas, start, statistics) for start in origin])
        else:
            origin = [0.0] * len(pairs)
            self.raw_amplitude = positive_parameter([[config.amplitude] * len(betas)] * len(pairs))
        self._add_embedding(config)
        self.register_buffer("origin", torch.tensor(origin, dtype=torch.get_default_dtype()))
        self.wall = wall_below_bonds(self.kinds, statistics) if config.zbl else None

    @abstractmethod
    def _add_embedding(self, config: Config) -> None:
        """Make the parameters of the embedding."""

    def _amplitudes(self, betas: list[float], start: float, statistics: Statistics) -> list[float]:
        """Amplitudes at ``start`` (Å) with which all exponentials together give a density of about one.

        Each is divided by its sum over neighbours spread evenly beyond ``start``, or by one where there are fewer.
        """
        number_density = statistics.neighbours / (4 / 3 * math.pi * statistics.cutoff**3)
        r = torch.linspace(start, max(self.cutoff, start + 1e-3), 400, dtype=torch.float64)
        shell = 4 * math.pi * number_density * r**2 * smooth_cutoff(r, self.inner, self.cutoff)
        sums = [float(torch.trapezoid(shell * torch.exp(-beta * (r - start)), r)) for beta in betas]
        return [1 / (len(betas) * max(total, 1.0)) for total in sums]

    def pair_energies(self, distance: Float[Tensor, " edges"], pair: Int[Tensor, " edges"]) -> Float[Tensor, " edges"]:
        soft, fade = self._soft(distance, pair), smooth_cutoff(distance, self.inner, self.cutoff)
        return self._pair_energies(distance, soft, fade, pair)

    def densities(
        self, distance: Float[Tensor, " edges"], first: Int[Tensor, " edges"], second: Int[Tensor, " edges"]
    ) -> Float[Tensor, " edges"]:
        pair = self.kinds.pair_index(first, second)
        return smooth_cutoff(distance, self.inner, self.cutoff) * self._densities(self._soft(distance, pair), pair)

    def pair_terms(
        self, distance: Float[Tensor, " edges"], first: Int[Tensor, " edges"], second: Int[Tensor, " edges"]
    ) -> tuple[Float[Tensor, " edges"], Float[Tensor, " edges"], Float[Tensor, " edges"]]:
        """See the base class; cut-off and softened distance are made once."""
        pair = self.kinds.pair_index(first, second)
        soft, fade = self._soft(distance, pair), smooth_cutoff(distance, self.inner, self.cutoff)
        density = fade * self._densities(soft, pair)
        return self._pair_energies(distance, soft, fade, pair), density, density

    def _soft(self, distance: Tensor, pair: Tensor) -> Tensor:
        """(edges,) Å, the distance that pair term and density see."""
        return distance if self.wall is None else self.wall.softened(distance, pair)

    def _pair_energies(self, distance: Tensor, soft: Tensor, fade: Tensor, pair: Tensor) -> Tensor:
        """(edges,) eV, well times cut-off ``fade`` plus the wall."""
        depth, decay, minimum = (
            positive(raw).index_select(0, pair) for raw in (self.raw_depth, self.raw_decay, self.raw_minimum)
        )
        energy = fade * morse_energies(soft, depth, decay, minimum)
        return energy if self.wall is None else energy + self.wall(distance, pair)

    def _densities(self, distance: Tensor, pair: Tensor) -> Tensor:
        """(edges,) contribution of one atom to the density at the other, before the cut-off."""
        amplitude, beta = positive(self.raw_amplitude), positive(self.raw_beta)
        if len(self.kinds.pairs) > 1:  # else their only row serves all
            amplitude, beta = amplitude.index_select(0, pair), beta.index_select(0, pair)
        # exponentials by edges, not the other way round: the long axis last is what processors are fast at
        return (amplitude.T * torch.exp(-beta.T * (distance - self.origin[pair]))).sum(dim=0)


class QuadraticEAM(EAM):
    """Embedding B (rho - rho0)² - B rho0²."""

    def _add_embedding(self, config: Config) -> None:
        self.raw_curvature = positive_parameter([config.curvature] * len(self.kinds.species))
        self.raw_density = positive_parameter([config.density] * len(self.kinds.species))

    def embedding(self, density: Float[Tensor, " atoms"], species: Int[Tensor, " atoms"]) -> Float[Tensor, " atoms"]:
        curvature, equilibrium = positive(self.raw_curvature)[species], positive(self.raw_density)[species]
        return curvature * density * (density - 2 * equilibrium)


class SquareRootEAM(EAM):
    """Embedding -C (sqrt(rho + s) - sqrt(s))."""

    linear: ClassVar[tuple[str, ...]] = ("raw_depth", "raw_strength")

    def _add_embedding(self, config: Config) -> None:
        self.raw_strength = positive_parameter([config.strength] * len(self.kinds.species))
        self.smoothing = config.smoothing

    def embedding(self, density: Float[Tensor, " atoms"], species: Int[Tensor, " atoms"]) -> Float[Tensor, " atoms"]:
        return -positive(self.raw_strength)[species] * smooth_root(density, self.smoothing)


class SplineEAM(EAM):
    """Embedding -S rho plus a twice integrated polygon; beyond the last knot the second derivative stays what it is.

    The start is the quadratic embedding.
    """

    linear: ClassVar[tuple[str, ...]] = ("raw_depth", "raw_slope", "raw_curvature")

    def _add_embedding(self, config: Config) -> None:
        count = len(self.kinds.species)
        self.spacing = 2 * config.density / config.knots
        self.raw_slope = positive_parameter([2 * config.curvature * config.density] * count)
        self.raw_curvature = positive_parameter([[2 * config.curvature] * (config.knots + 1)] * count)

    def embedding(self, density: Float[Tensor, " atoms"], species: Int[Tensor, " atoms"]) -> Float[Tensor, " atoms"]:
        h, bend = self.spacing, positive(self.raw_curvature)
        left, right = bend[:, :-1], bend[:, 1:]
        # value and slope at each knot, by summing up what the intervals before it add
        zero, start = bend.new_zeros(len(bend), 1), -positive(self.raw_slope)[:, None]
        slope = start + torch.cat([zero, (h / 2 * (left + right)).cumsum(1)], dim=1)
        step = h * slope[:, :-1] + h**2 / 6 * (2 * left + right)
        value = torch.cat([zero, step.cumsum(1)], dim=1)
        third = torch.cat([(right - left) / h, zero], dim=1)
        knot = (density.detach() / h).to(torch.int64).clamp(0, bend.shape[1] - 1)
        u = density - h * knot
        value, slope, bend, third = (table[species, knot] for table in (value, slope, bend, third))
        return value + u * (slope + u * (bend / 2 + u * third / 6))


EMBEDDINGS: dict[str, type[EAM]] = {"quadratic": QuadraticEAM, "square_root": SquareRootEAM, "spline": SplineEAM}


def _spread(low: float, high: float, n: int) -> list[float]:
    """``n`` numbers from ``low`` to ``high`` with equal ratios."""
    return [low * (high / low) ** (k / max(n - 1, 1)) for k in range(n)]

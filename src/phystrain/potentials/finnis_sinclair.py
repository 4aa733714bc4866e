"""Finnis and Sinclair's potential: polynomials of finite range, and bonds that weaken as an atom gets more of them.

    E = -sum over atoms A sqrt(rho) + sum over pairs V(r),    rho = sum over neighbours phi(r)
    V = (c - r)^n (c0 + c1 r + c2 r²) for r < c,    phi = a (d - r)^n for r < d

Source: Finnis and Sinclair 1984, doi:10.1080/01418618408244210, where n = 2 and a = 1. With n = 2 forces have a kink at
c and d; n = 3 is twice continuously differentiable there. A belongs to an element, the rest to a pair of elements; a
is one for like pairs of a published set and weighs the elements of a neighbourhood otherwise.

The polynomial is held in powers of r - b, with b a bond length: its coefficients in powers of r are large numbers that
cancel. With ``smoothing`` s the root is sqrt(rho + s) - sqrt(s), since forces are singular where an atom loses its last
neighbour otherwise. With ``zbl``, nuclei repel at short distance whatever was fitted
(:class:`phystrain.layers.zbl.RepulsiveWall`).

As published: ``{kind: finnis_sinclair, cutoff: 4.5, power: 2, smoothing: 0, zbl: false,
published: {Mo-Mo: {c: 3.25, ...}}}``.
"""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from phystrain.errors import UserError
from phystrain.layers.embedded_atom import EmbeddedAtomPotential, smooth_root
from phystrain.layers.pair import BONDED, bond_lengths, covalent_distance, positive, positive_parameter
from phystrain.layers.zbl import wall_below_bonds
from phystrain.potentials import PotentialConfig
from phystrain.statistics import Statistics


class Published(BaseModel):
    """Parameters of one pair of elements, as published; Å and eV."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    c: float = Field(gt=0, description="Å, range of V")
    c0: float = Field(description="eV/Å^n")
    c1: float = Field(description="eV/Å^(n+1)")
    c2: float = Field(description="eV/Å^(n+2)")
    d: float = Field(gt=0, description="Å, range of phi")
    a: float = Field(1.0, gt=0, description="1/Å^n, factor of phi")
    A: float | None = Field(None, gt=0, description="eV, of the element; for like pairs only")


class Config(PotentialConfig):
    """Finnis-Sinclair potential: square-root embedding, polynomials of finite range; everything is fitted."""

    kind: Literal["finnis_sinclair"] = "finnis_sinclair"
    cutoff: float = Field(6.0, gt=0, description="Å, which the fitted ranges c and d never exceed")
    power: int = Field(3, ge=2, le=8, description="n; the source has 2, whose forces have a kink at the range")
    range: float = Field(1.7, gt=1, description="c and d at the start, in bond lengths")
    depth: float = Field(1.0, gt=0, description="eV, well of V at the start, of pairs bonded in the data or unseen.")
    loose_depth: float = Field(0.1, gt=0, description="eV, the same of pairs that occur but are not bonded.")
    stiffness: float = Field(
        4.0,
        gt=0,
        description="V begins with the curvature of a Morse well whose alpha is this over the bond length; "
        "with more where its range is short.",
    )
    strength: float = Field(0.5, gt=0, description="eV, A at the start; the density starts at about one.")
    smoothing: float = Field(
        0.01, ge=0, description="s, a density much smaller than that in the data; 0 for the bare root of the source."
    )
    published: dict[str, Published] = Field(
        {}, description="Parameters to start from by pair such as Mo-Mo: c, c0, c1, c2, d, and A for like pairs."
    )
    zbl: bool = Field(True, description="Add the repulsion of nuclei at distances shorter than any in the data.")

    def build(self, statistics: Statistics) -> "FinnisSinclair":
        return FinnisSinclair(self, statistics)


NEAREST, FARTHEST = 1e-9, 0.9
"""By how much (Å) the fitted ranges stay below the cut-off at least, and up to what fraction of it they start."""


class _Start(NamedTuple):
    """Starting values of one pair: ranges in Å, a, and the coefficients of the powers 0 to 2 of r - b."""

    c: float
    d: float
    amplitude: float
    polynomial: tuple[float, float, float]


class FinnisSinclair(EmbeddedAtomPotential):
    """See the module.

    Args:
        config: settings.
        statistics: elements, distances and coordination of the data, for the starting values.

    Attributes:
        centre: (pairs,) Å, b.
        power: n.
        smoothing: s.
    """

    linear: ClassVar[tuple[str, ...]] = ("free_constant", "free_linear", "free_quadratic", "raw_strength")
    mixing: ClassVar[dict[str, Literal["arithmetic", "geometric"]]] = {
        "free_constant": "arithmetic",
        "free_linear": "arithmetic",
        "free_quadratic": "arithmetic",
        "raw_pair_gap": "arithmetic",
        "raw_density_gap": "arithmetic",
        "raw_amplitude": "geometric",
    }

    centre: Float[Tensor, " pairs"]

    def __init__(self, config: Config, statistics: Statistics) -> None:
        super().__init__(statistics.species, config.cutoff)
        self.power, self.smoothing = config.power, config.smoothing
        pairs = self.kinds.pairs
        lengths = bond_lengths(pairs, statistics)
        ranges = [min(config.range * length, FARTHEST * config.cutoff) for length in lengths]
        # a pair that meets only beyond the cut-off starts with a well inside it, which no data contradict
        centres = [min(length, 0.8 * reach) for length, reach in zip(lengths, ranges, strict=True)]
        start = []
        for pair, length, centre, reach in zip(pairs, lengths, centres, ranges, strict=True):
            bonded = length <= BONDED * covalent_distance(*pair)
            depth = config.depth if bonded else config.loose_depth
            polynomial = _well(depth, config.stiffness / centre, reach - centre, config.power)
            start.append(_Start(reach, reach, self._amplitude(centre, reach, statistics), polynomial))
        strength = [config.strength] * len(self.kinds.species)
        self._take_published(config.published, start, strength, centres)
        constant, linear, quadratic = zip(*(values.polynomial for values in start), strict=True)
        self.free_constant, self.free_linear, self.free_quadratic = map(_free, (constant, linear, quadratic))
        self.raw_pair_gap = positive_parameter([max(config.cutoff - values.c, NEAREST) for values in start])
        self.raw_density_gap = positive_parameter([max(config.cutoff - values.d, NEAREST) for values in start])
        self.raw_amplitude = positive_parameter([values.amplitude for values in start])
        self.raw_strength = positive_parameter(strength)
        self.register_buffer("centre", torch.tensor(centres, dtype=torch.get_default_dtype()))
        self.wall = wall_below_bonds(self.kinds, statistics) if config.zbl else None

    def _amplitude(self, centre: float, reach: float, statistics: Statistics) -> float:
        """The a with which neighbours spread evenly from ``centre`` to ``reach`` (Å) make a density of one."""
        number_density = statistics.neighbours / (4 / 3 * math.pi * statistics.cutoff**3)
        r = torch.linspace(centre, reach, 200, dtype=torch.float64)
        shape = (reach - r) ** self.power
        total = float(torch.trapezoid(4 * math.pi * number_density * r**2 * shape, r))
        return 1 / max(total, float(shape[0]))  # fewer than one neighbour counts as one

    def _take_published(
        self, published: Mapping[str, Published], start: list[_Start], strength: list[float], centres: list[float]
    ) -> None:
        """Put published parameters in place of those in ``start`` (by pair) and ``strength`` (by element)."""
        for name, values in published.items():
            pair = self.kinds.number(name)
            first, second = self.kinds.pairs[pair]
            if (values.A is not None) != (first == second):
                raise UserError(
                    f"{name}: A belongs to an element; give it for like pairs such as Mo-Mo, and only there"
                )
            if max(values.c, values.d) > self.cutoff:
                raise UserError(
                    f"{name}: c or d exceeds the cut-off; set cutoff to {max(values.c, values.d):g} or more"
                )
            b = centres[pair]
            shifted = (values.c0 + b * (values.c1 + b * values.c2), values.c1 + 2 * b * values.c2, values.c2)
            start[pair] = _Start(values.c, values.d, values.a, shifted)
            if values.A is not None:
                strength[self.kinds.species.index(first)] = values.A

    def pair_energies(self, distance: Float[Tensor, " edges"], pair: Int[Tensor, " edges"]) -> Float[Tensor, " edges"]:
        soft = self._soft(distance, pair)
        energy = self._pair_energies(soft, pair)
        return energy if self.wall is None else energy + self.wall(distance, pair)

    def densities(
        self, distance: Float[Tensor, " edges"], first: Int[Tensor, " edges"], second: Int[Tensor, " edges"]
    ) -> Float[Tensor, " edges"]:
        pair = self.kinds.pair_index(first, second)
        return self._densities(self._soft(distance, pair), pair)

    def pair_terms(
        self, distance: Float[Tensor, " edges"], first: Int[Tensor, " edges"], second: Int[Tensor, " edges"]
    ) -> tuple[Float[Tensor, " edges"], Float[Tensor, " edges"], Float[Tensor, " edges"]]:
        """See the base class; the softened distance is made once."""
        pair = self.kinds.pair_index(first, second)
        soft = self._soft(distance, pair)
        energy, density = self._pair_energies(soft, pair), self._densities(soft, pair)
        return energy if self.wall is None else energy + self.wall(distance, pair), density, density

    def embedding(self, density: Float[Tensor, " atoms"], species: Int[Tensor, " atoms"]) -> Float[Tensor, " atoms"]:
        """(atoms,) eV, -A (sqrt(rho + s) - sqrt(s))."""
        return -positive(self.raw_strength)[species] * smooth_root(density, self.smoothing)

    def _soft(self, distance: Tensor, pair: Tensor) -> Tensor:
        """(edges,) Å, the distance that pair term and density see."""
        return distance if self.wall is None else self.wall.softened(distance, pair)

    def _inside(self, distance: Tensor, gap: Tensor, pair: Tensor) -> Tensor:
        """(edges,) (reach - r)^n, zero beyond the reach, which is the cut-off less ``gap`` by pair (Å)."""
        return (self.cutoff - gap.index_select(0, pair) - distance).clamp(min=0) ** self.power

    def _pair_energies(self, distance: Tensor, pair: Tensor) -> Tensor:
        """(edges,) eV, V."""
        offset = distance - self.centre[pair]
        constant, linear, quadratic = (
            free.index_select(0, pair) for free in (self.free_constant, self.free_linear, self.free_quadratic)
        )
        inside = self._inside(distance, positive(self.raw_pair_gap), pair)
        return inside * (constant + offset * (linear + offset * quadratic))

    def _densities(self, distance: Tensor, pair: Tensor) -> Tensor:
        """(edges,) phi."""
        amplitude = positive(self.raw_amplitude).index_select(0, pair)
        return amplitude * self._inside(distance, positive(self.raw_density_gap), pair)


def _free(values: tuple[float, ...]) -> nn.Parameter:
    """A parameter of any sign."""
    return nn.Parameter(torch.tensor(values, dtype=torch.get_default_dtype()))


def _well(depth: float, decay: float, width: float, power: int) -> tuple[float, float, float]:
    """Coefficients of the polynomial with which V has a minimum at r = b.

    Args:
        depth: eV, -V there.
        decay: 1/Å, alpha of a Morse potential with the same V'' there, 2 depth alpha². Raised where V would need a
            polynomial that opens downwards, and attract at short distance.
        width: Å, c - b.
        power: n.

    Returns:
        coefficients of the powers 0, 1, 2 of r - b, from V = -depth, V' = 0 and V'' at r = b.
    """
    decay = max(decay, 1.1 * math.sqrt(power * (power + 1) / 2) / width)
    constant = -depth / width**power
    linear = power * constant / width
    bend = 2 * depth * decay**2 / width**power
    quadratic = (bend - power * (power - 1) * constant / width**2 + 2 * power * linear / width) / 2
    return constant, linear, quadratic

"""A potential that speaks only where the labels are: outside the densities they hold, its atomic energies fade.

Beside a fixed prior, a network that has seen few structures says anything at all of the others: of compressed ones it
may take a hundred electronvolts off the prior's wall. Here each atomic energy is multiplied by a factor that is one
while the densities around the atom lie within the ranges that atoms of its element have in the labelled structures,
and falls to zero not far outside; there the prior stands alone. A density is a sum over neighbours,
``exp(-decay (r / r0 - 1))`` times the envelope, with ``r0`` the usual distance of nearest neighbours of the two
elements. The one that decays fast notices a single short contact as much as a general compression; the one that
decays slowly counts neighbours, and so tells two atoms alone from an atom of an open crystal, which can be equally
dense by the first. Both grow without bound at short range, so two atoms of elements that labels never show bonded are
as dense, close together, as an atom of a molecule; with ``counted`` there is a third density,
``1 / (1 + exp(counted (r / r0 - 1)))``, in which a neighbour counts at most once, however close. It alone then tells
which atoms are lonely, so that a bond may stretch beyond the labels, and the others which are crowded. The factor is a
product of one for each density, is twice continuously differentiable, costs one exponential for each edge and density,
and changes nothing where labels are.
"""

from typing import Annotated, Any, ClassVar, Literal

import torch
from ase.data import covalent_radii
from jaxtyping import Float
from pydantic import BaseModel, Field, model_validator
from torch import Tensor, nn

from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.layers.cutoffs import polynomial
from phystrain.layers.pair import smoothstep
from phystrain.layers.scatter import sum_over_edges
from phystrain.layers.species import SpeciesRows
from phystrain.potentials import InnerConfig, PotentialConfig
from phystrain.potentials._network import trimmed
from phystrain.statistics import Statistics, pair_name

_NOTHING = 1e-12
"""Density that bounds nothing: one neighbour nearly four times as far as usual, at the fastest decay as it comes."""


class Margins(BaseModel):
    """Where a network fades beyond the range of densities, and how a density is measured."""

    lowest: float = Field(0.6, ge=0, lt=1, description="nothing is left below this fraction of the lowest density")
    highest: float | None = Field(
        1.5,
        gt=1,
        description="nothing is left above this multiple of the highest density. None: crowded atoms do not fade, "
        "and in no case beside a wall, which has no energies for them",
    )
    decays: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (10.0, 2.0),
        description="of the densities with the distance, in units of the nearest one: fast for contacts, slow to count",
    )
    counted: float | None = Field(
        None,
        gt=0,
        description="decay of one more density, in which a neighbour counts at most once however close: it alone then "
        "tells which atoms are lonely; two atoms alone fade at every distance where labels have two neighbours or more",
    )

    @model_validator(mode="after")
    def _measures_something(self) -> "Margins":
        if not self.count:
            raise ValueError("give decays, or counted: nothing tells where the network fades")
        return self

    @property
    def count(self) -> int:
        """Number of densities."""
        return len(self.decays) + (self.counted is not None)


class Config(Margins, PotentialConfig):
    """A network that fades where the local density is outside the range of the labels (``confine`` of a stage)."""

    kind: Literal["confined"] = "confined"
    potential: InnerConfig = Field(description="what fades")
    densities: dict[int, list[tuple[float, float]]] = Field(
        {},
        description="by atomic number the lowest and highest local density for each of decays, and for counted; "
        "an element that is not named never fades",
    )

    @model_validator(mode="after")
    def _one_range_for_each_decay(self) -> "Config":
        if any(len(ranges) != self.count for ranges in self.densities.values()):
            raise ValueError("densities needs one range for each of decays, and one for counted if that is given")
        return self

    @property
    def trains_reference(self) -> bool:
        return self.potential.trains_reference

    def build(self, statistics: Statistics) -> "Confined":
        return Confined(self, self.potential.build(statistics), statistics)


class LocalDensity(nn.Module):
    """How densely an atom is surrounded; see the module.

    Args:
        statistics: elements and their nearest distances; 1.1 times the sum of covalent radii where that is not known.
        cutoff: Å.
        margins: how densities are measured.
    """

    nearest: Tensor

    def __init__(self, statistics: Statistics, cutoff: float, margins: Margins) -> None:
        super().__init__()
        self.cutoff, self.decays, self.counted = cutoff, margins.decays, margins.counted
        self.rows = SpeciesRows(statistics.species)
        usual = [
            [
                statistics.nearest.get(pair_name(one, other), 1.1 * (covalent_radii[one] + covalent_radii[other]))
                for other in statistics.species
            ]
            for one in statistics.species
        ]
        self.register_buffer("nearest", torch.tensor(usual, dtype=torch.get_default_dtype()), persistent=False)

    def forward(self, graph: AtomGraph) -> Float[Tensor, "atoms densities"]:
        """(atoms, densities) without unit; each near 1, the counted one 1/2, for a neighbour at its usual distance."""
        rows = self.rows(graph.species)
        centre, neighbour = graph.edges
        reduced = graph.distances / self.nearest[rows[centre], rows[neighbour]].to(graph.distances)
        decays = torch.tensor(self.decays).to(reduced)
        part = torch.exp(decays * (1 - reduced)[:, None])
        if self.counted is not None:
            part = torch.cat([part, torch.sigmoid(self.counted * (1 - reduced))[:, None]], dim=1)
        return sum_over_edges(part * polynomial(graph.distances, self.cutoff)[:, None], centre, graph.n_atoms)


class Confined(nn.Module):
    """See the module.

    Args:
        config: range and margins.
        potential: what fades; conservative.
        statistics: elements and their nearest distances.

    Raises:
        UserError: a potential with forces of its own, which would not fade with its energy.
    """

    lows: Tensor
    highs: Tensor
    denoises: ClassVar[bool] = False

    def __init__(self, config: Config, potential: Any, statistics: Statistics) -> None:
        super().__init__()
        if hasattr(potential, "heads"):
            raise UserError("confined: a potential with direct forces cannot fade; use one with head: conservative")
        self.config = config
        self.potential = potential
        self.cutoff = float(potential.cutoff)
        self.edgewise = bool(getattr(potential, "edgewise", False))
        self.density = LocalDensity(statistics, self.cutoff, config)
        unbounded = [(0.0, torch.inf)] * config.count
        ranges = torch.tensor(
            [config.densities.get(number, unbounded) for number in statistics.species], dtype=torch.get_default_dtype()
        )
        self.register_buffer("lows", ranges[..., 0], persistent=False)
        self.register_buffer("highs", ranges[..., 1], persistent=False)

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV, faded."""
        graph = trimmed(graph, self.cutoff)
        return self.potential.atomic_energies(graph) * self.share(graph)

    def share(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) 1 for an atom with densities as in the labels, 0 for one far outside one of their ranges."""
        density = self.density(graph)
        rows = self.density.rows(graph.species)
        low, high = self.lows[rows].to(density), self.highs[rows].to(density)
        if self.config.counted is None:
            near = many = slice(None)
        else:  # how near a neighbour is says nothing of how many there are: loneliness is the business of one alone
            near, many = slice(-1), slice(-1, None)
        share = _above(density[:, many], low[:, many], self.config.lowest).prod(dim=1)
        if self.config.highest is None:
            return share
        return share * _below(density[:, near], high[:, near], self.config.highest).prod(dim=1)


def _above(density: Tensor, low: Tensor, lowest: float) -> Tensor:
    """1 from the lowest density upwards, 0 below a part of it; 1 where there is no bound."""
    # where there is no bound, or one that an atom all but alone meets, the factor is one whatever the density; its
    # quotient must still be a number
    return torch.where(low > _NOTHING, smoothstep((density / low.clamp(min=_NOTHING) - lowest) / (1 - lowest)), 1.0)


def _below(density: Tensor, high: Tensor, highest: float) -> Tensor:
    """1 up to the highest density, 0 above a multiple of it; 1 where there is no bound."""
    share = smoothstep((highest - density / high.clamp(_NOTHING, 1 / _NOTHING)) / (highest - 1))
    return torch.where(torch.isfinite(high), share, 1.0)

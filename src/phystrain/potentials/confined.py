"""A potential that speaks only where the labels are: outside the densities they hold, its atomic energies fade.

Beside a fixed prior, a network that has seen few structures says anything at all of the others: of compressed ones it
may take a hundred electronvolts off the prior's wall. Here each atomic energy is multiplied by a factor that is one
while the density around the atom lies within the range that atoms of its element have in the labelled structures, and
falls to zero not far outside; there the prior stands alone. The density is a sum over neighbours,
``exp(-decay (r / r0 - 1))`` times the envelope, with ``r0`` the usual distance of nearest neighbours of the two
elements, so that one short contact counts as much as a general compression. The factor is twice continuously
differentiable, costs one exponential for each edge, and changes nothing where labels are. One number does not tell
all structures apart: two atoms alone can be as dense as an atom of an open crystal, and feel the network there.
"""

from typing import Any, ClassVar, Literal

import torch
from ase.data import covalent_radii
from jaxtyping import Float
from pydantic import BaseModel, Field
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


class Margins(BaseModel):
    """Where a network fades beyond the range of densities, and how a density is measured."""

    lowest: float = Field(0.6, ge=0, lt=1, description="nothing is left below this fraction of the lowest density")
    highest: float = Field(1.5, gt=1, description="nothing is left above this multiple of the highest density")
    decay: float = Field(10.0, gt=0, description="of the density with the distance, in units of the nearest one")


class Config(Margins, PotentialConfig):
    """A network that fades where the local density is outside the range of the labels (``confine`` of a stage)."""

    kind: Literal["confined"] = "confined"
    potential: InnerConfig = Field(description="what fades")
    densities: dict[int, tuple[float, float]] = Field(
        {}, description="lowest and highest local density by atomic number; an element that is not named never fades"
    )

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
        decay: of the density with the distance.
    """

    nearest: Tensor

    def __init__(self, statistics: Statistics, cutoff: float, decay: float) -> None:
        super().__init__()
        self.cutoff, self.decay = cutoff, decay
        self.rows = SpeciesRows(statistics.species)
        usual = [
            [
                statistics.nearest.get(pair_name(one, other), 1.1 * (covalent_radii[one] + covalent_radii[other]))
                for other in statistics.species
            ]
            for one in statistics.species
        ]
        self.register_buffer("nearest", torch.tensor(usual, dtype=torch.get_default_dtype()), persistent=False)

    def forward(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) without unit; 1 for an atom with one neighbour at the usual distance."""
        rows = self.rows(graph.species)
        centre, neighbour = graph.edges
        reduced = graph.distances / self.nearest[rows[centre], rows[neighbour]].to(graph.distances)
        part = torch.exp(self.decay * (1 - reduced)) * polynomial(graph.distances, self.cutoff)
        return sum_over_edges(part, centre, graph.n_atoms)


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
        self.density = LocalDensity(statistics, self.cutoff, config.decay)
        ranges = [config.densities.get(number, (0.0, torch.inf)) for number in statistics.species]
        for name, values in zip(("lows", "highs"), zip(*ranges, strict=True), strict=True):
            self.register_buffer(name, torch.tensor(values, dtype=torch.get_default_dtype()), persistent=False)

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV, faded."""
        graph = trimmed(graph, self.cutoff)
        return self.potential.atomic_energies(graph) * self.share(graph)

    def share(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) 1 for an atom with a density as in the labels, 0 for one far outside their range."""
        density = self.density(graph)
        rows = self.density.rows(graph.species)
        low, high = self.lows[rows].to(density), self.highs[rows].to(density)
        lowest, highest = self.config.lowest, self.config.highest
        # where there is no bound the factor is one whatever the density; its quotient must still be a number
        below = torch.where(low > 0, smoothstep((density / low.clamp(min=1e-12) - lowest) / (1 - lowest)), 1.0)
        above = torch.where(
            torch.isfinite(high), smoothstep((highest - density / high.clamp(1e-12, 1e12)) / (highest - 1)), 1.0
        )
        return below * above

"""TensorNet: messages of Cartesian tensors of rank two.

Source: Simeon, De Fabritiis 2023, arXiv:2306.06482, section 3. Every atom has 3 x 3 tensors,
whose scalar, antisymmetric and symmetric traceless parts are filtered separately by functions of the distance, summed
over neighbours (an atom is a neighbour of itself at distance zero) and multiplied with the atom's own tensors as
matrices. The energy is read from the norms of the three parts; forces are minus its gradient.

Tensors are kept as nine components of their parts, so that norms, filters and mixing of channels need no decomposition.
Messages of the embedding are summed before they become features: over the neighbours of one element they differ only in
radial functions and directions. Filters of later messages are the same for both directions of a pair and are computed
once. With ``envelope: cosine`` the network is the published one.
"""

import math
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from phystrain.graph import AtomGraph
from phystrain.layers.activations import SiLU
from phystrain.layers.cartesian import DEGREES, CartesianBasis, Components, DegreeLinear, product, squared_norm
from phystrain.layers.cutoffs import envelope
from phystrain.layers.messages import filtered_sums
from phystrain.layers.radial import RadialBasis, radial_basis
from phystrain.layers.scatter import sum_over_edges
from phystrain.layers.species import SpeciesRows
from phystrain.layers.undirected import undirected
from phystrain.potentials._network import EnergyUnit, NetworkConfig, trimmed
from phystrain.statistics import Statistics

Basis = Float[Tensor, "edges basis"]
Own = Float[Tensor, "1 basis"]

FEW = 8
"""Elements up to which the embedding sums over the neighbours of each element: its memory grows with their number."""


class Config(NetworkConfig):
    """TensorNet (Simeon, De Fabritiis 2023). ``preset: published`` has the sizes of the paper for rMD17."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "published": {"channels": 128, "layers": 2, "radial_count": 32, "cutoff": 4.5},
        "small": {"channels": 64, "layers": 2, "radial_count": 16, "cutoff": 5.0},
    }

    kind: Literal["tensornet"] = "tensornet"
    radial_basis: RadialBasis = Field("exp_normal", description="functions of the distance that filters are made from")
    radial_count: int = Field(32, ge=2, description="number of these functions")

    def build(self, statistics: Statistics) -> "TensorNet":
        return TensorNet(self, statistics)


class TensorEmbedding(nn.Module):
    """First tensors of the atoms, from the elements and directions of their neighbours.

    Args:
        channels: features of an atom.
        radial_count: size of the radial basis.
        n_species: number of known elements.
    """

    def __init__(self, channels: int, radial_count: int, n_species: int) -> None:
        super().__init__()
        self.n_species = n_species
        self.embedding = nn.Embedding(n_species, channels)
        self.pairs = nn.Linear(2 * channels, channels)
        self.filters = nn.Linear(radial_count, 3 * channels)
        self.norm = nn.LayerNorm(channels)
        self.gates = nn.Sequential(
            nn.Linear(channels, 2 * channels), SiLU(), nn.Linear(2 * channels, 3 * channels), SiLU()
        )
        self.mix = DegreeLinear(channels)

    def forward(
        self,
        rows: Int[Tensor, " atoms"],
        edges: Int[Tensor, "2 edges"],
        shapes: Float[Tensor, "edges 9"],
        radial: Basis,
        own: Own,
        cartesian: CartesianBasis,
    ) -> Components:
        """(9, atoms, channels) components.

        Args:
            rows: elements of the atoms.
            edges: centre, neighbour.
            shapes: components of the tensors made of the edges' directions.
            radial: radial functions and one, times the envelope (the functions have it once more, as published).
            own: the same at distance zero.
            cartesian: the basis.
        """
        pairs = self._pairs()
        weight = torch.cat([self.filters.weight, self.filters.bias[:, None]], dim=1).unflatten(0, (3, -1))
        sums = self._few if self.n_species <= FEW else self._many
        tensors = sums(rows, edges, shapes, radial, pairs, weight, cartesian)
        itself = math.sqrt(3.0) * (own @ weight[0].T) * pairs[rows, rows]  # the identity: no direction, no other part
        tensors = torch.cat([tensors[:1] + itself, tensors[1:]])
        gates = self.gates(self.norm(squared_norm(tensors))).unflatten(1, (3, -1)).transpose(0, 1)
        return self.mix(tensors, cartesian) * cartesian.per_component(gates)

    def _pairs(self) -> Float[Tensor, "species species channels"]:
        """Factors of the channels by the elements of centre and neighbour."""
        centre, neighbour = self.pairs.weight.chunk(2, dim=1)
        table = self.embedding.weight
        return (table @ centre.T + self.pairs.bias)[:, None] + (table @ neighbour.T)[None]

    def _few(
        self,
        rows: Tensor,
        edges: Tensor,
        shapes: Tensor,
        radial: Tensor,
        pairs: Tensor,
        weight: Tensor,
        cartesian: CartesianBasis,
    ) -> Components:
        """Sums of shapes times radial functions over the neighbours of each element, which then become features."""
        atoms, n = len(rows), self.n_species
        place = edges[0] * n + rows.index_select(0, edges[1])
        sums = sum_over_edges(shapes[:, :, None] * radial[:, None], place, atoms * n).transpose(0, 1)
        features = torch.bmm(sums, cartesian.per_component(weight).transpose(1, 2)).unflatten(1, (atoms, n))
        return (features * pairs.index_select(0, rows)).sum(dim=2)

    def _many(
        self,
        rows: Tensor,
        edges: Tensor,
        shapes: Tensor,
        radial: Tensor,
        pairs: Tensor,
        weight: Tensor,
        cartesian: CartesianBasis,
    ) -> Components:
        """The same from features of edges."""
        factors = pairs[rows.index_select(0, edges[0]), rows.index_select(0, edges[1])]
        filters = torch.matmul(radial, weight.transpose(1, 2)) * factors
        messages = cartesian.per_component(filters).transpose(0, 1) * shapes[:, :, None]
        return sum_over_edges(messages, edges[0], len(rows)).transpose(0, 1)


class Interaction(nn.Module):
    """Messages of tensors and their products with the tensors of the receiving atom.

    Args:
        channels: features of an atom.
        radial_count: size of the radial basis.
    """

    def __init__(self, channels: int, radial_count: int) -> None:
        super().__init__()
        self.filters = nn.Sequential(
            nn.Linear(radial_count, channels),
            SiLU(),
            nn.Linear(channels, 2 * channels),
            SiLU(),
            nn.Linear(2 * channels, 3 * channels),
            SiLU(),
        )
        self.send = DegreeLinear(channels)
        self.receive = DegreeLinear(channels)

    def forward(
        self,
        tensors: Components,
        edges: Int[Tensor, "2 edges"],
        radial: Float[Tensor, "pairs basis"],
        decay: Float[Tensor, "pairs 1"],
        pair: Int[Tensor, " edges"] | None,
        own: Own,
        cartesian: CartesianBasis,
    ) -> Components:
        """(9, atoms, channels) components after the messages.

        Args:
            tensors: components before.
            edges: centre, neighbour.
            radial: radial functions times the envelope, of pairs.
            decay: the envelope, of pairs.
            pair: which one each edge belongs to; none if every edge is its own.
            own: radial functions at distance zero.
            cartesian: the basis.
        """
        tensors = tensors / (squared_norm(tensors) + 1.0)
        sent = self.send(tensors, cartesian)
        filters = self.filters(radial) * decay
        filters = (filters if pair is None else filters.index_select(0, pair)).unflatten(1, (3, -1))
        itself = self.filters(own).view(3, 1, -1)
        received = filtered_sums(sent, filters, edges, DEGREES) + cartesian.per_component(itself) * sent

        message, mine = cartesian.compose(received), cartesian.compose(sent)
        both = cartesian.decompose(product(message, mine) + product(mine, message))
        change = self.receive(both / (squared_norm(both) + 1.0), cartesian)
        matrices = cartesian.compose(change)
        return tensors + change + cartesian.decompose(product(matrices, matrices))


class TensorNet(nn.Module):
    """The network.

    Args:
        config: sizes.
        statistics: elements and scales of the training data.
    """

    edgewise: ClassVar[bool] = True

    def __init__(self, config: Config, statistics: Statistics) -> None:
        super().__init__()
        self.config = config
        self.cutoff = config.cutoff
        channels, n_species = config.channels, len(statistics.species)
        self.rows = SpeciesRows(statistics.species)
        self.basis = radial_basis(config.radial_basis, config.radial_count, config.cutoff)
        self.cartesian = CartesianBasis()
        self.embedding = TensorEmbedding(channels, config.radial_count, n_species)
        self.interactions = nn.ModuleList([Interaction(channels, config.radial_count) for _ in range(config.layers)])
        self.norm = nn.LayerNorm(3 * channels)
        self.invariants = nn.Sequential(nn.Linear(3 * channels, channels), SiLU())
        half = channels // 2
        self.readout = nn.Sequential(nn.Linear(channels, half), SiLU(), nn.Linear(half, 1))
        self.unit = EnergyUnit(statistics)

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV."""
        graph = trimmed(graph, self.cutoff)
        distances = graph.distances
        shapes = self.cartesian.of_directions(graph.vectors / distances[:, None])
        first, pair = undirected(graph) or (None, None)
        radial, decay = self._radial(distances if first is None else distances.index_select(0, first))
        around = torch.cat([radial * decay, decay], dim=1)
        own, one = self._radial(distances.new_zeros(1))  # what an atom receives from itself
        tensors = self.embedding(
            self.rows(graph.species),
            graph.edges,
            shapes,
            around if pair is None else around.index_select(0, pair),
            torch.cat([own, one], dim=1),
            self.cartesian,
        )
        for interaction in self.interactions:
            tensors = interaction(tensors, graph.edges, radial, decay, pair, own, self.cartesian)
        squares = (tensors * tensors).split((1, 3, 5))
        norms = torch.cat([part.sum(dim=0) for part in squares], dim=1)
        return self.unit(self.readout(self.invariants(self.norm(norms))).squeeze(1))

    def _radial(self, distances: Float[Tensor, " edges"]) -> tuple[Basis, Float[Tensor, "edges 1"]]:
        """(edges, basis) radial functions times the envelope, and (edges, 1) the envelope."""
        decay = envelope(self.config.envelope, distances, self.cutoff)[:, None]
        return self.basis(distances) * decay, decay

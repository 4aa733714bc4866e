"""TorchMD-NET's equivariant transformer: attention between atoms that carry scalar and vector features.

Source: Thölke, De Fabritiis 2022, arXiv:2202.02541, section 3. Attention has no soft maximum:
its weights are a SiLU of products of queries, keys and a function of the distance, so that neighbours enter and leave
smoothly. An atom attends to itself too, at distance zero. The energy is read from scalars and vectors by gated
equivariant blocks or, with ``readout: scalars``, from the scalars alone; forces are minus its gradient.

The published network lets scalars decay at the cut-off, not vectors, so its energy jumps when a neighbour enters; here
both decay. Norms of vectors are smooth where the vectors vanish. The published network is ``envelope: cosine``,
``vector_cutoff: false`` and a tiny ``norm_epsilon``. What cannot matter is left out: in the first layer what meets
vectors that are still zero, in the last one vectors that nothing reads.
"""

import logging
from itertools import pairwise
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from phystrain.graph import AtomGraph
from phystrain.layers.activations import SiLU
from phystrain.layers.cutoffs import envelope
from phystrain.layers.gated import GatedEquivariant, smooth_norm
from phystrain.layers.messages import directed_sums, filtered_sums
from phystrain.layers.radial import RadialBasis, radial_basis
from phystrain.layers.scatter import sum_over_edges
from phystrain.layers.species import SpeciesRows
from phystrain.layers.undirected import undirected
from phystrain.potentials._network import EnergyUnit, NetworkConfig, trimmed
from phystrain.statistics import Statistics

log = logging.getLogger(__name__)

Scalars = Float[Tensor, "atoms channels"]
Vectors = Float[Tensor, "3 atoms channels"]

VECTOR = (0, 0, 0)
"""The three components of a vector meet the same filter."""

FEW = 8
"""Elements up to which the embedding sums over the neighbours of each element: its memory grows with their number."""


class Config(NetworkConfig):
    """Equivariant transformer (Thölke, De Fabritiis 2022).

    ``preset: published`` has the sizes of the paper for MD17, ``preset: pretraining`` those of arXiv:2602.19592.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "published": {"channels": 128, "layers": 6, "heads": 8, "radial_count": 32, "cutoff": 5.0},
        "pretraining": {
            "channels": 128,
            "layers": 8,
            "heads": 8,
            "radial_count": 50,
            "cutoff": 8.0,
            "readout": "scalars",
            "readout_channels": 128,
            "readout_layers": 2,
        },
        "small": {"channels": 64, "layers": 3, "heads": 8, "radial_count": 32, "cutoff": 5.0},
    }

    kind: Literal["torchmd_et"] = "torchmd_et"
    layers: int = Field(3, ge=1, description="rounds of attention")
    heads: int = Field(8, ge=1, description="weights that a pair of atoms has; divides the number of channels")
    radial_basis: RadialBasis = Field("exp_normal", description="functions of the distance that filters are made from")
    radial_count: int = Field(32, ge=2, description="number of these functions")
    vector_cutoff: bool = Field(
        True, description="messages of vectors decay at the cut-off; without (as published) the energy jumps there"
    )
    readout: Literal["gated", "scalars"] = Field(
        "gated", description="energy from scalars and norms of vectors (as published), or from the scalars alone"
    )
    readout_channels: int = Field(
        0, ge=0, description="hidden features of the readout from scalars; 0 means half the channels"
    )
    readout_layers: int = Field(1, ge=1, description="hidden layers of the readout from scalars")
    norm_epsilon: float = Field(
        1e-2,
        gt=0,
        description="added to squared vector norms; 0 as published would be stiff where symmetry makes them vanish",
    )

    @model_validator(mode="after")
    def _check_heads(self) -> "Config":
        if self.channels % self.heads:
            raise ValueError(f"channels ({self.channels}) must be a multiple of heads ({self.heads})")
        return self

    def build(self, statistics: Statistics) -> "TorchMDET":
        if not self.vector_cutoff:
            log.warning("torchmd_et: vector_cutoff: false makes the energy jump where a neighbour crosses the cut-off")
        return TorchMDET(self, statistics)


class Pairs(NamedTuple):
    """What depends on distances only: the same for both edges of a pair, so it is computed once.

    Attributes:
        radial: (pairs, basis) radial functions times the envelope.
        decay: (pairs, 1) the envelope.
        vector_decay: (pairs, 1) that of messages of vectors.
        of_edges: (edges,) pair of each edge; ``None`` if every edge is its own.
    """

    radial: Float[Tensor, "pairs basis"]
    decay: Float[Tensor, "pairs 1"]
    vector_decay: Float[Tensor, "pairs 1"]
    of_edges: Int[Tensor, " edges"] | None

    def to_edges(self, values: Tensor) -> Tensor:
        """(edges, ...) from (pairs, ...)."""
        return values if self.of_edges is None else values.index_select(0, self.of_edges)


class NeighbourEmbedding(nn.Module):
    """First features of the atoms, from their element and those of their neighbours (equations 3 and 4).

    Args:
        channels: features of an atom.
        radial_count: size of the radial basis.
        n_species: number of known elements.
    """

    def __init__(self, channels: int, radial_count: int, n_species: int) -> None:
        super().__init__()
        self.n_species = n_species
        self.itself = nn.Embedding(n_species, channels)
        self.neighbour = nn.Embedding(n_species, channels)
        self.filter = nn.Linear(radial_count, channels)
        self.combine = nn.Linear(2 * channels, channels)
        for linear in (self.filter, self.combine):
            _start(linear)

    def forward(
        self,
        rows: Int[Tensor, " atoms"],
        edges: Int[Tensor, "2 edges"],
        pairs: Pairs,
    ) -> Scalars:
        """(atoms, channels).

        Args:
            rows: elements of the atoms.
            edges: centre, neighbour.
            pairs: what depends on distances only.
        """
        radial = pairs.to_edges(torch.cat([pairs.radial * pairs.decay, pairs.decay], dim=1))
        weight = torch.cat([self.filter.weight, self.filter.bias[:, None]], dim=1)
        kinds = rows.index_select(0, edges[1])
        if self.n_species <= FEW:  # neighbours of one element differ only in radial functions, which are fewer
            place = edges[0] * self.n_species + kinds
            sums = sum_over_edges(radial, place, len(rows) * self.n_species)
            around = ((sums @ weight.T).unflatten(0, (-1, self.n_species)) * self.neighbour.weight).sum(dim=1)
        else:
            around = sum_over_edges((radial @ weight.T) * self.neighbour(kinds), edges[0], len(rows))
        combined: Tensor = self.combine(torch.cat([self.itself(rows), around], dim=1))
        return combined


class Attention(nn.Module):
    """One round of attention with its updates.

    Args:
        channels: features of an atom.
        heads: weights of a pair.
        radial_count: size of the radial basis.
        first: there are no vectors yet.
        last: nothing reads the vectors afterwards.
    """

    def __init__(self, channels: int, heads: int, radial_count: int, *, first: bool, last: bool) -> None:
        super().__init__()
        self.channels, self.heads = channels, heads
        self.first, self.last = first, last
        values = 1 + (not last) + (not last and not first)  # scalars; from scalars to vectors; from vectors to vectors
        self.norm, self.activation = nn.LayerNorm(channels), SiLU()
        self.project = nn.Linear(channels, (2 + values) * channels)  # query, key, values
        self.filters = nn.Linear(radial_count, (1 + values) * channels)  # of key and values
        self.mix = None if first else nn.Linear(channels, (2 if last else 3) * channels, bias=False)
        self.out = nn.Linear(channels, (1 + (not first) + (not first and not last)) * channels)
        for linear in (self.project, self.filters, self.mix, self.out):
            if linear is not None:
                _start(linear, channels)

    def forward(
        self,
        scalars: Scalars,
        vectors: Vectors | None,
        edges: Int[Tensor, "2 edges"],
        pairs: Pairs,
        directions: Float[Tensor, "edges 3"],
        own: Float[Tensor, "1 basis"],
    ) -> tuple[Scalars, Vectors | None]:
        """Scalars and vectors after the round; no vectors after the last one.

        Args:
            scalars: features of the atoms.
            vectors: the same; none before the first round.
            edges: centre, neighbour.
            pairs: what depends on distances only.
            directions: unit vectors from centre to neighbour.
            own: radial functions at distance zero.
        """
        centre, neighbour = edges
        atoms = len(scalars)
        query, key, *values = self.project(self.norm(scalars)).split(self.channels, dim=1)
        if not self.first and not self.last:
            values[2] = values[2] * vectors  # before it is copied to the edges, where it would be dearer
        for_key, for_scalars, *for_vectors = self._filters(pairs.radial)
        own_key, *own_filters = self._filters(own)

        products = query.index_select(0, centre) * key.index_select(0, neighbour) * pairs.to_edges(for_key)
        weight = self._weight(products) * pairs.to_edges(pairs.decay)
        message = self._weighted(values[0].index_select(0, neighbour) * pairs.to_edges(for_scalars), weight)
        itself = self._weighted(values[0] * own_filters[0], self._weight(query * key * own_key))
        out = self.out(sum_over_edges(message, centre, atoms) + itself).split(self.channels, dim=1)

        scalars = scalars + out[0]
        if vectors is not None and self.mix is not None:
            u, v, *gated = self.mix(vectors).split(self.channels, dim=2)
            scalars = scalars + (u * v).sum(dim=0) * out[1]
        if self.last:
            return scalars, None
        filters = [pairs.to_edges(part * pairs.vector_decay) for part in for_vectors]
        received = directed_sums(values[1].index_select(0, neighbour) * filters[0], directions, centre, atoms)
        if vectors is None:
            return scalars, received
        received = received + filtered_sums(values[2], filters[1][:, None], edges, VECTOR)
        return scalars, vectors + received + values[2] * own_filters[2] + gated[0] * out[2]

    def _filters(self, radial: Float[Tensor, "edges basis"]) -> tuple[Float[Tensor, "edges channels"], ...]:
        """Factors of key and values by distance."""
        filters: tuple[Tensor, ...] = self.activation(self.filters(radial)).split(self.channels, dim=1)
        return filters

    def _weight(self, products: Float[Tensor, "edges channels"]) -> Float[Tensor, "edges heads"]:
        """Attention weights from products of query, key and filter, without the decay."""
        weight: Tensor = self.activation(products.unflatten(1, (self.heads, -1)).sum(dim=2))
        return weight

    def _weighted(
        self, values: Float[Tensor, "edges channels"], weight: Float[Tensor, "edges heads"]
    ) -> Float[Tensor, "edges channels"]:
        """The values of each head times its weight."""
        return (values.unflatten(1, (self.heads, -1)) * weight[:, :, None]).flatten(1)


class GatedReadout(nn.Module):
    """Numbers of the atoms from scalars and norms of vectors (Schütt et al. 2021, arXiv:2102.03150, figure 3).

    Args:
        channels: features of an atom.
        epsilon: added to squared norms.
    """

    def __init__(self, channels: int, epsilon: float) -> None:
        super().__init__()
        half = channels // 2
        self.epsilon = epsilon
        self.block = GatedEquivariant(channels, half, epsilon)
        self.normed = nn.Linear(half, half, bias=False)
        self.final = nn.Sequential(nn.Linear(2 * half, half), SiLU(), nn.Linear(half, 1))

    def forward(self, scalars: Scalars, vectors: Float[Tensor, "atoms 3 channels"]) -> Float[Tensor, "atoms 1"]:
        scalars, vectors = self.block(scalars, vectors)
        norms = smooth_norm(self.normed(vectors), self.epsilon)
        numbers: Tensor = self.final(torch.cat([scalars, norms], dim=1))
        return numbers


class TorchMDET(nn.Module):
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
        channels, count = config.channels, config.radial_count
        gated, final = config.readout == "gated", config.layers - 1
        self.rows = SpeciesRows(statistics.species)
        self.basis = radial_basis(config.radial_basis, count, config.cutoff)
        self.embedding = NeighbourEmbedding(channels, count, len(statistics.species))
        self.attention = nn.ModuleList(
            [
                Attention(channels, config.heads, count, first=layer == 0, last=layer == final and not gated)
                for layer in range(config.layers)
            ]
        )
        self.norm = nn.LayerNorm(channels)
        self.readout = GatedReadout(channels, config.norm_epsilon) if gated else _scalar_readout(config)
        self.unit = EnergyUnit(statistics)

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV."""
        graph = trimmed(graph, self.cutoff)
        distances, edges = graph.distances, graph.edges
        directions = graph.vectors / distances[:, None]
        pairs = self._pairs(graph)
        own, _ = self._radial(distances.new_zeros(1))  # an atom attends to itself, which has no direction
        scalars = self.embedding(self.rows(graph.species), edges, pairs)
        vectors = None
        for attention in self.attention:
            scalars, vectors = attention(scalars, vectors, edges, pairs, directions, own)
        scalars = self.norm(scalars)
        numbers = self.readout(scalars) if vectors is None else self.readout(scalars, vectors.transpose(0, 1))
        return self.unit(numbers.squeeze(1))

    def _pairs(self, graph: AtomGraph) -> Pairs:
        """What depends on distances only."""
        first, of_edges = undirected(graph) or (None, None)
        distances = graph.distances if first is None else graph.distances.index_select(0, first)
        radial, decay = self._radial(distances)
        vector_decay = decay if self.config.vector_cutoff else (distances < self.cutoff).to(decay)[:, None]
        return Pairs(radial, decay, vector_decay, of_edges)

    def _radial(
        self, distances: Float[Tensor, " edges"]
    ) -> tuple[Float[Tensor, "edges basis"], Float[Tensor, "edges 1"]]:
        """(edges, basis) radial functions times the envelope, and (edges, 1) the envelope."""
        decay = envelope(self.config.envelope, distances, self.cutoff)[:, None]
        return self.basis(distances) * decay, decay


def _scalar_readout(config: Config) -> nn.Sequential:
    """Numbers of the atoms from scalars: so many hidden layers, then one number."""
    width = config.readout_channels or config.channels // 2
    sizes = [config.channels] + [width] * config.readout_layers
    hidden = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), SiLU())]
    return nn.Sequential(*hidden, nn.Linear(width, 1))


def _start(linear: nn.Linear, block: int = 0) -> None:
    """Initial weights as published: Glorot's uniform distribution for each matrix of ``block`` outputs, biases zero."""
    for part in linear.weight.split(block or linear.out_features):
        nn.init.xavier_uniform_(part)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)

"""PaiNN: messages between atoms that carry scalar and vector features.

Source: Schütt, Unke, Gastegger 2021, arXiv:2102.03150. Vector features are vectors under rotation; the energy is
read from the scalars. Forces are minus the gradient of the energy, or, with ``head: direct``, come from a gated
equivariant block of their own (same paper, section 3.3 and figure 3) and are not conservative.
"""

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from phystrain.graph import AtomGraph
from phystrain.layers.cutoffs import envelope
from phystrain.layers.radial import radial_basis
from phystrain.layers.scatter import sum_over_edges
from phystrain.layers.species import SpeciesRows
from phystrain.potentials._network import EnergyUnit, NetworkConfig, trimmed
from phystrain.statistics import Statistics

Scalars = Float[Tensor, "atoms channels"]
Vectors = Float[Tensor, "atoms 3 channels"]


class Config(NetworkConfig):
    """PaiNN (Schütt et al. 2021). ``preset: piwsl`` has the sizes of arXiv:2408.05215 for ANI-1x."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "piwsl": {"channels": 512, "layers": 6, "radial_count": 128, "cutoff": 12.0, "head": "direct"}
    }

    kind: Literal["painn"] = "painn"
    head: Literal["conservative", "direct"] = Field(
        "conservative", description="forces as minus the gradient of the energy, or from an output of their own"
    )
    norm_epsilon: float = Field(
        1e-4, gt=0, description="added to squared vector norms; published 1e-8, larger is smoother where vectors vanish"
    )

    def build(self, statistics: Statistics) -> "PaiNN":
        return PaiNN(self, statistics)


class Message(nn.Module):
    """What an atom receives from its neighbours (figure 2b, equations 7 and 8).

    Args:
        channels: features of an atom.
        first: in the first layer all vectors are zero, and what multiplies them is left out.
    """

    def __init__(self, channels: int, *, first: bool) -> None:
        super().__init__()
        self.channels = channels
        self.parts = 2 if first else 3
        self.context = nn.Sequential(
            nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, self.parts * channels)
        )

    def forward(
        self,
        scalars: Scalars,
        vectors: Vectors | None,
        filters: Float[Tensor, "edges parts_x_channels"],
        directions: Float[Tensor, "edges 3"],
        edges: Int[Tensor, "2 edges"],
    ) -> tuple[Scalars, Vectors]:
        """Scalars and vectors after the messages.

        Args:
            scalars: features of the atoms.
            vectors: the same; none in the first layer.
            filters: one factor for each edge, part and channel.
            directions: unit vectors from centre to neighbour.
            edges: centre, neighbour.
        """
        centre, neighbour = edges
        n = len(scalars)
        context = self.context(scalars)
        # the part that meets vectors is multiplied by them before it is copied to the edges
        sent = context[:, : 2 * self.channels].index_select(0, neighbour)
        to_scalar, to_vector = (sent * filters[:, : 2 * self.channels]).split(self.channels, dim=1)
        scalars = scalars + sum_over_edges(to_scalar, centre, n)
        message = directions[:, :, None] * to_vector[:, None, :]
        if vectors is None:
            return scalars, sum_over_edges(message, centre, n)
        gated = (context[:, None, 2 * self.channels :] * vectors).index_select(0, neighbour)
        message = torch.addcmul(message, gated, filters[:, None, 2 * self.channels :])
        return scalars, vectors + sum_over_edges(message, centre, n)


class Update(nn.Module):
    """Exchange between the scalars and the vectors of one atom (figure 2c, equations 9 and 10).

    Args:
        channels: features of an atom.
        epsilon: added to the squared norm.
        last: the vectors are not needed any more, and what would update them is left out.
    """

    def __init__(self, channels: int, epsilon: float, *, last: bool) -> None:
        super().__init__()
        self.channels = channels
        self.epsilon = epsilon
        self.parts = 2 if last else 3
        self.mix = nn.Linear(channels, 2 * channels, bias=False)
        self.gates = nn.Sequential(
            nn.Linear(2 * channels, channels), nn.SiLU(), nn.Linear(channels, self.parts * channels)
        )

    def forward(self, scalars: Scalars, vectors: Vectors) -> tuple[Scalars, Vectors]:
        """Scalars and vectors after the update; in the last layer the vectors as they were."""
        u, v = self.mix(vectors).split(self.channels, dim=2)
        norm = torch.sqrt((v * v).sum(dim=1) + self.epsilon)
        gates = self.gates(torch.cat([scalars, norm], dim=1)).split(self.channels, dim=1)
        scalars = scalars + gates[0] + gates[1] * (u * v).sum(dim=1)
        return scalars, vectors if self.parts == 2 else vectors + gates[2][:, None, :] * u


class PaiNN(nn.Module):
    """The conservative network.

    Args:
        config: sizes.
        statistics: elements and scales of the training data.
    """

    def __init__(self, config: Config, statistics: Statistics) -> None:
        super().__init__()
        self.config = config
        self.cutoff = config.cutoff
        direct = config.head == "direct"
        channels, layers = config.channels, config.layers
        self.rows = SpeciesRows(statistics.species)
        self.embedding = nn.Embedding(len(statistics.species), channels)
        self.basis = radial_basis(config.radial_basis, config.radial_count, config.cutoff)
        self.messages = nn.ModuleList([Message(channels, first=layer == 0) for layer in range(layers)])
        self.updates = nn.ModuleList(
            [Update(channels, config.norm_epsilon, last=layer == layers - 1 and not direct) for layer in range(layers)]
        )
        self.filter_widths = [message.parts * channels for message in self.messages]
        self.filters = nn.Linear(config.radial_count, sum(self.filter_widths))
        self.readout = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, 1))
        self.unit = EnergyUnit(statistics)

    def features(self, graph: AtomGraph) -> tuple[Scalars, Vectors]:
        """Scalar and vector features of the atoms after the last layer."""
        graph = trimmed(graph, self.cutoff)
        distances = graph.distances
        directions = graph.vectors / distances[:, None]
        decay = envelope(self.config.envelope, distances, self.cutoff)[:, None]
        # the envelope multiplies the basis and the bias rather than the far larger filters
        weight = torch.cat([self.filters.weight, self.filters.bias[:, None]], dim=1)
        basis = torch.cat([self.basis(distances) * decay, decay], dim=1)
        filters = (basis @ weight.T).split(self.filter_widths, dim=1)

        scalars = self.embedding(self.rows(graph.species))
        vectors = None
        for message, update, filter_ in zip(self.messages, self.updates, filters, strict=True):
            scalars, vectors = message(scalars, vectors, filter_, directions, graph.edges)
            scalars, vectors = update(scalars, vectors)
        assert vectors is not None
        return scalars, vectors

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV."""
        scalars, _ = self.features(graph)
        return self.unit(self.readout(scalars).squeeze(1))

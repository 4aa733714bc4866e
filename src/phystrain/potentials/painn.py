"""PaiNN: messages between atoms that carry scalar and vector features.

Source: Schütt, Unke, Gastegger 2021, arXiv:2102.03150. Vector features are vectors under rotation; the energy is
read from the scalars. Forces are minus the gradient of the energy, or, with ``head: direct``, come from a gated
equivariant block of their own (same paper, section 3.3 and figure 3) and are not conservative.
"""

from collections.abc import Sequence
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
        filters: Sequence[Float[Tensor, "edges 1 channels"]],
        directions: Float[Tensor, "edges 3 1"],
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
        context = self.context(scalars)[:, None].split(self.channels, dim=2)
        gained = sum_over_edges(edges, [filters[0]], context[0])
        sent = sum_over_edges(edges, [directions, filters[1]], context[1])
        if vectors is not None:
            sent = vectors + sent + sum_over_edges(edges, [filters[2]], context[2] * vectors)
        return scalars + gained.squeeze(1), sent


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
        self.filters = nn.Linear(config.radial_count, channels * sum(message.parts for message in self.messages))
        self.readout = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, 1))
        self.unit = EnergyUnit(statistics)

    def features(self, graph: AtomGraph) -> tuple[Scalars, Vectors]:
        """Scalar and vector features of the atoms after the last layer."""
        graph = trimmed(graph, self.cutoff)
        distances = graph.distances
        directions = (graph.vectors / distances[:, None])[:, :, None]
        filters = iter(self._filters(distances))
        scalars = self.embedding(self.rows(graph.species))
        vectors = None
        for message, update in zip(self.messages, self.updates, strict=True):
            own = [next(filters) for _ in range(message.parts)]
            scalars, vectors = message(scalars, vectors, own, directions, graph.edges)
            scalars, vectors = update(scalars, vectors)
        assert vectors is not None
        return scalars, vectors

    def _filters(self, distances: Float[Tensor, " edges"]) -> list[Float[Tensor, "edges 1 channels"]]:
        """The filters of all layers. The envelope multiplies the basis and the bias, not the far larger filters."""
        decay = envelope(self.config.envelope, distances, self.cutoff)[:, None]
        basis = torch.cat([self.basis(distances) * decay, decay], dim=1)
        weight = torch.cat([self.filters.weight, self.filters.bias[:, None]], dim=1)
        return [(basis @ part.T)[:, None] for part in weight.split(self.config.channels)]

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV."""
        scalars, _ = self.features(graph)
        return self.unit(self.readout(scalars).squeeze(1))

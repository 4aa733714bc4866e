"""CGCNN: the crystal graph convolutional network, gated messages along the edges.

Source: Xie and Grossman 2018, arXiv:1710.10324 (doi:10.1103/PhysRevLett.120.145301), equation 5. As in
arXiv:2602.19592, the features of an atom begin with its element alone, every atom is read out, and their energies are
summed, so that the energy is extensive. Forces are minus the gradient of the energy.

What differs from the paper, and why. Messages carry an envelope: without (``envelope: none``), energies jump where an
atom crosses the cut-off. Batch normalisation is left out, because structures in a batch must not influence one another;
instead the sum over neighbours is divided by the mean number of neighbours in the training data, a constant
(``aggregation: scaled``). Dividing by the number of neighbours of the atom, as arXiv:2602.19592 does, would make
energies jump again. The number of neighbours is not limited (``max_neighbours: 0``).
"""

from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import softplus

from phystrain.graph import AtomGraph
from phystrain.layers.cutoffs import envelope
from phystrain.layers.edge_linear import edge_linear
from phystrain.layers.nearest import among_nearest
from phystrain.layers.radial import Gaussian, RadialBasis, radial_basis
from phystrain.layers.scatter import sum_over_edges
from phystrain.layers.species import SpeciesRows
from phystrain.potentials._network import EnergyUnit, NetworkConfig, trimmed, warn_of_truncation
from phystrain.statistics import Statistics

Features = Float[Tensor, "atoms channels"]


class Config(NetworkConfig):
    """CGCNN (Xie and Grossman 2018), pooled to an energy.

    ``preset: pretraining`` has the sizes of arXiv:2602.19592, ``published`` those of the original; ``small`` trains on
    two cores.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "pretraining": {
            **{"channels": 100, "layers": 4, "cutoff": 8.0, "radial_count": 50, "spread": 9.8},
            **{"readout_channels": 150, "readout_layers": 3},
        },
        "published": {
            **{"channels": 64, "layers": 3, "cutoff": 8.0, "radial_count": 41, "spread": 0.5**0.5},
            **{"embedding_layers": 0, "readout_channels": 128, "readout_layers": 1},
        },
        "small": {"channels": 32, "layers": 3, "readout_channels": 32},
    }

    kind: Literal["cgcnn"] = "cgcnn"
    layers: int = Field(3, ge=1, description="rounds of messages")
    envelope: Literal["polynomial", "cosine", "none"] = Field(  # type: ignore[assignment]
        "polynomial",
        description="decay of a message at the cut-off: twice (polynomial) or once (cosine) differentiable, or none",
    )
    radial_basis: RadialBasis = Field("gaussian", description="functions of the distance that messages are made from")
    radial_count: int = Field(26, ge=2, description="number of these functions; 26 are 0.2 Å apart at 5 Å")
    spread: float = Field(
        0.5**0.5, gt=0, description="standard deviation of a Gaussian over the distance to the next one"
    )
    embedding_layers: int = Field(1, ge=0, description="activated layers from the element to the first features")
    readout_channels: int = Field(64, ge=1, description="features between the last layer and the energy of an atom")
    readout_layers: int = Field(2, ge=1, description="layers that have these features")
    aggregation: Literal["scaled", "sum"] = Field(
        "scaled", description="messages summed, over the mean number of neighbours in the data or as they are"
    )
    max_neighbours: int = Field(
        0, ge=0, description="nearest neighbours that send messages, 0 for all; a limit breaks energy conservation"
    )

    def build(self, statistics: Statistics) -> "CGCNN":
        return CGCNN(self, statistics)


class Message(nn.Module):
    """What an atom receives from its neighbours (equation 5).

    Both factors of a message are linear in the features of the two atoms and the basis, so the part of the atoms is
    made before it is copied to the edges.

    Args:
        channels: features of an atom.
        radial_count: size of the radial basis.
    """

    def __init__(self, channels: int, radial_count: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * channels + radial_count, 2 * channels)

    def forward(
        self,
        features: Features,
        basis: Float[Tensor, "edges basis"],
        decay: Float[Tensor, "edges 1"],
        edges: Int[Tensor, "2 edges"],
    ) -> Features:
        """(atoms, channels) to be added to the features.

        Args:
            features: of the atoms.
            basis: radial functions.
            decay: the envelope over the number of neighbours.
            edges: centre, neighbour.
        """
        centre, neighbour = edges
        gate, core = edge_linear(self.linear, features, basis, centre, neighbour).chunk(2, dim=1)
        return sum_over_edges(torch.sigmoid(gate) * softplus(core) * decay, centre, len(features))


class CGCNN(nn.Module):
    """The network.

    Args:
        config: sizes.
        statistics: elements, scales and number of neighbours of the training data.
    """

    edgewise: ClassVar[bool] = True
    neighbours: Tensor

    def __init__(self, config: Config, statistics: Statistics) -> None:
        super().__init__()
        self.config = config
        self.cutoff = config.cutoff
        channels, hidden = config.channels, config.readout_channels
        self.rows = SpeciesRows(statistics.species)
        self.embedding = nn.Embedding(len(statistics.species), channels)
        self.embedding_layers = nn.ModuleList(
            [nn.Linear(channels, channels) for _ in range(1, config.embedding_layers)]
        )
        self.basis = (
            Gaussian(config.radial_count, config.cutoff, config.spread)
            if config.radial_basis == "gaussian"
            else radial_basis(config.radial_basis, config.radial_count, config.cutoff)
        )
        self.messages = nn.ModuleList([Message(channels, config.radial_count) for _ in range(config.layers)])
        sizes = [channels] + [hidden] * config.readout_layers
        layers = [nn.Sequential(nn.Linear(*pair), nn.SiLU()) for pair in pairwise(sizes)]
        self.readout = nn.Sequential(*layers, nn.Linear(hidden, 1))
        self.unit = EnergyUnit(statistics)
        number = _neighbours_within(config.cutoff, statistics) if config.aggregation == "scaled" else 1.0
        self.register_buffer("neighbours", torch.tensor(number, dtype=torch.get_default_dtype()))
        if config.max_neighbours:
            warn_of_truncation(config.kind)

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV."""
        graph = trimmed(graph, self.cutoff)
        basis = self.basis(graph.distances)
        decay = self._decay(graph)[:, None]
        features = self.embedding(self.rows(graph.species))
        if self.config.embedding_layers:
            features = nn.functional.silu(features)
        for layer in self.embedding_layers:
            features = nn.functional.silu(layer(features))
        for message in self.messages:
            features = features + message(features, basis, decay, graph.edges)
        return self.unit(self.readout(features).squeeze(1))

    def _decay(self, graph: AtomGraph) -> Float[Tensor, " edges"]:
        """Envelope of each edge over the number of neighbours."""
        distances, kind = graph.distances, self.config.envelope
        within = (distances < self.cutoff).to(distances.dtype)
        if self.config.max_neighbours:
            within = within * among_nearest(graph.edges[0], distances, self.config.max_neighbours)
        return (within if kind == "none" else within * envelope(kind, distances, self.cutoff)) / self.neighbours


def _neighbours_within(cutoff: float, statistics: Statistics) -> float:
    """Mean number of neighbours in the data, from that within the radius that they were counted to."""
    return max(1.0, statistics.neighbours * (cutoff / statistics.cutoff) ** 3)

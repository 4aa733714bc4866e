"""SchNet: messages filtered by continuous functions of the distance.

Source: Schütt et al. 2017, arXiv:1706.08566, and 2018, arXiv:1712.06113. Forces are minus the gradient of the energy.
"""

import math
from typing import Any, ClassVar, Literal

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from phystrain.graph import AtomGraph
from phystrain.layers.cutoffs import envelope
from phystrain.layers.radial import RadialBasis, radial_basis
from phystrain.layers.scatter import sum_over_edges
from phystrain.layers.species import SpeciesRows
from phystrain.potentials._network import EnergyUnit, NetworkConfig, trimmed
from phystrain.statistics import Statistics

Features = Float[Tensor, "atoms channels"]


class Config(NetworkConfig):
    """SchNet (Schütt et al. 2017).

    ``preset: small`` is the default, for two cores; ``preset: piwsl`` has the sizes of arXiv:2408.05215 for ANI-1x.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {},
        "piwsl": {"channels": 1024, "filters": 256, "layers": 5, "radial_count": 200, "cutoff": 6.0},
    }

    kind: Literal["schnet"] = "schnet"
    layers: int = Field(3, ge=1, description="rounds of messages")
    filters: int = Field(64, ge=1, description="features that a message carries")
    radial_basis: RadialBasis = Field("gaussian", description="functions of the distance that filters are made from")

    def build(self, statistics: Statistics) -> "SchNet":
        return SchNet(self, statistics)


class ShiftedSoftplus(nn.Module):
    """``log((exp(x) + 1) / 2)``, zero at zero and infinitely differentiable."""

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return nn.functional.softplus(x) - math.log(2.0)


class Interaction(nn.Module):
    """One round of messages (figure 2, middle and right).

    Args:
        channels: features of an atom.
        filters: features of a message.
        radial_count: size of the radial basis.
    """

    def __init__(self, channels: int, filters: int, radial_count: int) -> None:
        super().__init__()
        self.filter = nn.Sequential(nn.Linear(radial_count, filters), ShiftedSoftplus(), nn.Linear(filters, filters))
        self.send = nn.Linear(channels, filters, bias=False)
        self.receive = nn.Sequential(nn.Linear(filters, channels), ShiftedSoftplus(), nn.Linear(channels, channels))

    def forward(
        self,
        features: Features,
        basis: Float[Tensor, "edges basis"],
        decay: Float[Tensor, "edges 1"],
        edges: Int[Tensor, "2 edges"],
    ) -> Features:
        """(atoms, channels) after the messages.

        Args:
            features: of the atoms.
            basis: radial functions.
            decay: the envelope.
            edges: centre, neighbour.
        """
        centre, neighbour = edges
        messages = self.send(features).index_select(0, neighbour) * (self.filter(basis) * decay)
        return features + self.receive(sum_over_edges(messages, centre, len(features)))


class SchNet(nn.Module):
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
        self.rows = SpeciesRows(statistics.species)
        self.embedding = nn.Embedding(len(statistics.species), config.channels)
        self.basis = radial_basis(config.radial_basis, config.radial_count, config.cutoff)
        self.interactions = nn.ModuleList(
            [Interaction(config.channels, config.filters, config.radial_count) for _ in range(config.layers)]
        )
        half = config.channels // 2
        self.readout = nn.Sequential(nn.Linear(config.channels, half), ShiftedSoftplus(), nn.Linear(half, 1))
        self.unit = EnergyUnit(statistics)

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV."""
        graph = trimmed(graph, self.cutoff)
        distances = graph.distances
        basis = self.basis(distances)
        decay = envelope(self.config.envelope, distances, self.cutoff)[:, None]
        features = self.embedding(self.rows(graph.species))
        for interaction in self.interactions:
            features = interaction(features, basis, decay, graph.edges)
        return self.unit(self.readout(features).squeeze(1))

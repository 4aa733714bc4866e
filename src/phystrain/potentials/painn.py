"""PaiNN: messages between atoms that carry scalar and vector features.

Source: Schütt, Unke, Gastegger 2021, arXiv:2102.03150. Vector features turn with the structure; the energy is read
from the scalars. Forces are minus the gradient of the energy or, with ``head: direct``, an output of their own
(section 3.3, figure 3) that is cheaper and not conservative. What cannot matter is left out: the part of the
first layer that would multiply vectors that are still zero, and a last update of vectors that nothing reads.

With ``denoise: true`` there is also a noise head, which reads the last vectors as they are, and the forces of the
original structure are the vectors to begin with. They reach an atom's neighbours from the second layer on. Energies
and forces of ordinary structures know nothing of this and start training from the same weights as without.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from phystrain.derive import Denoised
from phystrain.graph import AtomGraph
from phystrain.layers.cutoffs import envelope
from phystrain.layers.denoising import NoiseHead
from phystrain.layers.gated import VectorReadout, smooth_norm
from phystrain.layers.radial import radial_basis
from phystrain.layers.scatter import sum_over_edges
from phystrain.layers.species import SpeciesRows
from phystrain.potentials._network import EnergyUnit, NetworkConfig, trimmed
from phystrain.statistics import Statistics

Scalars = Float[Tensor, "atoms channels"]
Vectors = Float[Tensor, "atoms 3 channels"]


class Config(NetworkConfig):
    """PaiNN (Schütt et al. 2021).

    ``preset: small`` is the default, for two cores; ``preset: piwsl`` has the sizes of arXiv:2408.05215 for ANI-1x.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {},
        "piwsl": {"channels": 512, "layers": 6, "radial_count": 128, "cutoff": 12.0, "head": "direct"},
    }

    kind: Literal["painn"] = "painn"
    head: Literal["conservative", "direct"] = Field(
        "conservative", description="forces as minus the gradient of the energy, or from an output of their own"
    )
    denoise: bool = Field(False, description="a head that predicts noise, for the objective of that name")
    norm_epsilon: float = Field(
        1e-2,
        gt=0,
        description="added to squared vector norms; 1e-8 is usual, and stiff where symmetry makes them vanish",
    )

    @property
    def denoises(self) -> bool:
        return self.denoise

    def build(self, statistics: Statistics) -> "PaiNN":
        network = (DirectPaiNN if self.head == "direct" else PaiNN)(self, statistics)
        if self.denoise:  # last, so that the rest draws the same numbers as without
            network.noise = NoiseHead(self.channels, self.norm_epsilon)
        return network


class Message(nn.Module):
    """What an atom receives from its neighbours (figure 2b, equations 7 and 8).

    Args:
        channels: features of an atom.
        first: it passes no vectors on, because there are none yet (or only encoded forces, to which it adds).
    """

    def __init__(self, channels: int, *, first: bool) -> None:
        super().__init__()
        self.channels = channels
        self.first = first
        self.context = nn.Sequential(
            nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, (2 if first else 3) * channels)
        )

    def forward(
        self,
        scalars: Scalars,
        vectors: Vectors | None,
        filters: Sequence[Float[Tensor, "edges channels"]],
        directions: Float[Tensor, "edges 3 1"],
        edges: Int[Tensor, "2 edges"],
    ) -> tuple[Scalars, Vectors]:
        """Scalars and vectors after the messages.

        Args:
            scalars: features of the atoms.
            vectors: the same; none before the first layer, unless forces are encoded.
            filters: factors of the channels of each edge: of the messages from scalars to scalars, from scalars to
                vectors and from vectors to vectors.
            directions: unit vectors from centre to neighbour.
            edges: centre, neighbour.
        """
        centre, neighbour = edges
        atoms = len(scalars)
        context = self.context(scalars).split(self.channels, dim=1)
        scalars = scalars + sum_over_edges(context[0].index_select(0, neighbour) * filters[0], centre, atoms)
        message = (context[1].index_select(0, neighbour) * filters[1])[:, None] * directions
        if not self.first:
            # vectors meet their context before they are copied to the edges, where the product would be dearer
            gated = (context[2][:, None] * vectors).index_select(0, neighbour)
            message = message + gated * filters[2][:, None]
        received = sum_over_edges(message, centre, atoms)
        return scalars, received if vectors is None else vectors + received


class Update(nn.Module):
    """Exchange between the scalars and the vectors of one atom (figure 2c, equations 9 and 10).

    Args:
        channels: features of an atom.
        epsilon: added to the squared norms.
        last: nothing reads the vectors afterwards.
    """

    def __init__(self, channels: int, epsilon: float, *, last: bool) -> None:
        super().__init__()
        self.channels = channels
        self.epsilon = epsilon
        self.last = last
        self.mix = nn.Linear(channels, 2 * channels, bias=False)
        self.gates = nn.Sequential(
            nn.Linear(2 * channels, channels), nn.SiLU(), nn.Linear(channels, (2 if last else 3) * channels)
        )

    def forward(self, scalars: Scalars, vectors: Vectors) -> tuple[Scalars, Vectors]:
        """Scalars and vectors after the exchange; the vectors as they were if this is the last one."""
        u, v = self.mix(vectors).split(self.channels, dim=2)
        features = torch.cat([scalars, smooth_norm(v, self.epsilon)], dim=1)
        gates = self.gates(features).split(self.channels, dim=1)
        scalars = scalars + gates[0] + gates[1] * (u * v).sum(dim=1)
        return scalars, vectors if self.last else vectors + gates[2][:, None] * u


class PaiNN(nn.Module):
    """The conservative network.

    Args:
        config: sizes.
        statistics: elements and scales of the training data.
    """

    edgewise: ClassVar[bool] = True

    def __init__(self, config: Config, statistics: Statistics) -> None:
        super().__init__()
        self.config = config
        self.cutoff = config.cutoff
        channels, final = config.channels, config.layers - 1
        self.rows = SpeciesRows(statistics.species)
        self.embedding = nn.Embedding(len(statistics.species), channels)
        self.basis = radial_basis(config.radial_basis, config.radial_count, config.cutoff)
        self.messages = nn.ModuleList([Message(channels, first=layer == 0) for layer in range(config.layers)])
        self.updates = nn.ModuleList(
            [
                Update(channels, config.norm_epsilon, last=layer == final and config.head == "conservative")
                for layer in range(config.layers)
            ]
        )
        self.filters = nn.Linear(config.radial_count, (3 * config.layers - 1) * channels)
        self.readout = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, 1))
        self.unit = EnergyUnit(statistics)
        self.noise: NoiseHead | None = None

    @property
    def denoises(self) -> bool:
        """Whether there is a noise head."""
        return self.noise is not None

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV."""
        scalars, _ = self.features(graph)
        return self.energies_of(scalars)

    def energies_of(self, scalars: Scalars) -> Float[Tensor, " atoms"]:
        """(atoms,) eV, read from the features."""
        return self.unit(self.readout(scalars).squeeze(1))

    def forces_of(self, scalars: Scalars, vectors: Vectors) -> Float[Tensor, "atoms 3"] | None:  # noqa: ARG002
        """(atoms, 3) eV/Å, read from the features; ``None``: this network has no such output."""
        return None

    def denoised(
        self,
        corrupted: AtomGraph,
        forces: Float[Tensor, "atoms 3"],
        original: AtomGraph,  # noqa: ARG002
    ) -> Denoised:
        """Energies, noise and forces (see :class:`phystrain.derive.Denoiser`); ``original`` is not looked at."""
        assert self.noise is not None, "built without denoise: true"
        scalars, vectors = self.features(corrupted, self.noise.encode(forces / self.unit.scale))
        noise = self.noise(scalars, vectors)
        return Denoised(self.energies_of(scalars), noise, self.forces_of(scalars, vectors))

    def features(self, graph: AtomGraph, vectors: Vectors | None = None) -> tuple[Scalars, Vectors]:
        """Scalar and vector features of the atoms after the last layer.

        Args:
            graph: the structures.
            vectors: features to begin with: encoded forces. Zero if not given.
        """
        graph = trimmed(graph, self.cutoff)
        distances = graph.distances
        directions = (graph.vectors / distances[:, None])[:, :, None]
        filters = iter(self._filters(distances))
        scalars = self.embedding(self.rows(graph.species))
        for message, update in zip(self.messages, self.updates, strict=True):
            own = [next(filters) for _ in range(2 if message.first else 3)]
            scalars, vectors = message(scalars, vectors, own, directions, graph.edges)
            scalars, vectors = update(scalars, vectors)
        assert vectors is not None
        return scalars, vectors

    def _filters(self, distances: Float[Tensor, " edges"]) -> list[Float[Tensor, "edges channels"]]:
        """Filters of all parts of all layers. The envelope multiplies basis and bias, not the larger filters."""
        decay = envelope(self.config.envelope, distances, self.cutoff)[:, None]
        basis = torch.cat([self.basis(distances) * decay, decay], dim=1)
        weight = torch.cat([self.filters.weight, self.filters.bias[:, None]], dim=1)
        return [basis @ part.T for part in weight.split(self.config.channels)]


class DirectPaiNN(PaiNN):
    """The network with forces of their own.

    Args:
        config: sizes.
        statistics: elements and scales of the training data.
    """

    def __init__(self, config: Config, statistics: Statistics) -> None:
        super().__init__(config, statistics)
        self.force_blocks = VectorReadout(config.channels, config.norm_epsilon)

    def heads(self, graph: AtomGraph) -> tuple[Float[Tensor, " atoms"], Float[Tensor, "atoms 3"]]:
        """Atomic energies (atoms,) eV and forces (atoms, 3) eV/Å, which are not the gradient of the energy."""
        scalars, vectors = self.features(graph)
        return self.energies_of(scalars), self.forces_of(scalars, vectors)

    def forces_of(self, scalars: Scalars, vectors: Vectors) -> Float[Tensor, "atoms 3"]:
        """(atoms, 3) eV/Å, read from the features."""
        forces: Tensor = self.unit.scale * self.force_blocks(scalars, vectors)
        return forces

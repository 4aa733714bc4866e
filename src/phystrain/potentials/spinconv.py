"""SpinConv: messages on edges, made from what surrounds the sender as seen along the edge, averaged over all turns.

Source: Shuaibi et al. 2021, arXiv:2106.09575. A message belongs to an edge. In each round an edge looks at the sphere
of messages around the atom that it comes from, filters it with its own direction as the pole, and averages over all
turns about that direction; perceptrons that the two elements weigh make the new message of it. The energy of an atom
is read from the sum of its messages. With ``head: direct`` forces are an output of their own.

What differs from the published code. Its sphere is a grid of latitudes and longitudes, with as many turns as there
are longitudes, in a frame that a mean of neighbours fixes: equivariant but for the grid, and discontinuous where that
mean is parallel to the edge. Here the sphere is expanded in harmonics up to ``degree``, and up to ``order`` about the
edge, and the mean of the activation over all turns is taken to second order in what depends on the turn, in closed
form (:mod:`phystrain.layers.spin`). No frame is left: energies and forces are exactly equivariant, and smooth but for
the envelope. Filters are even in the angle, so that mirror images have one energy. The published direct forces average
over five random frames; here the direction of every neighbour is a pole, and the force is the sum of what is found
there, along these directions. The number of neighbours is not limited (published: ``max_neighbours: 40``).

What that costs: details finer than ``degree`` and ``order``, and, of the mean, what is beyond second order. What it
brings: at the small preset the forces of a turned molecule differ from the turned forces by 1e-14, on a grid of 16 by
12 points by 3 %, and a training step takes a sixth of the time (``benchmarks/networks/spinconv.py``).
"""

import math
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from phystrain.graph import AtomGraph
from phystrain.layers.cutoffs import envelope
from phystrain.layers.nearest import among_nearest
from phystrain.layers.radial import Bessel, Gaussian, RadialBasis
from phystrain.layers.scatter import sum_over_edges
from phystrain.layers.species import SpeciesRows
from phystrain.layers.spin import PolarFrame, SpinConvolution
from phystrain.potentials._network import EnergyUnit, NetworkConfig, trimmed, warn_of_truncation
from phystrain.statistics import Statistics

PER_GROUP = 8
"""Channels to a group of the normalisation, as published."""

GAIN = 1.7
"""By what SiLU shortens a number of size one: layers after it start larger, so that messages keep their size."""

SPREAD = 2.0
"""Distances are scaled by a factor between one over this and this, for each pair of elements, as published."""


class Config(NetworkConfig):
    """SpinConv (Shuaibi et al. 2021).

    ``preset: small`` is the default, for two cores; ``preset: piwsl`` has the sizes of arXiv:2408.05215 for ANI-1x,
    whose grid of 16 latitudes and 12 longitudes becomes degree 6 and order 2.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {},
        "piwsl": {
            **{"channels": 32, "hidden": 256, "layers": 3, "degree": 6, "order": 2, "mixtures": 8, "embedding": 32},
            **{"radial_count": 512, "radial_width": 3.0, "cutoff": 6.0, "head": "direct"},
        },
    }

    kind: Literal["spinconv"] = "spinconv"
    channels: int = Field(16, ge=2, description="features of a message")
    hidden: int = Field(32, ge=2, description="features of an edge inside a round; a multiple of channels / 8")
    degree: int = Field(3, ge=0, description="largest degree of the harmonics around an atom")
    order: int = Field(1, ge=0, le=2, description="largest order of these about an edge; 0: only angles with the edge")
    mixtures: int = Field(4, ge=1, description="perceptrons among which the elements of an edge choose, by weights")
    embedding: int = Field(16, ge=1, description="features of an element")
    radial_basis: RadialBasis = Field("gaussian", description="functions of the distance that messages begin with")
    radial_width: float = Field(1.0, gt=0, description="width of the Gaussians in units of their distance")
    max_neighbours: int | None = Field(
        None, ge=1, description="only that many nearest neighbours count: energies then jump where they change places"
    )
    head: Literal["conservative", "direct"] = Field(
        "conservative", description="forces as minus the gradient of the energy, or from an output of their own"
    )
    norm_epsilon: float = Field(
        1e-2, gt=0, description="added to the variances that features are divided by; 1e-5 in the paper, and stiff"
    )

    @property
    def groups(self) -> int:
        """Groups of the normalisation."""
        return max(1, self.channels // PER_GROUP)

    @model_validator(mode="after")
    def _sizes_fit(self) -> "Config":
        if self.hidden % self.groups:
            raise ValueError(f"hidden: {self.hidden} is no multiple of channels / {PER_GROUP}, which is {self.groups}")
        if self.order > self.degree:
            raise ValueError(f"order: harmonics of degree {self.degree} have no order {self.order}")
        return self

    def build(self, statistics: Statistics) -> "SpinConv":
        if self.max_neighbours is not None:
            warn_of_truncation(self.kind)
        return (DirectSpinConv if self.head == "direct" else SpinConv)(self, statistics)


def started(linear: nn.Linear, gain: float = 1.0) -> nn.Linear:
    """The layer with weights that make numbers of size ``gain`` of numbers of size one."""
    nn.init.normal_(linear.weight, std=gain / math.sqrt(linear.in_features))
    nn.init.zeros_(linear.bias)
    return linear


class Mixture(nn.Module):
    """A perceptron whose second layer is a mixture that two elements weigh (figure 3 of the paper, embedding block).

    Args:
        config: sizes.
        inputs, outputs: features.
        kinds: number of known elements.
    """

    def __init__(self, config: Config, inputs: int, outputs: int, kinds: int) -> None:
        super().__init__()
        self.mixtures = config.mixtures
        self.sender = nn.Embedding(kinds, config.embedding)
        self.receiver = nn.Embedding(kinds, config.embedding)
        self.choice = nn.Linear(2 * config.embedding, config.mixtures)
        self.first = started(nn.Linear(inputs, config.hidden))
        self.second = started(nn.Linear(config.hidden, config.mixtures * config.hidden), GAIN)
        self.last = started(nn.Linear(config.hidden, outputs), GAIN * math.sqrt(config.mixtures))  # a mean of as many

    def forward(self, features: Float[Tensor, "rows inputs"], pair: Int[Tensor, " rows"]) -> Tensor:
        """(rows, outputs).

        Args:
            features: of edges or atoms.
            pair: sender's row of the table of elements times their number, plus the receiver's row.
        """
        kinds = self.sender.num_embeddings
        sender = self.sender.weight.repeat_interleave(kinds, dim=0)
        both = torch.cat([sender, self.receiver.weight.repeat(kinds, 1)], dim=1)
        weights = torch.softmax(self.choice(both), dim=1).index_select(0, pair)  # few pairs, many edges
        mixed = nn.functional.silu(self.second(nn.functional.silu(self.first(features))))
        chosen = (mixed.unflatten(1, (self.mixtures, -1)) * weights[:, :, None]).sum(dim=1)
        result: Tensor = self.last(chosen)
        return result


class Distances(nn.Module):
    """Features of the length of an edge, scaled and shifted for each pair of elements.

    Args:
        config: sizes.
        kinds: number of known elements.
    """

    def __init__(self, config: Config, kinds: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(kinds**2))
        self.offset = nn.Parameter(torch.zeros(kinds**2))
        gaussian, count, cutoff = config.radial_basis == "gaussian", config.radial_count, config.cutoff
        self.basis = Gaussian(count, cutoff, config.radial_width) if gaussian else Bessel(count, cutoff)
        self.linear = nn.Linear(config.radial_count, config.hidden)
        if gaussian:  # whose squares add up to that
            nn.init.normal_(self.linear.weight, std=1 / math.sqrt(math.sqrt(math.pi) * config.radial_width))

    def forward(self, distances: Float[Tensor, " edges"], pair: Int[Tensor, " edges"]) -> Float[Tensor, "edges hidden"]:
        factor = torch.exp(math.log(SPREAD) * torch.tanh(self.scale / 2))
        scaled = factor.index_select(0, pair) * distances + self.offset.index_select(0, pair)
        features: Tensor = self.linear(self.basis(scaled))
        return features


def perceptron(size: int) -> nn.Sequential:
    """Two layers of as many features."""
    return nn.Sequential(started(nn.Linear(size, size)), nn.SiLU(), started(nn.Linear(size, size), GAIN))


class Edges:
    """What all rounds need to know of the edges.

    Args:
        graph: the structures.
        pair: (edges,) pairs of elements.
        decay: (edges, 1) the envelope.
        share: what messages are multiplied by when they are added at an atom.
        directions: (edges, 3) from centre to neighbour.
        lengths: (edges, hidden) features of the distances.
        frame: of harmonics.
    """

    def __init__(
        self,
        graph: AtomGraph,
        *,
        pair: Tensor,
        decay: Tensor,
        share: Tensor,
        directions: Tensor,
        lengths: Tensor,
        frame: PolarFrame,
    ) -> None:
        self.centre, self.neighbour = graph.edges
        self.atoms = graph.n_atoms
        self.pair, self.decay, self.directions, self.lengths = pair, decay, directions, lengths
        self.root = share.sqrt()
        self.values, self.maps = frame(directions)

    def around(
        self, spin: SpinConvolution, messages: Float[Tensor, "edges channels"], at: Int[Tensor, " edges"]
    ) -> Float[Tensor, "edges hidden"]:
        """What each edge sees around one of its atoms."""
        arriving = messages * (self.decay * self.root)
        seen: Tensor = spin(arriving, self.values, self.maps, at, self.centre, self.atoms)
        return seen


class Round(nn.Module):
    """One round: new messages from those around the senders (figure 3).

    Args:
        config: sizes.
        kinds: number of known elements.
    """

    def __init__(self, config: Config, kinds: int) -> None:
        super().__init__()
        hidden = config.hidden
        self.spin = spin_convolution(config)
        self.first = Mixture(config, hidden, hidden, kinds)
        self.lengths = perceptron(hidden)
        self.second = Mixture(config, hidden, config.channels, kinds)

    def forward(self, messages: Float[Tensor, "edges channels"], edges: Edges) -> Float[Tensor, "edges channels"]:
        """New messages; the edges look at the atom that sends, which is the neighbour."""
        seen = edges.around(self.spin, messages, edges.neighbour)
        features = self.first(seen, edges.pair) + self.lengths(edges.lengths)
        made: Tensor = self.second(nn.functional.silu(features), edges.pair)
        return made


def spin_convolution(config: Config) -> SpinConvolution:
    """The spin convolution of these sizes."""
    sizes = PolarFrame.sizes(config.degree, config.order)
    return SpinConvolution(
        config.channels, config.hidden, sizes=sizes, groups=config.groups, epsilon=config.norm_epsilon
    )


class SpinConv(nn.Module):
    """The conservative network.

    Args:
        config: sizes.
        statistics: elements and scales of the training data.
    """

    edgewise: ClassVar[bool] = True
    share: Tensor

    def __init__(self, config: Config, statistics: Statistics) -> None:
        super().__init__()
        self.config = config
        self.cutoff = config.cutoff
        self.kinds = len(statistics.species)
        hidden = config.hidden
        self.rows = SpeciesRows(statistics.species)
        self.frame = PolarFrame(config.degree, config.order)
        self.distances = Distances(config, self.kinds)
        self.start = nn.Sequential(perceptron(hidden), nn.SiLU())
        self.begin = Mixture(config, hidden, config.channels, self.kinds)
        self.rounds = nn.ModuleList([Round(config, self.kinds) for _ in range(config.layers)])
        self.readout = Mixture(config, config.channels, 1, self.kinds)
        started(self.readout.last)  # forces begin at about the size of those in the data
        self.unit = EnergyUnit(statistics)
        # the published divisor has the largest number of neighbours in place of the mean
        share = torch.tensor(1 / (statistics.neighbours / 2 + 1), dtype=torch.get_default_dtype())
        self.register_buffer("share", share)

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV."""
        messages, edges = self.messages(graph)
        return self.energies_of(graph, messages, edges)

    def energies_of(
        self, graph: AtomGraph, messages: Float[Tensor, "edges channels"], edges: Edges
    ) -> Float[Tensor, " atoms"]:
        """(atoms,) eV, read from the messages that arrive."""
        received = self.share * sum_over_edges(messages * edges.decay, edges.centre, edges.atoms)
        own = self.rows(graph.species) * (self.kinds + 1)
        return self.unit(self.readout(received, own).squeeze(1))

    def messages(self, graph: AtomGraph) -> tuple[Float[Tensor, "edges channels"], Edges]:
        """Messages after the last round, and the edges that carry them from neighbour to centre."""
        graph = trimmed(graph, self.cutoff)
        distances = graph.distances
        centre, neighbour = graph.edges
        rows = self.rows(graph.species)
        pair = rows.index_select(0, neighbour) * self.kinds + rows.index_select(0, centre)
        decay = envelope(self.config.envelope, distances, self.cutoff)[:, None]
        if self.config.max_neighbours is not None:
            # those within the cut-off are the nearest ones, so longer edges in the list change nothing
            decay = decay * among_nearest(centre, distances, self.config.max_neighbours)[:, None]
        directions = graph.vectors / distances[:, None]
        edges = Edges(
            graph,
            pair=pair,
            decay=decay,
            share=self.share,
            directions=directions,
            lengths=self.distances(distances, pair),
            frame=self.frame,
        )
        messages = self.begin(self.start(edges.lengths), pair)
        for number, make in enumerate(self.rounds):
            made = make(messages, edges)
            messages = made if number == 0 else messages + made
        return messages, edges


class DirectSpinConv(SpinConv):
    """The network with forces of their own.

    Args:
        config: sizes.
        statistics: elements and scales of the training data.
    """

    def __init__(self, config: Config, statistics: Statistics) -> None:
        super().__init__(config, statistics)
        self.spin = spin_convolution(config)
        self.force_first = Mixture(config, config.hidden, config.hidden, self.kinds)
        self.force_second = Mixture(config, config.hidden, 1, self.kinds)
        started(self.force_second.last)

    def heads(self, graph: AtomGraph) -> tuple[Float[Tensor, " atoms"], Float[Tensor, "atoms 3"]]:
        """Atomic energies (atoms,) eV and forces (atoms, 3) eV/Å, which are not the gradient of the energy."""
        messages, edges = self.messages(graph)
        seen = edges.around(self.spin, messages, edges.centre)
        along = self.force_second(nn.functional.silu(self.force_first(seen, edges.pair)), edges.pair)
        forces = sum_over_edges(along * edges.decay * edges.directions, edges.centre, edges.atoms)
        return self.energies_of(graph, messages, edges), self.unit.scale * forces

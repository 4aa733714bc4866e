"""What networks with coefficients of spherical harmonics on atoms share: settings, and the geometry of the edges."""

from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from phystrain.graph import AtomGraph
from phystrain.layers.cutoffs import envelope
from phystrain.layers.edge_frames import EdgeFrames, Parts, join_orders, order_rows, split_orders
from phystrain.layers.nearest import among_nearest
from phystrain.layers.radial import Gaussian, radial_basis
from phystrain.layers.scatter import sum_over_edges
from phystrain.layers.species import SpeciesRows
from phystrain.potentials._network import EnergyUnit, NetworkConfig, trimmed, warn_of_truncation
from phystrain.statistics import Statistics

Coefficients = Float[Tensor, "atoms _ _"]


class SphericalConfig(NetworkConfig):
    """Settings of these networks."""

    head: Literal["conservative", "direct"] = Field(
        "conservative", description="forces as minus the gradient of the energy, or from an output of their own"
    )
    lmax: int = Field(2, ge=1, le=10, description="highest degree of the spherical harmonics")
    mmax: int = Field(2, ge=0, description="highest order that is kept in the frame of an edge; at most lmax")
    hidden: int = Field(64, ge=1, description="features inside a message")
    edge_channels: int = Field(64, ge=1, description="features of an edge that follow from distance and elements")
    activation: Literal["gate", "grid"] = Field(
        "gate",
        description="non-linearity of what has a direction: gates, exactly equivariant, or the published one on a grid"
        " of the sphere, approximately equivariant (needs e3nn)",
    )
    chiral: bool = Field(
        False,
        description="messages tell left from right, as published: twice the weights of orders above zero, and mirror"
        " images have different energies",
    )
    grid_resolution: int | None = Field(
        None,
        ge=4,
        multiple_of=2,
        description="latitudes and longitudes of that grid; if not given, the fewest possible",
    )
    basis_width: float = Field(1.0, gt=0, description="width of Gaussian radial functions in units of their spacing")
    smooth_cutoff: bool = Field(
        True, description="messages decay to zero at the cut-off; false: they end abruptly there, as published"
    )
    max_neighbours: int | None = Field(
        None,
        ge=1,
        description="only that many nearest neighbours count, as published; forces then jump: for comparison",
    )

    @model_validator(mode="after")
    def _orders_within_degrees(self) -> "SphericalConfig":
        if self.mmax > self.lmax:
            raise ValueError(f"mmax is {self.mmax}, more than lmax ({self.lmax})")
        if self.grid_resolution is not None and self.grid_resolution < 2 * (self.lmax + 1):
            raise ValueError(f"grid_resolution is {self.grid_resolution}; lmax {self.lmax} needs {2 * self.lmax + 2}")
        return self


def nearest(graph: AtomGraph, count: int) -> AtomGraph:
    """The graph with the ``count`` shortest edges of each atom only."""
    keep = among_nearest(graph.edges[0], graph.distances, count)
    return replace(graph, edges=graph.edges[:, keep], shifts=graph.shifts[keep])


class EdgeGeometry(NamedTuple):
    """What layers need to know of the edges.

    Attributes:
        edges: centre, neighbour.
        rows: row of each atom in tables of the elements.
        matrix: into the frames of the edges (see :class:`EdgeFrames`).
        basis: radial functions.
        decay: the envelope.
        lmax: highest degree.
        mmax: highest order in the frames.
    """

    edges: Int[Tensor, "2 edges"]
    rows: Int[Tensor, " atoms"]
    matrix: Float[Tensor, "edges _ _"]
    basis: Float[Tensor, "edges basis"]
    decay: Float[Tensor, "edges 1"]
    lmax: int
    mmax: int

    def into_frames(self, x: Coefficients, atoms: Int[Tensor, " edges"], mmax: int) -> Parts:
        """Coefficients of an atom of each edge in the frame of the edge, by order up to ``mmax``."""
        count = len(order_rows(self.lmax, mmax))
        return split_orders(torch.bmm(self.matrix[:, :count], x.index_select(0, atoms)), self.lmax, mmax)

    def summed(
        self, parts: Parts, weights: Float[Tensor, "edges channels_or_one"], degrees: tuple[int, int]
    ) -> Coefficients:
        """Messages turned back, weighted and summed over the edges of each centre.

        Args:
            parts: by order, with these degrees.
            weights: of each edge or of each of its channels.
            degrees: first and last.
        """
        first, last = degrees
        rows = join_orders(parts) * weights[:, None]
        if last > 0:
            wanted = [
                row
                for row, (degree, m) in enumerate(order_rows(self.lmax, self.mmax))
                if first <= degree <= last and abs(m) < len(parts)
            ]
            matrix = self.matrix[:, :, first * first : (last + 1) ** 2]
            if wanted == list(range(len(wanted))):
                matrix = matrix[:, : len(wanted)]
            else:
                matrix = matrix.index_select(1, torch.tensor(wanted, device=matrix.device))
            rows = torch.bmm(matrix.transpose(1, 2), rows)
        return sum_over_edges(rows, self.edges[0], len(self.rows))


class SphericalNetwork(nn.Module):
    """Base of these networks.

    Args:
        config: sizes.
        statistics: elements and scales of the training data.
    """

    def __init__(self, config: SphericalConfig, statistics: Statistics) -> None:
        super().__init__()
        if config.max_neighbours is not None:
            warn_of_truncation(config.kind)
        self.cutoff = config.cutoff
        self.smooth, self.envelope, self.max_neighbours = config.smooth_cutoff, config.envelope, config.max_neighbours
        self.rows = SpeciesRows(statistics.species)
        self.embedding = nn.Embedding(len(statistics.species), config.channels)
        self.frames = EdgeFrames(config.lmax, config.mmax)
        self.lmax, self.mmax = config.lmax, config.mmax
        self.basis = (
            Gaussian(config.radial_count, config.cutoff, config.basis_width)
            if config.radial_basis == "gaussian"
            else radial_basis(config.radial_basis, config.radial_count, config.cutoff)
        )
        self.unit = EnergyUnit(statistics)

    @property
    def edgewise(self) -> bool:
        """Whether the list of edges is used as it comes (see :mod:`phystrain.compiled`)."""
        return self.max_neighbours is None

    def geometry(self, graph: AtomGraph) -> EdgeGeometry:
        """Everything that follows from the edges alone, once for all layers."""
        graph = trimmed(graph, self.cutoff)
        if self.max_neighbours is not None:
            graph = nearest(graph, self.max_neighbours)
        distances = graph.distances
        if self.smooth:
            decay = envelope(self.envelope, distances, self.cutoff)
        else:
            decay = (distances < self.cutoff).to(distances.dtype)
        return EdgeGeometry(
            edges=graph.edges,
            rows=self.rows(graph.species),
            matrix=self.frames(graph.vectors / distances[:, None]),
            basis=self.basis(distances),
            decay=decay[:, None],
            lmax=self.lmax,
            mmax=self.mmax,
        )

"""Equiformer v2: attention between atoms whose features are coefficients of spherical harmonics.

Source: Liao, Wood, Das, Smidt 2023, arXiv:2306.12059. Messages are made in the frame of each edge by two SO(2)
convolutions with an activation between, weighted by attention, and turned back (figure 1b); feed-forward networks
act on each atom. The energy is read from the scalars. Forces are minus the gradient of the energy or, with ``head:
direct``, the vectors of one more attention block.

What differs from the published network by default, and how to have the published:

* Frames of the edges follow from their directions, with all derivatives; published ones are random at each pass and
  carry no derivative (see :mod:`phystrain.layers.edge_frames`).
* ``activation: gate`` (an option of the published code) is exactly equivariant. ``activation: grid`` is the published
  S2 activation, approximately equivariant: over rotations of a
  molecule, forces of three layers at random weights vary by 4e-4 (``lmax: 2``, ``mmax: 1``) and 2e-4 (4, 2) of their
  root mean square on the fewest points, by 1e-8 and 6e-8 with ``grid_resolution: 18``.
* Energies of mirror images agree exactly; ``chiral: true`` has the published weights, with which they do not.
* Messages decay smoothly to zero at the cut-off, in the attention weights too (see
  :func:`phystrain.layers.edge_attention.edge_softmax`); ``smooth_cutoff: false`` ends them abruptly.
* All neighbours count; ``max_neighbours`` is the published truncation.
* What cannot matter is left out: in the last layer of a conservative network, all that does not lead to scalars; of
  the outputs, all other degrees. With gates the last layer then needs order zero only, which makes it cheap.
"""

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from phystrain.graph import AtomGraph
from phystrain.layers.edge_attention import edge_softmax, smooth_leaky_relu
from phystrain.layers.radial import RadialBasis
from phystrain.layers.so2 import SO2Linear, gated_orders
from phystrain.layers.sphere_grid import SphereGrid, activated_on_grid, lost_orders
from phystrain.layers.spherical import DegreeLinear, DegreeNorm, GatedFeedForward
from phystrain.potentials._spherical import Coefficients, EdgeGeometry, SphericalConfig, SphericalNetwork
from phystrain.statistics import Statistics

PUBLISHED: dict[str, Any] = {
    "channels": 128,
    "layers": 8,
    "lmax": 4,
    "mmax": 2,
    "hidden": 64,
    "attention_heads": 8,
    "alpha_channels": 64,
    "value_channels": 16,
    "feed_forward": 128,
    "edge_channels": 128,
    "radial_basis": "gaussian",
    "radial_count": 600,
    "basis_width": 2.0,
    "chiral": True,
    "activation": "grid",
    "grid_resolution": 18,
    "norm_epsilon": 1e-5,
    "dropout": 0.1,
    "cutoff": 12.0,
    "head": "direct",
}


class Config(SphericalConfig):
    """Equiformer v2 (Liao et al. 2023).

    ``preset: 31M`` has the sizes of the published network of 31 million parameters, ``preset: piwsl`` those of
    arXiv:2408.05215 for ANI-1x, which are the same; ``preset: small`` trains on two cores.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "piwsl": PUBLISHED,
        "31M": PUBLISHED,
        "small": {
            "channels": 24,
            "layers": 2,
            "lmax": 2,
            "mmax": 1,
            "hidden": 16,
            "attention_heads": 4,
            "alpha_channels": 8,
            "value_channels": 6,
            "feed_forward": 32,
            "edge_channels": 24,
            "radial_count": 8,
        },
    }

    kind: Literal["equiformer_v2"] = "equiformer_v2"
    radial_basis: RadialBasis = Field(
        "gaussian",
        description="functions of the distance; Bessel functions vanish at the cut-off, where norms then enlarge them",
    )
    attention_heads: int = Field(4, ge=1, description="sets of attention weights")
    alpha_channels: int = Field(16, ge=2, description="features that the weight of one head is made from")
    value_channels: int = Field(16, ge=1, description="features that one head weights")
    feed_forward: int = Field(64, ge=1, description="features inside the network on each atom")
    dropout: float = Field(0.0, ge=0, lt=1, description="fraction of attention weights left out at random in training")
    norm_epsilon: float = Field(
        1e-2,
        gt=0,
        description="added to variances in norms of features; 1e-5 is published, and stiff where symmetry makes all"
        " features with a direction vanish",
    )

    def build(self, statistics: Statistics) -> "EquiformerV2":
        return (DirectEquiformerV2 if self.head == "direct" else EquiformerV2)(self, statistics)


class RadialFunction(nn.Module):
    """Features of an edge from its distance and its elements (appendix A.3): three linear maps, norms, SiLU.

    Args:
        config: sizes.
        species: number of elements.
        outputs: features.
    """

    def __init__(self, config: Config, species: int, outputs: int) -> None:
        super().__init__()
        width, self.radial_count = config.edge_channels, config.radial_count
        self.neighbour = nn.Embedding(species, width)
        self.centre = nn.Embedding(species, width)
        for table in (self.neighbour, self.centre):
            nn.init.uniform_(table.weight, -1e-3, 1e-3)
        self.first = nn.Linear(config.radial_count + 2 * width, width)
        self.rest = nn.Sequential(
            nn.LayerNorm(width, config.norm_epsilon),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.LayerNorm(width, config.norm_epsilon),
            nn.SiLU(),
            nn.Linear(width, outputs),
        )
        for linear in (self.first, self.rest[2], self.rest[5]):
            nn.init.zeros_(linear.bias)  # type: ignore[arg-type]

    def forward(self, geometry: EdgeGeometry) -> Float[Tensor, "edges outputs"]:
        centre, neighbour = geometry.edges
        width = self.centre.embedding_dim
        radial, of_neighbour, of_centre = self.first.weight.split([self.radial_count, width, width], dim=1)
        # elements meet their weights before they are copied to the edges
        from_neighbour = (self.neighbour.weight @ of_neighbour.T).index_select(0, geometry.rows[neighbour])
        from_centre = (self.centre.weight @ of_centre.T + self.first.bias).index_select(0, geometry.rows[centre])
        found: Tensor = self.rest(geometry.basis @ radial.T + from_neighbour + from_centre)
        return found


class Attention(nn.Module):
    """Messages weighted by attention (section 4.1, figure 1b).

    Args:
        config: sizes.
        species: number of elements.
        degrees: first and last degree of the result.
        outputs: channels of the result.
    """

    def __init__(self, config: Config, species: int, degrees: tuple[int, int], outputs: int) -> None:
        super().__init__()
        lmax, channels, hidden, heads = config.lmax, config.channels, config.hidden, config.attention_heads
        self.sink, self.dropout, self.degrees = config.smooth_cutoff, config.dropout, degrees
        self.needed = min(config.mmax, degrees[1])
        self.grid = _grid(config, edges=True)
        # gates leave orders to themselves: those that the result has none of are not made
        self.mmax = self.needed if self.grid is None else config.mmax
        self.counts = [2 * channels * (lmax + 1 - m) for m in range(self.mmax + 1)]
        self.radial = RadialFunction(config, species, sum(self.counts))
        self.split = [heads * config.alpha_channels, hidden * (lmax if self.grid is None else 1)]
        values, chiral = heads * config.value_channels, config.chiral
        self.first = SO2Linear(
            lmax, self.mmax, 2 * channels, hidden, degrees=(0, lmax), extra=sum(self.split), chiral=chiral
        )
        self.second = SO2Linear(lmax, self.needed, hidden, values, degrees=degrees, extra=0, chiral=chiral)
        self.norm = nn.LayerNorm(config.alpha_channels, config.norm_epsilon)
        self.query = nn.Parameter(torch.empty(heads, config.alpha_channels))
        nn.init.uniform_(self.query, -(config.alpha_channels**-0.5), config.alpha_channels**-0.5)
        self.values = config.value_channels
        self.out = (
            DegreeLinear(degrees[1], values, outputs) if degrees[0] == 0 else nn.Linear(values, outputs, bias=False)
        )
        self.scale = [lost_orders(degree, config.mmax) for degree in range(degrees[0], degrees[1] + 1)]

    def forward(self, x: Coefficients, geometry: EdgeGeometry) -> Float[Tensor, "atoms _ outputs"]:
        """(atoms, coefficients of ``degrees``, outputs)."""
        centre, neighbour = geometry.edges
        pairs = [
            torch.cat(both, dim=3)
            for both in zip(
                geometry.into_frames(x, neighbour, self.mmax),
                geometry.into_frames(x, centre, self.mmax),
                strict=True,
            )
        ]
        extra, parts = self.first(pairs, list(self.radial(geometry).split(self.counts, dim=1)))
        attention, gates = extra.split(self.split, dim=1)
        parts = gated_orders(parts, gates) if self.grid is None else activated_on_grid(parts, self.grid, gates)
        _, parts = self.second(parts[: self.needed + 1])
        weights = self._weights(attention, geometry.decay, centre, len(x))
        summed = geometry.summed(parts, weights.repeat_interleave(self.values, dim=1), self.degrees)
        if any(scale != 1 for scale in self.scale):
            summed = torch.cat(
                [part * scale for part, scale in zip(_by_degree(summed, self.degrees), self.scale, strict=True)], dim=1
            )
        found: Tensor = self.out(summed)
        return found

    def _weights(
        self,
        features: Float[Tensor, "edges _"],
        decay: Float[Tensor, "edges 1"],
        centre: Int[Tensor, " edges"],
        n_atoms: int,
    ) -> Float[Tensor, "edges heads"]:
        activated = smooth_leaky_relu(self.norm(features.unflatten(1, self.query.shape)))
        weights = edge_softmax((activated * self.query).sum(dim=2), decay, centre, n_atoms, sink=self.sink)
        return nn.functional.dropout(weights, self.dropout, self.training)


def _by_degree(x: Coefficients, degrees: tuple[int, int]) -> list[Tensor]:
    return list(x.split([2 * degree + 1 for degree in range(degrees[0], degrees[1] + 1)], dim=1))


def _grid(config: Config, *, edges: bool) -> SphereGrid | None:
    """The grid in the frames of the edges, or on atoms; ``None`` with gates."""
    if config.activation == "gate":
        return None
    mmax = config.mmax if edges else config.lmax
    return SphereGrid(
        config.lmax,
        mmax,
        config.grid_resolution,
        normalization="component",
        rescaled=mmax < config.lmax,
        by_order=edges,
    )


class GridFeedForward(nn.Module):
    """Feed-forward network on the grid (section 4.2): scalars by themselves, the rest point by point.

    The first and the last of the three maps on the grid act on coefficients here, which is the same and cheaper.

    Args:
        config: sizes.
        grid: of the atoms.
    """

    def __init__(self, config: Config, grid: SphereGrid) -> None:
        super().__init__()
        channels, hidden = config.channels, config.feed_forward
        self.grid = grid
        self.scalars = nn.Linear(channels, hidden)
        nn.init.zeros_(self.scalars.bias)
        self.first = DegreeLinear(config.lmax, channels, hidden)
        self.points = nn.ModuleList([nn.Linear(hidden, hidden, bias=False) for _ in range(3)])
        self.second = DegreeLinear(config.lmax, hidden, channels)

    def forward(self, x: Coefficients) -> Coefficients:
        silu = nn.functional.silu
        values = silu(self.grid.values(self.points[0](self.first(x))))
        directed = self.points[2](self.grid.coefficients(silu(self.points[1](values)))[:, 1:])
        return self.second(torch.cat([silu(self.scalars(x[:, :1])), directed], dim=1))


class Block(nn.Module):
    """Attention and feed-forward network, each after a norm and beside what it changes (figure 1a).

    Args:
        config: sizes.
        species: number of elements.
        lmax: highest degree of the result; zero in a last layer from which only scalars are read.
    """

    def __init__(self, config: Config, species: int, lmax: int) -> None:
        super().__init__()
        channels = config.channels
        self.count = (lmax + 1) ** 2
        self.first_norm = DegreeNorm(config.lmax, channels, config.norm_epsilon)
        self.attention = Attention(config, species, (0, lmax), channels)
        self.second_norm = DegreeNorm(lmax, channels, config.norm_epsilon)
        grid = _grid(config, edges=False) if lmax else None
        self.feed_forward = (
            GatedFeedForward(lmax, channels, config.feed_forward, channels)
            if grid is None
            else GridFeedForward(config, grid)
        )

    def forward(self, x: Coefficients, geometry: EdgeGeometry) -> Coefficients:
        x = x[:, : self.count] + self.attention(self.first_norm(x), geometry)
        changed: Tensor = x + self.feed_forward(self.second_norm(x))
        return changed


class EquiformerV2(SphericalNetwork):
    """The conservative network.

    Args:
        config: sizes.
        statistics: elements and scales of the training data.
    """

    def __init__(self, config: Config, statistics: Statistics) -> None:
        super().__init__(config, statistics)
        species, channels, lmax = len(statistics.species), config.channels, config.lmax
        self.config = config
        last = lmax if config.head == "direct" else 0
        self.degree_radial = RadialFunction(config, species, (lmax + 1) * channels)
        self.degree_scale = [lost_orders(degree, config.mmax) / statistics.neighbours for degree in range(lmax + 1)]
        self.blocks = nn.ModuleList(
            [Block(config, species, lmax if layer < config.layers - 1 else last) for layer in range(config.layers)]
        )
        self.norm = DegreeNorm(last, channels, config.norm_epsilon)
        self.readout = nn.Sequential(
            nn.Linear(channels, config.feed_forward), nn.SiLU(), nn.Linear(config.feed_forward, 1)
        )

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV."""
        return self.energies_of(self.features(self.geometry(graph)))

    def energies_of(self, x: Coefficients) -> Float[Tensor, " atoms"]:
        """(atoms,) eV, read from the features."""
        return self.unit(self.readout(x[:, 0]).squeeze(1))

    def features(self, geometry: EdgeGeometry) -> Coefficients:
        """Coefficients of the atoms after the last norm."""
        x = self._start(geometry)
        for block in self.blocks:
            x = block(x, geometry)
        normed: Tensor = self.norm(x)
        return normed

    def _start(self, geometry: EdgeGeometry) -> Coefficients:
        """Embedding of the element, and of the neighbours by direction (section 4, edge-degree embedding)."""
        degrees = (0, self.lmax)
        axial = self.degree_radial(geometry).unflatten(1, (1, self.lmax + 1, -1))
        parts = _by_degree(geometry.summed([axial], geometry.decay, degrees), degrees)
        parts = [part * scale for part, scale in zip(parts, self.degree_scale, strict=True)]
        parts[0] = parts[0] + self.embedding(geometry.rows)[:, None]
        return torch.cat(parts, dim=1)


class DirectEquiformerV2(EquiformerV2):
    """The network with forces of their own.

    Args:
        config: sizes.
        statistics: elements and scales of the training data.
    """

    def __init__(self, config: Config, statistics: Statistics) -> None:
        super().__init__(config, statistics)
        undropped = config.model_copy(update={"dropout": 0.0})  # as published
        self.force_block = Attention(undropped, len(statistics.species), (1, 1), 1)

    def heads(self, graph: AtomGraph) -> tuple[Float[Tensor, " atoms"], Float[Tensor, "atoms 3"]]:
        """Atomic energies (atoms,) eV and forces (atoms, 3) eV/Å, which are not the gradient of the energy."""
        geometry = self.geometry(graph)
        x = self.features(geometry)
        # coefficients of degree one are x, y, z
        return self.energies_of(x), self.unit.scale * self.force_block(x, geometry).squeeze(2)

"""eSCN: messages between atoms whose features are coefficients of spherical harmonics, made in frames of the edges.

Source: Passaro, Zitnick 2023, arXiv:2302.03655. In the frame of an edge a convolution on the sphere is a small linear
map of each order (section 4); its hidden features are scaled by scalars of the edge (figure 3). What an atom receives
meets its features in a network that acts on each atom. The energy is read from all features. Forces are minus the
gradient of the energy or, with ``head: direct``, an output of their own.

What differs from the published network by default, and how to have the published:

* Frames of the edges follow from their directions, with all derivatives; published ones are random at each pass and
  carry no derivative (see :mod:`phystrain.layers.edge_frames`).
* ``activation: gate`` is exactly equivariant: degrees above zero are multiplied by sigmoids of scalars, in messages and
  on atoms, and the energy is read from the scalars. ``activation: grid`` is the published network, SiLU of values on a
  grid of the sphere and outputs averaged over points, approximately equivariant: over rotations of a molecule, forces
  of three layers at random weights vary by 8e-3 (``lmax: 2``, ``mmax: 1``) and 3e-2 (4, 2) of their root mean square
  as published, by 5e-5 and 7e-4 with ``grid_resolution: 18`` and ``sphere_samples: 1024``.
* Energies of mirror images agree exactly; ``chiral: true`` has the published weights, with which they do not.
* Messages decay smoothly to zero at the cut-off (``smooth_cutoff: false`` ends them abruptly) and their sum is divided
  by the root of the mean number of neighbours.
* All neighbours count; ``max_neighbours`` is the published truncation.
* What cannot matter is left out: in the first layer, where features have no direction yet, all orders but zero; with
  gates, in the last layer, all that does not lead to scalars or, for direct forces, vectors.
"""

from typing import Any, ClassVar, Literal, cast

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from phystrain.graph import AtomGraph
from phystrain.layers.edge_frames import Parts
from phystrain.layers.fixed import FixedTables
from phystrain.layers.gated import VectorReadout
from phystrain.layers.so2 import gated_orders, times_i
from phystrain.layers.sphere_grid import SphereGrid, activated_on_grid, e3nn_o3
from phystrain.layers.spherical import GatedFeedForward
from phystrain.potentials._spherical import Coefficients, EdgeGeometry, SphericalConfig, SphericalNetwork
from phystrain.statistics import Statistics


class Config(SphericalConfig):
    """eSCN (Passaro, Zitnick 2023).

    ``preset: piwsl`` has the sizes of arXiv:2408.05215 for ANI-1x; ``preset: small`` trains on two cores.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "piwsl": {
            "channels": 128,
            "layers": 12,
            "lmax": 6,
            "mmax": 2,
            "hidden": 256,
            "edge_channels": 128,
            "radial_basis": "gaussian",
            "radial_count": 600,
            "chiral": True,
            "activation": "grid",
            "cutoff": 12.0,
            "head": "direct",
        },
        "small": {
            "channels": 32,
            "layers": 3,
            "lmax": 2,
            "mmax": 1,
            "hidden": 24,
            "edge_channels": 32,
            "radial_count": 8,
        },
    }

    kind: Literal["escn"] = "escn"
    sphere_samples: int = Field(
        128, ge=4, description="points of the sphere that outputs are averaged over, with activation: grid"
    )
    norm_epsilon: float = Field(1e-2, gt=0, description="added to squared vector norms, in direct forces with gates")

    def build(self, statistics: Statistics) -> "ESCN":
        return (DirectESCN if self.head == "direct" else ESCN)(self, statistics)


def _keep_variance(linear: nn.Module, *, activated: bool) -> None:
    """Weights with which outputs vary as much as inputs, or as what a SiLU has made of the inputs varied before.

    The usual ones are smaller. Messages are products of several such maps here, and energies would hardly depend on
    positions at the start.
    """
    assert isinstance(linear, nn.Linear)
    nn.init.normal_(linear.weight, std=(1.68 if activated else 1.0) * linear.in_features**-0.5)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


class EdgeScalars(nn.Module):
    """Features of an edge from its distance and its elements.

    Args:
        config: sizes.
        species: number of elements.
    """

    def __init__(self, config: Config, species: int) -> None:
        super().__init__()
        width = config.edge_channels
        self.neighbour = nn.Embedding(species, width)
        self.centre = nn.Embedding(species, width)
        self.radial = nn.Linear(config.radial_count, width)
        self.mix = nn.Linear(width, width)
        _keep_variance(self.mix, activated=True)

    def forward(self, geometry: EdgeGeometry) -> Float[Tensor, "edges edge_channels"]:
        centre, neighbour = (geometry.rows[atom] for atom in geometry.edges)
        elements = self.neighbour.weight.index_select(0, neighbour) + self.centre.weight.index_select(0, centre)
        silu = nn.functional.silu
        return silu(self.mix(silu(self.radial(geometry.basis) + elements)))


class Convolution(nn.Module):
    """Convolution of the features of both atoms of an edge, in its frame.

    Each order goes through hidden features that scalars of the edge multiply. If chiral, cosine and sine of an order
    are one complex number; weights and scalars have a real and an imaginary part. The maps of both atoms add up;
    their second halves are one matrix here, that of the imaginary part is beside it.

    Args:
        config: sizes.
        inputs: highest degree of the features, and highest order that is used.
        degrees: highest degree of the result.
        gates: further outputs of order zero.
    """

    def __init__(self, config: Config, inputs: tuple[int, int], degrees: int, gates: int) -> None:
        super().__init__()
        (lmax, mmax), channels, hidden = inputs, config.channels, config.hidden
        self.gates, self.hidden, self.channels = gates, hidden, channels
        sizes = [(lmax + 1 - m) * channels for m in range(mmax + 1)]
        parts = [1 if m == 0 else 1 + config.chiral for m in range(mmax + 1)]
        self.counts = [2 * hidden * count for count in parts]
        self.from_neighbour, self.from_centre = (
            nn.ModuleList([nn.Linear(s, hidden * count, bias=False) for s, count in zip(sizes, parts, strict=True)])
            for _ in range(2)
        )
        self.scalars = nn.Linear(config.edge_channels, sum(self.counts))
        self.zero = nn.Linear(2 * hidden, (degrees + 1) * channels + gates, bias=False)
        self.orders = nn.ModuleList(
            [
                nn.Linear(count, (degrees + 1 - m) * channels, bias=False)
                for m, count in enumerate(self.counts[1:], start=1)
            ]
        )
        for linear in (*self.from_neighbour, *self.from_centre):
            _keep_variance(linear, activated=False)
        for linear in (self.scalars, self.zero, *self.orders):
            _keep_variance(linear, activated=True)

    def forward(
        self, neighbour: Parts, centre: Parts, scalars: Float[Tensor, "edges edge_channels"]
    ) -> tuple[Parts, Float[Tensor, "edges _"]]:
        """Coefficients by order, and scalars for gates."""
        factors = nn.functional.silu(self.scalars(scalars)).split(self.counts, dim=1)
        hidden = [
            self._joined(first(x.flatten(2)), second(y.flatten(2))) * factor[:, None]
            for first, x, second, y, factor in zip(
                self.from_neighbour, neighbour, self.from_centre, centre, factors, strict=True
            )
        ]
        zero = self.zero(hidden[0][:, 0])
        zero, gates = zero.split([zero.shape[1] - self.gates, self.gates], dim=1)
        found = [zero.unflatten(1, (1, -1, self.channels))]
        for order, values in zip(self.orders, hidden[1:], strict=True):
            real, *imaginary = values.split(2 * self.hidden, dim=2)
            product = order(torch.cat([real, *(times_i(part) for part in imaginary)], dim=2))
            found.append(product.unflatten(2, (-1, self.channels)))
        return found, gates

    def _joined(self, first: Tensor, second: Tensor) -> Tensor:
        """Hidden features of both atoms: those of the real parts, then those of the imaginary parts if any."""
        pairs = zip(first.split(self.hidden, dim=2), second.split(self.hidden, dim=2), strict=True)
        return torch.cat([part for pair in pairs for part in pair], dim=2)


class PointFeedForward(nn.Module):
    """Network on values on the sphere (section 4.3), point by point. First and last map act on coefficients: the same.

    Args:
        config: sizes.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        channels = config.channels
        self.grid = SphereGrid(config.lmax, config.lmax, config.grid_resolution, normalization="integral")
        self.maps = nn.ModuleList(
            [nn.Linear(inputs * channels, channels, bias=False) for inputs in (2, 1, 1)],
        )
        for place, linear in enumerate(self.maps):
            _keep_variance(linear, activated=place > 0)

    @property
    def last(self) -> nn.Linear:
        """The map that the result comes from."""
        return cast(nn.Linear, self.maps[2])

    def forward(self, x: Coefficients) -> Coefficients:
        silu = nn.functional.silu
        values = silu(self.maps[1](silu(self.grid.values(self.maps[0](x)))))
        found: Tensor = self.maps[2](self.grid.coefficients(values))
        return found


class Layer(nn.Module):
    """Messages, and what atoms make of them (figure 2).

    Args:
        config: sizes.
        species: number of elements.
        degrees: highest degree of the result.
        first: features have no direction yet, and are replaced.
    """

    def __init__(self, config: Config, species: int, degrees: int, *, first: bool) -> None:
        super().__init__()
        gated, lmax, channels = config.activation == "gate", config.lmax, config.channels
        self.first, self.degrees = first, degrees
        # gates leave orders to themselves: those that the result has none of are not made
        self.mmax = 0 if first else min(config.mmax, degrees)
        self.scalars = EdgeScalars(config, species)
        gates = degrees * channels if gated else 0
        self.convolution = Convolution(config, (0 if first else lmax, self.mmax), degrees, gates)
        self.grid: SphereGrid | None = None
        if not gated:
            resolution = config.grid_resolution
            self.grid = SphereGrid(lmax, self.mmax, resolution, normalization="integral", by_order=True)
        self.update = GatedFeedForward(degrees, 2 * channels, channels, channels) if gated else PointFeedForward(config)
        if not first:  # there are no norms: what many layers add must not grow with their number
            with torch.no_grad():
                self.update.last.weight.div_(config.layers)

    def forward(self, x: Coefficients, geometry: EdgeGeometry, scale: float) -> Coefficients:
        """Features after the layer.

        Args:
            x: before.
            geometry: of the edges.
            scale: of the sum of the messages.
        """
        centre, neighbour = geometry.edges
        if self.first:
            pair = [[x[:, None, :1].index_select(0, atoms)] for atoms in (neighbour, centre)]
        else:
            pair = [geometry.into_frames(x, atoms, self.mmax) for atoms in (neighbour, centre)]
        parts, gates = self.convolution(*pair, self.scalars(geometry))
        parts = gated_orders(parts, gates) if self.grid is None else activated_on_grid(parts, self.grid)
        received = geometry.summed(parts, scale * geometry.decay, (0, self.degrees))
        x = x[:, : (self.degrees + 1) ** 2]
        if self.first:
            x = nn.functional.pad(x, (0, 0, 0, received.shape[1] - x.shape[1]))
        update: Tensor = self.update(torch.cat([x, received], dim=2))
        return update if self.first else x + update


class SphereSamples(FixedTables):
    """Values at points that cover the sphere evenly, a spiral of golden angles (published code).

    Args:
        lmax: highest degree.
        count: number of points.
    """

    points: Tensor
    harmonics: Tensor

    def __init__(self, lmax: int, count: int) -> None:
        super().__init__()
        place = torch.arange(count, dtype=torch.float64)[:, None]
        azimuth = 2 * torch.pi * place / (0.5 * (1 + 5**0.5))
        polar = torch.arccos(1 - 2 * (place + 0.5) / count)
        points = torch.cat([azimuth.cos() * polar.sin(), azimuth.sin() * polar.sin(), polar.cos()], dim=1)
        crowded = torch.exp(-(points[None] - points[:, None]).square().sum(2) / 0.15).sum(1, keepdim=True)
        # published points are not on the unit sphere but weighted so, and harmonics are taken there
        points = points * count / crowded / (1 / crowded).sum()
        harmonics = e3nn_o3().spherical_harmonics(list(range(lmax + 1)), points, normalize=False)
        self.register_buffer("points", points, persistent=False)
        self.register_buffer("harmonics", harmonics, persistent=False)

    def forward(self, x: Coefficients) -> Float[Tensor, "atoms points channels"]:
        return torch.matmul(self.harmonics.to(x.dtype), x)


def _readout(channels: int, *, bias: bool = True) -> nn.Sequential:
    made = nn.Sequential(
        nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, 1, bias)
    )
    for place in (2, 4):
        _keep_variance(made[place], activated=True)
    return made


class ESCN(SphericalNetwork):
    """The conservative network.

    Args:
        config: sizes.
        statistics: elements and scales of the training data.
    """

    def __init__(self, config: Config, statistics: Statistics) -> None:
        super().__init__(config, statistics)
        self.config = config
        self.scale = max(statistics.neighbours, 1.0) ** -0.5
        degrees = [config.lmax] * config.layers
        if config.activation == "gate":  # scalars make the energy, vectors the forces
            degrees[-1] = 0 if config.head == "conservative" else 1
        self.layers = nn.ModuleList(
            [Layer(config, len(statistics.species), highest, first=layer == 0) for layer, highest in enumerate(degrees)]
        )
        self.samples = SphereSamples(config.lmax, config.sphere_samples) if config.activation == "grid" else None
        self.readout = _readout(config.channels, bias=self.samples is None)

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV."""
        return self.energies_of(self.features(graph))

    def energies_of(self, x: Coefficients) -> Float[Tensor, " atoms"]:
        """(atoms,) eV, read from the features."""
        numbers = self.readout(x[:, 0]) if self.samples is None else self.readout(self.samples(x)).mean(1)
        return self.unit(numbers.squeeze(1))

    def features(self, graph: AtomGraph) -> Coefficients:
        """Coefficients of the atoms after the last layer."""
        geometry = self.geometry(graph)
        x = self.embedding(geometry.rows)[:, None]
        for layer in self.layers:
            x = layer(x, geometry, self.scale)
        return x


class DirectESCN(ESCN):
    """The network with forces of their own.

    Args:
        config: sizes.
        statistics: elements and scales of the training data.
    """

    def __init__(self, config: Config, statistics: Statistics) -> None:
        super().__init__(config, statistics)
        self.force_blocks = (
            VectorReadout(config.channels, config.norm_epsilon)
            if self.samples is None
            else nn.ModuleList([_readout(config.channels, bias=False)])
        )

    def heads(self, graph: AtomGraph) -> tuple[Float[Tensor, " atoms"], Float[Tensor, "atoms 3"]]:
        """Atomic energies (atoms,) eV and forces (atoms, 3) eV/Å, which are not the gradient of the energy."""
        x = self.features(graph)
        if self.samples is None:
            forces = self.force_blocks(x[:, 0], x[:, 1:4])  # coefficients of degree one are x, y, z
        else:
            values = self.force_blocks[0](self.samples(x))
            forces = (values * self.samples.points.to(values.dtype)).mean(1)
        return self.energies_of(x), self.unit.scale * forces

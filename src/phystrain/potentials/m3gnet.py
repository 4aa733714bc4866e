"""M3GNet: messages along edges that know the angles to the other neighbours.

Source: Chen and Ong 2022, arXiv:2202.02450 (doi:10.1038/s43588-022-00349-3), and their own later implementation,
matgl. Features live on atoms and on edges. In each layer an edge first learns of the triplets it takes part in (three-
body interaction), then atoms and edges are updated by gated networks. The energy is a sum of energies of atoms.
Forces are minus the gradient of the energy.

The paper sums over triplets of a centre and two neighbours j and k: f(r_ij) f(r_ik) R_nl(r_ik) P_l(cos theta) a_k.
Here the Legendre polynomial is split by the addition theorem of spherical harmonics into a factor of either neighbour.
The sum over k is made once for each centre and the term k = j taken off again. Results are the same, the cost grows
with the number of edges instead of triplets, and no angle needs care where three atoms lie on a line.

Paper and matgl differ, and both can be had: gated networks of two or three layers (``update_layers``), a readout of
three or four (``readout_layers``), radial functions that differ by degree (``three_body_basis: spherical``, the paper)
or not (``smooth``, matgl with ``use_smooth``). Energies are twice continuously differentiable unless ``radial_basis:
spherical`` (matgl without ``use_smooth``), whose forces jump where an atom crosses the cut-off. Left out: state
attributes and pooling to intensive properties, of which a potential has no use.
"""

import math
from typing import Any, ClassVar, Literal, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from phystrain.graph import AtomGraph
from phystrain.layers.cutoffs import cosine, polynomial
from phystrain.layers.edge_linear import edge_linear
from phystrain.layers.gated_network import GatedNetwork
from phystrain.layers.harmonics import spherical_harmonics
from phystrain.layers.scatter import sum_over_edges
from phystrain.layers.species import SpeciesRows
from phystrain.layers.spherical_bessel import SmoothBessel, SphericalBessel
from phystrain.potentials._network import EnergyUnit, NetworkConfig, trimmed
from phystrain.statistics import Statistics

Atoms = Float[Tensor, "atoms channels"]
Edges = Float[Tensor, "edges channels"]
Basis = Literal["smooth", "spherical"]

REACH = 0.8
"""Of the three-body cut-off, relative to the cut-off, as published: 4 of 5 Å."""


class Config(NetworkConfig):
    """M3GNet (Chen and Ong 2022).

    ``preset: pretraining`` is the potential of that paper, used by arXiv:2602.19592 with sizes that are not public;
    ``matgl`` has the sizes of the authors' later implementation; ``small`` trains on two cores.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "pretraining": {"three_body_basis": "spherical"},
        "matgl": {"update_layers": 3, "readout_layers": 4},
        "small": {"channels": 32, "layers": 2},
    }

    kind: Literal["m3gnet"] = "m3gnet"
    channels: int = Field(64, ge=2, description="features of an atom and of an edge")
    layers: int = Field(3, ge=1, description="rounds of messages")
    radial_count: int = Field(3, ge=1, description="number of radial functions; of each degree, for triplets")
    degrees: int = Field(3, ge=1, le=8, description="number of degrees of the Legendre polynomials, from zero")
    three_body_cutoff: float | None = Field(
        None, gt=0, description="Å, largest distance of both neighbours of a triplet; 0.8 of the cut-off if not given"
    )
    radial_basis: Basis = Field(  # type: ignore[assignment]
        "smooth",
        description="functions of the distance that weight messages: two derivatives or none vanish at the cut-off",
    )
    three_body_basis: Basis = Field(
        "smooth", description="radial functions of a triplet: the same for all degrees, or spherical Bessel functions"
    )
    update_layers: int = Field(2, ge=1, description="layers of the networks that update atoms and edges")
    readout_layers: int = Field(3, ge=1, description="layers of the network that gives the energy of an atom")

    @property
    def three_body_reach(self) -> float:
        """Å."""
        return REACH * self.cutoff if self.three_body_cutoff is None else self.three_body_cutoff

    @model_validator(mode="after")
    def _within_cutoff(self) -> "Config":
        if self.three_body_reach > self.cutoff:
            raise ValueError(f"three_body_cutoff {self.three_body_reach} Å is beyond the cutoff, {self.cutoff} Å")
        return self

    def build(self, statistics: Statistics) -> "M3GNet":
        return M3GNet(self, statistics)


class Neighbours(NamedTuple):
    """Edges and what all layers read of them. The first ``near`` are those within the three-body cut-off.

    Attributes:
        centre, neighbour: (edges,) atoms.
        basis: (edges, functions) radial functions that weight messages.
        near: number of near edges.
        harmonics: (near, 1, components) harmonics of the direction times the three-body envelope.
        products: (near, radial, components) radial functions times those.
        own: (near, radial * degrees) what an edge contributes to its own sum.
    """

    centre: Int[Tensor, " edges"]
    neighbour: Int[Tensor, " edges"]
    basis: Float[Tensor, "edges functions"]
    near: int
    harmonics: Float[Tensor, "near 1 components"]
    products: Float[Tensor, "near radial components"]
    own: Float[Tensor, "near terms"]


class ThreeBodyBasis(nn.Module):
    """Radial functions and harmonics of the neighbours of a triplet.

    Args:
        config: sizes.

    Attributes:
        degree_of: (components,) degree of each harmonic.
    """

    degree_of: Tensor
    scale: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.radial, self.degrees = config.radial_count, config.degrees
        self.kind, self.cutoff, self.envelope = config.three_body_basis, config.three_body_reach, config.envelope
        self.functions = (
            SmoothBessel(self.radial * self.degrees, config.cutoff)
            if self.kind == "smooth"
            else SphericalBessel(self.radial, self.degrees, config.cutoff)
        )
        degree = torch.arange(self.degrees)
        self.register_buffer("degree_of", degree.repeat_interleave(2 * degree + 1), persistent=False)
        # of zonal harmonics; in double precision until cast along with the rest
        scale = torch.sqrt((2 * degree + 1).double() / (4 * math.pi))
        self.register_buffer("scale", scale, persistent=False)

    def forward(
        self,
        vectors: Float[Tensor, "near 3"],
        distances: Float[Tensor, " near"],
        functions: Float[Tensor, "near terms"] | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Harmonics, products and own terms (see :class:`Neighbours`).

        Args:
            vectors: (near, 3) Å.
            distances: (near,) Å.
            functions: (near, degrees * radial) values of ``functions`` if they are known already.
        """
        if functions is None:
            functions = self.functions(distances)
        # the functions of one degree lie side by side; the harmonics are last
        radial = functions.view(-1, self.degrees, self.radial).transpose(1, 2) * self.scale.to(functions.dtype)
        decay = (
            polynomial(distances, self.cutoff, 3) if self.envelope == "polynomial" else cosine(distances, self.cutoff)
        )
        units = vectors / distances[:, None]
        harmonics = (spherical_harmonics(units, self.degrees) * decay[:, None])[:, None]
        own = (radial * (decay * decay)[:, None, None]).flatten(1)
        return harmonics, radial.index_select(2, self.degree_of) * harmonics, own


class ThreeBody(nn.Module):
    """What an edge learns of the other neighbours of its centre (equations 2 and 3).

    Args:
        config: sizes.
    """

    degree_of: Tensor
    pooling: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.radial, self.degrees = config.radial_count, config.degrees
        terms = self.radial * self.degrees
        self.third = nn.Linear(config.channels, terms)
        self.update = GatedNetwork([terms, config.channels], bias=False)
        degree = torch.arange(self.degrees)
        degree_of = degree.repeat_interleave(2 * degree + 1)
        self.register_buffer("degree_of", degree_of, persistent=False)
        one_hot = nn.functional.one_hot(degree_of, self.degrees).to(torch.get_default_dtype())
        self.register_buffer("pooling", one_hot, persistent=False)

    def forward(self, atoms: Atoms, known: Neighbours) -> Float[Tensor, "near channels"]:
        """(near, channels) to be added to the features of the near edges."""
        centre, neighbour = known.centre[: known.near], known.neighbour[: known.near]
        n_atoms, components = len(atoms), self.degrees**2
        third = torch.sigmoid(self.third(atoms))
        spread = third.view(n_atoms, self.radial, self.degrees).index_select(2, self.degree_of).flatten(1)
        messages = known.products.flatten(1) * spread.index_select(0, neighbour)
        around = sum_over_edges(messages, centre, n_atoms).index_select(0, centre)
        projected = around.view(-1, self.radial, components) * known.harmonics
        sums = (projected @ self.pooling).flatten(1)
        return self.update(sums - known.own * third.index_select(0, neighbour))


class Update(nn.Module):
    """A gated network of two atoms and their edge, times radial weights (equations 4 and 5).

    Args:
        config: sizes.
        radial_count: size of the radial basis.
    """

    def __init__(self, config: Config, radial_count: int) -> None:
        super().__init__()
        channels = config.channels
        self.network = GatedNetwork([3 * channels] + [channels] * config.update_layers)
        self.weights = nn.Linear(radial_count, channels, bias=False)

    def forward(self, atoms: Atoms, edges: Edges, known: Neighbours) -> Edges:
        """(edges, channels) from the features of atoms and edges."""
        first_layers = (cast(nn.Linear, stack[0]) for stack in (self.network.value, self.network.gate))
        firsts = [edge_linear(layer, atoms, edges, known.centre, known.neighbour) for layer in first_layers]
        return self.network.after_first(*firsts) * self.weights(known.basis)


class Layer(nn.Module):
    """One round: triplets to edges, both atoms to edges, edges to atoms.

    Args:
        config: sizes.
        radial_count: size of the radial basis.
    """

    def __init__(self, config: Config, radial_count: int) -> None:
        super().__init__()
        self.three_body = ThreeBody(config)
        self.edge_update = Update(config, radial_count)
        self.atom_update = Update(config, radial_count)

    def forward(self, atoms: Atoms, edges: Edges, known: Neighbours) -> tuple[Atoms, Edges]:
        """Features of atoms and edges after the round."""
        near, rest = edges.split([known.near, len(edges) - known.near])
        edges = torch.cat([near + self.three_body(atoms, known), rest])
        edges = edges + self.edge_update(atoms, edges, known)
        messages = self.atom_update(atoms, edges, known)
        return atoms + sum_over_edges(messages, known.centre, len(atoms)), edges


class M3GNet(nn.Module):
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
        self.basis = (
            SmoothBessel(config.radial_count, config.cutoff)
            if config.radial_basis == "smooth"
            else SphericalBessel(config.radial_count, config.degrees, config.cutoff)
        )
        self.three_body_basis = ThreeBodyBasis(config)
        self.edge_embedding = nn.Linear(self.basis.count, config.channels)
        self.layers = nn.ModuleList([Layer(config, self.basis.count) for _ in range(config.layers)])
        self.readout = GatedNetwork([config.channels] * config.readout_layers + [1], activate=False)
        self.unit = EnergyUnit(statistics)

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV."""
        known = self._neighbours(trimmed(graph, self.cutoff))
        atoms = self.embedding(self.rows(graph.species))
        edges = nn.functional.silu(self.edge_embedding(known.basis))
        for layer in self.layers:
            atoms, edges = layer(atoms, edges, known)
        return self.unit(self.readout(atoms).squeeze(1))

    def _neighbours(self, graph: AtomGraph) -> Neighbours:
        """What is known of the edges before the first layer, the near ones first."""
        (centre, neighbour), vectors, distances = graph.edges, graph.vectors, graph.distances
        near = len(distances)
        # the compiler wants sizes that do not depend on distances; far edges have weight zero in any case
        if not torch.compiler.is_compiling() and self.config.three_body_reach < self.cutoff:
            within = distances.detach() < self.config.three_body_reach
            order = torch.cat([torch.nonzero(within).squeeze(1), torch.nonzero(~within).squeeze(1)])
            near = int(within.sum())
            centre, neighbour = centre[order], neighbour[order]
            vectors, distances = vectors.index_select(0, order), distances.index_select(0, order)
        three = self.three_body_basis
        if self.config.radial_basis == three.kind:  # one begins with the other, or is the other
            functions = three.functions(distances)
            basis, known = functions[:, : self.basis.count], functions[:near]
        else:
            basis, known = self.basis(distances), None
        return Neighbours(centre, neighbour, basis, near, *three(vectors[:near], distances[:near], known))

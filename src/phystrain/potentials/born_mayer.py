"""Ions: exponential repulsion, optional dispersion and the Coulomb energy of fixed charges.

    E = sum over pairs { fc(r) [ a exp(-alpha (r - r0)) - d/(1 + (r/r0)^6) ] + s z1 z2 k phi(r) + nuclear repulsion }

Sources: Born and Mayer 1932, doi:10.1007/BF01340511 (repulsion); Buckingham 1938, doi:10.1098/rspa.1938.0173
(dispersion). r0 is a fixed length of each pair, so that a is the repulsion at r0 and not at distance zero; alpha is
Born's 1/rho. Far away the dispersion is -C/r^6 with C = d r0^6; damped in the manner of Becke and Johnson 2005
(doi:10.1063/1.1884601) it stays finite and never wins at short distance. In fits it takes up covalent bonds too.

The charges are sqrt(s) z: z is a fixed number of each element, by default its usual oxidation number, and s the one
trainable scale. A structure is neutral if its formal charges are. One that is not has a finite energy none the less,
but one that depends on the cut-off more than on physics. phi is the damped, shifted Coulomb interaction of
:mod:`phystrain.layers.coulomb`, which is no Ewald sum: nothing acts beyond the cut-off. The constant that each ion
has by its own screening charge is left out, for an isolated atom has energy zero; reference energies take its place.

With ``zbl``, nuclei repel at short distance whatever was fitted. Without it opposite charges fall into one another once
they are closer than the exponential holds.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveFloat
from torch import Tensor

from phystrain.layers.coulomb import damped_coulomb, formal_charges
from phystrain.layers.pair import PairPotential, bond_lengths, positive, positive_parameter, smooth_cutoff
from phystrain.layers.zbl import wall_below_bonds
from phystrain.potentials import PotentialConfig
from phystrain.statistics import Statistics
from phystrain.units import COULOMB


class Config(PotentialConfig):
    """Born-Mayer or Buckingham potential with charges; all but the ratios of the charges is fitted."""

    kind: Literal["born_mayer"] = "born_mayer"
    cutoff: float = Field(8.0, gt=0, description="Å")
    inner_fraction: float = Field(0.66, gt=0, lt=1, description="The cut-off acts from this fraction of its radius.")
    charges: dict[str, float] | None = Field(
        None, description="Elementary charges at the start, by element; else oxidation numbers times charge_scale."
    )
    charge_scale: float = Field(0.35, gt=0, description="Charge at the start in units of the oxidation number.")
    damping: float = Field(0.25, gt=0, description="1/Å, of the Coulomb interaction.")
    dispersion: bool = Field(True, description="Add dispersion (Buckingham); without it bonds fit badly.")
    repulsion: float = Field(
        3.0, gt=0, description="eV, repulsion at the bond length at the start, of opposite charges."
    )
    loose_repulsion: float = Field(0.2, gt=0, description="eV, the same of all other pairs.")
    decay: float = Field(3.5, gt=0, description="1/Å, alpha at the start.")
    dispersion_energy: float = Field(3.0, gt=0, description="eV, half of d at the start, of opposite charges.")
    loose_dispersion_energy: float = Field(0.05, gt=0, description="eV, the same of all other pairs.")
    length: dict[str, PositiveFloat] = Field(
        {}, description="Å by pair such as O-Si, r0; else the bond length in the data."
    )
    zbl: bool = Field(True, description="Add the repulsion of nuclei at distances shorter than any in the data.")

    def build(self, statistics: Statistics) -> "BornMayer":
        return BornMayer(self, statistics)


class BornMayer(PairPotential):
    """See the module.

    Args:
        config: settings.
        statistics: elements and distances of the data, for the starting values.

    Attributes:
        formal: elementary charges z by element, in the order of ``kinds.species``.
    """

    linear: ClassVar[tuple[str, ...]] = ("raw_repulsion", "raw_dispersion", "raw_charge_squared")
    mixing: ClassVar[dict[str, Literal["arithmetic", "geometric"]]] = {
        "raw_repulsion": "geometric",
        "raw_decay": "arithmetic",
        "raw_dispersion": "geometric",
    }

    origin: Float[Tensor, " pairs"]
    product: Float[Tensor, " pairs"]

    def __init__(self, config: Config, statistics: Statistics) -> None:
        super().__init__(statistics.species, config.cutoff)
        self.inner, self.damping = config.inner_fraction * config.cutoff, config.damping
        pairs = self.kinds.pairs
        self.formal = dict(zip(self.kinds.species, formal_charges(self.kinds.species, config.charges), strict=True))
        products = [self.formal[first] * self.formal[second] for first, second in pairs]
        origin = self.kinds.complete(bond_lengths(pairs, statistics), config.length)
        self.raw_repulsion = positive_parameter(
            [config.repulsion if product < 0 else config.loose_repulsion for product in products]
        )
        self.raw_decay = positive_parameter([config.decay] * len(pairs))
        self.raw_charge_squared = positive_parameter([config.charge_scale**2 if config.charges is None else 1.0])
        if config.dispersion:
            self.raw_dispersion = positive_parameter(
                [2 * (config.dispersion_energy if z < 0 else config.loose_dispersion_energy) for z in products]
            )
        for name, values in {"origin": origin, "product": products}.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.get_default_dtype()))
        self.dispersion = config.dispersion
        self.wall = wall_below_bonds(self.kinds, statistics) if config.zbl else None

    def charges(self) -> Float[Tensor, " species"]:
        """(species,) elementary charges, in the order of ``kinds.species``."""
        scale = positive(self.raw_charge_squared).sqrt()
        return scale * scale.new_tensor([self.formal[number] for number in self.kinds.species])

    def _parts(
        self, distance: Float[Tensor, " edges"], pair: Int[Tensor, " edges"]
    ) -> dict[str, Float[Tensor, " edges"]]:
        """(edges,) eV of everything that a pair's energy is the sum of, by name."""
        soft = distance if self.wall is None else self.wall.softened(distance, pair)
        fade = smooth_cutoff(distance, self.inner, self.cutoff)
        origin = self.origin.index_select(0, pair)
        strength, decay = (positive(raw).index_select(0, pair) for raw in (self.raw_repulsion, self.raw_decay))
        charges = positive(self.raw_charge_squared) * self.product.index_select(0, pair)
        parts = {
            "repulsion": fade * strength * torch.exp(-decay * (soft - origin)),
            "coulomb": COULOMB * charges * damped_coulomb(soft, self.damping, self.cutoff),
        }
        if self.dispersion:
            depth = positive(self.raw_dispersion).index_select(0, pair)
            parts["dispersion"] = -fade * depth / (1 + (soft / origin) ** 6)
        if self.wall is not None:
            parts["nuclei"] = self.wall(distance, pair)
        return parts

    def pair_energies(self, distance: Float[Tensor, " edges"], pair: Int[Tensor, " edges"]) -> Float[Tensor, " edges"]:
        return torch.stack(list(self._parts(distance, pair).values())).sum(dim=0)

    def components(
        self, distance: Float[Tensor, " distances"], first: int, second: int
    ) -> dict[str, Float[Tensor, " distances"]]:
        """Curves (eV) of two atoms of these atomic numbers at ``distance`` (Å).

        Returns:
            ``repulsion``, ``coulomb``, where it is there ``dispersion`` and ``nuclei``, and their sum ``total``.
        """
        parts = self._parts(distance, self.kinds.pair_of(first, second, distance))
        return {**parts, "total": torch.stack(list(parts.values())).sum(dim=0)}

"""Denoising: the noise on the positions of a structure is to be predicted. A baseline, not physics."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.labels import Batch
from phystrain.noise import index_in_system, normal, uniform
from phystrain.objectives import Evaluator, Objective, Term, masked_sum
from phystrain.objectives._anchor import complete

_STREAM = 0x64656E6F  # keeps these numbers apart from others that are drawn from the same key
_SCALE = 0x64656E73
_MASK = 0x64656E6D

_LONGEST = 4.0
"""Longest noise on an atom over sigma; what is longer (one in 900) is shortened, so that neighbour lists are finite."""


class Config(Objective):
    """Squared error of the noise, and of what the structure had before: energy and forces.

    The published form for structures out of equilibrium is DeNS (Liao, Smidt, Shuaibi, Das 2024, arXiv:2403.09549).
    Every atom moves by a Gaussian vector e of standard deviation sigma. The noise alone cannot be told from the
    corrupted structure, because many structures could have been the original. The network is therefore told the
    original's forces, and answers with e / sigma and the original's energy. If only some atoms are corrupted, the
    forces of these are told, and those of the others may be asked for.

    At an equilibrium structure forces say nothing and are not needed: with ``encode: false`` this is the pretraining
    of Zaidi et al. 2022 (arXiv:2206.00133), for which structures need no labels. Away from equilibrium that form
    is ill-posed.

    Departures from DeNS: structures are denoised beside the plain loss, not in its place (``part`` gives the share
    of structures); errors of energy and forces are squared, not absolute; noise is shortened to 4 sigma; if every
    atom is corrupted, the mean noise of a structure is taken out, which no network could see. The original's energy is
    asked for at other positions: where forces vanish nothing tells the two tasks apart, and the energy part is what
    ``jitter`` is.

    For each structure with all forces labelled (every one with ``encode: false``) the sum is
    ``noise_weight * n + energy_weight * u + force_weight * f``: n the mean over components of corrupted atoms of
    (e / sigma - prediction)², u the squared error of the energy in (eV/atom)² where it is labelled, f the mean over
    components of the other atoms of the squared error of forces in (eV/Å)².

    Attributes:
        sigma: Å, standard deviation of every component of the noise.
        sigma_low: Å; sigma of a structure is then drawn between this and ``sigma``, its logarithm uniform.
        fraction: share of the atoms that are corrupted; each is chosen at random on its own.
        encode: tell the network the forces.
        noise_weight, energy_weight, force_weight: factors of the three parts.
    """

    kind: Literal["denoise"] = "denoise"
    sigma: float = Field(default=0.1, gt=0, description="standard deviation of the noise, Å")
    sigma_low: float | None = Field(
        default=None, gt=0, description="Å; draw the deviation of each structure between this and sigma"
    )
    fraction: float = Field(default=1.0, gt=0, le=1, description="share of the atoms that are corrupted")
    encode: bool = Field(default=True, description="tell the network the original forces of corrupted atoms")
    noise_weight: float = Field(default=1.0, ge=0, description="factor of the error of the noise")
    energy_weight: float = Field(default=1.0, ge=0, description="factor of the error of the original energy")
    force_weight: float = Field(
        default=0.0, ge=0, description="factor of the error of the forces of other atoms; for direct force heads"
    )

    @property
    def needs(self) -> frozenset[str]:
        """Forces, if they are told. The energy counts where there is one."""
        return frozenset({"forces"} if self.encode else ())

    @property
    def asks(self) -> frozenset[str]:
        """The noise."""
        return frozenset({"noise"})

    @property
    def validated(self) -> bool:
        """No: how well noise is guessed does not say how good a potential is."""
        return False

    @property
    def reach(self) -> float:
        """Å, longest noise of an atom before the mean is taken out, which changes no distance."""
        return _LONGEST * self.sigma

    @model_validator(mode="after")
    def _well_posed(self) -> "Config":
        if self.sigma_low is not None and self.sigma_low > self.sigma:
            raise ValueError("sigma_low is above sigma, which is the largest: exchange them")
        if not self.encode and (self.energy_weight or self.force_weight):
            raise ValueError("encode: false predicts noise alone: set energy_weight and force_weight to 0")
        if self.force_weight and self.fraction == 1:
            raise ValueError("force_weight is for atoms that are not corrupted: set fraction below 1")
        return self

    def __call__(self, batch: Batch, model: Evaluator) -> Term:
        """Sum over structures whose forces are known; the count is their number."""
        if self.encode:
            batch = batch.select(complete(batch.graph, batch.labels.forces))
        graph, labels = batch.graph, batch.labels
        noise = corruption(graph, batch.key, self)
        told = torch.zeros_like(graph.positions)
        if self.encode:
            told = torch.where(noise.corrupted[:, None], labels.forces, told)
        found = model.denoised(graph.displaced(noise.moves), told, graph)
        squared = self.noise_weight * _mean(graph, (found.noise - noise.units).square(), noise.corrupted)
        if self.energy_weight:
            energy = graph.sum_per_system(found.energy.to(torch.float64))
            # chosen before the subtraction: a NaN that is masked afterwards still reaches the gradient
            reference = torch.where(torch.isnan(labels.energy), energy.detach(), labels.energy)
            squared = squared + self.energy_weight * ((energy - reference) / graph.atoms_per_system).square()
        if self.force_weight:
            if found.forces is None:
                raise UserError(
                    "denoise: force_weight asks for a direct force head: use 'head: direct', or leave it out"
                )
            squared = squared + self.force_weight * _mean(
                graph, (found.forces - labels.forces).square(), ~noise.corrupted
            )
        return masked_sum(squared, labels.weight, torch.ones_like(labels.weight, dtype=torch.bool))


class Corruption(NamedTuple):
    """Noise on the positions of a batch.

    Attributes:
        units: (atoms, 3) in units of the standard deviation: what is to be predicted.
        moves: (atoms, 3) Å.
        corrupted: (atoms,) which atoms have noise.
    """

    units: Float[Tensor, "atoms 3"]
    moves: Float[Tensor, "atoms 3"]
    corrupted: Bool[Tensor, " atoms"]


def corruption(graph: AtomGraph, key: Int[Tensor, " systems"], settings: Config) -> Corruption:
    """Noise that depends on each structure and its key alone.

    Args:
        graph: the structures.
        key: (systems,) random stream of each structure.
        settings: size and share of the atoms.
    """
    system = graph.system
    atom = index_in_system(system, graph.atoms_per_system)
    units = normal(key[system, None], _STREAM, atom[:, None], torch.arange(3, device=system.device))
    units = units * (_LONGEST / torch.linalg.vector_norm(units, dim=1, keepdim=True)).clamp(max=1)
    corrupted = uniform(key[system], _MASK, atom) < settings.fraction
    units = torch.where(corrupted[:, None], units, torch.zeros_like(units))
    if settings.fraction == 1:
        units = units - (graph.sum_per_system(units) / graph.atoms_per_system[:, None])[system]
    low = settings.sigma if settings.sigma_low is None else settings.sigma_low
    sigma = low * (settings.sigma / low) ** uniform(key, _SCALE)
    dtype = graph.positions.dtype
    return Corruption(units.to(dtype), (sigma[system, None] * units).to(dtype), corrupted)


def _mean(graph: AtomGraph, squared: Float[Tensor, "atoms 3"], chosen: Bool[Tensor, " atoms"]) -> Tensor:
    """(systems,) float64, mean over the components of the chosen atoms; zero where there are none."""
    total = graph.sum_per_system(torch.where(chosen, squared.sum(dim=1), 0).to(torch.float64))
    return total / (3 * graph.sum_per_system(chosen.to(torch.float64))).clamp(min=1)

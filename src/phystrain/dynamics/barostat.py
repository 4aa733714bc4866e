"""Constant pressure, or one that rises: cells that follow by stochastic rescaling, all in one batch.

Isotropic stochastic cell rescaling (Bernetti, Bussi 2020, doi:10.1063/5.0020514): a first-order barostat that samples
the isothermal-isobaric ensemble. With x the square root of the volume V, B the bulk modulus and t the relaxation time,

    dx = -x / (2 B t) (P0 - P - kT / (2 V)) dt + sqrt(kT / (2 B t)) dW,

where P is the instantaneous pressure; positions are scaled with the cell, momenta inversely. In this variable the
noise does not depend on the state, so that plain Euler steps will do.
"""

from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from phystrain.data.graphs import GraphStore
from phystrain.data.structures import Floats, Structures
from phystrain.derive import Potential, evaluate, placement
from phystrain.units import BOLTZMANN, GPA

_STRAIN = 2e-3
"""Relative change of lengths between which the bulk modulus is measured."""

_SOFTEST, _HARDEST = 1.0, 1000.0
"""GPa, between which a measured bulk modulus is believed: it only sets how fast the volume follows."""

_STIFFENING = 4.0
"""Rise of the bulk modulus with pressure, near 4 for most solids (Murnaghan 1944, doi:10.1073/pnas.30.9.244)."""

_LARGEST = 0.05
"""Relative change of sqrt(V) in one step that is never exceeded."""


class Barostat(BaseModel):
    """Pressure, and how fast the volume follows it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    pressure: float = Field(default=0.0, description="GPa")
    final_pressure: float | None = Field(
        default=None, description="GPa, reached at the end, linearly in time; constant if not given"
    )
    relaxation: float = Field(default=500.0, gt=0, description="fs in which the volume follows the pressure")
    bulk_modulus: float | None = Field(
        default=None, gt=0, description="GPa, on which the relaxation is based; measured at the start if not given"
    )
    smallest: float = Field(default=0.2, gt=0, lt=1, description="volume over that at the start that stops a run")
    largest: float = Field(default=3.0, gt=1, description="volume over that at the start that stops a run")

    def target(self, fraction: float) -> float:
        """GPa, after this fraction of the run."""
        last = self.pressure if self.final_pressure is None else self.final_pressure
        return self.pressure + fraction * (last - self.pressure)

    def stretch(
        self,
        fraction: float,
        volume: Float[Tensor, " systems"],
        pressure: Float[Tensor, " systems"],
        kelvin: Float[Tensor, " systems"],
        modulus: Float[Tensor, " systems"],
        timestep: Float[Tensor, " systems"],
        noise: Float[Tensor, " systems"],
    ) -> Float[Tensor, " systems"]:
        """(systems,) factor by which all lengths change in one step.

        Args:
            fraction: of the run that is over.
            volume: Å³.
            pressure: eV/Å³, of this moment, the kinetic part included.
            kelvin: K, of the thermostat.
            modulus: eV/Å³, bulk modulus without pressure.
            timestep: fs.
            noise: standard normal.
        """
        wanted = self.target(fraction) * GPA
        energy = BOLTZMANN * kelvin
        # it may depend on the time but not on the state, or the noise would need a drift of its own
        rate = timestep / (2 * (modulus + _STIFFENING * max(wanted, 0.0)) * self.relaxation)
        change = -rate * (wanted - pressure - energy / (2 * volume)) + torch.sqrt(rate * energy / volume) * noise
        return (1 + change.clamp(-_LARGEST, _LARGEST)) ** (2 / 3)


def bulk_moduli(potential: nn.Module, structures: Structures) -> Floats:
    """(systems,) eV/Å³, from the change of the static pressure with a small strain; within what is believable.

    Args:
        potential: with energies that depend on the cell.
        structures: periodic in three directions.
    """
    checked = cast(Potential, potential)
    device, dtype = placement(potential)
    graph = GraphStore(structures, checked.cutoff + 0.1).graph(range(len(structures)), dtype).to(device)
    pressures = []
    for strain in (-_STRAIN, _STRAIN):
        stretch = strain * torch.eye(3, dtype=dtype, device=device).expand(len(structures), 3, 3)
        stress = evaluate(checked, graph.strained(stretch), ("stress",)).stress
        assert stress is not None
        pressures.append(static_pressure(stress).cpu().numpy())
    moduli = -(pressures[1] - pressures[0]) / (6 * _STRAIN)
    return np.clip(np.nan_to_num(moduli, nan=_SOFTEST * GPA), _SOFTEST * GPA, _HARDEST * GPA)


def static_pressure(stress: Float[Tensor, "systems 3 3"]) -> Float[Tensor, " systems"]:
    """(systems,) eV/Å³, what the forces between atoms contribute to the pressure."""
    return -stress.diagonal(dim1=1, dim2=2).sum(dim=1).to(torch.float64) / 3

"""One batch of molecular dynamics: integrator, thermostat, guards and records of structures that advance together.

Positions and velocities are held in float64; the potential works in its own precision. Integrators: velocity Verlet
(Swope et al. 1982, doi:10.1063/1.442716) and Langevin dynamics in the BAOAB splitting (Leimkuhler, Matthews 2013,
doi:10.1093/amrx/abs010); cells change by :mod:`phystrain.dynamics.barostat`, in the middle of the step, next to the
thermostat.
"""

import time
from dataclasses import replace
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from ase.data import atomic_masses
from jaxtyping import Bool, Float
from torch import Tensor, nn

from phystrain import compiled
from phystrain.data.structures import Floats, Structures
from phystrain.derive import evaluate
from phystrain.dynamics import guards
from phystrain.dynamics.barostat import bulk_moduli, static_pressure
from phystrain.dynamics.guards import Failure
from phystrain.dynamics.moving import Moving
from phystrain.dynamics.recorder import Recorder
from phystrain.dynamics.streams import Streams
from phystrain.dynamics.trajectory import Settings, Trajectory
from phystrain.dynamics.watch import Spread, Watch
from phystrain.units import BOLTZMANN, GPA, VELOCITY


class Batch(Moving):
    """The state of structures that advance together.

    Args:
        potential: on its device and in its precision.
        structures: at the start.
        settings: of the run, the time step filled in.
        temperatures: (systems,) K, of the thermostat at the start.
        final_temperatures: (systems,) K, at the end; as at the start if not given.
        timesteps: (systems,) fs.
        velocities: (atoms, 3) Å/fs; drawn if not given.
        keys: (systems,) random stream of each.
        spread: what the guard of that name looks at, if anything does.
    """

    per_system = (
        *Moving.per_system,
        *("kelvin", "first_kelvin", "last_kelvin", "hottest", "freedom", "energy", "timestep"),
        *("static", "first_volume", "modulus", "_last_temperature"),
    )
    per_atom = (*Moving.per_atom, "velocities", "forces", "masses", "atom_step")

    def __init__(
        self,
        potential: nn.Module,
        structures: Structures,
        settings: Settings,
        temperatures: Floats,
        final_temperatures: Floats | None,
        timesteps: Floats,
        velocities: Floats | None,
        keys: npt.NDArray[np.int64],
        spread: Spread | None,
    ) -> None:
        self.recorder = Recorder(structures, settings, temperatures, timesteps)  # first: its clock begins here
        super().__init__(potential, structures, settings.guards, settings.skin)
        self.settings = settings
        self.watch = None if spread is None else Watch(spread, settings.guards, len(structures))
        device = self.positions.device
        self.masses = torch.from_numpy(atomic_masses[structures.species]).to(device)[:, None]
        self.kelvin = torch.from_numpy(temperatures).to(device)
        final = temperatures if final_temperatures is None else final_temperatures
        self._ramps = final_temperatures is not None
        self.first_kelvin, self.last_kelvin = self.kelvin, torch.from_numpy(final).to(device)
        self.hottest = settings.guards.hottest(self.kelvin)
        self.timestep = torch.from_numpy(timesteps).to(device)
        self.atom_step = self.timestep[self.system][:, None] * VELOCITY  # with velocities in sqrt(eV/u)
        sizes = torch.from_numpy(structures.sizes).to(device)
        # Langevin noise drives the centre of mass too; without it, total momentum stays zero
        self.freedom = 3 * sizes.to(torch.float64) if settings.ensemble == "nvt" else (3.0 * sizes - 3).clamp(min=1)
        self.streams = Streams(keys, settings.seed, self.system, sizes)
        drawn = self.streams.velocities(self.system, self.masses, self.kelvin)
        self.velocities = drawn if velocities is None else torch.from_numpy(velocities.copy()).to(device)
        self.forces = torch.zeros_like(self.positions)
        self.energy = torch.zeros_like(self.kelvin)
        self.static = torch.zeros_like(self.kelvin)  # eV/Å³, the static pressure
        self.first_volume = self._volume()
        self.modulus = self._moduli(structures)
        self.bonds: guards.Bonds | None = None
        if settings.guards.bond_stretch is not None:
            self.neighbours.graph(self.positions)
            self.bonds = guards.find_bonds(self.neighbours)
        self._last_temperature = torch.full_like(self.kelvin, torch.inf)
        self._forces(0)
        self._record(0)

    def is_worth_compiling(self) -> bool:
        """Whether compiled code would make up for the time it takes to compile; one evaluation is timed to see."""
        asked = self.settings.compiled
        if not self.running or asked is False or not compiled.available():
            return False
        if asked:
            return True
        began = time.perf_counter()
        self._forces(0)
        return (time.perf_counter() - began) * self.settings.n_steps > compiled.WORTH

    def advance(self, step: int) -> None:
        """One time step; afterwards the guards."""
        if self._ramps:
            self._set_temperature(step / self.settings.n_steps)
        half = self.atom_step / 2
        velocities = self.velocities / VELOCITY + half * self.forces / self.masses
        if self.settings.ensemble == "nve":
            self.positions = self.positions + self.atom_step * velocities
            self.velocities = velocities * VELOCITY
        else:
            keep = torch.exp(-self.settings.friction * self.timestep)
            spread = torch.sqrt((1 - keep * keep) * BOLTZMANN * self.kelvin)[self.system, None] / self.masses.sqrt()
            self.positions = self.positions + half * velocities
            velocities = keep[self.system, None] * velocities + spread * self.streams.thermostat(step)
            self.velocities = velocities * VELOCITY
            if self.settings.barostat is not None:
                self._change_cells(step)
                if not self.running:
                    return
            self.positions = self.positions + self.atom_step / 2 * (self.velocities / VELOCITY)
        self._forces(step)
        self.velocities = self.velocities + VELOCITY * self.atom_step / 2 * self.forces / self.masses
        if self.running:
            self._remove(guards.too_hot(self._temperature(), self.hottest), step)
        if step % self.settings.record_interval == 0 and self.running:
            self._record(step)
        if self.settings.frame_interval and step % self.settings.frame_interval == 0:
            self.recorder.frame(self.places.cpu().numpy(), self.positions.cpu().numpy())

    def _set_temperature(self, fraction: float) -> None:
        """Target of the thermostat, and the limits that go with it, after this fraction of the run."""
        self.kelvin = self.first_kelvin + fraction * (self.last_kelvin - self.first_kelvin)
        self.hottest = self.settings.guards.hottest(self.kelvin)

    def _change_cells(self, step: int) -> None:
        """Scale cells, positions and, inversely, velocities; stop structures whose volume has left its range."""
        barostat = self.settings.barostat
        assert barostat is not None
        factor = barostat.stretch(
            step / self.settings.n_steps,
            self._volume(),
            self._pressure(),
            self.kelvin,
            self.modulus,
            self.timestep,
            self.streams.barostat(step),
        )
        self.neighbours.rescale(factor)
        stretch = factor[self.system, None]
        if self.bonds is not None:
            self.bonds = self.bonds.rescale(stretch)
        self.positions, self.velocities = self.positions * stretch, self.velocities / stretch
        ratio = self._volume() / self.first_volume
        self._remove(guards.changed_volumes(ratio, barostat.smallest, barostat.largest), step)

    def _forces(self, step: int) -> None:
        """Energies and forces at the present positions, of structures that the guards let pass."""
        limits = self.settings.guards
        graph = self.neighbours.graph(self.positions)
        failures: dict[int, Failure] = {}
        if self.bonds is not None and limits.bond_stretch is not None:
            failures |= guards.stretched_bonds(self.bonds, self.positions, self.neighbours, limits.bond_stretch)
        if limits.contact is not None:
            failures |= guards.short_contacts(self.neighbours, limits.contact)
        if failures:
            self._remove(failures, step)
            if not self.running:
                return
            graph = self.neighbours.graph(self.positions)
        want = ("energy", "forces") if self.settings.barostat is None else ("energy", "forces", "stress")
        predicted = evaluate(self.potential, graph, want)
        assert predicted.energy is not None and predicted.forces is not None  # noqa: PT018
        self.energy, self.forces = predicted.energy, predicted.forces.to(torch.float64)
        if predicted.stress is not None:
            self.static = static_pressure(predicted.stress)
        failures = guards.not_finite(self.energy, self.forces, self.system)
        if self.watch is not None:
            numbers = self.numbers.cpu().numpy()
            failures = self.watch.look(graph, numbers, step, self.timestep) | failures
        self._remove(failures, step)

    def _moduli(self, structures: Structures) -> Float[Tensor, " systems"]:
        """eV/Å³, on which the barostat bases the speed of the volume; zero without one."""
        barostat = self.settings.barostat
        if barostat is None:
            return torch.zeros_like(self.kelvin)
        if barostat.bulk_modulus is not None:
            return torch.full_like(self.kelvin, barostat.bulk_modulus * GPA)
        return torch.from_numpy(bulk_moduli(cast(nn.Module, self.potential), structures)).to(self.kelvin.device)

    def _volume(self) -> Float[Tensor, " systems"]:
        return torch.linalg.det(self.neighbours.cell).abs()

    def _pressure(self) -> Float[Tensor, " systems"]:
        """eV/Å³, of this moment."""
        return self.static + 2 * self._kinetic() / (3 * self._volume())

    def _temperature(self) -> Float[Tensor, " systems"]:
        return 2 * self._kinetic() / (BOLTZMANN * self.freedom)

    def _kinetic(self) -> Float[Tensor, " systems"]:
        return self.total(self.velocities.square() * self.masses) / (2 * VELOCITY**2)

    def _remove(self, failures: dict[int, Failure], step: int) -> None:
        """Freeze the structures that failed, keep their last frame, go on with the others."""
        if not failures:
            return
        systems = torch.ones(self.running, dtype=torch.bool, device=self.system.device)
        for local, failure in failures.items():
            systems[local] = False
            self.recorder.stop(int(self.numbers[local]), failure, step)
        atoms = systems[self.system]
        self._end(~atoms, ~systems)
        self.keep(atoms, systems)

    def keep(self, atoms: Bool[Tensor, " atoms"], systems: Bool[Tensor, " systems"]) -> None:
        """Forget all structures but these, their bonds and random numbers too."""
        super().keep(atoms, systems)
        if self.bonds is not None:
            self.bonds = self.bonds.keep(atoms)
        self.streams.keep(atoms, systems)

    def _record(self, step: int) -> None:
        """Note energies and temperatures; check for a jump of the temperature since the last record."""
        if not self.running:
            return
        temperature = self._temperature()
        contact = guards.closest_contacts(self.neighbours, self.running)
        values = {"potential": self.energy, "kinetic": self._kinetic(), "temperature": temperature, "contact": contact}
        if self.settings.barostat is not None:
            values |= {"pressure": self._pressure() / GPA, "volume": self._volume()}
        arrays = {name: value.cpu().numpy() for name, value in values.items()}
        self.recorder.record(step, self.numbers.cpu().numpy(), arrays)
        if (jump := self.settings.guards.temperature_jump) is not None:
            limit = jump * torch.maximum(self._last_temperature, self.kelvin).clamp(min=1.0)
            self._last_temperature = temperature
            self._remove(guards.too_hot(temperature, limit), step)

    def _end(self, atoms: Bool[Tensor, " atoms"], systems: Bool[Tensor, " systems"]) -> None:
        """Note the last frame and state of these atoms and structures."""
        moving = (self.places, self.positions, self.velocities)
        self.recorder.last_frame(*(array[atoms].cpu().numpy() for array in moving))
        state = (self.numbers, self._temperature(), self.kelvin, self.neighbours.cell)
        self.recorder.last_state(*(array[systems].cpu().numpy() for array in state))

    def trajectory(self) -> Trajectory:
        """What happened; to be called at the end."""
        if self.running:
            self._end(torch.ones_like(self.places, dtype=torch.bool), torch.ones_like(self.numbers, dtype=torch.bool))
        trajectory = self.recorder.trajectory()
        if self.watch is None:
            return trajectory
        return replace(trajectory, spread=self.watch.largest, warnings=tuple(self.watch.warnings))

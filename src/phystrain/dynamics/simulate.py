"""Molecular dynamics of many structures at once, with guards that stop each one when it becomes unphysical.

All structures advance in one batch. Positions and velocities are held in float64; the potential works in its own
precision. Random numbers of a structure are a function of its key, the atom and the step, so that a trajectory does
not depend on what else is in the batch. A structure that fails leaves the batch and the others go faster.

Integrators: velocity Verlet (Swope et al. 1982, doi:10.1063/1.442716) and Langevin dynamics in the BAOAB splitting
(Leimkuhler, Matthews 2013, doi:10.1093/amrx/abs010); cells change by :mod:`phystrain.dynamics.barostat`, in the middle
of the step, next to the thermostat.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from ase.data import atomic_masses
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from phystrain import compiled
from phystrain.data.structures import Floats, Structures, ragged
from phystrain.derive import Potential, evaluate, placement
from phystrain.dynamics import guards
from phystrain.dynamics.barostat import bulk_moduli, static_pressure
from phystrain.dynamics.guards import Failure
from phystrain.dynamics.recorder import Recorder
from phystrain.dynamics.streams import Streams
from phystrain.dynamics.trajectory import Settings, Trajectory, joined
from phystrain.dynamics.verlet_list import VerletList
from phystrain.dynamics.watch import Spread, Watch
from phystrain.errors import UserError
from phystrain.progress import bar
from phystrain.units import BOLTZMANN, GPA, VELOCITY

__all__ = ["Settings", "Trajectory", "placement", "replicate", "simulate"]

_REPORT_EVERY = 0.2  # seconds between updates of the progress bar


def replicate(structures: Structures, copies: int) -> Structures:
    """Each structure ``copies`` times, one set after the other: structure ``i`` of copy ``c`` is ``c * n + i``."""
    return structures.select(np.tile(np.arange(len(structures)), copies))


def simulate(
    potential: nn.Module,
    structures: Structures,
    settings: Settings,
    *,
    temperatures: npt.ArrayLike | None = None,
    final_temperatures: npt.ArrayLike | None = None,
    timesteps: npt.ArrayLike | None = None,
    velocities: Floats | None = None,
    keys: Sequence[int] | None = None,
    description: str | None = None,
    spread: Spread | None = None,
) -> Trajectory:
    """Run molecular dynamics of all structures side by side.

    Args:
        potential: a :class:`phystrain.derive.Potential`, on its device and in its precision.
        structures: where to start; cells stay as they are unless the settings name a barostat.
        settings: how to run.
        temperatures: (systems,) K, in place of ``settings.temperature``.
        final_temperatures: (systems,) K that the thermostat reaches at the end of the run, rising or falling linearly
            in time, and the guards' limits with it; ``temperatures`` throughout if not given.
        timesteps: (systems,) fs, in place of that of the settings, which still sets the number of steps, the same for
            all, and the times of the records.
        velocities: (atoms, 3) Å/fs; drawn from the Maxwell-Boltzmann distribution, without net momentum, if not given.
        keys: (systems,) random stream of each structure; its number if not given.
        description: shown beside a progress bar; no bar if not given.
        spread: what the guard of that name looks at; see :meth:`phystrain.uncertainty.ensemble.Ensemble.spread`.

    Raises:
        UserError: a starting position is not finite, an element is unknown to the potential, cells are to change of
            structures that have none, or the guard of the spread has nothing to look at.
        ValueError: final temperatures or a barostat without a thermostat, or frames of changing cells.
    """
    if settings.ensemble == "nve" and (final_temperatures is not None or settings.barostat is not None):
        raise ValueError("final_temperatures and barostat need the nvt ensemble: nothing follows them without")
    if settings.barostat is not None and settings.frame_interval is not None:
        raise ValueError("frames hold positions only: leave frame_interval out beside a barostat")
    if settings.barostat is not None and not structures.pbc.all():
        raise UserError("pressure needs structures that are periodic in all three directions")
    if spread is None and settings.guards.spread is not None:
        raise UserError("guards.spread needs an ensemble, which is used by 'phystrain md --spread': leave it out here")
    if not np.isfinite(structures.positions).all():
        raise UserError("a starting structure has a position that is not finite: leave it out")
    settings = settings.model_copy(update={"timestep": settings.step_of(structures.species)})
    count = len(structures)
    kelvin = np.full(count, settings.temperature) if temperatures is None else np.asarray(temperatures, float)
    final = None if final_temperatures is None else np.asarray(final_temperatures, float)
    step_of = np.full(count, settings.step) if timesteps is None else np.asarray(timesteps, float)
    key = np.arange(count) if keys is None else np.asarray(keys, dtype=np.int64)
    groups = _groups(structures.sizes, settings.batch_atoms)
    steps = settings.n_steps
    parts = []
    with bar() as display:
        task = display.add_task(description or "", total=steps * len(groups), visible=description is not None, note="")
        for number, group in enumerate(groups):
            run = _Run(
                potential,
                structures.select(group),
                settings,
                kelvin[group],
                None if final is None else final[group],
                step_of[group],
                None if velocities is None else velocities[ragged(structures.offsets, group)],
                key[group],
                spread,
            )
            if run.is_worth_compiling():
                display.update(task, note="compiling the network")
                run.potential = cast(Potential, compiled.faster(potential))
            shown = time.perf_counter()
            for step in range(1, steps + 1):
                if not run.running:
                    break
                run.advance(step)
                if time.perf_counter() - shown > _REPORT_EVERY:
                    shown = time.perf_counter()
                    note = f"{run.running} of {len(group)} running"
                    display.update(task, completed=number * steps + step, note=note)
            parts.append(run.trajectory())
    return parts[0] if len(parts) == 1 else joined(parts)


class _Run:
    """The state of one batch; arrays over systems and atoms hold those that are still running.

    ``numbers`` and ``places`` say where in the records a running structure and its atoms belong.
    """

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
        self.recorder = Recorder(structures, settings, temperatures, timesteps)
        self.watch = None if spread is None else Watch(spread, settings.guards, len(structures))
        self.potential, self.settings = cast(Potential, potential), settings
        device, dtype = placement(potential)
        self.numbers = torch.arange(len(structures), device=device)
        self.places = torch.arange(len(structures.positions), device=device)
        self.system = torch.from_numpy(structures.system).to(device)
        self.positions = torch.from_numpy(structures.positions.copy()).to(device)
        species = torch.from_numpy(structures.species).to(device)
        self.masses = torch.from_numpy(atomic_masses[structures.species]).to(device)[:, None]
        self.kelvin = torch.from_numpy(temperatures).to(device)
        final = temperatures if final_temperatures is None else final_temperatures
        self._ramps = final_temperatures is not None
        self.first_kelvin, self.last_kelvin = self.kelvin, torch.from_numpy(final).to(device)
        self.hottest = settings.guards.hottest(self.kelvin)
        self.timestep = torch.from_numpy(timesteps).to(device)
        self.of_atoms = self.timestep[self.system][:, None] * VELOCITY  # time step with velocities in sqrt(eV/u)
        sizes = torch.from_numpy(structures.sizes).to(device)
        # Langevin noise drives the centre of mass too; without it, total momentum stays zero
        self.freedom = 3 * sizes.to(torch.float64) if settings.ensemble == "nvt" else (3.0 * sizes - 3).clamp(min=1)
        self.streams = Streams(keys, settings.seed, self.system, sizes)
        drawn = self.streams.velocities(self.system, self.masses, self.kelvin)
        self.velocities = drawn if velocities is None else torch.from_numpy(velocities.copy()).to(device)
        self.neighbours = VerletList(
            self.positions,
            species,
            self.system,
            torch.from_numpy(structures.cell).to(device),
            torch.from_numpy(structures.pbc).to(device),
            max(self.potential.cutoff, guards.listing_radius(species, settings.guards)),
            settings.skin,
            dtype,
        )
        self.forces = torch.zeros_like(self.positions)
        self.energy = torch.zeros_like(self.kelvin)
        self.virial = torch.zeros_like(self.kelvin)  # eV/Å³, the static pressure
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

    @property
    def running(self) -> int:
        """How many structures have not been stopped."""
        return len(self.numbers)

    def advance(self, step: int) -> None:
        """One time step; afterwards the guards."""
        if self._ramps:
            self._set_temperature(step / self.settings.n_steps)
        half = self.of_atoms / 2
        velocities = self.velocities / VELOCITY + half * self.forces / self.masses
        if self.settings.ensemble == "nve":
            self.positions = self.positions + self.of_atoms * velocities
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
            self.positions = self.positions + self.of_atoms / 2 * (self.velocities / VELOCITY)
        self._forces(step)
        self.velocities = self.velocities + VELOCITY * self.of_atoms / 2 * self.forces / self.masses
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
        of_atoms = factor[self.system, None]
        self.positions, self.velocities = self.positions * of_atoms, self.velocities / of_atoms
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
            self.virial = static_pressure(predicted.stress)
        failures = guards.not_finite(self.energy, self.forces, self.system)
        if self.watch is not None:
            numbers = self.numbers.cpu().numpy()
            failures = self.watch.look(graph, numbers, step, step * self.settings.step / 1000) | failures
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
        return self.virial + 2 * self._kinetic() / (3 * self._volume())

    def _temperature(self) -> Float[Tensor, " systems"]:
        return 2 * self._kinetic() / (BOLTZMANN * self.freedom)

    def _kinetic(self) -> Float[Tensor, " systems"]:
        twice = (self.velocities.square() * self.masses).sum(dim=1)
        return torch.zeros_like(self.kelvin).index_add(0, self.system, twice) / (2 * VELOCITY**2)

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
        self._keep(atoms, systems)

    def _keep(self, atoms: Bool[Tensor, " atoms"], systems: Bool[Tensor, " systems"]) -> None:
        if self.bonds is not None:
            self.bonds = self.bonds.keep(atoms)
        if bool(systems.any()):
            self.neighbours.keep(atoms, systems)
        self.system = (torch.cumsum(systems, 0) - 1)[self.system[atoms]]
        for name in ("places", "positions", "velocities", "forces", "masses", "of_atoms"):
            setattr(self, name, getattr(self, name)[atoms])
        of_systems = ("numbers", "kelvin", "first_kelvin", "last_kelvin", "hottest", "freedom", "energy", "timestep")
        for name in (*of_systems, "virial", "first_volume", "modulus", "_last_temperature"):
            setattr(self, name, getattr(self, name)[systems])
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


def _groups(sizes: Int[np.ndarray, " systems"], limit: int) -> list[npt.NDArray[np.int64]]:
    """Numbers of structures, consecutive, in groups of at most ``limit`` atoms or of one structure."""
    groups: list[list[int]] = []
    total = limit + 1
    for number, size in enumerate(sizes.tolist()):
        if total + size > limit:
            groups.append([])
            total = 0
        groups[-1].append(number)
        total += size
    return [np.array(group, dtype=np.int64) for group in groups]

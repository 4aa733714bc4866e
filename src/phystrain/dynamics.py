"""Molecular dynamics of many structures at once, with guards that stop each one when it becomes unphysical.

All structures advance in one batch. Positions and velocities are held in float64; the potential works in its own
precision. Random numbers of a structure are a function of its key, the atom and the step, so that a trajectory does
not depend on what else is in the batch. A structure that fails leaves the batch and the others go faster.

Integrators: velocity Verlet (Swope et al. 1982, doi:10.1063/1.442716) and Langevin dynamics in the BAOAB splitting
(Leimkuhler, Matthews 2013, doi:10.1093/amrx/abs010).
"""

import math
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

from phystrain import compiled, guards, noise
from phystrain.data.structures import Floats, Structures, ragged
from phystrain.derive import Potential, evaluate, placement
from phystrain.errors import UserError
from phystrain.guards import Failure
from phystrain.progress import bar
from phystrain.trajectory import Settings, Trajectory, joined
from phystrain.units import BOLTZMANN, VELOCITY
from phystrain.verlet_list import VerletList
from phystrain.watch import Spread, Watch

__all__ = ["Settings", "Trajectory", "placement", "replicate", "simulate"]

_START, _THERMOSTAT = 1, 2  # random streams
_NOISE_BLOCK = 200_000  # random numbers made at a time
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
    velocities: Floats | None = None,
    keys: Sequence[int] | None = None,
    description: str | None = None,
    spread: Spread | None = None,
) -> Trajectory:
    """Run molecular dynamics of all structures side by side.

    Args:
        potential: a :class:`phystrain.derive.Potential`, on its device and in its precision.
        structures: where to start; cells stay as they are.
        settings: how to run.
        temperatures: (systems,) K, in place of ``settings.temperature``.
        final_temperatures: (systems,) K that the thermostat reaches at the end of the run, rising or falling linearly
            in time, and the guards' limits with it; ``temperatures`` throughout if not given.
        velocities: (atoms, 3) Å/fs; drawn from the Maxwell-Boltzmann distribution, without net momentum, if not given.
        keys: (systems,) random stream of each structure; its number if not given.
        description: shown beside a progress bar; no bar if not given.
        spread: what the guard of that name looks at; see :meth:`phystrain.ensemble.Ensemble.spread`.

    Raises:
        UserError: a starting position is not finite, an element is unknown to the potential, or the guard of the
            spread has nothing to look at.
        ValueError: final temperatures without a thermostat.
    """
    if final_temperatures is not None and settings.ensemble == "nve":
        raise ValueError("final_temperatures needs the nvt ensemble: without a thermostat nothing follows them")
    if spread is None and settings.guards.spread is not None:
        raise UserError("guards.spread needs an ensemble, which is used by 'phystrain md --spread': leave it out here")
    if not np.isfinite(structures.positions).all():
        raise UserError("a starting structure has a position that is not finite: leave it out")
    settings = settings.model_copy(update={"timestep": settings.step_of(structures.species)})
    kelvin = np.full(len(structures), settings.temperature) if temperatures is None else np.asarray(temperatures, float)
    final = None if final_temperatures is None else np.asarray(final_temperatures, float)
    key = np.arange(len(structures)) if keys is None else np.asarray(keys, dtype=np.int64)
    groups = _groups(structures.sizes, settings.batch_atoms)
    steps = settings.n_steps
    parts = []
    with bar() as display:
        task = display.add_task(description or "", total=steps * len(groups), visible=description is not None, note="")
        for number, group in enumerate(groups):
            atoms = ragged(structures.offsets, group)
            run = _Run(
                potential,
                structures.select(group),
                settings,
                kelvin[group],
                None if final is None else final[group],
                None if velocities is None else velocities[atoms],
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
        velocities: Floats | None,
        keys: npt.NDArray[np.int64],
        spread: Spread | None,
    ) -> None:
        self._began = time.perf_counter()
        self.watch = None if spread is None else Watch(spread, settings.guards, len(structures))
        self.potential, self.structures, self.settings = cast(Potential, potential), structures, settings
        self._kelvin_of_all = temperatures
        device, dtype = placement(potential)
        count, steps = len(structures), settings.n_steps
        self.numbers = torch.arange(count, device=device)
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
        sizes = torch.from_numpy(structures.sizes).to(device)
        # Langevin noise drives the centre of mass too; without it, total momentum stays zero
        self.freedom = 3 * sizes.to(torch.float64) if settings.ensemble == "nvt" else (3.0 * sizes - 3).clamp(min=1)
        atom = noise.index_in_system(self.system, sizes)
        self.keys = noise.mix(torch.from_numpy(keys).to(device)[self.system], settings.seed, atom)
        self.velocities = self._drawn() if velocities is None else torch.from_numpy(velocities.copy()).to(device)
        self._noise, self._noise_from = self.velocities.new_empty(0, 0, 3), 0

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
        self._prepare_records(count, steps)
        self.forces = torch.zeros_like(self.positions)
        self.energy = torch.zeros_like(self.kelvin)
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
        timestep = self.settings.step * VELOCITY  # velocities in sqrt(eV/u) inside this function
        half = timestep / 2
        velocities = self.velocities / VELOCITY + half * self.forces / self.masses
        if self.settings.ensemble == "nve":
            self.positions = self.positions + timestep * velocities
        else:
            keep = math.exp(-self.settings.friction * self.settings.step)
            spread = torch.sqrt((1 - keep * keep) * BOLTZMANN * self.kelvin)[self.system, None] / self.masses.sqrt()
            self.positions = self.positions + half * velocities
            velocities = keep * velocities + spread * self._random(step)
            self.positions = self.positions + half * velocities
        self.velocities = velocities * VELOCITY
        self._forces(step)
        self.velocities = self.velocities + VELOCITY * half * self.forces / self.masses
        if self.running:
            self._remove(guards.too_hot(self._temperature(), self.hottest), step)
        if step % self.settings.record_interval == 0 and self.running:
            self._record(step)
        if self.settings.frame_interval and step % self.settings.frame_interval == 0:
            self._frames.append(self._all_positions())

    def _set_temperature(self, fraction: float) -> None:
        """Target of the thermostat, and the limits that go with it, after this fraction of the run."""
        self.kelvin = self.first_kelvin + fraction * (self.last_kelvin - self.first_kelvin)
        self.hottest = self.settings.guards.hottest(self.kelvin)

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
        predicted = evaluate(self.potential, graph, ("energy", "forces"))
        assert predicted.energy is not None and predicted.forces is not None  # noqa: PT018
        self.energy, self.forces = predicted.energy, predicted.forces.to(torch.float64)
        failures = guards.not_finite(self.energy, self.forces, self.system)
        if self.watch is not None:
            numbers = self.numbers.cpu().numpy()
            failures = self.watch.look(graph, numbers, step, step * self.settings.step / 1000) | failures
        self._remove(failures, step)

    def _temperature(self) -> Float[Tensor, " systems"]:
        return 2 * self._kinetic() / (BOLTZMANN * self.freedom)

    def _kinetic(self) -> Float[Tensor, " systems"]:
        twice = (self.velocities.square() * self.masses).sum(dim=1)
        return torch.zeros_like(self.kelvin).index_add(0, self.system, twice) / (2 * VELOCITY**2)

    def _drawn(self) -> Float[Tensor, "atoms 3"]:
        """(atoms, 3) Å/fs, Maxwell-Boltzmann, without net momentum in any structure."""
        component = torch.arange(3, device=self.keys.device)
        velocities = noise.normal(self.keys[:, None], _START, component)
        velocities = velocities * torch.sqrt(BOLTZMANN * self.kelvin[self.system, None] / self.masses) * VELOCITY
        momentum = velocities.new_zeros(self.running, 3).index_add(0, self.system, velocities * self.masses)
        mass = velocities.new_zeros(self.running, 1).index_add(0, self.system, self.masses)
        return velocities - (momentum / mass)[self.system]

    def _random(self, step: int) -> Float[Tensor, "atoms 3"]:
        """(atoms, 3) standard normal numbers of a step; made for many steps at a time, which is much cheaper."""
        if not self._noise_from <= step < self._noise_from + len(self._noise):
            count = max(1, min(_NOISE_BLOCK // (3 * len(self.keys)), 64))
            steps = torch.arange(step, step + count, device=self.keys.device)[:, None, None]
            component = torch.arange(3, device=self.keys.device)
            self._noise = noise.normal(self.keys[None, :, None], _THERMOSTAT, steps, component)
            self._noise_from = step
        return self._noise[step - self._noise_from]

    def _remove(self, failures: dict[int, Failure], step: int) -> None:
        """Freeze the structures that failed, keep their last frame, go on with the others."""
        if not failures:
            return
        systems = torch.ones(self.running, dtype=torch.bool, device=self.system.device)
        temperature = self._temperature()
        for local, failure in failures.items():
            systems[local] = False
            number = int(self.numbers[local])
            self._steps[number] = step
            self._reasons[number] = failure.reason
            picoseconds = step * self.settings.step / 1000
            self._sentences[number] = f"{failure.finding} at {picoseconds:.3f} ps"
            self._end_temperature[number] = float(temperature[local])
        atoms = systems[self.system]
        self._keep_frame(~atoms)
        self._keep(atoms, systems)

    def _keep(self, atoms: Bool[Tensor, " atoms"], systems: Bool[Tensor, " systems"]) -> None:
        if self.bonds is not None:
            self.bonds = self.bonds.keep(atoms)
        if bool(systems.any()):
            self.neighbours.keep(atoms, systems)
        self.system = (torch.cumsum(systems, 0) - 1)[self.system[atoms]]
        for name in ("places", "positions", "velocities", "forces", "masses", "keys"):
            setattr(self, name, getattr(self, name)[atoms])
        of_systems = ("numbers", "kelvin", "first_kelvin", "last_kelvin", "hottest", "freedom", "energy")
        for name in (*of_systems, "_last_temperature"):
            setattr(self, name, getattr(self, name)[systems])
        if self._noise.shape[1] == len(atoms):
            self._noise = self._noise[:, atoms]

    def _prepare_records(self, count: int, steps: int) -> None:
        records = steps // self.settings.record_interval + 1
        self._records = {
            name: np.full((records, count), np.nan) for name in ("potential", "kinetic", "temperature", "contact")
        }
        self._steps = np.full(count, steps)
        self._reasons: list[str | None] = [None] * count
        self._sentences = [""] * count
        self._end_temperature = np.full(count, np.nan)
        self._end_positions = self.structures.positions.copy()
        self._end_velocities = np.zeros_like(self._end_positions)
        self._frames = [self._end_positions.copy()] if self.settings.frame_interval else []

    def _record(self, step: int) -> None:
        """Note energies and temperatures; check for a jump of the temperature since the last record."""
        if not self.running:
            return
        row, columns = step // self.settings.record_interval, self.numbers.cpu().numpy()
        kinetic, temperature = self._kinetic(), self._temperature()
        contact = guards.closest_contacts(self.neighbours, self.running)
        values = {"potential": self.energy, "kinetic": kinetic, "temperature": temperature, "contact": contact}
        for name, value in values.items():
            self._records[name][row, columns] = value.cpu().numpy()
        if (jump := self.settings.guards.temperature_jump) is not None:
            limit = jump * torch.maximum(self._last_temperature, self.kelvin).clamp(min=1.0)
            self._last_temperature = temperature
            self._remove(guards.too_hot(temperature, limit), step)

    def _keep_frame(self, atoms: Bool[Tensor, " atoms"]) -> None:
        places = self.places[atoms].cpu().numpy()
        self._end_positions[places] = self.positions[atoms].cpu().numpy()
        self._end_velocities[places] = self.velocities[atoms].cpu().numpy()

    def _all_positions(self) -> Floats:
        """(atoms, 3) Å, of the structures still running and of those that were stopped."""
        positions = self._end_positions.copy()
        positions[self.places.cpu().numpy()] = self.positions.cpu().numpy()
        return positions

    def trajectory(self) -> Trajectory:
        """What happened; to be called at the end."""
        if self.running:
            self._keep_frame(torch.ones_like(self.places, dtype=torch.bool))
            self._end_temperature[self.numbers.cpu().numpy()] = self._temperature().cpu().numpy()
        steps = self.settings.n_steps
        interval = self.settings.record_interval * self.settings.step
        ended = [f"{value:.4f}" for value in self._steps * self.settings.step / 1000]
        info = self.structures.info | {
            "failure": np.array(self._sentences),
            "time_ps": np.array(ended),
            "temperature_K": np.array([f"{value:.0f}" for value in self._end_temperature]),
        }
        return Trajectory(
            settings=self.settings,
            temperatures=self._kelvin_of_all,
            steps=self._steps,
            reasons=tuple(self._reasons),
            sentences=tuple(self._sentences),
            times=np.arange(steps // self.settings.record_interval + 1) * interval / 1000,
            **self._records,
            final=replace(self.structures.without_labels(), positions=self._end_positions, info=info),
            velocities=self._end_velocities,
            frames=np.stack(self._padded_frames()) if self._frames else None,
            seconds=time.perf_counter() - self._began,
            spread=None if self.watch is None else self.watch.largest,
            warnings=() if self.watch is None else tuple(self.watch.warnings),
        )

    def _padded_frames(self) -> list[Floats]:
        """The stored frames, the last one repeated where every structure was stopped before the end."""
        assert self.settings.frame_interval is not None
        missing = self.settings.n_steps // self.settings.frame_interval + 1 - len(self._frames)
        return self._frames + [self._end_positions] * missing


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

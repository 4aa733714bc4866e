"""Short hot molecular dynamics of the teacher: structures that heat makes, with their own correlations."""

from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from torch import nn

from phystrain.augment import Augmentation
from phystrain.augment._copies import Made, copies
from phystrain.data.structures import Floats, Ints, Structures
from phystrain.dynamics import Settings, simulate
from phystrain.dynamics.guards import Guards

_HYDROGEN = 1


class Config(Augmentation):
    """Langevin dynamics of every structure at each temperature, frames taken at even intervals.

    Runs that explode, or in which two atoms meet below the floor, are stopped; the frames before that are kept.

    Attributes:
        temperatures: K.
        picoseconds: length of each run, ps.
        frames: structures taken from each run.
        friction: of the thermostat, 1/fs.
        floor: fraction of the sum of covalent radii below which a run is stopped.
    """

    needs_teacher: ClassVar[bool] = True
    refusal: ClassVar[str] = "needs structures of two atoms or more: this set holds single atoms only."

    kind: Literal["hot_md"] = "hot_md"
    temperatures: list[float] = Field(default=[600.0, 1500.0, 3000.0], min_length=1)
    picoseconds: float = Field(default=0.5, gt=0)
    frames: int = Field(default=5, ge=1)
    friction: float = Field(default=0.02, gt=0)

    def applies(self, structures: Structures) -> npt.NDArray[np.bool_]:
        """Structures of two atoms or more."""
        return np.asarray(structures.sizes > 1)

    def make(self, structures: Structures, numbers: Ints, seed: int, teacher: nn.Module | None) -> Made:
        """Up to ``frames`` structures of each and of each temperature.

        Random numbers are a function of the seed, the number of the structure and the temperature. ``info`` holds
        ``config_type``, ``round``, ``source`` and ``temperature`` (K).
        """
        assert teacher is not None
        hydrogen = np.bincount(structures.system, structures.species == _HYDROGEN, len(structures)) > 0
        found: dict[tuple[int, int], Floats] = {}  # by structure and round
        limited = 0
        # The time step follows the lightest atom of all that run together, and must not depend on the company.
        for light in (False, True):
            indices = np.flatnonzero(hydrogen == light)
            if len(indices):
                limited += self._run(structures, indices, numbers, seed, teacher, found)
        order = sorted(found)
        rounds = [number for _, number in order]
        made = copies(
            structures,
            numbers,
            [index for index, _ in order],
            [found[key] for key in order],
            self.kind,
            rounds,
            facts={"temperature": [f"{self.temperatures[number // self.frames]:g}" for number in rounds]},
        )
        return Made(made, limited)

    def _run(
        self,
        structures: Structures,
        indices: Ints,
        numbers: Ints,
        seed: int,
        teacher: nn.Module,
        found: dict[tuple[int, int], Floats],
    ) -> int:
        """Put frames into ``found``; returns how many were lost to two atoms that met."""
        count = len(self.temperatures)
        start = structures.without_labels().select(np.repeat(indices, count))
        timestep = Settings().step_of(start.species)
        steps = max(1, round(self.picoseconds * 1000 / timestep / self.frames))
        settings = Settings(
            timestep=timestep,
            picoseconds=steps * self.frames * timestep / 1000,
            friction=self.friction,
            frame_interval=steps,
            seed=seed,
            guards=Guards(contact=self.floor, temperature_factor=10.0),
            compiled=False,  # rounds differently: what is made must not depend on how busy the machine is
        )
        keys = np.repeat(numbers[indices], count) * count + np.tile(np.arange(count), len(indices))
        run = simulate(
            teacher,
            start,
            settings,
            temperatures=np.tile(np.array(self.temperatures), len(indices)),
            keys=keys.tolist(),
        )
        assert run.frames is not None
        lost = 0
        for place in range(len(start)):
            whole = self.frames if run.reasons[place] is None else (int(run.steps[place]) - 1) // steps
            whole = max(0, whole)
            part = slice(start.offsets[place], start.offsets[place + 1])
            for frame in range(whole):
                number = (place % count) * self.frames + frame
                found[int(indices[place // count]), number] = run.frames[frame + 1, part]
            if run.reasons[place] == "distance":
                lost += self.frames - whole
        return lost

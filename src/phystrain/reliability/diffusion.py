"""Whether atoms wander as in the reference trajectory: mean-square displacement and diffusion coefficient by element.

The displacement is averaged over all time origins, by fast Fourier transforms (Calandrini et al. 2011,
doi:10.1051/sfn/201112010), of atoms relative to the centre of mass. The run of the potential and the reference are cut
into blocks of one length; from the slope of each block's displacement over the same lags follows a diffusion
coefficient (Einstein 1905), from their scatter its standard error. The cell is the same in both, and so is the error
that its size makes. Coefficients are compared where atoms have gone far enough for one to exist; otherwise the result
says that the run is too short, which in a solid it always is.
"""

from typing import ClassVar, Literal, NamedTuple

import numpy as np
from ase.data import atomic_masses, chemical_symbols
from pydantic import Field

from phystrain.data.structures import Floats, Ints
from phystrain.reliability import Curve, Result, Subject
from phystrain.reliability._reference_run import Compared, ComparedTest

POINTS = 200
"""Most points of a curve."""


class Config(ComparedTest):
    """Mean-square displacement and diffusion coefficients against those of a reference trajectory."""

    kind: Literal["diffusion"] = "diffusion"
    title: ClassVar[str] = "Diffusion"
    needs_order: ClassVar[bool] = True
    blocks: int = Field(default=4, ge=2, description="parts that the reference is cut into; each run has one or more")
    lags: tuple[float, float] = Field(
        default=(0.2, 0.5), description="lags that the slope is taken between, as fractions of a block"
    )
    least: float = Field(
        default=1.0, gt=0, description="Å, root of the mean-square displacement without which nothing diffuses"
    )
    exponent: float = Field(
        default=0.25, gt=0, description="how far the power of time in the displacement may be from 1"
    )
    limit: float = Field(
        default=0.3, gt=0, description="largest relative error of a coefficient; twice the standard error always passes"
    )

    def criterion(self) -> str:
        return (
            f"coefficients within {100 * self.limit:g} % or two standard errors, where atoms go farther than "
            f"{self.least:g} Å"
        )

    def unfit(self, subject: Subject) -> str | None:
        if subject.reference is None or subject.reference.frames.pbc.all():
            return None
        return "The reference is not periodic in three directions: its atoms have nowhere to diffuse to."

    def judged(self, compared: Compared, result: Result) -> Result:
        assert compared.interval is not None
        ours, reference = compared.paths()
        length = min(len(reference) // self.blocks, max(map(len, ours)))
        figures = compared.figures | {"block, ps": length * compared.interval / 1000}
        complete = bool(compared.run.survived.all())
        broken = {} if complete else {"passed": False, "grade": "unsafe", "kelvin": 0.0}
        if length * (self.lags[1] - self.lags[0]) < 3:
            sentence = f"Not done: a block has {length} frames, too few for a slope; run longer.{compared.lost}"
            return result.model_copy(update={"figures": figures, "sentence": sentence, **broken})
        found = self._diffusion(ours, compared.species, length, compared.interval)
        wanted = self._diffusion([reference], compared.species, length, compared.interval)
        moving, faults = [], []
        for number, mine in found.items():
            theirs, name = wanted[number], chemical_symbols[number]
            for source, what in (("", mine), (", reference", theirs)):
                figures |= {
                    f"diffusion coefficient {name}{source}, Å²/ps": what.coefficient,
                    f"standard error {name}{source}, Å²/ps": what.error,
                    f"root-mean-square displacement {name}{source}, Å": what.farthest,
                    f"power of time {name}{source}": what.power,
                }
            if max(mine.farthest, theirs.farthest) < self.least:
                continue
            moving.append(name)
            allowed = max(self.limit * abs(theirs.coefficient), 2 * float(np.hypot(mine.error, theirs.error)))
            if abs(mine.coefficient - theirs.coefficient) > allowed:
                faults.append(f"{name} {mine.coefficient:.3g} instead of {theirs.coefficient:.3g} Å²/ps")
        lag = self.lags[1] * length * compared.interval / 1000
        slow = [
            chemical_symbols[number]
            for number, what in wanted.items()
            if chemical_symbols[number] in moving and abs(what.power - 1) > self.exponent
        ]
        short = f" Over these lags the reference's {', '.join(slow)} is not diffusive yet: run longer." if slow else ""
        if faults:
            sentence = f"At {compared.kelvin:g} K diffusion is off: {', '.join(faults)}.{short}{compared.lost}"
        elif moving:
            sentence = f"At {compared.kelvin:g} K {', '.join(moving)} diffuses as in the reference.{short}"
        else:
            sentence = (
                f"In {lag:.2g} ps no element goes as far as {self.least:g} Å, here or in the reference: a solid, "
                "or the run is too short to be diffusive."
            )
        verdict = {
            "passed": not faults if moving else None,
            "grade": ("limited" if faults else "safe") if moving else None,
            "conditions": [f"diffusion at {compared.kelvin:g} K is off ({'; '.join(faults)})"] if faults else [],
        }
        sentence = sentence if faults else sentence + compared.lost
        return result.model_copy(
            update={"figures": figures, "sentence": sentence, "curves": _curves(found, wanted), **verdict, **broken}
        )

    def _diffusion(self, paths: list[Floats], species: Ints, length: int, interval: float) -> dict[int, "Diffusion"]:
        """By atomic number, from blocks of one length out of all runs."""
        masses = atomic_masses[species][:, None]
        blocks = []
        for path in paths:
            moved = path - (masses * path).sum(axis=1, keepdims=True) / masses.sum()
            blocks += [moved[start : start + length] for start in range(0, len(moved) - length + 1, length)]
        first, last = int(self.lags[0] * length), int(self.lags[1] * length)
        times = np.arange(last + 1) * interval / 1000
        part = slice(max(first, 1), last + 1)
        found = {}
        for number in np.unique(species).tolist():
            chosen = species == number
            curves = np.stack([squared_displacement(block[:, chosen])[: last + 1] for block in blocks])
            slopes = np.polyfit(times[part], curves[:, part].T, 1)[0] / 6
            mean = curves.mean(axis=0)
            power = np.polyfit(np.log(times[part]), np.log(mean[part].clip(1e-12)), 1)[0]
            error = slopes.std(ddof=1) / np.sqrt(len(slopes)) if len(slopes) > 1 else np.nan
            found[number] = Diffusion(
                times, mean, float(slopes.mean()), float(error), float(np.sqrt(mean[-1])), float(power)
            )
        return found


class Diffusion(NamedTuple):
    """Of one element.

    Attributes:
        times: (lags,) ps.
        displacement: (lags,) Å², mean square.
        coefficient: Å²/ps, which is 1e-4 cm²/s.
        error: Å²/ps, standard error of the coefficient.
        farthest: Å, root of the displacement at the longest lag.
        power: of time in the displacement over the lags of the slope: 1 for diffusion, 0 in a solid.
    """

    times: Floats
    displacement: Floats
    coefficient: float
    error: float
    farthest: float
    power: float


def squared_displacement(path: Floats) -> Floats:
    """(frames,) Å², mean-square displacement by lag, over all atoms and time origins.

    Args:
        path: (frames, atoms, 3) Å, not wrapped.
    """
    frames = len(path)
    path = path - path[0]
    flat = path.reshape(frames, -1)
    # padded to twice the length, the product of transforms is the sum over time origins of r(t) r(t + lag)
    transformed = np.fft.rfft(flat, n=2 * frames, axis=0)
    product = np.fft.irfft(np.square(np.abs(transformed)).sum(axis=1), n=2 * frames)[:frames]
    squares = np.square(flat).sum(axis=1)
    total = np.concatenate([[0.0], np.cumsum(squares)])
    # squares of all r(t) that begin an interval of this lag, and of all that end one
    both = total[frames - np.arange(frames)] + total[frames] - total[np.arange(frames)]
    origins = frames - np.arange(frames)
    return np.asarray(((both - 2 * product) / (origins * path.shape[1])).clip(min=0.0))


def _curves(found: dict[int, Diffusion], wanted: dict[int, Diffusion]) -> dict[str, Curve]:
    curves = {}
    for source, all_of in (("", found), (", reference", wanted)):
        for number, what in all_of.items():
            every = max(1, -(-len(what.times) // POINTS))
            curves[f"{chemical_symbols[number]}{source}"] = Curve(
                x=what.times[::every].tolist(),
                y=what.displacement[::every].tolist(),
                x_label="lag, ps",
                y_label="mean-square displacement, Å²",
            )
    return curves

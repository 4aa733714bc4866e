"""Whether atoms vibrate as in the reference trajectory: the vibrational density of states.

The spectrum of the mass-weighted velocities (by Wiener and Khinchin the Fourier transform of their autocorrelation),
with unit area. Velocities are differences of positions between frames, in the run and in the reference alike; what
that takes from high frequencies is put back. The error is that of matbench-discovery's molecular dynamics task
(DynaMat 1.0, arXiv 2607.03433): 100 min(1, W1/sigma_ref) per cent, W1 being the first Wasserstein distance between the
two densities and sigma_ref the width of the reference's. Frequencies far beyond those of the reference all count as
one: thermostats that push atoms at random leave a tail there that falls slowly, and says nothing of the potential.
Beside a reference of strong friction even so set ``friction`` to the same: for silver at 600 K and 0.002/fs the error
of the very same potential was 12 %, and 2.5 % with equal friction.

Molecules are rid of their translation and rotation. The interval between frames must resolve the fastest vibration;
if it does not, the test does not apply and says what is needed.
"""

from typing import ClassVar, Literal

import numpy as np
from ase.data import atomic_masses, chemical_symbols
from pydantic import Field

from phystrain.data.structures import Floats, Ints
from phystrain.reliability import Curve, Result, Subject
from phystrain.reliability._reference_run import Compared, ComparedTest
from phystrain.units import PER_CM

FASTEST = ((1, 125.0), (10, 75.0))
"""THz: vibrations of structures with hydrogen, and with elements up to neon, are slower than this; others than 40."""

MOST, BEYOND = 0.9, 1.2
"""Frequencies count up to the second number times that which the first fraction of the reference lies below."""


class Config(ComparedTest):
    """Vibrational density of states against that of a reference trajectory."""

    kind: Literal["vibrations"] = "vibrations"
    title: ClassVar[str] = "Vibrational density of states"
    needs_order: ClassVar[bool] = True
    window: float = Field(default=1.0, gt=0, description="ps, stretch of dynamics that is transformed at a time")
    fastest: float | None = Field(
        default=None, gt=0, description="THz, highest frequency; 125 with hydrogen, 75 with light elements, else 40"
    )
    samples: float = Field(default=2.2, ge=2, description="frames needed in one period of the fastest vibration")
    limit: float = Field(default=20.0, gt=0, description="largest error, per cent; twice that between halves passes")

    def criterion(self) -> str:
        return (
            f"error <= {self.limit:g} or twice that between halves of the reference; 0 is the reference, "
            "100 a shift by the width of its spectrum (DynaMat)"
        )

    def unfit(self, subject: Subject) -> str | None:
        if (reference := subject.reference) is None:
            return None
        needed = 1000 / (self.samples * self._fastest(reference.frames.species))
        if reference.interval <= needed:
            return None
        return (
            f"The reference has a frame every {reference.interval:g} fs, its vibrations need one every "
            f"{needed:.1f} fs; set fastest if they are slow."
        )

    def judged(self, compared: Compared, result: Result) -> Result:
        assert compared.interval is not None
        ours, reference = compared.paths()
        figures = compared.figures
        complete = bool(compared.run.survived.all())
        broken = {} if complete else {"passed": False, "grade": "unsafe", "kelvin": 0.0}
        frames = min(int(self.window * 1000 / compared.interval), len(reference) // 2, max(map(len, ours))) - 1
        if frames < 20:
            sentence = f"Not done: {frames} frames in a stretch are too few for a spectrum; run longer.{compared.lost}"
            return result.model_copy(update={"figures": figures, "sentence": sentence, **broken})
        turning = not compared.reference.pbc.any()
        masses = atomic_masses[compared.species]
        made = [velocities(path, compared.interval, masses, turning) for path in ours if len(path) > frames]
        wanted = velocities(reference, compared.interval, masses, turning)
        frequency = np.fft.rfftfreq(frames, compared.interval / 1000).astype(np.float64)
        spectra = [spectrum(made, frames, masses), spectrum([wanted], frames, masses)]
        halves = [spectrum([half], frames, masses) for half in np.array_split(wanted, 2)]
        error, least = (bounded_error(frequency, *(total(pair) for pair in two)) for two in (spectra[::-1], halves))
        figures |= {
            "error, %": error,
            "error between halves of the reference, %": least,
            "mean frequency, 1/cm": _mean(cut(frequency, total(spectra[1])), total(spectra[0])) * PER_CM,
            "mean frequency, reference, 1/cm": _mean(cut(frequency, total(spectra[1])), total(spectra[1])) * PER_CM,
            "resolution, 1/cm": float(frequency[1]) * PER_CM,
            "interval, fs": compared.interval,
        }
        elements = np.unique(compared.species)
        for number in elements.tolist():
            chosen = compared.species == number
            mine, theirs = (total(both, chosen) for both in spectra)
            figures[f"error {chemical_symbols[number]}, %"] = bounded_error(frequency, theirs, mine)
        close = error <= max(self.limit, 2 * least)
        return result.model_copy(
            update={
                "figures": figures,
                "passed": close,
                "grade": "safe" if close else "limited",
                "conditions": [] if close else [f"vibrations at {compared.kelvin:g} K are off by {error:.0f} %"],
                "sentence": f"At {compared.kelvin:g} K the density of vibrations is off by {error:.1f} %, its mean "
                f"frequency {figures['mean frequency, 1/cm']:.0f} instead of "
                f"{figures['mean frequency, reference, 1/cm']:.0f} 1/cm.{compared.lost}",
                "curves": _curves(frequency, spectra, compared.species, elements),
                **broken,
            }
        )

    def _fastest(self, species: Ints) -> float:
        if self.fastest is not None:
            return self.fastest
        return next((frequency for number, frequency in FASTEST if (species <= number).any()), 40.0)


def velocities(path: Floats, interval: float, masses: Floats, turning: bool) -> Floats:
    """(frames - 1, atoms, 3) Å/fs, halfway between frames, without motion of the centre of mass.

    Args:
        path: (frames, atoms, 3) Å, not wrapped.
        interval: fs between frames.
        masses: (atoms,) u.
        turning: take out rotation too.
    """
    found = np.diff(path, axis=0) / interval
    found = found - np.einsum("a,fax->fx", masses, found)[:, None] / masses.sum()
    if not turning:
        return found
    middle = (path[1:] + path[:-1]) / 2
    arm = middle - np.einsum("a,fax->fx", masses, middle)[:, None] / masses.sum()
    momentum = np.einsum("a,fax->fx", masses, np.cross(arm, found))
    inertia = np.einsum("a,fax,fay->fxy", masses, arm, arm)
    inertia = np.trace(inertia, axis1=1, axis2=2)[:, None, None] * np.eye(3) - inertia
    # the pseudo-inverse, for nothing turns about the axis of a linear molecule
    turn = np.einsum("fxy,fy->fx", np.linalg.pinv(inertia, rcond=1e-6, hermitian=True), momentum)
    return found - np.cross(turn[:, None], arm)


def spectrum(runs: list[Floats], length: int, masses: Floats) -> Floats:
    """(frequencies, atoms) mass-weighted power, over overlapping stretches of all runs (Welch 1967) with Hann's window.

    Args:
        runs: (frames, atoms, 3) velocities each.
        length: frames of a stretch.
        masses: (atoms,) u.
    """
    window = np.hanning(length + 1)[:-1, None, None]
    power, count = np.zeros((length // 2 + 1, len(masses))), 0
    for run in runs:
        for start in range(0, len(run) - length + 1, max(1, length // 2)):
            transformed = np.fft.rfft(window * run[start : start + length], axis=0)
            power += np.square(np.abs(transformed)).sum(axis=2)
            count += 1
    # differences of positions see a frequency f of frames dt apart with sin(pi f dt)/(pi f dt)
    response = np.sinc(np.arange(length // 2 + 1) / length)[:, None]
    return masses * power / np.square(response) / max(count, 1)


def total(power: Floats, chosen: np.ndarray | None = None) -> Floats:
    """(frequencies,) sum over atoms, over some of them if they are ``chosen``, with unit sum."""
    density = (power if chosen is None else power[:, chosen]).sum(axis=1)
    return np.asarray(density / max(float(density.sum()), 1e-300))


def bounded_error(frequency: Floats, reference: Floats, other: Floats) -> float:
    """100 min(1, W1/sigma), per cent, of two densities with unit sum on the same even grid."""
    places = cut(frequency, reference)
    # the integral of the difference of the distribution functions; nothing is added where all places are one
    distance = float((np.abs(np.cumsum(reference) - np.cumsum(other))[:-1] * np.diff(places)).sum())
    width = float(np.sqrt((reference * np.square(places - _mean(places, reference))).sum()))
    return 100 * min(1.0, distance / max(width, 1e-12))


def cut(frequency: Floats, reference: Floats) -> Floats:
    """(frequencies,) the same up to :data:`BEYOND` times that which most of the reference lies below, constant after.

    Args:
        frequency: (frequencies,) ascending.
        reference: (frequencies,) density with unit sum.
    """
    last = frequency[min(int(np.searchsorted(np.cumsum(reference), MOST)), len(frequency) - 1)]
    return np.minimum(frequency, BEYOND * last)


def _mean(frequency: Floats, density: Floats) -> float:
    return float((density * frequency).sum())


def _curves(frequency: Floats, spectra: list[Floats], species: Ints, elements: Ints) -> dict[str, Curve]:
    """All atoms, and each element where there are several; up to where hardly anything is left."""
    width = float(frequency[1]) * PER_CM
    both = np.cumsum(total(spectra[0]) + total(spectra[1]))
    end = min(len(frequency), int(np.searchsorted(both, 0.999 * both[-1])) + 3)
    groups = {"all": np.ones(len(species), dtype=bool)}
    if len(elements) > 1:
        groups |= {chemical_symbols[number]: species == number for number in elements.tolist()}
    return {
        f"{name}{source}": Curve(
            x=(frequency[:end] * PER_CM).tolist(),
            y=(total(power, chosen)[:end] / width).tolist(),
            x_label="frequency, 1/cm",
            y_label="density of states, cm",
        )
        for source, power in (("", spectra[0]), (", reference", spectra[1]))
        for name, chosen in groups.items()
    }

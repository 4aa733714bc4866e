"""Phonons of a crystal: imaginary modes, highest frequency, heat capacity and free energy.

The protocol of the phonon benchmarks (Loew et al., npj Comput. Mater. 2025, about 10,000 materials): the crystal is
relaxed, atoms of a supercell are displaced by 0.01 Å, and phonopy (Togo, Tanaka 2015,
doi:10.1016/j.scriptamat.2015.07.021) makes force constants, frequencies and thermal properties of the forces. An
imaginary mode says that the relaxed crystal is no minimum for the potential: its atoms would move away in dynamics.
That may be right; where the crystal is known to be stable it is a fault of the potential.

The test needs ``phystrain[phonons]`` and runs only if it is named. It takes seconds for simple crystals and minutes
for a hundred atoms without symmetry; sizes are limited.
"""

import importlib.util
import warnings
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from ase import Atoms
from pydantic import Field
from torch import nn

from phystrain.data.structures import Floats, Structures
from phystrain.errors import UserError
from phystrain.reliability import Curve, Figures, Result, Subject
from phystrain.reliability._solids import CrystalTest
from phystrain.reliability._static import predict
from phystrain.units import BOLTZMANN, PER_CM

KELVIN = 47.99243
"""K, h/k_B times one THz."""

BANDS = 12
"""Most branches of the dispersion that are drawn."""


class Config(CrystalTest):
    """Phonon frequencies of a relaxed crystal, from forces in a supercell with displaced atoms."""

    kind: Literal["phonons"] = "phonons"
    title: ClassVar[str] = "Phonons"
    measures: ClassVar[str] = "phonons"
    displacement: float = Field(default=0.01, gt=0, description="Å")
    length: float = Field(default=10.0, gt=0, description="Å, least length of the supercell's lattice vectors")
    most_atoms: int = Field(default=400, ge=1, description="in the supercell; it is made smaller to fit")
    most_displacements: int = Field(default=400, ge=1, description="supercells that are evaluated, at most")
    mesh: float = Field(default=40.0, gt=0, description="Å, density of the mesh of wave vectors")
    temperature: float | None = Field(
        default=None, gt=0, description="K, of the heat capacity; the first of the subject's, or 300, if not given"
    )
    symmetry: float = Field(default=1e-3, gt=0, description="Å, within which positions count as symmetric")
    imaginary: float = Field(
        default=0.15, ge=0, description="THz below zero down to which a frequency is no imaginary mode"
    )

    def criterion(self) -> str:
        return f"no frequency below {-self.imaginary:g} THz (imaginary modes; MDR phonon benchmark)"

    def require_library(self) -> None:
        if importlib.util.find_spec("phonopy") is None:
            raise UserError("phonons: phonopy is not installed; pip install 'phystrain[phonons]'")

    def judged(
        self,
        potential: nn.Module,
        crystal: Structures,  # noqa: ARG002
        rest: Structures,
        name: str,
        subject: Subject,
        result: Result,
    ) -> Result:
        phonon = self._displaced(rest.to_ase(0))
        count = len(phonon.supercells_with_displacements)
        if count > self.most_displacements:
            sentence = (
                f"Not done: {name} needs {count} displaced supercells, for want of symmetry; give a smaller crystal, "
                f"or raise most_displacements from {self.most_displacements}."
            )
            return result.model_copy(update={"sentence": sentence})
        phonon.forces = self._forces(potential, phonon.supercells_with_displacements)
        phonon.produce_force_constants()
        return self._judged(phonon, rest, name, count, subject, result)

    def _displaced(self, atoms: Atoms) -> Any:
        """A phonopy object of the crystal, with displacements."""
        from phonopy import Phonopy
        from phonopy.structure.atoms import PhonopyAtoms

        lengths = atoms.cell.lengths()
        repeats = np.ceil(self.length / lengths).astype(int).clip(min=1)
        while repeats.prod() * len(atoms) > self.most_atoms and repeats.max() > 1:
            repeats[(repeats * lengths * (repeats > 1)).argmax()] -= 1
        cell = PhonopyAtoms(
            symbols=atoms.get_chemical_symbols(), cell=atoms.cell.array, scaled_positions=atoms.get_scaled_positions()
        )
        with warnings.catch_warnings():  # phonopy 4 remarks that version 3 had another default
            warnings.simplefilter("ignore")
            phonon = Phonopy(cell, np.diag(repeats).tolist(), primitive_matrix="auto", symprec=self.symmetry)
        phonon.generate_displacements(distance=self.displacement)
        return phonon

    def _forces(self, potential: nn.Module, cells: list[Any]) -> Floats:
        """(supercells, atoms, 3) eV/Å; each without its mean, which is rounding."""
        structures = Structures.from_ase(
            [Atoms(cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True) for cell in cells]
        )
        forces = predict(potential, structures, self.batch_atoms, "forces").forces.reshape(len(cells), -1, 3)
        return forces - forces.mean(axis=1, keepdims=True)

    def _judged(self, phonon: Any, rest: Structures, name: str, count: int, subject: Subject, result: Result) -> Result:
        kelvin = self.temperature or (subject.temperatures[0] if subject.temperatures else 300.0)
        phonon.run_mesh(self.mesh)
        frequencies, weights = phonon.mesh.frequencies, phonon.mesh.weights
        phonon.run_total_dos()
        thermal = harmonic(frequencies, weights, kelvin)
        lowest, highest = float(frequencies.min()), float(frequencies.max())
        below = (frequencies < -self.imaginary) * weights[:, None]
        share = float(below.sum() / (weights.sum() * frequencies.shape[1]))
        atoms = len(phonon.primitive)
        stable = lowest >= -self.imaginary
        figures: Figures = {
            "crystal": name,
            "atoms in the primitive cell": atoms,
            "atoms in the supercell": len(phonon.supercell),
            "displaced supercells": count,
            "volume of the relaxed crystal, Å³/atom": float(abs(np.linalg.det(rest.cell[0]))) / len(rest.positions),
            "highest frequency, THz": highest,
            "highest frequency, 1/cm": highest * PER_CM,
            "highest frequency, K": highest * KELVIN,
            "lowest frequency, THz": lowest,
            "imaginary modes, fraction": share,
            "temperature, K": kelvin,
            "heat capacity, k_B/atom": thermal[0] / atoms,
            "vibrational entropy, k_B/atom": thermal[1] / atoms,
            "vibrational free energy, meV/atom": 1000 * BOLTZMANN * kelvin * thermal[2] / atoms,
        }
        found = f"{name} vibrates at up to {highest:.1f} THz"
        sentence = (
            f"{found}, without imaginary modes; its heat capacity at {kelvin:g} K is "
            f"{figures['heat capacity, k_B/atom']:.2f} k_B/atom."
            if stable
            else f"{found}, but {100 * share:.1f} % of its modes are imaginary (down to {lowest:.1f} THz): the relaxed "
            "crystal is no minimum."
        )
        return result.model_copy(
            update={
                "figures": figures,
                "passed": stable,
                "grade": "safe" if stable else "limited",
                "conditions": [] if stable else [f"crystalline {name} has imaginary phonons"],
                "sentence": sentence,
                "curves": _curves(phonon),
            }
        )


def harmonic(frequencies: Floats, weights: npt.NDArray[np.int64], kelvin: float) -> tuple[float, float, float]:
    """Heat capacity and entropy in k_B, free energy in k_B T, of the oscillators of one primitive cell.

    Args:
        frequencies: (wave vectors, branches) THz; imaginary ones and translations, up to 0.001 THz, do not count.
        weights: (wave vectors,) how many each stands for.
        kelvin: temperature.
    """
    counted = frequencies > 1e-3
    x = KELVIN * np.where(counted, frequencies, 1.0) / kelvin
    weight = counted * (weights / weights.sum())[:, None]
    capacity = np.square(x / 2 / np.sinh(np.minimum(x / 2, 300)))
    free = x / 2 + np.log1p(-np.exp(-x))
    entropy = x / np.expm1(np.minimum(x, 600)) - np.log1p(-np.exp(-x))
    return float((weight * capacity).sum()), float((weight * entropy).sum()), float((weight * free).sum())


def _curves(phonon: Any) -> dict[str, Curve]:
    """The density of states; the dispersion too, if its branches are few."""
    density = phonon.total_dos
    curves = {
        "density of states": Curve(
            x=density.frequency_points.tolist(),
            y=density.dos.tolist(),
            x_label="frequency, THz",
            y_label="density of states, 1/THz",
        )
    }
    primitive = phonon.primitive
    branches = 3 * len(primitive)
    if branches > BANDS:
        return curves
    path = Atoms(primitive.symbols, cell=primitive.cell, pbc=True).cell.bandpath(npoints=120)
    phonon.run_qpoints(path.kpts)
    distance, _, labels = path.get_linear_kpoint_axis()
    bands = np.sort(phonon.qpoints.frequencies, axis=1)
    for number in range(branches):
        curves[f"branch {number + 1}"] = Curve(
            x=distance.tolist(),
            y=bands[:, number].tolist(),
            x_label=f"wave vector along {' '.join(labels)}",
            y_label="frequency, THz",
        )
    return curves

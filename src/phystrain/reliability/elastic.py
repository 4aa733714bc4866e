"""Elastic constants of a crystal, and whether it is stable against small strains.

The crystal is relaxed, its stress under six small strains of either sign gives the constants with the ions held at
their places, and the response of the ions is added from the matrix of force constants (Wu, Vanderbilt, Hamann 2005,
doi:10.1103/PhysRevB.72.035105): no strained cell has to be relaxed. A crystal is stable if the matrix of its constants
is positive definite (Born; Mouhat, Coudert 2014, doi:10.1103/PhysRevB.90.224104). Moduli are Hill's means.

The test takes seconds to a minute, needs a crystal that the potential brings to rest, and runs only if it is named.
"""

from dataclasses import replace
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field
from torch import nn

from phystrain.data.structures import Floats, Structures
from phystrain.reliability import Curve, Figures, Result, Subject
from phystrain.reliability._solids import CrystalTest
from phystrain.reliability._static import predict
from phystrain.units import GPA, full_to_voigt, voigt_to_full


class Config(CrystalTest):
    """Elastic constants from stresses under strain, moduli, and stability against small strains."""

    kind: Literal["elastic"] = "elastic"
    title: ClassVar[str] = "Elastic constants"
    measures: ClassVar[str] = "elastic constants"
    strain: float = Field(default=0.005, gt=0, lt=0.1, description="of either sign, without unit")
    displacement: float = Field(default=0.01, gt=0, description="Å, for the force constants")
    relax_ions: bool = Field(default=True, description="let the ions respond to the strain")
    most_atoms: int = Field(default=120, ge=1, description="largest crystal that is tried; ions cost its square")
    least: float = Field(default=0.0, description="GPa, smallest eigenvalue of the constants of a stable crystal")

    def criterion(self) -> str:
        return f"smallest eigenvalue of the elastic constants > {self.least:g} GPa (Born)"

    def judged(
        self,
        potential: nn.Module,
        crystal: Structures,
        rest: Structures,
        name: str,
        subject: Subject,  # noqa: ARG002
        result: Result,
    ) -> Result:
        found = self.measure(potential, rest)
        values = (found.matrix + found.matrix.T) / 2 / GPA
        lowest = float(np.linalg.eigvalsh(values)[0])
        bulk, shear = moduli(values)
        figures: Figures = {
            "crystal": name,
            "volume change in relaxation, %": 100 * (_volume(rest) / _volume(crystal) - 1),
            "bulk modulus, GPa": bulk,
            "shear modulus, GPa": shear,
            "Young's modulus, GPa": 9 * bulk * shear / (3 * bulk + shear),
            "smallest eigenvalue, GPa": lowest,
            "asymmetry, GPa": float(np.abs(found.matrix - found.matrix.T).max()) / GPA,
            "response of the ions, GPa": found.response / GPA,
            "unstable modes of the ions": found.unstable,
        }
        figures |= {f"C{i + 1}{j + 1}, GPa": float(values[i, j]) for i in range(6) for j in range(i, 6)}
        stable = lowest > self.least and not found.unstable
        words = f"{name} has a bulk modulus of {bulk:.0f} and a shear modulus of {shear:.0f} GPa"
        if found.unstable:
            sentence = f"{words}, but {found.unstable} modes of its ions are unstable: it would change its structure."
        elif not stable:
            sentence = f"{words}; it is unstable against strain (eigenvalue {lowest:.1f} GPa)."
        else:
            sentence = f"{words}, and is stable against small strains."
        return result.model_copy(
            update={
                "figures": figures,
                "passed": stable,
                "grade": "safe" if stable else "limited",
                "conditions": [] if stable else [f"crystalline {name} is not stable"],
                "sentence": sentence,
                "curves": {
                    "eigenvalues": Curve(
                        x=[1.0, 2, 3, 4, 5, 6],
                        y=np.linalg.eigvalsh(values).tolist(),
                        x_label="number of the eigenvalue",
                        y_label="eigenvalue of the elastic constants, GPa",
                    )
                },
            }
        )

    def measure(self, potential: nn.Module, rest: Structures) -> "Constants":
        """Elastic constants of a relaxed crystal.

        Args:
            potential: in double precision.
            rest: one structure.
        """
        count = 6 * 2
        strains = np.zeros((count, 6))
        strains[np.arange(count), np.arange(count) // 2] = self.strain * np.tile([1.0, -1.0], 6)
        strains[:, 3:] /= 2  # Voigt's shear is twice the component of the tensor
        deformation = np.eye(3) + voigt_to_full(strains)
        copies = rest.select(np.zeros(count, dtype=int))
        copies = replace(
            copies,
            cell=copies.cell @ deformation,
            positions=np.einsum("ai,aij->aj", copies.positions, deformation[copies.system]),
        )
        strained = predict(potential, copies, self.batch_atoms, "forces", "stress")
        stress = full_to_voigt(strained.stress).reshape(6, 2, 6)
        clamped = ((stress[:, 0] - stress[:, 1]) / (2 * self.strain)).T
        forces = strained.forces.reshape(6, 2, -1)
        pull = ((forces[:, 0] - forces[:, 1]) / (2 * self.strain)).T  # (3 atoms, 6) eV/Å
        pull -= np.tile(pull.reshape(-1, 3, 6).mean(axis=0), (len(rest.positions), 1))  # rounding pushes no crystal
        if not self.relax_ions or float(np.abs(pull).max()) < 1e-6:
            return Constants(clamped, 0.0, 0)
        values, vectors = np.linalg.eigh(self._force_constants(potential, rest))
        stiff = np.abs(values) > 1e-5 * np.abs(values).max()  # all but the three translations
        along = vectors[:, stiff].T @ pull
        response = along.T @ (along / values[stiff, None]) / _volume(rest)
        return Constants(clamped - response, float(np.abs(response).max()), int((values[stiff] < 0).sum()))

    def _force_constants(self, potential: nn.Module, rest: Structures) -> Floats:
        """(3 atoms, 3 atoms) eV/Å², symmetric."""
        size = len(rest.positions)
        copies = rest.select(np.zeros(6 * size, dtype=int))
        moves = np.zeros((3 * size, 2, size, 3))
        for sign, column in ((1.0, 0), (-1.0, 1)):
            moves[:, column] = sign * self.displacement * np.eye(3 * size).reshape(3 * size, size, 3)
        copies = replace(copies, positions=copies.positions + moves.reshape(-1, 3))
        forces = predict(potential, copies, self.batch_atoms, "forces").forces.reshape(3 * size, 2, 3 * size)
        matrix = (forces[:, 1] - forces[:, 0]) / (2 * self.displacement)
        return np.asarray((matrix + matrix.T) / 2)


class Constants(NamedTuple):
    """Elastic constants.

    Attributes:
        matrix: (6, 6) eV/Å³, Voigt's order.
        response: eV/Å³, largest part of it that the ions' response took away.
        unstable: modes of the ions with negative force constants.
    """

    matrix: Floats
    response: float
    unstable: int


def moduli(constants: Floats) -> tuple[float, float]:
    """Bulk and shear modulus of a polycrystal, in the unit of the constants: means of Voigt's and Reuss' (Hill 1952).

    Args:
        constants: (6, 6) symmetric.
    """
    (n, m, s), (cn, cm, cs) = (
        (np.trace(matrix[:3, :3]), matrix[0, 1] + matrix[0, 2] + matrix[1, 2], np.trace(matrix[3:, 3:]))
        for matrix in (constants, np.linalg.pinv(constants))
    )
    voigt = (n + 2 * m) / 9, (n - m + 3 * s) / 15
    reuss = 1 / (cn + 2 * cm), 15 / (4 * cn - 4 * cm + 3 * cs)
    return float(voigt[0] + reuss[0]) / 2, float(voigt[1] + reuss[1]) / 2


def _volume(structures: Structures) -> float:
    return float(abs(np.linalg.det(structures.cell[0])))

"""Any potential as an ASE calculator: relaxation, dynamics, phonons, whatever ASE can do."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.data import chemical_symbols
from torch import nn

from phystrain import compiled as compiling
from phystrain.derive import Potential, evaluate, placement
from phystrain.dynamics.verlet_list import VerletList
from phystrain.errors import UserError
from phystrain.saving import load_model
from phystrain.units import full_to_voigt

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


class PhystrainCalculator(Calculator):
    """ASE calculator of a potential.

    Energies in eV, forces in eV/Å, stress in eV/Å³ with ASE's sign (positive when the cell wants to shrink) and Voigt
    order. Stress exists for structures that are periodic in all three directions.

    Args:
        potential: a :class:`phystrain.derive.Potential`.
        species: atomic numbers that the potential was made for; any if not given.
        device: ``cpu``, ``cuda``, ``cuda:1``; that of the potential if not given.
        dtype: ``float32`` or ``float64``; that of the potential if not given. Relaxations to small forces and
            phonons want ``float64``.
        skin: Å, reserve of the neighbour list, which is rebuilt when an atom has moved by half of it.
        compiled: compile the networks in it at the first evaluation: half a minute, 5 s from then on, and
            between two thirds and a quarter of the time for an evaluation. For dynamics of more than some minutes.

    Raises:
        UserError: an unknown precision, a device that is not there, or no C++ compiler where one is asked for.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]

    def __init__(
        self,
        potential: nn.Module,
        species: Sequence[int] | None = None,
        *,
        device: str | torch.device | None = None,
        dtype: str | None = None,
        skin: float = 0.5,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self._species = None if species is None else frozenset(int(number) for number in species)
        self.potential = _placed(potential, device, dtype)
        self._device, self._dtype = placement(self.potential)
        if compiled:
            if not compiling.available():
                raise UserError("compiled: no C++ compiler (g++ or clang++) is found: install one, or leave it out")
            self.potential = compiling.faster(self.potential)
        self._skin = skin
        self._list: VerletList | None = None
        self._listed: Atoms | None = None
        self._with_stress = False

    @classmethod
    def from_path(cls, path: Path | str, **options: Any) -> "PhystrainCalculator":
        """The calculator of a saved model.

        Args:
            path: model file, or run folder of ``phystrain train``.
            options: ``device``, ``dtype``, ``skin``, ``compiled``, as for the class.

        Raises:
            UserError: no such file, or not a model.
        """
        saved = load_model(path)
        return cls(saved.potential, saved.statistics.species, **options)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Called by ASE; fills ``results``.

        Raises:
            UserError: an element that the potential was not made for.
            ase.calculators.calculator.PropertyNotImplementedError: stress of a structure that is not periodic in
                three directions.
        """
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        periodic = bool(np.all(self.atoms.pbc))
        if "stress" in properties:
            if not periodic:
                raise PropertyNotImplementedError("stress needs periodicity in all three directions")
            self._with_stress = True  # who asks once asks again, and one pass is cheaper than two
        self._refuse_unknown(self.atoms)
        want = ["energy", "forces"] + ["stress"] * (self._with_stress and periodic)
        predicted = evaluate(cast(Potential, self.potential), self._graph(self.atoms), want)
        assert predicted.energy is not None and predicted.forces is not None  # noqa: PT018
        energy = float(predicted.energy[0])
        forces = predicted.forces.to(torch.float64).cpu().numpy()
        self.results = {"energy": energy, "free_energy": energy, "forces": forces}
        if predicted.stress is not None:
            self.results["stress"] = full_to_voigt(predicted.stress[0].to(torch.float64).cpu().numpy())

    def _graph(self, atoms: Atoms) -> Any:
        positions = torch.tensor(atoms.positions, dtype=torch.float64, device=self._device)
        if self._list is None or not _same_frame(self._listed, atoms):
            self._listed = atoms.copy()
            self._list = VerletList(
                positions,
                torch.tensor(atoms.numbers, dtype=torch.int64, device=self._device),
                torch.zeros(len(atoms), dtype=torch.int64, device=self._device),
                torch.tensor(atoms.cell.array[None], dtype=torch.float64, device=self._device),
                torch.tensor(np.asarray(atoms.pbc)[None], device=self._device),
                cast(Potential, self.potential).cutoff,
                self._skin,
                self._dtype,
            )
        return self._list.graph(positions)

    def _refuse_unknown(self, atoms: Atoms) -> None:
        if self._species is None or self._species.issuperset(atoms.numbers.tolist()):
            return
        unknown = sorted(set(atoms.numbers.tolist()) - self._species)
        raise UserError(
            f"the potential was never shown {_symbols(unknown)}; it knows {_symbols(sorted(self._species))}.\n"
            "Train it on data that hold these elements."
        )


def _placed(potential: nn.Module, device: str | torch.device | None, dtype: str | None) -> nn.Module:
    """The potential on a device and in a precision; a copy where something changes, so that the caller's is kept."""
    if dtype is not None and dtype not in _DTYPES:
        raise UserError(f"unknown dtype {dtype!r}: choose float32 or float64")
    has_device, has_dtype = placement(potential)
    wanted = torch.device(device) if device is not None else has_device
    target = _DTYPES[dtype] if dtype is not None else has_dtype
    if wanted != has_device or target != has_dtype:
        try:
            potential = copy.deepcopy(potential).to(wanted, target)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"cannot use device {str(wanted)!r}: {str(error).splitlines()[0]}") from error
    return potential.eval()


def _same_frame(listed: Atoms | None, atoms: Atoms) -> bool:
    """Whether elements, cell and periodic directions are those of the list, so that only positions have changed."""
    return (
        listed is not None
        and np.array_equal(listed.numbers, atoms.numbers)
        and np.array_equal(listed.cell.array, atoms.cell.array)
        and np.array_equal(listed.pbc, atoms.pbc)
    )


def _symbols(numbers: Sequence[int]) -> str:
    return ", ".join(chemical_symbols[number] for number in numbers)

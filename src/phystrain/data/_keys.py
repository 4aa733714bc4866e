"""Which names hold the labels, and the labels themselves in our units and shapes."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from phystrain.data._frame import Frame
from phystrain.data._xyz import numbers_in
from phystrain.errors import UserError
from phystrain.registry import did_you_mean
from phystrain.units import LABEL_KEYS, voigt_to_full

Floats = npt.NDArray[np.float64]

_LOOKS_LIKE = {"energy": "ener", "forces": "forc"}
_WEIGHTS_OF = {
    "energy": ("config_energy_weight",),
    "forces": ("config_forces_weight",),
    "stress": ("config_stress_weight", "config_virials_weight"),
}


class LabelKeys(BaseModel):
    """The user's own names of the labels; what is not given is looked for.

    Attributes:
        energy: total energy, eV.
        forces: eV/Å.
        stress: eV/Å³, tensile positive; a virial in eV if the name contains ``virial``.
        weight: factor of a structure in every loss.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None
    weight: str | None = None

    def candidates(self) -> dict[str, tuple[str, ...]]:
        """Names to look under, by label, first choice first. A name of the user's is the only one."""
        tensors = LABEL_KEYS["stress"] + LABEL_KEYS["virial"]
        usual = {
            "energy": (*LABEL_KEYS["energy"], "free_energy"),
            "forces": LABEL_KEYS["forces"],
            "stress": tuple(sorted(tensors, key=lambda name: not name.startswith("REF_"))),
            "weight": ("config_weight",),
        }
        return {label: (getattr(self, label),) if getattr(self, label) else names for label, names in usual.items()}


class Found(NamedTuple):
    """Labels of one frame; None where there is none.

    Attributes:
        energy: eV.
        forces: (atoms, 3) eV/Å.
        stress: (3, 3) eV/Å³.
        weight: factor in every loss.
    """

    energy: float | None
    forces: Floats | None
    stress: Floats | None
    weight: float | None


@dataclass
class LabelFinder:
    """Takes the labels out of frames and counts under which names they were.

    Attributes:
        keys: the user's own names.
        found: by label and name, the number of frames.
        remarks: by text, the number of frames that it is true of.
        names: every name that occurs, of facts and of columns.
        smearing: eV, largest difference between ``free_energy`` and the energy that was taken.
    """

    keys: LabelKeys
    found: dict[str, Counter[str]] = field(
        default_factory=lambda: {label: Counter() for label in LabelKeys.model_fields}
    )
    remarks: Counter[str] = field(default_factory=Counter)
    names: dict[str, set[str]] = field(default_factory=lambda: {"facts": set(), "columns": set()})
    smearing: float = 0.0

    def __post_init__(self) -> None:
        self.candidates = self.keys.candidates()

    @property
    def columns(self) -> frozenset[str]:
        """Columns of atoms that may be labels."""
        return frozenset(self.candidates["forces"])

    @property
    def reserved(self) -> frozenset[str]:
        """Names of facts that are labels and not groups."""
        every = [name for names in (*LABEL_KEYS.values(), *self.candidates.values()) for name in names]
        return frozenset((*every, "free_energy", "energies", "stresses"))

    def take(self, frame: Frame) -> Found:
        """The labels of a frame.

        Raises:
            UserError: a label of the wrong shape, or one that is no finite number.
        """
        self.names["facts"].update(frame.facts)
        self.names["columns"].update(frame.columns)
        self.remarks.update(frame.remarks)
        return Found(self._energy(frame), self._forces(frame), self._stress(frame), self._weight(frame))

    def finish(self, where: str) -> None:
        """Complain about names of the user's that are in no frame, and remark on what looks like an overlooked label.

        Args:
            where: the file.

        Raises:
            UserError: a name of the user's is nowhere.
        """
        for label in LabelKeys.model_fields:
            key = getattr(self.keys, label)
            there = sorted(self.names["columns" if label == "forces" else "facts"])
            if key is not None and key not in there:
                listed = f" In the file: {', '.join(there)}." if there else " The file names none at all."
                hint = did_you_mean(key, there) if there else "leave the key out."
                hint = "." if hint.startswith("choose") else f"; {hint}"
                raise UserError(f"{where}: no frame has {key!r}, given as the key of {label}{hint}{listed}")
            similar = [name for name in there if _LOOKS_LIKE.get(label, label) in name.lower()]
            if similar and label != "weight" and not self.found[label]:
                self.remarks[f"no {label} found, but {similar[0]!r} looks like it: name it as the key of {label}"] += 1
        if self.smearing > 1e-6:
            self.remarks[
                f"free_energy differs from the energy taken by up to {self.smearing:.2g} eV (smearing): forces are the "
                "gradient of free_energy, so name that as the key of energy"
            ] += 1

    def _first(self, label: str, names: Iterable[str], frame: Frame) -> str | None:
        """The first candidate that the frame has, counted, unless the file gives that label no weight."""
        key = next((name for name in self.candidates[label] if name in names), None)
        if key is None:
            return None
        for name in _WEIGHTS_OF[label]:
            if name in frame.facts and (factor := _scalar(frame, name, frame.facts[name])) != 1:
                if factor == 0:
                    self.remarks[f"{label} taken as not labelled, because {name} is zero"] += 1
                    return None
                self.remarks[f"{name} is not used, except to leave out labels of weight zero"] += 1
        self.found[label][key] += 1
        return key

    def _energy(self, frame: Frame) -> float | None:
        key = self._first("energy", frame.facts, frame)
        if key is None:
            return None
        energy = _scalar(frame, key, frame.facts[key])
        if "free_energy" in frame.facts and key == "energy":
            self.smearing = max(self.smearing, abs(energy - _scalar(frame, "free_energy", frame.facts["free_energy"])))
        return energy

    def _forces(self, frame: Frame) -> Floats | None:
        key = self._first("forces", frame.columns, frame)
        if key is None:
            return None
        forces = frame.columns[key]
        if forces.shape == (0, 0):
            raise UserError(f"{frame.where}: {key} are not numbers (type R in Properties).")
        if forces.shape[1] != 3:
            raise UserError(f"{frame.where}: {key} have {forces.shape[1]} columns where three are needed.")
        require_finite(frame.where, key, forces, per_atom=True)
        return forces

    def _stress(self, frame: Frame) -> Floats | None:
        key = self._first("stress", frame.facts, frame)
        if key is None:
            return None
        values = _values(frame, key, frame.facts[key])
        if values.size not in (6, 9):
            raise UserError(f"{frame.where}: {key} has {values.size} numbers where 6 or 9 are needed.")
        require_finite(frame.where, key, values)
        full = voigt_to_full(values) if values.size == 6 else values.reshape(3, 3)
        if not frame.pbc.all():
            self.found["stress"][key] -= 1
            self.remarks[f"{key} left out: the structure is not periodic in all three directions"] += 1
            return None
        if np.abs(full - full.T).max() > 1e-3 * np.abs(full).max() + 1e-6:
            self.remarks[f"{key} is not symmetric; its symmetric part is used"] += 1
        if "virial" in key.lower():
            volume = abs(np.linalg.det(frame.cell))
            if volume == 0:
                raise UserError(f"{frame.where}: {key} of a structure whose cell has no volume.")
            full = -full / volume
        return (full + full.T) / 2

    def _weight(self, frame: Frame) -> float | None:
        key = next((name for name in self.candidates["weight"] if name in frame.facts), None)
        if key is None:
            return None
        self.found["weight"][key] += 1
        weight = _scalar(frame, key, frame.facts[key])
        if weight < 0:
            raise UserError(f"{frame.where}: {key} is {weight}; weights cannot be negative.")
        return weight


def require_finite(where: str, name: str, values: Floats, *, per_atom: bool = False) -> None:
    """Refuse not-a-number and infinity.

    Args:
        where: the frame.
        name: of the array.
        values: any shape.
        per_atom: whether the first axis counts atoms.

    Raises:
        UserError: names the frame, the array and the atom.
    """
    if np.isfinite(values).all():
        return
    bad = np.argwhere(~np.isfinite(values))[0]
    atom = f" of atom {bad[0]}" if per_atom else ""
    raise UserError(
        f"{where}: {name}{atom} holds {values[tuple(bad)]}. Remove the frame, or the label if that is what is missing."
    )


def _values(frame: Frame, name: str, value: object) -> Floats:
    try:
        return numbers_in(value)
    except (ValueError, TypeError) as error:
        raise UserError(f"{frame.where}: {name} is {str(value)[:40]!r}, which is no number.") from error


def _scalar(frame: Frame, name: str, value: object) -> float:
    numbers = _values(frame, name, value)
    if numbers.size != 1:
        raise UserError(f"{frame.where}: {name} has {numbers.size} numbers where one is needed.")
    require_finite(frame.where, name, numbers)
    return float(numbers[0])

"""The level of theory of reference labels: what a person may ask for, checked before anything is computed."""

import importlib
import re
import warnings
from collections.abc import Iterable
from typing import Any

from ase.data import chemical_symbols
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from phystrain.errors import UserError
from phystrain.label.extrapolation import cardinal_number
from phystrain.registry import did_you_mean

CORRELATED = ("mp2", "ccsd", "ccsd(t)")
"""Methods that add correlation to Hartree-Fock."""

_COMMON = ("hf", "pbe", "r2scan", "b3lyp", "pbe0", "wb97x-v", "wb97m-v", "mp2", "ccsd", "ccsd(t)")


class Level(BaseModel):
    """Method, basis set and what they depend on.

    Energies are total electronic energies, nuclear repulsion included. Closed shells are treated restricted, all
    others unrestricted. Dispersion corrections are not added; functionals with non-local correlation (wb97x-v,
    wb97m-v) have it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str = Field(description="hf, mp2, ccsd, ccsd(t), or a density functional by its name in PySCF, such as pbe")
    basis: tuple[str, ...] = Field(
        min_length=1,
        max_length=3,
        description="basis set; two or three of cc-pVXZ, the smallest first, to extrapolate energies to the limit",
    )
    density_fit: bool = Field(
        False, description="fit the density with an auxiliary basis: faster, off by about 1 meV/atom, mostly a constant"
    )
    grid: int = Field(3, ge=0, le=9, description="level of the integration grid of a functional, 0 to 9")
    all_electron: bool = Field(False, description="correlate the core too; frozen if not, which is what cc-pVXZ is for")
    forces: bool = Field(True, description="forces, where there are some: hf, functionals and mp2, with one basis")
    cycles: int = Field(100, gt=0, description="iterations before a calculation counts as not converged")

    @field_validator("method", mode="before")
    @classmethod
    def _lower(cls, method: Any) -> Any:
        return method.strip().lower() if isinstance(method, str) else method

    @field_validator("basis", mode="before")
    @classmethod
    def _several(cls, basis: Any) -> Any:
        """A list in one text; commas inside parentheses belong to names such as 6-311G(2df,2pd)."""
        if not isinstance(basis, str):
            return basis
        return tuple(name.strip() for name in re.split(r",(?![^(]*\))", basis) if name.strip())

    @model_validator(mode="after")
    def _extrapolates(self) -> "Level":
        if len(self.basis) == 1:
            return self
        if self.is_functional:
            raise ValueError(f"{self.method} is a functional: give one basis set, extrapolation is for wave functions")
        found = [cardinal_number(name) for name in self.basis]
        families = {family[0] for family in found if family is not None}
        numbers = [family[1] for family in found if family is not None]
        if None in found or len(families) > 1 or numbers != list(range(numbers[0], numbers[0] + len(found))):
            raise ValueError(
                f"cannot extrapolate from {', '.join(self.basis)}: give consecutive sets of one correlation-consistent "
                "family, the smallest first, such as cc-pvdz,cc-pvtz"
            )
        return self

    @property
    def is_functional(self) -> bool:
        """Whether the method is a density functional."""
        return self.method not in ("hf", *CORRELATED)

    @property
    def gives_forces(self) -> bool:
        """Whether forces are wanted and there are any."""
        if self.method == "mp2":
            return self.forces and len(self.basis) == 1 and not self.density_fit
        return self.forces and len(self.basis) == 1 and self.method not in CORRELATED

    @property
    def name(self) -> str:
        """As it is written in the field: ``PBE/def2-svp``, ``CCSD(T)/CBS(cc-pvdz,cc-pvtz)``."""
        sets = self.basis[0] if len(self.basis) == 1 else f"CBS({','.join(self.basis)})"
        notes = ["density fitting"] * self.density_fit
        notes += ["all electrons"] * (self.all_electron and self.method in CORRELATED)
        return ", ".join([f"{self.method.upper()}/{sets}", *notes])


def require_pyscf() -> Any:
    """PySCF, an extra of the package.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module("pyscf")
    except ModuleNotFoundError as error:
        if error.name != "pyscf":
            raise UserError(f"PySCF cannot be imported: {error}. Install it again.") from error
        raise UserError("label needs PySCF, which is not installed: pip install 'phystrain[label]'") from error


def require_known(level: Level, elements: Iterable[int]) -> None:
    """Refuse functionals and basis sets that PySCF does not have.

    Args:
        level: of theory.
        elements: atomic numbers that the basis sets must hold.

    Raises:
        UserError: names what is unknown.
    """
    require_pyscf()
    if level.is_functional:
        _require_functional(level.method)
    from pyscf.gto import basis as library

    for name in level.basis:
        for number in elements:
            try:
                with warnings.catch_warnings(action="ignore"):  # advice to install a further package
                    library.load(name, chemical_symbols[number])
            except Exception as error:  # PySCF raises one of several, by where it looks
                raise UserError(
                    f"PySCF has no basis set {name!r} for {chemical_symbols[number]}: check the name, or take another, "
                    "such as def2-svp or cc-pvdz"
                ) from error


def _require_functional(name: str) -> None:
    from pyscf.dft import libxc
    from pyscf.scf.dispersion import parse_dft

    try:
        functional, _, dispersion = parse_dft(name)
        libxc.parse_xc(functional)
    except (KeyError, ValueError, NotImplementedError) as error:
        raise UserError(f"PySCF has no method or functional {name!r}: {did_you_mean(name, _COMMON)}") from error
    if dispersion:
        raise UserError(
            f"{name}: dispersion corrections are not added here. Take {functional}, or a functional with non-local "
            "correlation, such as wb97x-v"
        )

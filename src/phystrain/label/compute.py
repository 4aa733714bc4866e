"""One molecule, asked of PySCF."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from ase.data import chemical_symbols

from phystrain.label.extrapolation import cardinal_number, correlation_limit, hartree_fock_limit
from phystrain.label.level import CORRELATED, Level
from phystrain.units import BOHR, HARTREE


class NotConvergedError(Exception):
    """An iteration that came to no end: there is no label."""


@dataclass(frozen=True)
class Label:
    """What was found.

    Attributes:
        energy: eV.
        forces: (atoms, 3) eV/Å, or ``None``.
        facts: what tells of its quality: ``t1``, the T1 diagnostic of closed shells (Lee, Taylor 1989,
            doi:10.1002/qua.560360824), and ``s2``, the expectation value of S² of unrestricted ones.
    """

    energy: float
    forces: npt.NDArray[np.float64] | None = None
    facts: dict[str, float] = field(default_factory=dict)


def compute(
    numbers: npt.NDArray[np.int64],
    positions: npt.NDArray[np.float64],
    level: Level,
    *,
    charge: int = 0,
    spin: int = 0,
    memory: int = 4000,
) -> Label:
    """Energy, and forces where the level has them.

    Args:
        numbers: (atoms,) atomic numbers.
        positions: (atoms, 3) Å.
        level: of theory.
        charge: of the molecule, in units of the positron's.
        spin: number of unpaired electrons.
        memory: MB that PySCF may use.

    Raises:
        NotConvergedError: SCF or coupled-cluster iterations did not converge.
    """
    from pyscf import gto

    scf, correlation, facts = [], [], {}
    forces = None
    for basis in level.basis:
        molecule = gto.M(
            atom=[(int(number), tuple(place / BOHR)) for number, place in zip(numbers, positions, strict=True)],
            unit="Bohr",  # PySCF's own length of it is an older one
            basis=basis,
            ecp=core_potentials(basis, numbers),
            charge=charge,
            spin=spin,
            max_memory=memory,
            verbose=0,
        )
        field_ = _self_consistent(molecule, level)
        scf.append(float(field_.e_tot))
        if spin:
            facts["s2"] = float(field_.spin_square()[0])
        if level.method in CORRELATED:
            energy, gradient, found = _correlated(field_, level)
            correlation.append(energy)
            facts |= found
        else:
            gradient = _gradient(field_) if level.gives_forces else None
        if gradient is not None:
            forces = -gradient * HARTREE / BOHR
    return Label(HARTREE * _limit(scf, correlation, level), forces, facts)


def core_potentials(basis: str, numbers: npt.NDArray[np.integer]) -> dict[str, str]:
    """The elements for which a basis set has a core potential, such as those beyond krypton in def2."""
    from pyscf.gto import basis as library

    symbols = [chemical_symbols[number] for number in np.unique(numbers)]
    return {symbol: basis for symbol in symbols if library.load_ecp(basis, symbol)}


def _limit(scf: list[float], correlation: list[float], level: Level) -> float:
    """Total energy, hartree, at the basis-set limit where there are several sets."""
    if len(scf) == 1:
        return scf[0] + sum(correlation)
    numbers = [found[1] for found in map(cardinal_number, level.basis) if found is not None]
    return hartree_fock_limit(scf, numbers) + (correlation_limit(correlation, numbers) if correlation else 0.0)


def _self_consistent(molecule: Any, level: Level) -> Any:
    """Converged Hartree-Fock or Kohn-Sham orbitals; by a second-order solver where the usual one fails."""
    from pyscf import dft, scf

    restricted = molecule.spin == 0
    if level.is_functional:
        found = dft.RKS(molecule, xc=level.method) if restricted else dft.UKS(molecule, xc=level.method)
        found.grids.level = level.grid
    else:
        found = scf.RHF(molecule) if restricted else scf.UHF(molecule)
    if level.density_fit:
        found = found.density_fit()
    found.conv_tol, found.max_cycle = 1e-10, level.cycles
    found.kernel()
    if not found.converged:
        second = found.newton()
        second.kernel(found.mo_coeff, found.mo_occ)
        if not second.converged:
            raise NotConvergedError(f"SCF did not converge in {level.cycles} cycles")
        found = second.undo_soscf()
    return found


def _gradient(field_: Any) -> npt.NDArray[np.float64]:
    """(atoms, 3) derivative of the energy, hartree/bohr, that of the integration grid included."""
    method = field_.nuc_grad_method()
    if hasattr(method, "grid_response"):
        # Without it forces do not sum to zero and are not the derivative of the energies in the same file.
        # PySCF has none for non-local correlation.
        method.grid_response = not field_.do_nlc()
    return np.asarray(method.kernel())


def _correlated(field_: Any, level: Level) -> tuple[float, npt.NDArray[np.float64] | None, dict[str, float]]:
    """Correlation energy, hartree, with its derivative and diagnostics where there are some."""
    from pyscf import cc, mp
    from pyscf.data.elements import chemcore

    core = 0 if level.all_electron else chemcore(field_.mol)
    if field_.mol.nelectron - 2 * core < 2:
        # One electron has nothing to be correlated with: a hydrogen atom, or lithium with a frozen core.
        return 0.0, (_gradient(field_) if level.gives_forces else None), {}
    if level.method == "mp2":
        solver = mp.MP2(field_, frozen=core)
        solver.kernel()
        return float(solver.e_corr), (solver.nuc_grad_method().kernel() if level.gives_forces else None), {}
    solver = cc.CCSD(field_, frozen=core)
    solver.conv_tol, solver.max_cycle = 1e-8, level.cycles
    solver.kernel()
    if not solver.converged:
        raise NotConvergedError(f"CCSD did not converge in {level.cycles} cycles")
    triples = float(solver.ccsd_t()) if level.method == "ccsd(t)" else 0.0
    facts = {"t1": float(solver.get_t1_diagnostic())} if field_.mol.spin == 0 else {}
    return float(solver.e_corr) + triples, None, facts

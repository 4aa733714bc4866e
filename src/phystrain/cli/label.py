"""Reference labels."""

from pathlib import Path

from phystrain.cli._app import app, say


@app.command
def label(
    data: Path,
    *,
    method: str,
    basis: str,
    output: Path = Path("labelled.xyz"),
    charge: int | None = None,
    spin: int | None = None,
    density_fit: bool = False,
    grid: int = 3,
    all_electron: bool = False,
    forces: bool = True,
    cycles: int = 100,
    processes: int | None = None,
    memory: int = 4000,
    cache: Path | None = None,
) -> None:
    """Label molecules by quantum chemistry with PySCF: DFT with forces, or energies up to CCSD(T) at the basis limit.

    The file is written whole or not at all. Calculations that do not converge are named and left out. Each result is
    kept as soon as it is there, so the same command goes on where an interrupted one stopped.

    Parameters
    ----------
    data
        Molecules; labels they have are dropped.
    method
        A functional, such as pbe or wb97x-v; or hf, mp2, ccsd, ccsd(t) with quotes around it.
    basis
        Basis set; two or three with commas between them, such as cc-pvdz,cc-pvtz, to extrapolate energies to the limit.
    output
        File; .gz, .bz2 and .xz compress.
    charge
        Of every molecule; charge= of each frame, or 0, if not given.
    spin
        Unpaired electrons of every molecule; spin= of each frame, or 0, if not given, and the ground state of atoms.
    density_fit
        Fit the density with an auxiliary basis: faster, a little less exact.
    grid
        Level of a functional's integration grid, 0 to 9.
    all_electron
        Correlate core electrons too; they are frozen otherwise.
    forces
        With forces, where the method has them: hf, functionals, mp2.
    cycles
        Iterations before a calculation counts as not converged.
    processes
        Molecules at a time, one core each; one on each core if not given.
    memory
        MB that each of them may use.
    cache
        Folder of results; in your cache folder if not given.
    """
    from phystrain.label.job import label_file

    settings = {
        "method": method,
        "basis": basis,
        "density_fit": density_fit,
        "grid": grid,
        "all_electron": all_electron,
        "forces": forces,
        "cycles": cycles,
    }
    label_file(
        data,
        output,
        settings=settings,
        charge=charge,
        spin=spin,
        processes=processes,
        memory=memory,
        cache=cache,
        say=say,
    )

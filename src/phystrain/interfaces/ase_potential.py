"""Any calculator of ASE as a potential, so that the reliability tests can be put to it.

The other way round, a potential as a calculator, is :mod:`phystrain.interfaces.ase`.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float
from torch import Tensor, nn

from phystrain.augment._calculators import CalculatorTeacher
from phystrain.augment._recipes import RECIPES
from phystrain.augment._teachers import load_teacher
from phystrain.augment._worker import calculate
from phystrain.data.statistics import isolated
from phystrain.data.structures import Structures
from phystrain.derive import Prediction
from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.registry import did_you_mean
from phystrain.units import voigt_to_full

NOMINAL_CUTOFF = 6.0
"""Å, of a calculator whose cut-off is not known: how far neighbour lists and pair curves reach (as in mlip-arena)."""

VACUUM = 10.0
"""Å left free on every side where a molecule is put in a cell for calculators that know nothing but crystals."""


class Failures(NamedTuple):
    """What became of the calculations since the last count.

    Attributes:
        calls: structures that were to be calculated.
        failed: those of which there is no result.
        first: what the first failure said; empty if there is none.
    """

    calls: int
    failed: int
    first: str


class AsePotential(nn.Module):
    """A calculator of ASE, asked for energies, forces and stresses (:class:`phystrain.derive.SelfDeriving`).

    Structures are calculated one after another, which is all that ASE offers, in float64. The energy is the free energy
    where the calculator gives one, because the forces are its gradient. Where a calculation raises an exception, the
    results of that structure are not a number, the exception is kept for :meth:`take_failures`, and the next
    calculation is done by a new calculator: the old one may be left in a broken state.

    Args:
        build: makes the calculator.
        name: for people.
        cutoff: Å beyond which atoms do not feel each other; that of the neighbour lists if it is not known.
        boxed: whether the calculator needs periodic cells; molecules are then put in one with :data:`VACUUM` around.

    Attributes:
        cutoff: as given, or :data:`NOMINAL_CUTOFF`.
        cutoff_known: whether it was given.
        gives_stress: whether the calculator says that it has stresses.
    """

    def __init__(
        self, build: Callable[[], Any], name: str, *, cutoff: float | None = None, boxed: bool = False
    ) -> None:
        super().__init__()
        self.name = name
        self.cutoff_known = cutoff is not None
        self.cutoff = NOMINAL_CUTOFF if cutoff is None else cutoff
        self._build, self._boxed = build, boxed
        self._calculator: Any = build()
        self.gives_stress = "stress" in self._calculator.implemented_properties
        self._calls, self._failed, self._first = 0, 0, ""
        self.eval()

    def __deepcopy__(self, memory: dict[int, Any]) -> "AsePotential":
        """Itself: it has no weights, and libraries behind calculators cannot be copied."""
        return self

    def derived(self, graph: AtomGraph, want: frozenset[str]) -> Prediction:
        """Energy (always calculated), forces and stress of every structure; not a number where there are none."""
        energy = np.full(graph.n_systems, np.nan)
        forces = np.full((graph.n_atoms, 3), np.nan)
        stress = np.full((graph.n_systems, 3, 3), np.nan)
        ends = np.cumsum(graph.atoms_per_system.cpu().numpy())
        numbers, positions = graph.species.cpu().numpy(), graph.positions.detach().cpu().double().numpy()
        cells, periodic = graph.cell.detach().cpu().double().numpy(), graph.pbc.cpu().numpy()
        for index, end in enumerate(ends.tolist()):  # a calculator of ASE takes one structure at a time
            atoms = slice(int(ends[index - 1]) if index else 0, end)
            structure = Atoms(numbers[atoms], positions[atoms], cell=cells[index], pbc=periodic[index])
            labels = self._labels(structure, want)
            if labels is not None:
                energy[index] = labels[0]
                if labels[1] is not None:
                    forces[atoms] = labels[1]
                if labels[2] is not None:
                    stress[index] = voigt_to_full(labels[2])
        device = graph.positions.device
        return Prediction(
            torch.from_numpy(energy).to(device) if "energy" in want else None,
            torch.from_numpy(forces).to(device) if "forces" in want else None,
            torch.from_numpy(stress).to(device) if "stress" in want else None,
        )

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV, the energy of each structure shared out equally: calculators give none of single atoms."""
        energy = self.derived(graph, frozenset({"energy"})).energy
        assert energy is not None
        return (energy / graph.atoms_per_system)[graph.system]

    def take_failures(self) -> Failures:
        """Calls and failures since this was last asked."""
        found = Failures(self._calls, self._failed, self._first)
        self._calls, self._failed, self._first = 0, 0, ""
        return found

    def require(self, structures: Structures) -> None:
        """Calculate the smallest structure with each element, so that a calculator for other things is told apart.

        Args:
            structures: that it is to be tested on.

        Raises:
            UserError: it has no energy or no forces of one of them.
        """
        single = isolated(structures)
        structures = structures if single.all() else structures.select(~single)  # few calculators know atoms alone
        order = np.argsort(structures.sizes, kind="stable")
        holds = np.zeros((len(structures), len(structures.elements)), dtype=bool)
        holds[structures.system, np.searchsorted(structures.elements, structures.species)] = True
        for number in dict.fromkeys(order[holds[order].argmax(axis=0)].tolist()):
            atoms = structures.select([number]).without_labels().to_ase(0)
            self._labels(atoms, frozenset({"energy", "forces"}))
            if reason := self.take_failures().first:
                what = "periodic" if atoms.pbc.any() else "not periodic"
                raise UserError(
                    f"{self.name} has no energy and forces of {atoms.symbols} ({what}): {reason}\n"
                    "Is it made for these elements and such structures? Leave out those that it does not know."
                )

    def _labels(self, atoms: Atoms, want: frozenset[str]) -> tuple[float, Any, Any] | None:
        """Of one structure; ``None``, with the reason kept, where that cannot be had."""
        if not (self.gives_stress and atoms.pbc.all()):
            want = want - {"stress"}
        if self._boxed and not atoms.pbc.any():
            atoms.center(vacuum=VACUUM)
            atoms.pbc = True
        self._calls += 1
        try:
            if self._calculator is None:
                self._calculator = self._build()
            labels = calculate(self._calculator, atoms, want)
        except Exception as failure:  # a calculator can raise anything
            self._calculator = None
            self._fail(f"{type(failure).__name__}: {failure}")
            return None
        if not np.isfinite(labels[0]) or (labels[1] is not None and not np.isfinite(labels[1]).all()):
            self._fail("an energy or a force that is not a finite number")
        return labels

    def _fail(self, reason: str) -> None:
        self._failed += 1
        self._first = self._first or " ".join(reason.split())[:200].rstrip(" .")


def load_calculator(
    spec: str, arguments: Mapping[str, Any] | None = None, *, cutoff: float | None = None
) -> AsePotential:
    """The calculator that a user names.

    Modules are looked for in the working folder too. Importing one runs its code, so the name is taken only from the
    user's own command line.

    Args:
        spec: ``module:attribute``, a calculator or a class or function that makes one; or a teacher by name, such as
            ``gfn2-xtb``.
        arguments: of that class or function, by name.
        cutoff: Å, if it has one and it is known.

    Raises:
        UserError: it cannot be imported, does not start, or is no calculator.
    """
    if cutoff is not None and not cutoff > 0:
        raise UserError(f"--cutoff should be greater than 0, got {cutoff:g}")
    if spec not in RECIPES and ":" not in spec:
        near = did_you_mean(spec.lower(), list(RECIPES))
        hint = f"; {near}" if near.startswith("did") else f", or one of {', '.join(RECIPES)}"
        raise UserError(f"{spec!r} is no calculator of ASE: write module:attribute, such as tblite.ase:TBLite{hint}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # at the end: a file here must not hide an installed package
    teacher = load_teacher({"calculator": spec, **(arguments or {})})
    assert isinstance(teacher, CalculatorTeacher)
    return AsePotential(teacher.build, teacher.name, cutoff=cutoff, boxed=teacher.periodic is True)

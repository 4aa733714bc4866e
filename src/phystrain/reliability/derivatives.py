"""Are forces and stress the derivatives of the energy? Finite differences on the user's own structure."""

import copy
from dataclasses import replace
from typing import ClassVar, Literal, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from phystrain.data.structures import Structures
from phystrain.derive import Potential, evaluate, gives_stress
from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.reliability import ReliabilityTest, Result, Subject
from phystrain.units import GPA

_STENCIL = ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12))  # fourth order
_BATCH_ATOMS = 2000


class Config(ReliabilityTest):
    """Forces and stress against differences of the energy, in double precision."""

    kind: Literal["derivatives"] = "derivatives"
    cost: ClassVar[int] = 0
    structures: int = Field(default=2, ge=1, description="how many structures to look at")
    components: int = Field(default=20, ge=1, description="force components checked in each, chosen at random")
    displacement: float = Field(default=1e-3, gt=0, description="Å, and relative for the cell")
    rattle: float = Field(default=0.05, ge=0, description="Å, random displacement first, so that forces are not zero")
    tolerance: float = Field(default=1e-4, gt=0, description="largest error of a force, as a fraction of the RMS force")

    def __call__(self, subject: Subject) -> Result:
        """Compare on structures of ``subject.start``, or of ``subject.test``.

        Raises:
            UserError: there is no structure.
        """
        source = subject.start if subject.start is not None else subject.test
        if source is None:
            raise UserError("derivatives: there is no structure to look at; give a start or a test structure")
        potential = cast(Potential, copy.deepcopy(subject.potential).to("cpu", torch.float64))
        chosen = np.unique(np.linspace(0, len(source) - 1, min(self.structures, len(source))).astype(int))
        generator = np.random.default_rng(subject.seed)
        force_errors: list[Tensor] = []
        force_sizes: list[Tensor] = []
        stress_errors: list[Tensor] = []
        stress_sizes: list[Tensor] = []
        for number in chosen:
            graph = self._graph(source.select([number]), potential.cutoff, generator)
            found, expected = self._forces(potential, graph, generator)
            force_errors.append(found - expected)
            force_sizes.append(found)
            if bool(graph.pbc.all()) and gives_stress(potential):
                found, expected = self._stress(potential, graph)
                stress_errors.append(found - expected)
                stress_sizes.append(found)
        forces, scale = torch.cat(force_errors), _rms(torch.cat(force_sizes))
        worst = float(forces.abs().max())
        figures: dict[str, float | int | str | None] = {
            "largest force error, meV/Å": 1000 * worst,
            "RMS force error, meV/Å": 1000 * _rms(forces),
            "RMS force, meV/Å": 1000 * scale,
        }
        passed = worst <= self.tolerance * max(scale, 0.1)
        if stress_errors:
            worst_stress = float(torch.cat(stress_errors).abs().max())
            figures["largest stress error, GPa"] = worst_stress / GPA
            passed = passed and worst_stress <= self.tolerance * max(_rms(torch.cat(stress_sizes)), 0.01)
        what = "Forces and stress" if stress_errors else "Forces"
        return Result(
            test=self.kind,
            title="Derivatives",
            figures=figures,
            passed=passed,
            threshold=f"error <= {self.tolerance:g} of the RMS force (float64, fourth-order differences)",
            sentence=(
                f"{what} are the derivatives of the energy to {1000 * worst:.1g} meV/Å."
                if passed
                else f"{what} are not the derivatives of the energy: off by up to {1000 * worst:.3g} meV/Å."
            ),
        )

    def _graph(self, structure: Structures, cutoff: float, generator: np.random.Generator) -> AtomGraph:
        """One structure, its list long enough for all displacements and strains."""
        atoms = structure.to_ase(0)
        atoms.positions += self.rattle * generator.normal(size=atoms.positions.shape)
        reach = 4 * self.displacement * (1 + cutoff)
        return replace(AtomGraph.from_ase(atoms, cutoff + reach), cutoff=cutoff)

    def _forces(self, potential: Potential, graph: AtomGraph, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """(components,) eV/Å: the potential's, and the differences'."""
        total = 3 * graph.n_atoms
        components = generator.choice(total, min(self.components, total), replace=False)
        moves = torch.zeros(len(components), total, dtype=torch.float64)
        moves[torch.arange(len(components)), torch.from_numpy(components)] = self.displacement
        slopes = []
        for part in moves.split(max(1, _BATCH_ATOMS // graph.n_atoms)):
            copies = AtomGraph.concatenate([graph] * len(part))
            flat = part.reshape(-1, 3)
            slopes.append(_difference([(w, _energy(potential, copies.displaced(n * flat))) for n, w in _STENCIL]))
        forces = evaluate(potential, graph, ("forces",)).forces
        assert forces is not None
        return forces.reshape(-1)[torch.from_numpy(components)], -torch.cat(slopes) / self.displacement

    def _stress(self, potential: Potential, graph: AtomGraph) -> tuple[Tensor, Tensor]:
        """(6,) eV/Å³, xx xy xz yy yz zz: the potential's, and the differences'."""
        rows, columns = torch.triu_indices(3, 3)
        strains = torch.zeros(6, 3, 3, dtype=torch.float64)
        strains[torch.arange(6), rows, columns] += self.displacement / 2
        strains[torch.arange(6), columns, rows] += self.displacement / 2
        copies = AtomGraph.concatenate([graph] * 6)
        slope = _difference([(w, _energy(potential, copies.strained(n * strains))) for n, w in _STENCIL])
        stress = evaluate(potential, graph, ("stress",)).stress
        assert stress is not None
        return stress[0][rows, columns], slope / self.displacement / graph.volumes[0]


def _energy(potential: Potential, graph: AtomGraph) -> Tensor:
    energy = evaluate(potential, graph, ("energy",)).energy
    assert energy is not None
    return energy


def _difference(terms: list[tuple[float, Tensor]]) -> Tensor:
    return torch.stack([weight * energy for weight, energy in terms]).sum(dim=0)


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())

"""Are forces and stress the derivatives of the energy? Finite differences on the user's own structure.

A network is looked at in double precision. What computes in single precision whatever it is given, such as a foreign
calculator, has noise in its energy: it is measured, the displacement widened until differences rise above it, and what
it leaves uncertain is allowed for.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal, NamedTuple, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from phystrain.data.structures import Structures
from phystrain.derive import Potential, evaluate, gives_stress
from phystrain.graph import AtomGraph
from phystrain.reliability import Figures, Grade, Result, Subject
from phystrain.reliability._static import StaticTest, in_double, rounding, structures_of
from phystrain.units import GPA

_STENCIL = ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12))  # fourth order
_WIDEST = 0.02  # Å: beyond, the differences' own error counts
_FINER = 8  # the next displacement is so much smaller
_NOISE_FACTOR = 6  # largest of many differences, in standard deviations of one
_CLOSE = 0.1  # found and expected values whose sum is this part of either are the same but for the sign


class Config(StaticTest):
    """Forces and stress against differences of the energy, in double precision."""

    kind: Literal["derivatives"] = "derivatives"
    components: int = Field(default=20, ge=1, description="force components checked in each, chosen at random")
    displacement: float = Field(default=1e-3, gt=0, description="Å, and relative for the cell")
    rattle: float = Field(default=0.05, ge=0, description="Å, random displacement first, so that forces are not zero")
    tolerance: float = Field(default=1e-4, gt=0, description="largest error of a force, as a fraction of the RMS force")
    fatal: float = Field(default=0.01, gt=0, description="an error of this fraction of the RMS force is unsafe")

    def __call__(self, subject: Subject) -> Result:
        """Compare on structures of ``subject.start``, or of its other sets.

        Raises:
            UserError: there is no structure.
        """
        chosen = structures_of(subject, self.kind, self.structures)
        potential = in_double(subject.potential)
        generator = np.random.default_rng(subject.seed)
        forces, stress = _Compared([], [], []), _Compared([], [], [])
        for number in range(len(chosen)):
            single = chosen.select([number])
            single = replace(
                single, positions=single.positions + self.rattle * generator.normal(size=single.positions.shape)
            )
            noise, _ = rounding(potential, single, self.batch_atoms)
            model = cast(Potential, potential)
            widths = self._widths(noise)
            graph = self._graph(single, model.cutoff, max(widths))
            total = 3 * graph.n_atoms
            components = torch.from_numpy(generator.choice(total, min(self.components, total), replace=False))
            doubt = _NOISE_FACTOR * noise / max(widths)
            forces.add(*self._nearest((self._forces(model, graph, components, width) for width in widths), 0.1, doubt))
            if bool(graph.pbc.all()) and gives_stress(potential):
                doubt /= float(graph.volumes[0])
                stress.add(*self._nearest((self._stress(model, graph, width) for width in widths), 0.01, doubt))
        return self._judged(forces, stress)

    def _judged(self, forces: "_Compared", stress: "_Compared") -> Result:
        worst, scale = forces.worst, forces.scale
        figures: Figures = {
            "largest force error, meV/Å": 1000 * worst,
            "RMS force error, meV/Å": 1000 * _rms(forces.errors),
            "RMS force, meV/Å": 1000 * scale,
        }
        excess = forces.excess(self.tolerance, 0.1)
        wrong = ["forces"] if not excess <= 1 else []
        signs = [name for name, one in (("forces", forces), ("stress", stress)) if one.mirrored]
        if stress.found:
            figures["largest stress error, GPa"] = stress.worst / GPA
            figures["RMS stress, GPa"] = stress.scale / GPA
            if not stress.excess(self.tolerance, 0.01) <= 1:
                wrong.append("stress")
        if max(forces.doubt, default=0.0) > self.tolerance * max(scale, 0.1):
            figures["uncertainty of the differences, meV/Å"] = 1000 * max(forces.doubt)
        what = "Forces and stress" if stress.found else "Forces"
        return Result(
            test=self.kind,
            title="Derivatives",
            figures=figures,
            passed=not wrong,
            threshold=f"error <= {self.tolerance:g} of the RMS force (float64, fourth-order differences)",
            sentence=(
                _sentence(wrong, [name for name in signs if name in wrong], worst, stress)
                if wrong
                else f"{what} are the derivatives of the energy to {1000 * worst:.1g} meV/Å."
            ),
            grade=self._grade(wrong, forces),
            conditions=[
                *(["energy is not conserved: forces do not follow from it"] if "forces" in wrong else []),
                *(["the stress is wrong: no relaxation of cells, no constant pressure"] if "stress" in wrong else []),
            ],
        )

    def _grade(self, wrong: list[str], forces: "_Compared") -> Grade:
        """A wrong stress alone leaves dynamics in a fixed cell as it is."""
        if not wrong:
            return "safe"
        return "unsafe" if "forces" in wrong and not forces.excess(self.fatal, 0.1) <= 1 else "limited"

    def _widths(self, noise: float) -> tuple[float, ...]:
        """Displacements (Å), wide ones too where the noise (eV) is no small part of the differences."""
        widths = (self.displacement, self.displacement / _FINER, self.displacement / _FINER**2)
        return (*widths, _WIDEST) if _NOISE_FACTOR * noise > self.tolerance * self.displacement else widths

    def _nearest(
        self, pairs: Iterable[tuple[Tensor, Tensor]], least: float, doubt: float
    ) -> tuple[Tensor, Tensor, float]:
        """The pair of values whose largest difference is least, and what noise may have put into it.

        What is wrong is wrong by the same at every displacement, and nothing excuses it. Errors of the differences, by
        noise or by the knots of splines, are not the same. One displacement is enough where it leaves no error.
        """
        tried: list[tuple[Tensor, Tensor]] = []
        worst: list[float] = []
        for found, expected in pairs:
            tried.append((found, expected))
            worst.append(float((found - expected).abs().max().nan_to_num(nan=torch.inf)))
            if worst[-1] <= self.tolerance * max(_rms(found), least):
                return found, expected, 0.0
        best = int(np.argmin(worst))
        return *tried[best], doubt if max(worst) > 2 * worst[best] else 0.0

    def _graph(self, structure: Structures, cutoff: float, width: float) -> AtomGraph:
        """One structure, its list long enough for all displacements and strains."""
        reach = 4 * width * (1 + cutoff)
        return replace(AtomGraph.from_ase(structure.to_ase(0), cutoff + reach), cutoff=cutoff)

    def _forces(
        self, potential: Potential, graph: AtomGraph, components: Tensor, width: float
    ) -> tuple[Tensor, Tensor]:
        """(components,) eV/Å: the potential's, and the differences'."""
        moves = torch.zeros(len(components), 3 * graph.n_atoms, dtype=torch.float64)
        moves[torch.arange(len(components)), components] = width
        slopes = []
        for part in moves.split(max(1, self.batch_atoms // graph.n_atoms)):
            copies = AtomGraph.concatenate([graph] * len(part))
            flat = part.reshape(-1, 3)
            slopes.append(_difference([(w, _energy(potential, copies.displaced(n * flat))) for n, w in _STENCIL]))
        forces = evaluate(potential, graph, ("forces",)).forces
        assert forces is not None
        return forces.reshape(-1)[components].double(), -torch.cat(slopes) / width

    def _stress(self, potential: Potential, graph: AtomGraph, width: float) -> tuple[Tensor, Tensor]:
        """(6,) eV/Å³, xx xy xz yy yz zz: the potential's, and the differences'."""
        rows, columns = torch.triu_indices(3, 3)
        strains = torch.zeros(6, 3, 3, dtype=torch.float64)
        strains[torch.arange(6), rows, columns] += width / 2
        strains[torch.arange(6), columns, rows] += width / 2
        copies = AtomGraph.concatenate([graph] * 6)
        slope = _difference([(w, _energy(potential, copies.strained(n * strains))) for n, w in _STENCIL])
        stress = evaluate(potential, graph, ("stress",)).stress
        assert stress is not None
        return stress[0][rows, columns].double(), slope / width / graph.volumes[0]


class _Compared(NamedTuple):
    """What a potential says, what differences of its energy say, and how uncertain these are, by structure."""

    found: list[Tensor]
    expected: list[Tensor]
    doubt: list[float]

    def add(self, found: Tensor, expected: Tensor, doubt: float) -> None:
        """The values of one more structure."""
        for column, value in ((self.found, found), (self.expected, expected)):
            column.append(value)
        self.doubt.append(doubt)

    @property
    def errors(self) -> Tensor:
        return torch.cat(self.found) - torch.cat(self.expected)

    @property
    def worst(self) -> float:
        return float(self.errors.abs().max())

    @property
    def scale(self) -> float:
        return _rms(torch.cat(self.found))

    @property
    def mirrored(self) -> bool:
        """Whether found and expected are the same but for their sign."""
        if not self.found:
            return False
        found, expected = torch.cat(self.found), torch.cat(self.expected)
        return _rms(found) > 0 and _rms(found + expected) < _CLOSE * _rms(found)

    def excess(self, tolerance: float, least: float) -> float:
        """Largest error over what is allowed: ``tolerance`` of the scale (of ``least`` at least), and the doubt."""
        if not self.found:
            return 0.0
        return self.worst / (tolerance * max(self.scale, least) + max(self.doubt))


def _sentence(wrong: list[str], signs: list[str], worst: float, stress: _Compared) -> str:
    if signs:
        return f"Wrong sign of {' and '.join(signs)}: opposite to the derivatives of the energy."
    off = f"{1000 * worst:.3g} meV/Å" if "forces" in wrong else f"{stress.worst / GPA:.3g} GPa"
    verb = "are" if "forces" in wrong else "is"
    return f"{' and '.join(wrong).capitalize()} {verb} not the derivatives of the energy: off by up to {off}."


def _energy(potential: Potential, graph: AtomGraph) -> Tensor:
    energy = evaluate(potential, graph, ("energy",)).energy
    assert energy is not None
    return energy


def _difference(terms: list[tuple[float, Tensor]]) -> Tensor:
    return torch.stack([weight * energy for weight, energy in terms]).sum(dim=0)


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())

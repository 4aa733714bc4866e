"""Whether relaxations come to rest: structures are shaken a little and must find a minimum nearby.

As in the relaxation tasks of CHIPS-FF (Wines, Choudhary 2024, arXiv 2412.10516) and matbench-discovery the figure is
the fraction that converges; beside it, what became of the others: a short contact is a hole of the energy surface, an
atom far from all the others has flown off.
"""

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from phystrain.data.graphs import GraphStore
from phystrain.data.structures import Floats, Structures
from phystrain.dynamics.guards import Guards
from phystrain.dynamics.relax import Relaxation, relax
from phystrain.reliability import Curve, Figures, Grade, ReliabilityTest, Result, Subject
from phystrain.reliability._runs import starting

_FARTHEST = 8.0
"""Å up to which neighbours are looked for; an atom without any at the start is alone by right."""


class Config(ReliabilityTest):
    """Relaxation of shaken structures, cells fixed."""

    kind: Literal["relaxation"] = "relaxation"
    cost: ClassVar[int] = 1
    level: ClassVar[Literal[0, 1, 2]] = 1
    amplitude: float = Field(default=0.1, ge=0, description="Å, standard deviation of each coordinate's displacement")
    replicas: int = Field(default=4, ge=1, description="relaxations; they take turns over the starting structures")
    fmax: float = Field(default=0.05, gt=0, description="eV/Å, largest force of a relaxed structure")
    steps: int = Field(default=500, ge=1, description="within which it must be reached")
    required: float = Field(default=1.0, ge=0, le=1, description="fraction that must converge")
    apart: float = Field(
        default=1.5, gt=1, description="growth of an atom's distance to its nearest neighbour that means it flew off"
    )
    depth: float = Field(
        default=2.0, gt=0, description="eV/atom below the start that means a hole: shaking costs a tenth of it"
    )
    guards: Guards = Field(default=Guards(), description="when to stop a relaxation: short contacts")

    def fixed_steps(self) -> int:
        """Steps at most."""
        return self.steps

    def __call__(self, subject: Subject) -> Result:
        """Relax copies of ``subject.start``.

        Raises:
            UserError: there is no structure to start from.
        """
        start = starting(subject, self.replicas, self.kind).without_labels()
        random = np.random.default_rng(subject.seed)
        shaken = replace(start, positions=start.positions + self.amplitude * random.normal(size=start.positions.shape))
        found = relax(subject.potential, shaken, fmax=self.fmax, steps=self.steps, limits=self.guards)
        return self.judge(found, start)

    def judge(self, found: Relaxation, start: Structures) -> Result:
        """What relaxations say.

        Args:
            found: of the shaken structures.
            start: before they were shaken.
        """
        drop = (found.first - found.last) / start.sizes
        in_hole = np.array([failure is not None for failure in found.failures]) | (drop > self.depth)
        flown = ~in_hole & _flown(start, found.final, self.apart)
        fine = found.converged & ~in_hole & ~flown
        count = len(start)
        reasons = [failure.finding for failure in found.failures if failure is not None]
        finite = drop[np.isfinite(drop)]
        steps = found.steps[fine]
        figures: Figures = {
            "structures": count,
            "converged": float(fine.mean()),
            "fell into a hole": int(in_hole.sum()),
            "flew apart": int(flown.sum()),
            "not converged": int((~found.converged & ~in_hole & ~flown).sum()),
            "median steps": float(np.median(steps)) if len(steps) else None,
            "most steps": int(steps.max()) if len(steps) else None,
            "largest force left, eV/Å": float(np.nanmax(found.largest)) if np.isfinite(found.largest).any() else None,
            "largest drop, eV/atom": float(finite.max()) if len(finite) else None,
            "first hole": reasons[0] if reasons else "",
        }
        lost = bool(in_hole.any() or flown.any())
        passed = not lost and fine.mean() >= self.required
        grade: Grade = "safe" if passed else "unsafe" if lost else "limited"
        return Result(
            test=self.kind,
            title="Relaxation",
            figures=figures,
            passed=passed,
            threshold=(
                f"{100 * self.required:g} % reach {self.fmax:g} eV/Å within {self.steps} steps of FIRE after "
                f"displacements of {self.amplitude:g} Å, none in a hole or apart"
            ),
            sentence=_sentence(figures, count),
            curves={"steps": _curve(found.steps, fine)} if fine.any() else {},
            grade=grade,
            conditions=[] if passed or lost else [f"relaxations to {self.fmax:g} eV/Å do not always converge"],
        )


def _sentence(figures: Figures, count: int) -> str:
    bad = {"fell into a hole": "fell into a hole", "flew apart": "flew apart", "not converged": "did not converge"}
    parts = [f"{figures[name]} {words}" for name, words in bad.items() if figures[name]]
    if not parts:
        return f"All {count} shaken structures relaxed, the slowest in {figures['most steps']} steps."
    hole = f" ({figures['first hole']})" if figures["first hole"] else ""
    return f"Of {count} shaken structures {', '.join(parts)}{hole}."


def _flown(start: Structures, final: Structures, apart: float) -> npt.NDArray[np.bool_]:
    """(systems,) whether an atom ended much further from its nearest neighbour than it began."""
    before, after = _nearest(start), _nearest(final)
    gone = np.isfinite(before) & (after > apart * before)
    return np.bincount(start.system, weights=gone, minlength=len(start)) > 0


def _nearest(structures: Structures) -> Floats:
    """(atoms,) Å to the nearest neighbour; infinite where there is none."""
    nearest = np.full(len(structures.positions), np.inf)
    finite = replace(structures, positions=np.nan_to_num(structures.positions))
    for edges, vectors in GraphStore(finite, _FARTHEST).pairs():
        np.minimum.at(nearest, edges[0], np.linalg.norm(vectors, axis=1))
    return nearest


def _curve(steps: npt.NDArray[np.int64], fine: npt.NDArray[np.bool_]) -> Curve:
    """Fraction converged against steps."""
    taken = np.sort(steps[fine])
    x = [0.0, *np.repeat(taken, 2).astype(float).tolist()]
    y = np.repeat(np.arange(len(taken) + 1) / len(steps), 2)[:-1]
    return Curve(x=x, y=y.tolist(), x_label="steps", y_label="fraction relaxed")

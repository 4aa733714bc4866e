"""Errors of forces where only energies are labelled: predicted work against differences of the energies of near pairs.

Coupled-cluster sets have no forces, and a small error of the energies says little about their slopes. Two structures P
and Q of the same molecule that lie near one another say more: along the straight line d from P to Q, Q turned onto P,

    E(Q) - E(P) = -d . (F(P) + F(Q)) / 2 + O(|d|^3)

by the trapezoidal rule. Both sides over |d| are a slope in eV/Å, one component of the force in the space of all atoms,
so that the error of slopes is comparable with that of force components. How far the rule itself is off is seen where
the predicted forces are the gradient of the predicted energy: on the difference of the predicted energies.
"""

from typing import ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.spatial import cKDTree

from phystrain.data.structures import Floats, Structures
from phystrain.errors import UserError
from phystrain.reliability import Curve, Figures, ReliabilityTest, Result, Subject
from phystrain.reliability._static import predict, spread

_FRAMES = 2000
_COMPARED = 4_000_000
"""Frames of a molecule, and their distances between atoms, that are compared: pairs grow with the square."""

_AHEAD = 4
"""Pairs of similar shape that are turned onto one another, for each that is wanted."""

_LARGEST = 100
"""Atoms of the largest molecule whose pairs are looked for: all its distances are compared."""


class Config(ReliabilityTest):
    """Forces against differences of the labelled energies of near test structures."""

    kind: Literal["slopes"] = "slopes"
    level: ClassVar[Literal[0, 1, 2]] = 2
    furthest: float = Field(
        default=0.15,
        gt=0,
        description="Å between the structures of a pair, the norm over all atoms, one turned onto the other",
    )
    nearest: float = Field(
        default=0.02, gt=0, description="Å, the same: below it the digits of labels and positions decide the slope"
    )
    fewest: int = Field(default=10, ge=1, description="pairs, below which nothing is said")
    most: int = Field(default=1000, ge=1, description="pairs, the nearest")
    batch_atoms: int = Field(default=2000, ge=1, description="atoms predicted at a time")
    limit: float | None = Field(default=None, gt=0, description="largest RMSE, meV/Å; not judged by default")

    def runs_unasked(self, subject: Subject) -> bool:
        test = subject.test
        return test is not None and bool(test.labelled("energy").any()) and not test.labelled("forces").any()

    def __call__(self, subject: Subject) -> Result:
        """Compare along all near pairs of ``subject.test``.

        Raises:
            UserError: no test structures with energies.
        """
        test = subject.test
        if test is None or not test.labelled("energy").any():
            raise UserError("slopes: there is no test structure with an energy; give a test set")
        result = Result(
            test=self.kind,
            title="Slopes between near structures",
            threshold="" if self.limit is None else f"RMSE of slopes <= {self.limit:g} meV/Å",
        )
        test = test.part(test.labelled("energy") & ~test.pbc.any(axis=1) & (test.sizes > 1) & (test.sizes <= _LARGEST))
        if not len(test):
            sentence = f"The labelled structures are no molecules of at most {_LARGEST} atoms, which it is for."
            return result.model_copy(update={"applies": False, "sentence": sentence})
        pairs = near_pairs(test, self.nearest, self.furthest, self.most)
        if len(pairs.first) < self.fewest:
            apart = f"{self.nearest:g} to {self.furthest:g} Å apart"
            sentence = f"Not done: {len(pairs.first)} pairs of test structures are {apart}, "
            return result.model_copy(update={"sentence": sentence + f"at least {self.fewest} are needed."})
        used, place = np.unique(np.concatenate([pairs.first, pairs.second]), return_inverse=True)
        first, second = place.reshape(2, -1)
        few = test.select(used)
        found = predict(subject.potential, few, self.batch_atoms, "forces")
        labelled = (few.energy[second] - few.energy[first]) / pairs.distance
        predicted = (found.energy[second] - found.energy[first]) / pairs.distance
        starts, work = few.offsets, np.empty(len(first))
        for number, (p, q) in enumerate(zip(first, second, strict=True)):
            mean = (
                found.forces[starts[p] : starts[p + 1]]
                + found.forces[starts[q] : starts[q + 1]] @ pairs.rotation[number]
            ) / 2
            work[number] = -float((mean * pairs.step[number]).sum()) / pairs.distance[number]
        error = 1000 * (work - labelled)
        rmse = spread(error)
        figures: Figures = {
            "pairs": len(first),
            "median distance of a pair, Å": float(np.median(pairs.distance)),
            "slope MAE, meV/Å": float(np.abs(error).mean()),
            "slope RMSE, meV/Å": rmse,
            "RMS of the labelled slopes, meV/Å": 1000 * spread(labelled),
            "RMS by which work and difference of the predicted energies differ, meV/Å": 1000 * spread(work - predicted),
        }
        return result.model_copy(
            update={
                "figures": figures,
                "passed": None if self.limit is None else rmse <= self.limit,
                "sentence": f"Forces miss the slopes between {len(first)} pairs of near test structures by "
                f"{rmse:.0f} meV/Å (RMSE); these slopes are {1000 * spread(labelled):.0f} meV/Å (RMS).",
                "curves": {
                    "slope parity": Curve(
                        x=labelled.tolist(),
                        y=work.tolist(),
                        x_label="difference of labelled energies over distance, eV/Å",
                        y_label="work of predicted forces over distance, eV/Å",
                    )
                },
            }
        )


class Pairs(NamedTuple):
    """Near pairs.

    Attributes:
        first, second: (pairs,) numbers of structures.
        distance: (pairs,) Å, norm over all atoms.
        step: (atoms, 3) Å of each pair, from the first to the second turned onto it.
        rotation: (pairs, 3, 3) that turns rows of the second onto the first, from the right.
    """

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    distance: Floats
    step: list[Floats]
    rotation: Floats


def near_pairs(structures: Structures, nearest: float, furthest: float, most: int) -> Pairs:
    """Pairs of molecules with the same atoms in the same order that lie near one another, the nearest first.

    Of many frames of a molecule some are looked at, evenly spread.

    Args:
        structures: not periodic.
        nearest, furthest: Å, norm over all atoms of the displacement.
        most: pairs.
    """
    kinds: dict[bytes, list[int]] = {}
    for number, (begin, end) in enumerate(zip(structures.offsets[:-1], structures.offsets[1:], strict=True)):
        kinds.setdefault(structures.species[begin:end].tobytes(), []).append(number)
    found: list[tuple[float, int, int, Floats, Floats]] = []
    for group in (group for group in kinds.values() if len(group) > 1):
        atoms = int(structures.sizes[group[0]])
        rows, columns = np.triu_indices(atoms, 1)
        frames = max(2, min(len(group), _FRAMES, _COMPARED // len(rows)))
        members = np.array(group)[np.linspace(0, len(group) - 1, frames).astype(int)]
        places = np.stack([structures.positions[structures.offsets[n] : structures.offsets[n + 1]] for n in members])
        places = places - places.mean(axis=1, keepdims=True)
        shapes = np.linalg.norm(places[:, rows] - places[:, columns], axis=2)
        # a distance changes by no more than both of its atoms move, so that no near pair is further apart than this
        bound = furthest * np.sqrt(2 * (atoms - 1))
        one, other = cKDTree(shapes).query_pairs(bound, output_type="ndarray").astype(np.int64).T
        change = np.linalg.norm(shapes[one] - shapes[other], axis=1)
        order = np.argsort(change, kind="stable")
        # copies and mirror images have the same shape: they would crowd out what differs
        order = order[change[order] > nearest][: _AHEAD * most]
        one, other = one[order], other[order]
        rotation = rotations(places[other], places[one])
        step = places[other] @ rotation - places[one]
        distance = np.sqrt(np.square(step).sum(axis=(1, 2)))
        for n in np.flatnonzero((distance <= furthest) & (distance >= nearest)):
            found.append((float(distance[n]), int(members[one[n]]), int(members[other[n]]), step[n], rotation[n]))
    found = sorted(found, key=lambda pair: pair[0])[:most]
    return Pairs(
        np.array([pair[1] for pair in found], dtype=np.int64),
        np.array([pair[2] for pair in found], dtype=np.int64),
        np.array([pair[0] for pair in found]),
        [pair[3] for pair in found],
        np.array([pair[4] for pair in found]).reshape(-1, 3, 3),
    )


def rotations(moved: Floats, fixed: Floats) -> Floats:
    """(pairs, 3, 3) proper rotations that bring rows of ``moved`` @ rotation nearest to ``fixed``.

    Args:
        moved, fixed: (pairs, atoms, 3), centred.

    Source: Kabsch 1976, Acta Crystallographica A 32, 922.
    """
    left, _, right = np.linalg.svd(np.einsum("pax,pay->pxy", moved, fixed))
    flip = np.ones((len(moved), 3))
    flip[:, 2] = np.sign(np.linalg.det(left @ right))
    return np.asarray((left * flip[:, None]) @ right)

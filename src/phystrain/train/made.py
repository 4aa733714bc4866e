"""Structures that a stage makes for itself: augmented, labelled by a teacher, weighted, and chosen for replay."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from ase.data import covalent_radii

from phystrain.augment import Augmentation
from phystrain.augment._relabel import alignment, load_teacher, relabel
from phystrain.augment._teachers import PotentialTeacher, Teacher
from phystrain.config import Stage, Window
from phystrain.data.graphs import GraphStore
from phystrain.data.statistics import LEAST_FORCE
from phystrain.data.structures import Floats, Ints, Structures
from phystrain.errors import UserError
from phystrain.saving import load_model
from phystrain.train.guide import guide_forces
from phystrain.train.material import Labelled
from phystrain.train.processes import alone

SAFE_REPLAY = 0.1
"""Replay weight of a teacher whose force error is at most :data:`SAFE_ERROR`: see docs/decisions.md."""
SAFE_ERROR = 0.25
"""Force error of a teacher, relative to the RMS of the forces, up to which it is replayed at full weight."""

LISTED = 1.6
"""Neighbours are looked for up to this many sums of covalent radii: beyond, an atom counts as alone."""


class Made:
    """Makes and labels the structures of stages; labels are cached on disk, so asking twice costs little.

    The first process works and the others are handed what it made: machines of different kinds round differently, and
    need not share a cache.

    Args:
        labelled: the labelled structures, split.
        seed: of the run.
        locate: from what ``label_by`` says to what is loaded: a model file, or the setting itself.
        progress: whether to show bars on a terminal.
    """

    def __init__(
        self,
        labelled: Labelled,
        seed: int,
        locate: Callable[[str | dict[str, Any]], tuple[str | dict[str, Any] | list[str], bool]],
        progress: bool,
    ) -> None:
        self._labelled, self._seed, self._locate = labelled, seed, locate
        self._progress = progress

    def structures(self, stage: Stage) -> tuple[Structures, Structures | None]:
        """What the stage trains on and is validated on."""
        if stage.data is None:
            return self._labelled.train, self._labelled.valid
        return alone(lambda: self._make(stage))

    def _make(self, stage: Stage) -> tuple[Structures, Structures | None]:
        labelled = self._labelled
        assert stage.data is not None
        recipes = _listed(stage.data.augment)
        teacher, own = self._teacher(stage)
        made: list[Structures | None] = []
        for number, structures in enumerate((labelled.train, labelled.valid)):
            if structures is None:
                made.append(None)
                continue
            parts = []
            for recipe in recipes:
                if number and not recipe.applies(structures).any():
                    continue  # held-out structures that this recipe can make nothing of
                needed = {"teacher": _potential(teacher, recipe.kind)} if recipe.needs_teacher else {}
                parts.append(recipe(structures, self._seed + number, **needed))
            made.append(self._taught(stage, Structures.concatenate(parts), teacher, own) if parts else None)
        assert made[0] is not None
        return made[0], made[1]

    def unlabelled(self, stage: Stage) -> Structures:
        """Structures without labels: those of the files, and those that are made for the stage."""
        assert stage.unlabelled is not None
        found = [] if self._labelled.unlabelled is None else [self._labelled.unlabelled]
        # other random numbers than for the made structures of train and valid
        recipes = _listed(stage.unlabelled.augment)
        found += alone(lambda: [recipe(self._labelled.train, self._seed + 2) for recipe in recipes])
        return Structures.concatenate(found)

    def guide(self, stage: Stage, structures: Structures) -> Floats:
        """(atoms, 3) eV/Å, forces of the stage's guide; see :func:`phystrain.train.guide.guide_forces`."""
        return alone(lambda: guide_forces(structures, stage.guides, self._locate, progress=self._progress))

    def error_of_teacher(self, stage: Stage) -> float | None:
        """RMS error of the teacher's forces on labelled structures, relative to the RMS of the forces.

        Cross-validated where the teacher was fitted in this run; on the validation structures where it was trained in
        this run; else on all training structures, which the teacher has not seen. Zero for the labels themselves,
        ``None`` where nothing can be said.
        """
        return 0.0 if stage.data is None else alone(lambda: self._error_of_teacher(stage))

    def _error_of_teacher(self, stage: Stage) -> float | None:
        assert stage.data is not None
        spec, own = self._locate(stage.data.label_by)
        quality = load_model(spec).meta.get("quality", {}) if own and isinstance(spec, str) else {}
        if "relative force error" in quality:
            error = float(quality["relative force error"])
            return error if np.isfinite(error) else None
        teacher = load_teacher(spec)
        reference = self._labelled.valid if own else self._labelled.train
        if reference is None:
            return None
        reference = reference.select(np.flatnonzero(reference.labelled("forces")))
        if not len(reference):
            return None
        numbered = replace(reference, info={"number": np.arange(len(reference)).astype(str)})
        seen = relabel(numbered, teacher, progress=self._progress)
        right = reference.select(seen.info["number"].astype(np.int64)).forces
        size = float(np.sqrt(np.mean(right**2)))
        return float(np.sqrt(np.mean((seen.forces - right) ** 2))) / size if size > LEAST_FORCE else None

    def _teacher(self, stage: Stage) -> tuple[Teacher, bool]:
        assert stage.data is not None
        spec, own = self._locate(stage.data.label_by)
        return load_teacher(spec), own

    def _taught(self, stage: Stage, structures: Structures, teacher: Teacher, own: bool) -> Structures:
        """Labels of the stage's teacher, on the scale of the quantum energies."""
        assert stage.data is not None
        taught = relabel(structures, teacher, progress=self._progress)
        reference = self._labelled.train
        if not own and reference.labelled("energy").any():
            taught = alignment(reference, teacher, progress=self._progress)(taught)
        if stage.data.steep is not None:
            taught = soften(taught, stage.data.steep * self._labelled.statistics.force_rms)
        return taught


def _listed(recipes: Augmentation | list[Augmentation] | None) -> list[Augmentation]:
    return recipes if isinstance(recipes, list) else [] if recipes is None else [recipes]


def _potential(teacher: Teacher, kind: str) -> Any:
    if not isinstance(teacher, PotentialTeacher):
        raise UserError(f"{kind} runs dynamics of the teacher, which {teacher.name} is too slow for: use another kind")
    return teacher.potential


def replay_weight(weight: float | str, error: float | None) -> float:
    """Weight of replayed labels: as given, or ``auto``: falling with the square of the teacher's relative error.

    Squared errors are weighted by the inverse of the variance of their labels; the variance of a teacher's labels is
    its squared error. Up to :data:`SAFE_ERROR` the weight is :data:`SAFE_REPLAY`.

    Args:
        weight: the setting.
        error: of :meth:`Made.error_of_teacher`; unknown if ``None``.
    """
    if not isinstance(weight, str):
        return weight
    return SAFE_REPLAY * min(
        1.0, (SAFE_ERROR / max(SAFE_ERROR, 1.0 if error is None or not np.isfinite(error) else error)) ** 2
    )


def soften(structures: Structures, largest: float) -> Structures:
    """Lower the weight of structures with forces beyond ``largest`` (eV/Å), so that their error counts relatively.

    Squared errors of a structure with a force of 300 eV/Å would outweigh a hundred thousand near equilibrium.
    """
    size = np.nan_to_num(np.linalg.norm(structures.forces, axis=1))
    steepest = np.maximum.reduceat(size, structures.offsets[:-1])
    factor = np.minimum(1.0, largest / np.maximum(steepest, 1e-12)) ** 2
    return replace(structures, weight=structures.weight * factor)


def outside(structures: Structures, labelled: Structures, window: Window) -> npt.NDArray[np.int64]:
    """Numbers of the structures that the labels do not cover: with closer pairs, or with lonelier atoms.

    Args:
        structures: to choose from.
        labelled: what is known.
        window: how much closer, how much lonelier; distances in units of the sums of covalent radii.

    Raises:
        UserError: none is left.
    """
    codes, scaled, _, nearest = _contacts(labelled)
    known = {code: float(scaled[codes == code].min()) for code in np.unique(codes).tolist()}
    lonely = window.expanded * float(nearest.max())
    codes, scaled, system, nearest = _contacts(structures)
    present, row = np.unique(codes, return_inverse=True)
    limits = window.short * np.array([known.get(code, np.inf) for code in present.tolist()])
    found = np.maximum.reduceat(nearest, structures.offsets[:-1]) > lonely
    found[system[scaled < limits[row]]] = True
    chosen = np.flatnonzero(found)
    if not len(chosen):
        raise UserError(
            "replay.window: no replayed structure is outside what the labels cover: widen it, or leave it out"
        )
    return chosen


class Contacts(NamedTuple):
    """Pairs of atoms nearer than :data:`LISTED`; distances in units of the sum of covalent radii.

    Attributes:
        pair: (pairs,) 1000 times the lower atomic number plus the higher one.
        scaled: (pairs,) distance.
        system: (pairs,) number of the structure.
        nearest: (atoms,) distance of each atom to its nearest neighbour, :data:`LISTED` where there is none.
    """

    pair: Ints
    scaled: Floats
    system: Ints
    nearest: Floats


def _contacts(structures: Structures) -> Contacts:
    radii, species = covalent_radii[structures.species], structures.species.astype(np.int64)
    store = GraphStore(structures, LISTED * 2 * float(radii.max()))
    nearest = np.full(len(radii), LISTED)
    parts = []
    for (centre, neighbour), vectors in store.pairs():
        scaled = np.linalg.norm(vectors, axis=1) / (radii[centre] + radii[neighbour])
        np.minimum.at(nearest, centre, scaled)
        near = scaled < LISTED
        one, other = species[centre[near]], species[neighbour[near]]
        code = 1000 * np.minimum(one, other) + np.maximum(one, other)
        parts.append((code, scaled[near], structures.system[centre[near]]))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Contacts(columns[0], columns[1], columns[2], nearest)

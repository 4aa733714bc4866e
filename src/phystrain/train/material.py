"""From files to what stages train on: labelled structures, their split and statistics, and made structures."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from phystrain.config import DataConfig, Stage
from phystrain.data.read import read
from phystrain.data.split import given, require_same_elements, split
from phystrain.data.statistics import compute, isolated, reference_energies
from phystrain.data.structures import Ints, Structures
from phystrain.errors import UserError
from phystrain.objectives import Objective
from phystrain.statistics import Statistics

Say = Callable[[str], None]

_PLURAL = {"energy": "energies", "forces": "forces", "stress": "stresses"}


@dataclass(frozen=True)
class Labelled:
    """The user's labelled structures, split.

    Attributes:
        train, valid, test: structures; ``None`` where there are none.
        isolated: frames of isolated atoms, taken out of ``train``.
        unlabelled: structures for weak losses, without labels.
        statistics: of ``train``.
        indices: numbers of the train and valid structures among the frames of the training files, for the record.
    """

    train: Structures
    valid: Structures | None
    test: Structures | None
    isolated: Structures | None
    statistics: Statistics
    indices: dict[str, list[int]]
    unlabelled: Structures | None = None


def load_labelled(data: DataConfig, *, cutoff: float, seed: int, base: Path, say: Say) -> Labelled:
    """Read, check, split and describe the labelled structures.

    Args:
        data: settings.
        cutoff: Å, for the statistics.
        seed: of the split.
        base: folder that relative paths start from.
        say: told what was found.

    Raises:
        UserError: whatever is wrong with a file, or too few structures.
    """
    everything = _load(data.train, data, base, say)
    alone = isolated(everything)
    structures, numbers = everything.part(~alone), np.flatnonzero(~alone)
    train, valid, rest = _divide(structures, data, seed)
    held_out = None if not len(valid) else structures.part(valid)
    if data.valid is not None:
        held_out = _without_isolated(_load(data.valid, data, base, say))
    test = None if not len(rest) else structures.part(rest)
    if data.test is not None:
        test = _without_isolated(_load(data.test, data, base, say))
    lone = everything.select(alone) if alone.any() else None
    kept = structures.part(train)
    described = kept if lone is None else everything.part(np.concatenate([numbers[train], np.flatnonzero(alone)]))
    references = reference_energies(described, data.reference_energies)
    for line in references.warnings:
        say(line)
    unlabelled = None if data.unlabelled is None else _unlabelled(data.unlabelled, base, say)
    for name, others in (("validation", held_out), ("test", test), ("unlabelled", unlabelled)):
        if others is not None:
            require_same_elements(described, name, others)
    return Labelled(
        train=kept,
        valid=held_out,
        test=test,
        isolated=lone,
        statistics=compute(described, cutoff, references),
        indices={name: numbers[part].tolist() for name, part in (("train", train), ("valid", valid), ("test", rest))},
        unlabelled=unlabelled,
    )


def _load(files: str | list[str], data: DataConfig, base: Path, say: Say) -> Structures:
    parts = []
    for file in [files] if isinstance(files, str) else files:
        found = read(base / file, keys=data.keys)
        say(found.summary())
        parts.append(found.structures)
    return parts[0] if len(parts) == 1 else Structures.concatenate(parts)


def _unlabelled(files: str | list[str], base: Path, say: Say) -> Structures:
    """Structures of files, but for isolated atoms; names of labels do not matter, and labels are dropped."""
    parts = []
    for file in [files] if isinstance(files, str) else files:
        found = read(base / file)
        say(found.summary())
        parts.append(found.structures)
    kept = _without_isolated(Structures.concatenate(parts).without_labels())
    if kept is None:
        raise UserError("data.unlabelled holds isolated atoms only, on which weak losses say nothing: leave it out")
    return kept


def counts(structures: Structures) -> str:
    """How many structures have each label, such as ``412 energies, 100 forces``."""
    found = {name: int(structures.labelled(label).sum()) for label, name in _PLURAL.items()}
    return ", ".join(f"{count} {name}" for name, count in found.items() if count) or "no labels"


def _without_isolated(structures: Structures) -> Structures | None:
    kept = structures.part(~isolated(structures))
    return kept if len(kept) else None


def _divide(structures: Structures, data: DataConfig, seed: int) -> tuple[Ints, Ints, Ints]:
    """Numbers of the structures of the training file to train on, to validate on, and to test on."""
    train, valid, rest = np.arange(len(structures)), np.empty(0, np.int64), np.empty(0, np.int64)
    if data.split_key is not None:
        train, valid = given(structures, data.split_key)
        rest = np.setdiff1d(np.arange(len(structures)), np.concatenate([train, valid]))
    if data.use is not None:
        if data.use > len(train):
            raise UserError(f"data.use is {data.use}, but there are only {len(train)} structures: lower it")
        train = np.sort(np.random.default_rng(seed).permutation(train)[: data.use])
    if data.valid is None and data.split_key is None and data.valid_fraction > 0:
        # What has no label can be trained on, by weak losses, but says nothing in a validation.
        labelled = structures.labelled("energy") | structures.labelled("forces")
        usable, others = train[labelled[train]], train[~labelled[train]]
        if not len(usable):
            raise UserError("no structure has energies or forces to validate with: set data.valid_fraction=0")
        first, second = split(structures.part(usable), data.valid_fraction, seed, group_by=data.group_by)
        train, valid = np.sort(np.concatenate([usable[first], others])), usable[second]
    return train, valid, rest


def need_labels(stage: Stage, objectives: Mapping[str, Objective], structures: Structures, where: str) -> None:
    """Refuse an objective whose labels are in no structure.

    Raises:
        UserError: names the objective, the label and the mend.
    """
    for name, objective in objectives.items():
        for quantity in sorted(objective.needs | objective.uses):
            if not structures.labelled(quantity).any():
                raise UserError(
                    f"stage {stage.name}: objective {name!r} needs {quantity}, which no structure of {where} has. "
                    f"Remove the objective, or name the label with data.keys.{quantity}"
                )


def require_labels(stage: Stage, labelled: Labelled) -> None:
    """Refuse, before anything is trained, a stage that lacks the labels it learns from or is selected by.

    Raises:
        UserError: names the stage, the label and the mend.
    """
    valid = labelled.valid
    selects = stage.early_stopping is not None or stage.optimiser.schedule == "plateau"
    if valid is None and selects:
        raise UserError(
            f"stage {stage.name}: early_stopping and the plateau schedule need validation structures: "
            f"give data.valid or a data.valid_fraction"
        )
    if stage.data is not None:
        return
    need_labels(stage, stage.objectives, labelled.train, "data.train")
    if valid is not None and (selects or stage.select == "best"):
        judged = {name: objective for name, objective in stage.objectives.items() if objective.validated}
        need_labels(stage, judged, valid, "the validation structures")
        quantity = stage.metric.split("_")[0]
        if stage.metric != "loss" and not valid.labelled(quantity).any():
            raise UserError(
                f"stage {stage.name}: metric {stage.metric!r} needs {quantity}, which no validation structure has: "
                f"use metric: loss"
            )


def reserve(objectives: Iterable[Objective], cutoff: float) -> float:
    """Å by which neighbour lists must exceed ``cutoff`` (Å), so that displaced and strained copies can use them."""
    return max((_reserve(objective, cutoff) for objective in objectives), default=0.0)


def _reserve(objective: Objective, cutoff: float) -> float:
    """Å for one objective: two atoms that approach each other, in a cell that shrinks."""
    return (cutoff + 2 * objective.reach) / (1 - objective.relative_reach) - cutoff

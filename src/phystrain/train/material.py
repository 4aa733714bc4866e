"""From files to what stages train on: labelled structures, their split and statistics, and made structures."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from phystrain.config import DataConfig, Stage
from phystrain.data.read import read
from phystrain.data.split import given, require_same_elements, split
from phystrain.data.statistics import compute, isolated, reference_energies
from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.objectives import Objective
from phystrain.statistics import Statistics

Say = Callable[[str], None]


@dataclass(frozen=True)
class Labelled:
    """The user's labelled structures, split.

    Attributes:
        train, valid, test: structures; ``None`` where there are none.
        isolated: frames of isolated atoms, taken out of ``train``.
        statistics: of ``train``.
        indices: numbers of the train and valid structures among the frames of the training files, for the record.
    """

    train: Structures
    valid: Structures | None
    test: Structures | None
    isolated: Structures | None
    statistics: Statistics
    indices: dict[str, list[int]]


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

    def load(files: str | list[str]) -> Structures:
        parts = []
        for file in [files] if isinstance(files, str) else files:
            found = read(base / file, keys=data.keys)
            say(found.summary())
            parts.append(found.structures)
        return Structures.concatenate(parts)

    everything = load(data.train)
    alone = isolated(everything)
    numbers = np.flatnonzero(~alone)
    if data.use is not None and data.use > len(numbers):
        raise UserError(f"data.use is {data.use}, but there are only {len(numbers)} structures: lower it")
    if data.use is not None:
        numbers = np.sort(np.random.default_rng(seed).permutation(numbers)[: data.use])
    structures = everything.select(numbers)
    if data.valid is not None:
        train, valid = np.arange(len(numbers)), np.empty(0, dtype=np.int64)
        held_out: Structures | None = load(data.valid)
    elif data.split_key is not None:
        train, valid = given(structures, data.split_key)
        held_out = structures.select(valid)
    elif data.valid_fraction > 0:
        train, valid = split(structures, data.valid_fraction, seed, group_by=data.group_by)
        held_out = structures.select(valid)
    else:
        train, valid, held_out = np.arange(len(numbers)), np.empty(0, dtype=np.int64), None
    lone = everything.select(alone) if alone.any() else None
    kept = structures.select(train)
    described = kept if lone is None else Structures.concatenate([kept, lone])
    references = reference_energies(described, data.reference_energies)
    for line in references.warnings:
        say(line)
    statistics = compute(described, cutoff, references)
    indices = {"train": numbers[train].tolist(), "valid": numbers[valid].tolist()}
    test = load(data.test) if data.test is not None else None
    if test is None and data.split_key is not None:
        rest = np.setdiff1d(np.arange(len(structures)), np.concatenate([train, valid]))
        test = structures.select(rest) if len(rest) else None
        indices["test"] = numbers[rest].tolist()
    for name, others in (("validation", held_out), ("test", test)):
        if others is not None:
            require_same_elements(described, name, others)
    return Labelled(
        train=kept,
        valid=held_out,
        test=test,
        isolated=lone,
        statistics=statistics,
        indices=indices,
    )


def need_labels(stage: Stage, objectives: Mapping[str, Objective], structures: Structures, where: str) -> None:
    """Refuse an objective whose labels are in no structure.

    Raises:
        UserError: names the objective, the label and the mend.
    """
    for name, objective in objectives.items():
        for quantity in sorted(objective.needs):
            if not structures.labelled(quantity).any():
                raise UserError(
                    f"stage {stage.name}: objective {name!r} needs {quantity}, which no structure of {where} has. "
                    f"Remove the objective, or name the label with data.keys.{quantity}"
                )


def reserve(objectives: Iterable[Objective]) -> float:
    """Å by which neighbour lists must exceed the cut-off, so that displaced copies can use them."""
    return 2 * max((objective.reach for objective in objectives), default=0.0)

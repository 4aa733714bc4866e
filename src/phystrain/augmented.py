"""Augmented and labelled structures in a file, for any trainer: as many as wanted, in constant memory.

Work goes through the set in pieces of a few hundred source structures. The labels of each piece are one entry of the
cache, so an interrupted run costs little when it is started again, and the file is written whole or not at all.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import yaml
from torch import nn

from phystrain import registry
from phystrain.allocator import keep_memory
from phystrain.augment import Augmentation
from phystrain.augment._align import Alignment
from phystrain.augment._fingerprint import REACH, Hashes, fingerprints, first_of_each
from phystrain.augment._relabel import alignment, label, load_teacher
from phystrain.augment._teachers import PotentialTeacher, Teacher
from phystrain.data.graphs import GraphStore
from phystrain.data.read import LabelKeys, read
from phystrain.data.structures import Ints, Structures
from phystrain.data.write import write
from phystrain.errors import UserError
from phystrain.preflight import checked, require_new
from phystrain.progress import bar
from phystrain.report.distances import Distances, draw

Say = Callable[[str], None]

PIECE = 4_000
"""Source atoms that are worked on at a time."""


@dataclass
class Augmented:
    """What was made; all are numbers of structures.

    Attributes:
        made: of each kind, duplicates included.
        limited: of each kind, kept by the floor under distances from being what was drawn, or left out.
        duplicates: left out.
        failed: that the teacher could not label, left out.
        written: in the file.
        computed: labelled now rather than read from the cache.
        seconds: of labelling those.
        reason: why the first calculation failed that did.
    """

    made: dict[str, int] = field(default_factory=dict)
    limited: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0
    failed: int = 0
    written: int = 0
    computed: int = 0
    seconds: float = 0.0
    reason: str = ""

    def sentences(self) -> list[str]:
        """What to tell a person, besides how many were written."""
        lines = [
            f"{kind}: {count} structures"
            + f", {self.limited[kind]} held back by the floor under distances" * bool(self.limited[kind])
            for kind, count in self.made.items()
        ]
        lines += [f"{self.duplicates} duplicates left out"] * bool(self.duplicates)
        lines += [f"{self.failed} structures could not be labelled ({self.reason or 'see the cache'})"] * bool(
            self.failed
        )
        if self.computed:
            rate = self.computed / max(self.seconds, 1e-9)
            lines.append(f"{self.computed} labels in {self.seconds:.1f} s: {rate:.3g} structures per second")
        else:
            lines.append("all labels were in the cache")
        return lines


def augment_file(
    data: Path,
    output: Path,
    *,
    teacher: str,
    settings: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    seed: int = 0,
    aligned: bool = True,
    processes: int | None = None,
    keys: Mapping[str, str | None] | None = None,
    say: Say = print,
) -> Augmented:
    """Make structures far from equilibrium, label them, and write them as extended XYZ.

    Beside the file, a picture shows the distances before and after.

    Args:
        data: structures to start from.
        output: file.
        teacher: run folder, model file, name of a known teacher, or ASE calculator as ``module:attribute``.
        settings: of the augmentation or augmentations, ``kind`` included.
        seed: of the random choices.
        aligned: shift the energies by an offset per element so that they meet those of ``data``, where it has any.
        processes: how many calculators run at a time; the number of cores if not given.
        keys: names of the labels in ``data``.
        say: told what happens.

    Raises:
        UserError: a mistake in settings or data, or a teacher that labels nothing.
    """
    keep_memory()
    require_new(output, data)
    recipes = [_recipe(one) for one in ([settings] if isinstance(settings, Mapping) else settings)]
    labeller = load_teacher(teacher, processes)
    potential = labeller.potential if isinstance(labeller, PotentialTeacher) else None
    structures = read(data, keys=LabelKeys(**(keys or {}))).structures
    job = _Job(structures, recipes, labeller, potential, seed)
    if aligned and structures.labelled("energy").any():
        job.shift = alignment(structures, labeller)
        say(f"energies of {labeller.name} are shifted per element to those of {data}")
    write(job.parts(), output)
    for line in job.result.sentences():
        say(line)
    picture = output.with_name(f"{_stem(output)}.distances.png")
    draw(job.before, job.after, max(recipe.floor for recipe in recipes), picture)
    say(f"wrote {job.result.written} structures labelled by {labeller.name} to {output}; distances in {picture}")
    return job.result


def parse(kinds: Sequence[str], settings: Sequence[str]) -> list[dict[str, Any]]:
    """Settings of augmentations from what a person has written.

    Args:
        kinds: of the augmentations.
        settings: ``name=value``, or ``kind.name=value`` where there are several; values are YAML.

    Raises:
        UserError: no ``=``, or a setting that belongs to none of them.
    """
    chosen: dict[str, dict[str, Any]] = {kind: {"kind": kind} for kind in kinds}
    for setting in settings:
        name, equals, value = setting.partition("=")
        kind, dot, field_name = name.rpartition(".")
        if not equals or not field_name:
            raise UserError(f"setting {setting!r} is not understood: write name=value, or kind.name=value")
        if not dot:
            if len(chosen) > 1:
                raise UserError(f"setting {setting!r} of which kind? Write {kinds[0]}.{setting}, for example")
            kind = kinds[0]
        if kind not in chosen:
            raise UserError(
                f"setting {setting!r}: no augmentation {kind!r}; {registry.did_you_mean(kind, list(chosen))}"
            )
        try:
            chosen[kind][field_name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"setting {setting!r}: the value is not valid YAML") from error
    return list(chosen.values())


def _recipe(settings: Mapping[str, Any]) -> Augmentation:
    kind = registry.find("augment", settings["kind"]).Config
    return cast(Augmentation, checked(kind, f"augmentation {settings['kind']}", dict(settings)))


def _stem(output: Path) -> str:
    """The name without its endings."""
    name = Path(output.name)
    while name.suffix.lower() in (".gz", ".bz2", ".xz", ".xyz", ".extxyz"):
        name = name.with_suffix("")
    return name.name


class _Job:
    """The structures of one output file, piece by piece."""

    def __init__(
        self,
        structures: Structures,
        recipes: Sequence[Augmentation],
        teacher: Teacher,
        potential: nn.Module | None,
        seed: int,
    ) -> None:
        self.structures, self.recipes, self.teacher, self.seed = structures, recipes, teacher, seed
        self.potential = potential
        self.usable = [recipe.usable(structures, potential) for recipe in recipes]
        self.shift: Alignment | None = None
        self.result = Augmented()
        self.before, self.after = Distances(structures.elements), Distances(structures.elements)
        for numbers in _pieces(structures, np.arange(len(structures))):
            piece = structures.select(numbers)
            self.before.add(GraphStore(piece, REACH))
        self._seen: Hashes = np.empty(0, np.uint64)

    def parts(self) -> Iterator[Structures]:
        """Labelled structures, each once.

        Raises:
            UserError: the teacher labelled none.
        """
        with bar() as display:
            total = sum(len(numbers) for numbers in self.usable)
            task = display.add_task(f"Labels by {self.teacher.name}", total=total, note="")
            for recipe, numbers in zip(self.recipes, self.usable, strict=True):
                self.result.made.setdefault(recipe.kind, 0)
                self.result.limited.setdefault(recipe.kind, 0)
                pieces = [numbers] if recipe.of_the_set else _pieces(self.structures, numbers)
                for piece in pieces:
                    yield self._labelled(self._made(recipe, piece))
                    display.update(task, advance=len(piece), note=f"{self.result.written} structures")
        if not self.result.written:
            raise UserError(f"{self.teacher.name} labelled none of the structures: {self.result.reason}.")

    def _made(self, recipe: Augmentation, numbers: Ints) -> Structures:
        """New structures that have not been there before."""
        made = recipe.make(self.structures.select(numbers), numbers, self.seed, self.potential)
        self.result.made[recipe.kind] += len(made.structures)
        self.result.limited[recipe.kind] += made.limited
        store = GraphStore(made.structures, REACH)
        hashes = fingerprints(made.structures, store)
        first = first_of_each(hashes)
        new = first[~np.isin(hashes[first], self._seen)]
        self._seen = np.concatenate([self._seen, hashes[new]])
        self.result.duplicates += len(hashes) - len(new)
        self.after.add(store)
        return made.structures.select(new)

    def _labelled(self, made: Structures) -> Structures:
        if not len(made):
            return made
        began = time.perf_counter()
        found = label(made, self.teacher, progress=False, patient=self.result.written > 0)
        if found.computed:
            self.result.computed += found.computed
            self.result.seconds += time.perf_counter() - began
        self.result.failed += len(made) - len(found.kept)
        self.result.written += len(found.kept)
        self.result.reason = self.result.reason or found.reason
        return found.structures if self.shift is None else self.shift(found.structures)


def _pieces(structures: Structures, numbers: Ints) -> list[Ints]:
    """Consecutive numbers in pieces of about :data:`PIECE` atoms."""
    piece = np.cumsum(structures.sizes[numbers]) // PIECE
    return np.split(numbers, np.flatnonzero(np.diff(piece)) + 1)

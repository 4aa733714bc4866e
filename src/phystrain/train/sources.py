"""Where the batches of a stage come from: labelled or made structures, replayed ones, and unlabelled ones."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from phystrain.config import RunConfig, Stage
from phystrain.data.graphs import GraphStore
from phystrain.data.loader import Loader
from phystrain.data.packing import Budget
from phystrain.data.structures import Floats, Structures
from phystrain.objectives import Objective
from phystrain.progress import track
from phystrain.stages import RUNNING, guided
from phystrain.train.guide import difference
from phystrain.train.made import Made, outside, replay_weight
from phystrain.train.material import need_labels, reserve
from phystrain.train.step import Source


@dataclass
class Material:
    """What a stage trains on.

    Attributes:
        train: structures of the loss.
        valid: held-out structures, or ``None``.
        others: further sources, each with what its batches come from.
        valid_size: structures of a batch in validation.
    """

    train: Loader
    valid: GraphStore | None = None
    others: Sequence[tuple[Source, Loader]] = ()
    valid_size: int = 8


class Sources:
    """Makes the material of stages.

    Args:
        config: of the run.
        labelled: labelled training structures.
        made: made, replayed and guided ones.
        share: arguments of every loader: precision, and which process of how many.
        seed: of the order of batches.
        say: told what is taken.
    """

    def __init__(
        self,
        config: RunConfig,
        labelled: Structures,
        made: Made,
        share: Mapping[str, Any],
        seed: int,
        say: Callable[[str], None],
    ) -> None:
        self._config, self._labelled, self._made = config, labelled, made
        self._share, self._seed, self._say = dict(share), seed, say

    def material(self, stage: Stage, cutoff: float, train: Structures, valid: Structures | None) -> Material:
        """Loaders of a stage.

        Args:
            stage: settings.
            cutoff: Å, of its potential.
            train, valid: what it is trained on and validated on.

        Raises:
            UserError: a term without its labels.
        """
        size = stage.budget or stage.batch_size
        labelled = self._loader(stage, cutoff, train, stage.objectives, size, stream=0)
        structures = max(1, round(labelled.structures_per_step)) if stage.budget else stage.batch_size
        others = []
        if stage.replay is not None:
            others.append(self._replayed(stage, cutoff))
        if stage.unlabelled is not None:
            others.append(self._unlabelled(stage, cutoff, structures))
        judged = [term for term in stage.objectives.values() if term.validated]
        held_out = None if valid is None else self._store(valid, cutoff, judged)
        return Material(labelled, held_out, others, valid_size=2 * structures)

    def _replayed(self, stage: Stage, cutoff: float) -> tuple[Source, Loader]:
        """Structures of an earlier stage, with its terms or others."""
        assert stage.replay is not None
        source = next(other for other in self._config.stages if other.name == stage.replay.stage)
        replayed, _ = self._made.structures(source)
        objectives = source.objectives if stage.replay.objectives is None else stage.replay.objectives
        need_labels(stage, objectives, replayed, "those it replays")
        if stage.replay.window is not None:
            replayed = replayed.select(outside(replayed, self._labelled, stage.replay.window))
        asked = stage.replay.weight == "auto"
        error = self._made.error_of_teacher(source) if asked else None
        weight = replay_weight(stage.replay.weight, error)
        self._say(
            f"stage {stage.name}: {len(replayed)} structures replayed at weight {weight:.3g}"
            + (f"; the teacher is wrong by {100 * error:.0f} % of the forces" if error else "")
            + ("; how wrong the teacher is, is not known" if asked and error is None else "")
        )
        size = stage.replay.batch_size or source.budget or source.batch_size
        return Source("replay", objectives, weight), self._loader(stage, cutoff, replayed, objectives, size, stream=1)

    def _unlabelled(self, stage: Stage, cutoff: float, labelled: int) -> tuple[Source, Loader]:
        """Structures without labels, from files or made, beside so many labelled ones a step."""
        assert stage.unlabelled is not None
        found = self._made.unlabelled(stage)
        size = stage.unlabelled.size(labelled)
        self._say(f"stage {stage.name}: {len(found)} unlabelled structures, {min(size, len(found))} a step")
        objectives = stage.unlabelled.objectives
        source = Source("unlabelled", objectives, stage.unlabelled.weight)
        return source, self._loader(stage, cutoff, found, objectives, size, stream=2)

    def _loader(
        self,
        stage: Stage,
        cutoff: float,
        structures: Structures,
        objectives: Mapping[str, Objective],
        size: int | Budget,
        *,
        stream: int,
    ) -> Loader:
        """Batches of structures, with the forces of the stage's guide if a term asks for them."""
        guide = None
        if any(guided(objective) for objective in objectives.values()) and stage.guide != RUNNING:
            guide = self._made.guide(stage, structures)
            lacking = int(len(structures) - _whole(guide, structures))
            error = difference(guide, structures)
            self._say(
                f"stage {stage.name}: guide forces of {len(structures) - lacking} structures"
                + (f", {lacking} could not be computed" if lacking else "")
                + (f"; they differ by {100 * error:.0f} % from the reference forces" if error is not None else "")
            )
        store = self._store(structures, cutoff, objectives.values(), guide)
        loader = Loader(store, size, self._seed + stream, **self._share)
        if loader.remark:
            self._say(f"stage {stage.name}: {loader.remark}")
        return loader

    def _store(
        self, structures: Structures, cutoff: float, terms: Iterable[Objective], guide: Floats | None = None
    ) -> GraphStore:
        """Structures and their lists, with the reserve that these terms need."""
        lists = self._config.data.neighbour_lists
        return GraphStore(structures, cutoff + reserve(terms, cutoff), _listing, guide=guide, lists=lists)


def _whole(guide: Any, structures: Structures) -> int:
    """Number of structures with guide forces."""
    return int(np.isfinite(guide).all(axis=1)[structures.offsets[:-1]].sum())


def _listing(numbers: Iterable[int]) -> Iterable[int]:
    """Show how far the neighbour lists are: a large set takes minutes."""
    return track(numbers, "neighbour lists")

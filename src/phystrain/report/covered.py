"""Which distances between atoms the training data hold: what a curve of two atoms is shaded with."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from phystrain.data.graphs import GraphStore
from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.files import write_text
from phystrain.report.distances import LARGEST, WIDTH, Distances
from phystrain.statistics import Statistics, pair_label

FILE = "covered.json"

SAMPLE = 500
"""Structures that are counted, evenly over the data: more would not change the picture."""


class Covered(BaseModel):
    """Distances between atoms in the training data.

    Attributes:
        shortest: Å by pair of elements, such as ``O-Si``.
        counts: how many there are in each bin, by pair, from 0 Å on; empty where the data were not at hand.
        width: Å, of a bin.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    shortest: dict[str, float] = {}
    counts: dict[str, list[int]] = {}
    width: float = WIDTH


def covered(statistics: Statistics, structures: Structures | None = None) -> Covered:
    """What the data hold.

    Args:
        statistics: of the training data, with the shortest distance of every pair.
        structures: the training data, if they are at hand.
    """
    shortest = {pair_label(*map(int, key.split("-"))): value for key, value in statistics.shortest.items()}
    if structures is None or not len(structures):
        return Covered(shortest=shortest)
    chosen = np.unique(np.linspace(0, len(structures) - 1, SAMPLE).round().astype(np.int64))
    distances = Distances(structures.elements)
    distances.add(GraphStore(structures.select(chosen), LARGEST))
    counts = {
        pair_label(*pair): row.tolist()
        for pair, row in zip(distances.pairs, distances.counts, strict=True)
        if row.any()
    }
    return Covered(shortest=shortest, counts=counts)


def store_covered(folder: Path, found: Covered) -> None:
    """Write ``covered.json``, which :func:`load_covered` reads."""
    write_text(folder / FILE, found.model_dump_json() + "\n")


def load_covered(folder: Path) -> Covered | None:
    """What :func:`store_covered` wrote; ``None`` if nothing was.

    Raises:
        UserError: the file is damaged.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        return Covered.model_validate_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is damaged: delete it, or run 'phystrain audit' or 'phystrain train' again") from error


def in_all(parts: Sequence[Covered | None]) -> Covered:
    """What the data of any variant hold; counts only where all were trained on the same."""
    known = [part for part in parts if part is not None]
    shortest: dict[str, float] = {}
    for part in known:
        for pair, value in part.shortest.items():
            shortest[pair] = min(value, shortest.get(pair, value))
    alike = known and all(part.counts == known[0].counts for part in known)
    return Covered(shortest=shortest, counts=known[0].counts if alike else {}, width=known[0].width if known else WIDTH)

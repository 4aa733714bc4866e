"""Copies of structures with moved atoms: what every augmentation returns."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from phystrain.data.structures import Floats, Ints, Structures


class Made(NamedTuple):
    """What an augmentation made.

    Attributes:
        structures: unlabelled.
        limited: how many structures the floor under the distances kept from being what was drawn, or left out.
    """

    structures: Structures
    limited: int = 0

    def summary(self, duplicates: int) -> str:
        """For people, with the number of structures that were made twice."""
        parts = [f"{len(self.structures) - duplicates} structures"]
        parts += [f"{self.limited} held back by the floor under distances"] * bool(self.limited)
        parts += [f"{duplicates} duplicates left out"] * bool(duplicates)
        return ", ".join(parts)


def copies(
    structures: Structures,
    numbers: Ints,
    sources: npt.ArrayLike,
    positions: Sequence[Floats],
    config_type: str,
    rounds: npt.ArrayLike,
    cell: npt.ArrayLike | None = None,
    facts: Mapping[str, npt.ArrayLike] | None = None,
) -> Structures:
    """Unlabelled copies of structures with other positions, and a note of where each comes from.

    Args:
        structures: to copy from; weights and facts in ``info`` are taken over.
        numbers: (systems,) number of each in the whole set.
        sources: (copies,) index into ``structures`` of what each copy is made from.
        positions: of each copy, (atoms, 3) Å.
        config_type: what ``info["config_type"]`` says of every copy.
        rounds: (copies,) what ``info["round"]`` says.
        cell: (copies, 3, 3) Å, where the cells change too.
        facts: (copies,) further facts by name.

    Returns:
        The copies, with the facts ``config_type``, ``round`` and ``source`` (the number in the whole set).
    """
    origin = np.asarray(sources, dtype=np.int64)
    chosen = structures.without_labels().select(origin)
    told = {
        "config_type": np.full(len(origin), config_type),
        "round": np.asarray(rounds, dtype=np.int64).astype(str),
        "source": numbers[origin].astype(str),
        **{name: np.asarray(values).astype(str) for name, values in (facts or {}).items()},
    }
    return replace(
        chosen,
        positions=np.concatenate(positions) if len(positions) else np.empty((0, 3)),
        cell=chosen.cell if cell is None else np.asarray(cell, dtype=np.float64).reshape(-1, 3, 3),
        info={**chosen.info, **told},
    )

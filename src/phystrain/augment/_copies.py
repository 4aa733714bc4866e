"""Copies of structures with moved atoms: what every augmentation returns."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from phystrain.data.structures import Floats, Ints, Structures


def copies(
    structures: Structures,
    sources: Ints,
    positions: Sequence[Floats],
    config_type: str,
    rounds: npt.ArrayLike,
    cell: Floats | None = None,
) -> Structures:
    """Unlabelled copies of structures with other positions, and a note of where each comes from.

    Args:
        structures: to copy from; weights and facts in ``info`` are taken over.
        sources: (copies,) number of the structure that each copy is made from.
        positions: of each copy, (atoms, 3) Å.
        config_type: what ``info["config_type"]`` says of every copy.
        rounds: (copies,) what ``info["round"]`` says.
        cell: (copies, 3, 3) Å, where the cells change too.

    Returns:
        The copies, with the facts ``config_type``, ``round`` and ``source`` (the number in ``structures``).
    """
    chosen = structures.without_labels().select(sources)
    facts = {
        "config_type": np.full(len(sources), config_type),
        "round": np.asarray(rounds).astype(str),
        "source": sources.astype(str),
    }
    return replace(
        chosen,
        positions=np.concatenate(positions),
        cell=chosen.cell if cell is None else cell,
        info={**chosen.info, **facts},
    )

"""Structures to label next, chosen from a file by a finished potential and the models beside it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from phystrain.allocator import keep_memory
from phystrain.data.read import read
from phystrain.data.structures import Structures
from phystrain.data.write import write
from phystrain.errors import UserError
from phystrain.preflight import require_new
from phystrain.saving import load_model
from phystrain.uncertainty.ensemble import load_ensemble
from phystrain.uncertainty.ranking import APART, LEAST, closest, rank, worst_atoms


def rank_structures(
    path: Path,
    data: Path,
    *,
    count: int = 20,
    output: Path = Path("next.xyz"),
    apart: float | None = None,
    contact: float = 0.5,
    say: Callable[[str], None] = print,
) -> Structures:
    """Choose structures to label next and write them, without labels, most uncertain first.

    Args:
        path: run folder or model file, with an ensemble.
        data: structures to choose from.
        count: how many, at most.
        output: file for them; ``info`` tells ``spread`` (eV/Å), ``atom`` (the most uncertain one) and ``source``
            (number in the file).
        apart: Å; see :func:`phystrain.uncertainty.ranking.rank`.
        contact: shortest distance, as a fraction of the sum of covalent radii, that a method could still label.
        say: told what was found.

    Returns:
        What was written.

    Raises:
        UserError: no ensemble, nothing to choose from, or the file cannot be written.
    """
    keep_memory()
    require_new(output, data)
    if count < 1:
        raise UserError(f"rank: count should be 1 or more, got {count}")
    model = load_model(path)
    ensemble = load_ensemble(model)
    everything = read(data).structures.without_labels()
    numbers = np.flatnonzero(closest(everything) >= contact)
    structures = everything.select(numbers)
    if not len(structures):
        raise UserError(f"every structure of {data} has atoms closer than {contact:g} of their radii: lower --contact")
    _, spread = ensemble.predict(structures)
    found = rank(structures, spread, count, apart)
    doubtful = worst_atoms(structures, spread)
    worst = doubtful[found.chosen]
    best = structures.select(found.chosen)
    facts = {
        "spread": np.array([f"{value:.4f}" for value in spread[worst]]),
        "atom": (worst - structures.offsets[found.chosen]).astype(str),
        "source": numbers[found.chosen].astype(str),
    }
    best = replace(best, info=best.info | facts)
    write(best, output)
    say(f"{len(everything)} structures, {len(everything) - len(numbers)} left out for atoms too close")
    if ensemble.calibration is not None:
        beyond = int((spread[doubtful] > ensemble.calibration.largest).sum())
        say(f"{beyond} are less certain than any held-out one")
    for number, (value, atom) in enumerate(zip(spread[worst], worst, strict=True)):
        source, symbol = facts["source"][number], chemical_symbols[structures.species[atom]]
        say(f"  {number + 1:3d}. structure {source}: {value:.3f} eV/Å on {symbol} (atom {facts['atom'][number]})")
    if ensemble.remark:
        say(ensemble.remark)
    if found.close:
        say(f"{found.close} of these are within {APART:g} Å of another: there are too few that are not")
    if len(best) < count:
        limit = LEAST if apart is None else apart
        say(f"fewer than {count}: the other {found.alike} are within {limit:g} Å of a chosen one (--apart)")
    say(f"label next {output}")
    return best

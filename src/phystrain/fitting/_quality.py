"""How good a fitted potential is, and what to know about it."""

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from phystrain.data.graphs import GraphStore
from phystrain.data.statistics import LEAST_FORCE
from phystrain.data.structures import Structures
from phystrain.derive import evaluate
from phystrain.fitting._parameters import Pair, Parameters, pair_label
from phystrain.fitting._walls import WALL_FROM, WALL_TO, dimers
from phystrain.layers.pair import BONDED, covalent_distance
from phystrain.statistics import Statistics

Figures = dict[str, float]

AT_ONCE = 40_000
"""Directed edges evaluated together when errors are measured."""

WALL_CHECKS = 60
"""Distances at which the repulsion of each pair is checked in the end."""

NAMED = 8
"""Pairs that a note names at most."""


def shortest_distances(store: GraphStore) -> dict[Pair, float]:
    """Å, the shortest distance of every pair of elements that occurs within the cut-off."""
    elements = np.array(store.structures.elements)
    column, kinds = np.searchsorted(elements, store.structures.species), len(elements)
    least = np.full(kinds * kinds, np.inf)
    for edges, vectors in store.pairs():
        key = column[edges].min(axis=0) * kinds + column[edges].max(axis=0)
        np.minimum.at(least, key, np.sqrt((vectors**2).sum(axis=1)))
    pairs = itertools.product(elements.tolist(), repeat=2)
    return {pair: float(found) for pair, found in zip(pairs, least, strict=True) if np.isfinite(found)}


def errors_of(potential: nn.Module, structures: Structures) -> list[npt.NDArray[np.float64]]:
    """Errors of labelled force components (eV/Å), those components, and errors of labelled energies (eV/atom)."""
    store = GraphStore(structures, float(potential.cutoff))  # type: ignore[arg-type]
    forces, energies = [], []
    for block in _blocks(store.edge_counts):
        found = evaluate(potential, store.graph(block, torch.float64), ("energy", "forces"))  # type: ignore[arg-type]
        assert found.forces is not None
        assert found.energy is not None
        forces.append(found.forces.numpy())
        energies.append(found.energy.numpy())
    known = np.isfinite(structures.forces)
    energy = (np.concatenate(energies) - structures.energy) / structures.sizes
    return [
        np.asarray((np.concatenate(forces) - structures.forces)[known]),
        np.asarray(structures.forces[known]),
        np.asarray(energy[np.isfinite(energy)]),
    ]


def _blocks(edges: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Numbers of structures that are evaluated together."""
    block = np.cumsum(edges) // AT_ONCE
    return iter(np.split(np.arange(len(edges)), np.flatnonzero(np.diff(block)) + 1))


def figures_of(errors: list[npt.NDArray[np.float64]]) -> Figures:
    """Errors in meV/Å and meV/atom; not a number where nothing is labelled."""
    force, reference, energy = errors
    size = float(np.sqrt(np.mean(reference**2))) if len(reference) else np.nan
    rmse = float(np.sqrt(np.mean(force**2))) if len(force) else np.nan
    return {
        "force RMSE": 1e3 * rmse,
        "force MAE": 1e3 * float(np.mean(np.abs(force))) if len(force) else np.nan,
        "energy MAE": 1e3 * float(np.mean(np.abs(energy))) if len(energy) else np.nan,
        "relative force error": rmse / size if size > LEAST_FORCE else np.nan,
    }


def rank(figures: Figures) -> float:
    """By which families are compared: forces where they are labelled, else energies."""
    values = (figures.get("relative force error", np.nan), figures.get("energy MAE", np.nan))
    return next((value for value in values if np.isfinite(value)), np.inf)


def sentence(figures: Figures) -> str:
    if "force RMSE" not in figures:
        return "not cross-validated"
    forces, energy, relative = (figures[name] for name in ("force RMSE", "energy MAE", "relative force error"))
    size = f", {100 * relative:.0f} % of their size" if np.isfinite(relative) else ""
    parts = [
        f"forces {forces:.0f} meV/Å (RMSE{size})" if np.isfinite(forces) else "",
        f"energies {energy:.1f} meV/atom (MAE)" if np.isfinite(energy) else "",
    ]
    return "held-out " + ", ".join(filter(None, parts))


def attractive_cores(potential: nn.Module, statistics: Statistics) -> tuple[Pair, ...]:
    """Pairs, seen or not, of which two atoms alone attract one another somewhere at short distance."""
    pairs = list(itertools.combinations_with_replacement(statistics.species, 2))
    cutoff = max(float(potential.cutoff), WALL_TO * max(covalent_distance(*pair) for pair in pairs))  # type: ignore[arg-type]
    graph = dimers(pairs, np.linspace(WALL_FROM, WALL_TO, WALL_CHECKS), cutoff)
    forces = evaluate(potential, graph, ("forces",)).forces  # type: ignore[arg-type]
    assert forces is not None
    repelled = (forces[1::2, 0] > 0).reshape(len(pairs), WALL_CHECKS).all(dim=1)
    return tuple(pair for pair, good in zip(pairs, repelled.tolist(), strict=True) if not good)


def notes_on(parameters: Parameters, attractive: tuple[Pair, ...]) -> tuple[str, ...]:
    """What the data could not fix and what was done about it."""
    notes = []
    if parameters.mixed:
        notes.append(f"not in the data, computed from the like pairs: {_listed(parameters.mixed)}")
    if parameters.kept:
        notes.append(f"not in the data, left where they started: {_listed(parameters.kept)}")
    far = [pair for pair, length in parameters.shortest.items() if length > BONDED * covalent_distance(*pair)]
    if far:
        notes.append(
            f"never nearer in the data than {BONDED} times the sum of their covalent radii, so that their short range "
            f"is a guess: {_listed(far)}"
        )
    if limits := parameters.at_bounds(parameters.final):
        notes.append(f"values on their physical limits: {', '.join(f'{k} ({n})' for k, n in limits.items())}")
    if attractive:
        notes.append(
            f"two atoms attract one another at {WALL_FROM} to {WALL_TO} times the sum of their covalent radii: "
            f"{_listed(attractive)}; add zbl to the potential, or structures in which they are near"
        )
    return tuple(notes)


def _listed(pairs: tuple[Pair, ...] | list[Pair]) -> str:
    more = f" and {len(pairs) - NAMED} more" if len(pairs) > NAMED else ""
    return ", ".join(pair_label(pair) for pair in pairs[:NAMED]) + more

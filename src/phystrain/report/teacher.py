"""Pictures of a classical potential: pair curves with their parts, above the distances that the data cover.

The parts are those of the source of physics-informed pretraining (arXiv 2602.19592): density, pair energy, embedding
(its "atomic" energy) and their sum.
"""

import itertools
from collections.abc import Sequence
from typing import Any, cast

import matplotlib as mpl
import numpy as np
import torch
from ase.data import chemical_symbols, covalent_radii
from torch import nn

from phystrain.data.graphs import GraphStore
from phystrain.data.structures import Floats, Structures
from phystrain.derive import placement
from phystrain.report.drawing import INK, STYLE, Drawing, look, render
from phystrain.statistics import pair_name

SECTION = "teacher"
DEEPEST = -15.0
"""eV; no bond is deeper."""
PARTS = {"pair": "pair energy"}
"""Names of parts where they are not those of ``components``."""


def draw_teacher(potential: nn.Module, structures: Structures) -> list[Drawing]:
    """A picture for every pair of elements; none for a potential that has no pair curves, such as a network.

    Args:
        potential: classical, or a sum with classical terms.
        structures: labelled ones, whose distances are shown below the curves.
    """
    parts = _terms(potential)
    if not parts:
        return []
    covered = _covered(structures, float(cast(Any, potential).cutoff))
    drawings = []
    with mpl.rc_context(STYLE):
        for pair in itertools.combinations_with_replacement(structures.elements, 2):
            name = "-".join(chemical_symbols[number] for number in pair)
            distances = covered.get(pair_name(*pair), np.empty(0))
            drawings.append(_drawn(name, pair, parts, distances, float(cast(Any, potential).cutoff)))
    return drawings


def pair_curves(parts: Sequence[tuple[str, nn.Module]], distance: Floats, first: int, second: int) -> dict[str, Floats]:
    """Energies (eV) of two atoms by name of the part, and ``density`` where there is one.

    Args:
        parts: classical terms with their names.
        distance: (points,) Å.
        first, second: atomic numbers.

    Returns:
        ``total`` last; a potential of several terms has a curve for each of them.
    """
    found: dict[str, Floats] = {}
    total = np.zeros(len(distance))
    for name, term in parts:
        device, dtype = placement(term)
        r = torch.from_numpy(distance).to(device, dtype)
        with torch.no_grad():
            values = cast(Any, term).components(r, first, second)
        curves = {key: value.to("cpu", torch.float64).numpy() for key, value in values.items()}
        total = total + curves["total"]
        if len(parts) > 1 or len(curves) == 1:
            found[name] = curves["total"]
        else:
            found |= {PARTS.get(key, key): curve for key, curve in curves.items() if key not in ("density", "total")}
        if "density" in curves:
            found["density"] = curves["density"]
    return found | {"total": total}


def _terms(potential: nn.Module) -> list[tuple[str, nn.Module]]:
    """Terms with pair curves: of a potential, of a sum, of a sum inside a sum."""
    if hasattr(potential, "components"):
        return [(type(potential).__name__, potential)]
    terms = getattr(potential, "terms", {})
    return [found for name in terms for found in _terms(terms[name])]


def _covered(structures: Structures, cutoff: float) -> dict[str, Floats]:
    """Distances (Å) up to the cut-off by pair."""
    store = GraphStore(structures, cutoff)
    found: dict[str, list[Floats]] = {}
    for (centre, neighbour), vectors in store.pairs():
        once = centre <= neighbour
        distance = np.linalg.norm(vectors[once], axis=1)
        one, other = structures.species[centre[once]], structures.species[neighbour[once]]
        code = 1000 * np.minimum(one, other).astype(np.int64) + np.maximum(one, other)
        for number in np.unique(code).tolist():
            found.setdefault(pair_name(number // 1000, number % 1000), []).append(distance[code == number])
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _drawn(
    name: str, pair: tuple[int, int], parts: Sequence[tuple[str, nn.Module]], distances: Floats, cutoff: float
) -> Drawing:
    radii = float(covalent_radii[pair[0]] + covalent_radii[pair[1]])
    distance = np.linspace(0.35 * radii, cutoff, 400)
    curves = pair_curves(parts, distance, *pair)
    legend = [(number, part) for number, part in enumerate(reversed([key for key in curves if key != "density"]))]

    def paint(axes: Any) -> None:
        lowest = max(DEEPEST, min(float(curves[part].min()) for _, part in legend))
        top = max(2.0, -1.5 * lowest)
        for number, part in legend:
            axes.plot(distance, curves[part], **look(number), lw=2.2 if part == "total" else 1.3)
        if len(distances):
            counts, edges = np.histogram(distances, bins=80, range=(distance[0], cutoff))
            height = 0.25 * (top - lowest) * counts / counts.max()
            axes.bar(edges[:-1], height, np.diff(edges), bottom=lowest - 0.05 * (top - lowest), align="edge",
                     color=INK, alpha=0.25, linewidth=0)  # fmt: skip
            axes.axvline(distances.min(), color=INK, lw=0.8, ls=":")
        if "density" in curves:
            other = axes.twinx()
            other.plot(distance, curves["density"], color=INK, lw=1.0, ls="--")
            other.set_ylabel("Density (dashed)")
            inside = curves["density"][distance > (distances.min() if len(distances) else radii)]
            other.set_ylim(0, 4 * max(float(inside.max(initial=0.0)), 1e-6))
            other.grid(visible=False)
        axes.set(xlabel="Distance (Å)", ylabel="Energy of two atoms (eV)")
        axes.set_ylim(lowest - 0.05 * (top - lowest), top)

    seen = f"distances in the data, from {distances.min():.2f} Å" if len(distances) else "no such pair is in the data"
    description = f"Energy of two atoms {name} against their distance, with its parts; grey: {seen}"
    return render(SECTION, name, description, paint, legend)

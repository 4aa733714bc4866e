"""Histograms of distances, before and after structures were made: one panel for each pair of elements."""

import itertools
import math
from pathlib import Path

import matplotlib as mpl
import numpy as np
from ase.data import chemical_symbols, covalent_radii
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from phystrain.data.graphs import GraphStore
from phystrain.data.structures import Floats
from phystrain.files import write_with
from phystrain.report.drawing import COLOURS, INK, STYLE

LARGEST = 5.0
"""Å."""

WIDTH = 0.05
"""Å, of a bin."""

_PANELS = 12


class Distances:
    """Counts of distances by pair of elements, collected in pieces.

    Args:
        elements: atomic numbers.

    Attributes:
        pairs: (pairs, 2) atomic numbers.
        counts: (pairs, bins).
        systems: how many structures were counted.
    """

    def __init__(self, elements: tuple[int, ...]) -> None:
        self.elements = np.array(elements)
        self.pairs = list(itertools.combinations_with_replacement(elements, 2))
        self._row = np.zeros((len(elements), len(elements)), dtype=np.int64)
        for row, (first, second) in enumerate(itertools.combinations_with_replacement(range(len(elements)), 2)):
            self._row[first, second] = self._row[second, first] = row
        self.counts = np.zeros((len(self.pairs), round(LARGEST / WIDTH)), dtype=np.int64)
        self.systems = 0

    def add(self, store: GraphStore) -> None:
        """Count the pairs of a store whose neighbours reach to :data:`LARGEST` or beyond."""
        column = np.searchsorted(self.elements, store.structures.species)
        bins = self.counts.shape[1]
        for (centre, neighbour), vectors in store.pairs():
            place = (np.linalg.norm(vectors, axis=1) / WIDTH).astype(np.int64)
            near = place < bins
            row = self._row[column[centre[near]], column[neighbour[near]]]
            flat = np.bincount(row * bins + place[near], minlength=self.counts.size)
            self.counts += flat.reshape(self.counts.shape)
        self.systems += len(store)

    def density(self, pair: int) -> Floats:
        """(bins,) pairs per Å and structure, each pair counted once."""
        return np.asarray(self.counts[pair] / (2 * WIDTH * max(self.systems, 1)))


def draw(before: Distances, after: Distances, floor: float, path: Path) -> None:
    """Write the picture: before, after, and a vertical line at the floor under the distances.

    Args:
        before, after: of the same elements.
        floor: as a fraction of the sum of covalent radii.
        path: ends in .png or .svg.
    """
    commonest = np.argsort(-(before.counts + after.counts).sum(axis=1), kind="stable")[:_PANELS]
    shown = np.sort(commonest).tolist()
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    edges = np.arange(before.counts.shape[1] + 1) * WIDTH
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * columns, 2.6 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        for number, pair in enumerate(shown):
            axes = figure.add_subplot(rows, columns, number + 1)
            first, second = before.pairs[pair]
            axes.stairs(before.density(pair), edges, color=COLOURS[0], label="before", fill=True, alpha=0.35)
            axes.stairs(after.density(pair), edges, color=COLOURS[1], label="after")
            limit = floor * float(covalent_radii[first] + covalent_radii[second])
            axes.axvline(limit, color=INK, linestyle="--", label=f"floor, {limit:.2f} Å")
            axes.set_title(f"{chemical_symbols[first]}-{chemical_symbols[second]}")
            axes.set_xlabel("distance, Å")
            axes.set_ylabel("pairs per Å and structure")
            # symlog: the few short distances are what the picture is about
            axes.set_yscale("symlog", linthresh=0.1)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.set_xlim(0, LARGEST)
            axes.set_ylim(bottom=0)
            axes.legend(fontsize=7)
        write_with(path, lambda temporary: figure.savefig(temporary, dpi=150))

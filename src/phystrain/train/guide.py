"""Forces from outside the potential in training, beside the labels: of a teacher, another model, or several.

A guide is no reference. Where energies come from a method without affordable forces, CCSD(T) say, the forces of DFT or
GFN2-xTB tell the slope between energies well enough to be taught at a low weight, or to anchor weak losses. With
the averaged weights of the training as guide this is the mean teacher of Tarvainen, Valpola 2017 (arXiv 1703.01780).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from phystrain.augment._relabel import label
from phystrain.augment._teachers import load_teacher
from phystrain.data.structures import Floats, Structures, ragged
from phystrain.derive import evaluate
from phystrain.graph import AtomGraph
from phystrain.train.step import as_potential


def guide_forces(
    structures: Structures, specs: Sequence[str | dict[str, Any]], locate: Callable[..., Any], *, progress: bool
) -> Floats:
    """Mean of the forces of one guide or several; read from the cache of labels where it holds them.

    Args:
        structures: what the forces are wanted of.
        specs: guides as the run file names them.
        locate: from what it says to what is loaded, and whether that is of this run.
        progress: show a bar.

    Returns:
        (atoms, 3) eV/Å; not-a-number on structures that one of the guides could not label.
    """
    total = np.zeros_like(structures.positions)
    for spec in specs:
        found = label(structures, load_teacher(locate(spec)[0]), want=("forces",), progress=progress)
        one = np.full_like(total, np.nan)
        one[ragged(structures.offsets, found.kept)] = found.structures.forces
        total += one
    return total / len(specs)


def running_guide(averaged: nn.Module, graph: AtomGraph) -> Float[Tensor, "atoms 3"]:
    """Forces (eV/Å) of the averaged weights as they stand, without gradient."""
    forces = evaluate(as_potential(averaged), graph, ("forces",)).forces
    assert forces is not None
    return forces


def difference(guide: Floats, structures: Structures) -> float | None:
    """RMS difference of guide and reference forces over the RMS of the latter; ``None`` where there are none."""
    known = np.isfinite(guide) & np.isfinite(structures.forces)
    if not known.any():
        return None
    reference = structures.forces[known]
    return float(np.linalg.norm(guide[known] - reference)) / max(float(np.linalg.norm(reference)), 1e-12)

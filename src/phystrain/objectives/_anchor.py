"""Where energy and forces of the undisplaced structure come from: the potential itself, or something firmer.

With the reference's own values a Taylor step is augmentation by labels: the energy of a displaced copy is learned
from energy and forces of the original (Cooper, Kästner, Urban, Artrith 2020, npj Comput. Mater. 6:54).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.labels import Batch
from phystrain.objectives import Evaluator

Anchor = Literal["model", "label", "auto", "guide", "guide_forces"]

NEEDS: dict[str, frozenset[str]] = {
    "model": frozenset(),
    "label": frozenset({"energy", "forces"}),
    "auto": frozenset(),
    "guide": frozenset({"energy"}),
    "guide_forces": frozenset(),
}
"""Labels without which no structure counts."""


@dataclass(frozen=True)
class Point:
    """Structures, and where their energies and forces come from. Nothing is evaluated before it is asked for.

    Attributes:
        graph: the structures.
        energy: (systems,) eV, float64.
        forces: (atoms, 3) eV/Å.
        counted: (systems,) which structures have these values; elsewhere they are finite and mean nothing.
    """

    graph: AtomGraph
    energy: Callable[[], Tensor]
    forces: Callable[[], Tensor]
    counted: Bool[Tensor, " systems"]


def of_model(model: Evaluator, graph: AtomGraph) -> Point:
    """Energy and forces that the potential predicts."""
    every = torch.ones(graph.n_systems, dtype=torch.bool, device=graph.positions.device)
    return Point(graph, lambda: _energy(model, graph), lambda: _forces(model, graph), every)


def of_anchor(batch: Batch, model: Evaluator, anchor: Anchor) -> Point:
    """Energy and forces of the undisplaced structures.

    Args:
        batch: structures and labels.
        model: the potential.
        anchor: ``model``: energy and forces that it predicts. ``label``: the reference's, in structures that have
            both. ``auto``: the reference's where there are both, else the potential's. ``guide``: the reference's
            energy with the guide's forces. ``guide_forces``: the potential's energy with the guide's forces.

    Raises:
        UserError: there are no guide forces.
    """
    labels, graph = batch.labels, batch.graph
    own = of_model(model, graph)
    if anchor == "model":
        return own
    has_energy = ~torch.isnan(labels.energy)
    if anchor in ("guide", "guide_forces"):
        guide = guide_of(batch)
        known = complete(graph, guide)
        if anchor == "guide_forces":
            return Point(graph, own.energy, lambda: _filled(guide), known)
        return Point(graph, lambda: _filled(labels.energy), lambda: _filled(guide), known & has_energy)
    both = has_energy & complete(graph, labels.forces)
    if anchor == "label":
        return Point(graph, lambda: _filled(labels.energy), lambda: _filled(labels.forces), both)
    return Point(
        graph,
        lambda: torch.where(both, labels.energy, own.energy()),
        lambda: torch.where(both[graph.system, None], labels.forces, own.forces()),
        own.counted,
    )


def with_reference_energy(batch: Batch, point: Point) -> Point:
    """``point`` with the reference's energies; structures without one do not count."""
    energy = batch.labels.energy
    return Point(point.graph, lambda: _filled(energy), point.forces, point.counted & ~torch.isnan(energy))


def forces_of_anchor(batch: Batch, model: Evaluator, anchor: Anchor) -> Point:
    """As :func:`of_anchor` for who needs forces alone: a missing energy is no reason not to count."""
    labels, graph = batch.labels, batch.graph
    own = of_model(model, graph)
    if anchor == "model":
        return own
    source = guide_of(batch) if anchor in ("guide", "guide_forces") else labels.forces
    known = complete(graph, source)
    if anchor == "auto":
        every = known[graph.system, None]
        return Point(graph, own.energy, lambda: torch.where(every, source, own.forces()), own.counted)
    return Point(graph, own.energy, lambda: _filled(source), known)


def guide_of(batch: Batch) -> Tensor:
    """(atoms, 3) eV/Å, forces from outside the network.

    Raises:
        UserError: there are none.
    """
    if batch.labels.guide is None:
        raise UserError("anchor: guide needs forces from outside the network, which this stage has none of: use model")
    return batch.labels.guide


def complete(graph: AtomGraph, forces: Tensor) -> Bool[Tensor, " systems"]:
    """(systems,) whether every component of every atom is known."""
    return graph.sum_per_system(torch.isnan(forces).sum(dim=1)) == 0


def _filled(values: Tensor) -> Tensor:
    """Zero for what is not known: a NaN that is masked afterwards would still reach the gradient."""
    return torch.nan_to_num(values)


def _energy(model: Evaluator, graph: AtomGraph) -> Tensor:
    energy = model.predict(graph, ("energy",)).energy
    assert energy is not None
    return energy


def _forces(model: Evaluator, graph: AtomGraph) -> Tensor:
    forces = model.predict(graph, ("forces",)).forces
    assert forces is not None
    return forces

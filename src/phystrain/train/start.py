"""The potential as a stage begins: built, with weights taken over, a prior added, reference energies aligned."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from phystrain.config import Stage
from phystrain.data.graphs import GraphStore
from phystrain.data.loader import Loader, in_order
from phystrain.data.statistics import LEAST_FORCE, composition, isolated
from phystrain.data.structures import Structures, ragged
from phystrain.derive import evaluate, placement
from phystrain.errors import UserError
from phystrain.potentials import PotentialConfig, build
from phystrain.potentials.confined import LocalDensity, Margins
from phystrain.potentials.reference_energy import ReferenceEnergy
from phystrain.saving import SavedModel, load_model
from phystrain.statistics import Statistics
from phystrain.train.step import as_potential

_AT_ONCE = 32
"""Structures evaluated together."""

_OWN = ("terms.reference.", "terms.prior.")
"""Terms that do not come with the weights of an earlier stage."""


class Start(NamedTuple):
    """How a stage begins.

    Attributes:
        potential: as it stands.
        settings: that it is built from.
        foreign: whether its weights were learnt beside other reference energies than it has now, so that the sum
            means nothing until :func:`align_reference` has made it meet the labels.
    """

    potential: nn.Module
    settings: dict[str, Any]
    foreign: bool = False


def start(
    stage: Stage,
    default: PotentialConfig,
    statistics: Statistics,
    locate: Callable[[str], Path],
    labelled: Structures,
) -> Start:
    """The potential as the stage begins.

    Args:
        stage: settings.
        default: the run's potential.
        statistics: of the labelled structures.
        locate: model file of a stage, or of a name in the run file.
        labelled: structures that it will be trained on, to measure what a prior leaves to learn.

    Raises:
        UserError: weights or a prior that do not belong to this potential or these elements.
    """
    inner = stage.potential or default
    terms: dict[str, Any] = {
        "reference": {"kind": "reference_energy", "trainable": inner.trains_reference},
        "model": inner.model_dump(mode="json"),
    }
    prior = None
    if stage.prior is not None:
        prior = load_model(locate(stage.prior))
        _require_same_elements(stage, prior, statistics)
        terms["prior"] = {"kind": "frozen", "potential": _without_reference(prior)}
        statistics = _of_the_rest(statistics, prior, labelled)
    if stage.confine is not None:
        margins: Margins = stage.confine
        if prior is not None and prior.config["terms"].get("model", {}).get("kind") == "wall":
            # where the network fades, the prior's energies count, and a wall has none but at short distance: a crystal
            # that is compressed would fall back to the energy of none
            margins = margins.model_copy(update={"highest": None})
        terms["model"] = confined(terms["model"], margins, statistics, labelled)
    settings = {"kind": "sum", "terms": terms}
    potential = build(settings, statistics)
    if prior is not None:
        weights = _moved(prior)
        own = potential.state_dict()
        potential.load_state_dict(own | {name: value for name, value in weights.items() if name in own})
    foreign = False
    if stage.init_from is not None:
        saved = load_model(locate(stage.init_from))
        _require_same_prior(stage, "prior" in saved.config["terms"])
        copy_weights(saved.potential, potential, stage)
        foreign = not _same_reference(saved.potential, potential)
    return Start(potential, settings, foreign)


def _same_reference(saved: nn.Module, potential: nn.Module) -> bool:
    """Whether weights that were taken over stand beside the reference energies that they were learnt with."""
    theirs, ours = (module.state_dict().get(f"{_OWN[0]}energies") for module in (saved, potential))
    if theirs is None or ours is None or theirs.shape != ours.shape:
        return False
    return torch.allclose(theirs, ours, rtol=0, atol=1e-6)  # absolute: all-electron energies are thousands of eV


def _of_the_rest(statistics: Statistics, prior: SavedModel, labelled: Structures) -> Statistics:
    """Statistics with the scale of what the prior leaves to learn: a network that starts too steep has to unlearn."""
    structures = labelled.select(np.flatnonzero(labelled.labelled("forces")))
    if not len(structures):
        return statistics
    store = GraphStore(structures, float(prior.potential.cutoff))  # type: ignore[arg-type]
    _, dtype = placement(prior.potential)
    squares = 0.0
    for numbers in in_order(store, _AT_ONCE):
        forces = evaluate(as_potential(prior.potential), store.graph(numbers, dtype), ("forces",)).forces
        assert forces is not None
        rest = structures.forces[ragged(structures.offsets, numbers)] - forces.to(torch.float64).numpy()
        squares += float((rest**2).sum())
    rms = (squares / structures.forces.size) ** 0.5
    # forces that vanish by symmetry say nothing: a network of scale zero would never learn
    rest = {"force_rms": rms} if rms > LEAST_FORCE else {}
    return statistics.model_copy(update={"energy_mean": 0.0, **rest})


def confined(
    settings: dict[str, Any], margins: Margins, statistics: Statistics, labelled: Structures
) -> dict[str, Any]:
    """Settings of a network that fades outside the local densities of the labelled structures.

    Args:
        settings: of the network.
        margins: where it fades.
        statistics: of the data.
        labelled: whose atoms set the range; atoms alone in vacuum do not count.
    """
    cutoff = float(build(settings, statistics).cutoff)  # type: ignore[arg-type]
    density = LocalDensity(statistics, cutoff, margins)
    bodies = labelled.select(~isolated(labelled))
    store = GraphStore(bodies, cutoff)
    found = np.concatenate(
        [density(store.graph(numbers, torch.get_default_dtype())).numpy() for numbers in in_order(store, _AT_ONCE)]
    )
    ranges = {int(number): found[bodies.species == number] for number in bodies.elements}
    densities = {
        number: list(zip(values.min(axis=0).tolist(), values.max(axis=0).tolist(), strict=True))
        for number, values in ranges.items()
    }
    return {"kind": "confined", "potential": settings, "densities": densities, **margins.model_dump()}


def _without_reference(saved: SavedModel) -> dict[str, Any]:
    """Settings of what trained, without the reference energies that every run adds."""
    terms: dict[str, Any] = saved.config["terms"]
    inner = {name: settings for name, settings in terms.items() if name != "reference"}
    return inner["model"] if len(inner) == 1 else {"kind": "sum", "terms": inner}


def _moved(saved: SavedModel) -> dict[str, Any]:
    """Weights of a saved model under the names that they have as a prior."""
    terms = [name for name in saved.config["terms"] if name != "reference"]
    state = saved.potential.state_dict()
    if len(terms) == 1:
        return {
            name.replace(f"terms.{terms[0]}.", "terms.prior.potential.", 1): value
            for name, value in state.items()
            if name.startswith(f"terms.{terms[0]}.")
        }
    return {f"terms.prior.potential.{name}": value for name, value in state.items()}


def _require_same_elements(stage: Stage, prior: SavedModel, statistics: Statistics) -> None:
    if tuple(prior.statistics.species) != tuple(statistics.species):
        raise UserError(
            f"stage {stage.name}: the prior {stage.prior!r} was made for other elements than these data. "
            f"Fit it to the same data"
        )


def _require_same_prior(stage: Stage, theirs: bool) -> None:
    """A network that learnt what a prior leaves means nothing without it, and one that learnt all counts it twice."""
    if theirs and stage.prior is None:
        raise UserError(f"stage {stage.name}: {stage.init_from!r} was trained beside a prior: give the same prior here")
    if stage.prior is not None and not theirs:
        raise UserError(
            f"stage {stage.name}: {stage.init_from!r} was trained without a prior, which would count twice here: "
            f"leave prior out, or give it there too"
        )


def copy_weights(source: nn.Module, target: nn.Module, stage: Stage) -> None:
    """Take over the weights of the network; reference energies and a prior stay those of this stage."""
    weights = {name: value for name, value in source.state_dict().items() if not name.startswith(_OWN)}
    own = target.state_dict()
    wrong = [name for name, value in weights.items() if name not in own or own[name].shape != value.shape]
    missing = [name for name in own if name not in weights and not name.startswith(_OWN)]
    if wrong or missing:
        raise UserError(
            f"stage {stage.name}: the weights of init_from {stage.init_from!r} belong to another potential "
            f"({(wrong + missing)[0]} differs). Give both the same potential, made for the same elements"
        )
    target.load_state_dict(own | weights)


def align_reference(potential: nn.Module, loader: Loader) -> float:
    """Start reference energies where they fit the energies best; of what composition leaves open, nothing.

    For references that are trained, beside a prior, and for weights from another level of theory: its energies may
    differ by thousands of eV, while what the network has learnt, the shape of the surface, stays.

    Returns:
        The largest move of an element's energy, eV.
    """
    structures = loader.store.structures
    labelled = np.flatnonzero(structures.labelled("energy"))
    if not len(labelled):
        return 0.0
    device = next(potential.parameters()).device
    predicted = []
    for start in range(0, len(labelled), _AT_ONCE):
        graph = loader.store.graph(labelled[start : start + _AT_ONCE], loader.dtype).to(device)
        energy = evaluate(as_potential(potential), graph, ("energy",)).energy
        assert energy is not None
        predicted.append(energy.cpu().numpy())
    residual = structures.energy[labelled] - np.concatenate(predicted)
    offsets, *_ = np.linalg.lstsq(composition(structures)[labelled].astype(np.float64), residual, rcond=None)
    reference = potential.get_submodule("terms.reference")
    assert isinstance(reference, ReferenceEnergy)
    reference.shift(dict(zip(structures.elements, offsets.tolist(), strict=True)))
    return float(np.abs(offsets).max())

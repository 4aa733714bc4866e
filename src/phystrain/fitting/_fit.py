"""From labelled structures to a fitted potential, its quality and what to know about it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from ase.data import chemical_symbols
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from phystrain import registry
from phystrain.data.graphs import GraphStore
from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.fitting._families import sensible, settings_of
from phystrain.fitting._parameters import Parameters
from phystrain.fitting._problem import Problem, Weights
from phystrain.fitting._quality import (
    Figures,
    attractive_cores,
    errors_of,
    figures_of,
    notes_on,
    rank,
    sentence,
    shortest_distances,
)
from phystrain.fitting._search import search, solve_linear
from phystrain.potentials import PotentialConfig, build
from phystrain.potentials.reference_energy import ReferenceEnergy
from phystrain.progress import bar
from phystrain.statistics import Statistics

Say = Callable[[str], None]
Settings = dict[str, Any]

SHORTER = 2
"""Cross-validation searches with this fraction of the evaluations."""

LABELS_PER_PARAMETER = 10
"""The subset of the search has at least so many force components for each parameter, if there are as many."""


class FitSettings(BaseModel):
    """How a classical potential is fitted."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    choose: Literal["auto"] | tuple[str, ...] | None = Field(
        None,
        description="Families to choose from by cross-validation, or auto: those that make sense for the elements; "
        "none: the potential given.",
    )
    trust: float | None = Field(
        None,
        gt=0,
        description="with choose: cross-validated error, of the size of the forces, beyond which no family is taken "
        "but the wall alone, which is silent where there are data; for priors",
    )
    starts: int = Field(3, ge=1, description="starting points of the non-linear search")
    evaluations: int = Field(150, ge=1, description="of the objective, in the non-linear search from the best start")
    atoms: int = Field(
        300,
        ge=1,
        description="atoms of the subset in the non-linear search, more where there are many parameters; "
        "linear parts are fitted to all data",
    )
    energy_weight: float = Field(0.1, ge=0, description="of squared errors of energies per atom over their variance")
    force_weight: float = Field(1.0, ge=0, description="of squared errors of forces over their mean square")
    stress_weight: float = Field(0.1, ge=0, description="of squared errors of stress over its mean square")
    folds: int = Field(3, ge=2, description="parts of the data in the cross-validation")


@dataclass(frozen=True)
class Fitted:
    """A fitted potential.

    Attributes:
        potential: ``sum`` of reference energies and the classical potential, in float64.
        settings: what ``potential`` is built from, as plain data.
        quality: figures by name: ``force RMSE`` and ``force MAE`` (meV/Å), ``energy MAE`` (meV/atom), each also as
            ``cross-validated ...``; ``relative force error``, the cross-validated force RMSE over the root mean square
            of the reference forces (0 is perfect, 1 useless); ``pairs with an attractive core``; ``seconds``. Not a
            number where labels are missing.
        notes: what the data could not fix, and what was done.
        families: figures of every family tried, by name.
    """

    potential: nn.Module
    settings: Settings
    quality: Figures
    notes: tuple[str, ...] = ()
    families: dict[str, Figures] = field(default_factory=dict)


class _Job:
    """One potential and one set of structures.

    Args:
        settings: of the fit.
        model: settings of the potential without reference energies.
        statistics: of the data.
        seed: of everything random.
    """

    def __init__(self, settings: FitSettings, model: Settings, statistics: Statistics, seed: int) -> None:
        self.settings, self.statistics, self.seed = settings, statistics, seed
        config: PotentialConfig = registry.parse("potentials", model)
        if not config.trains_reference:
            raise UserError(f"{config.kind} is a network; a fit is for classical potentials, such as eam. Train it.")
        reference = {"kind": "reference_energy", "trainable": True}
        self.config: Settings = {
            "kind": "sum",
            "terms": {"reference": reference, "model": config.model_dump(mode="json")},
        }
        self.weights = Weights(settings.energy_weight, settings.force_weight, settings.stress_weight)
        self._folds: list[Tensor] = []

    def fit(
        self,
        structures: Structures,
        starts: int,
        evaluations: int,
        done: Callable[[float], None],
        others: Sequence[Tensor] = (),
    ) -> tuple[nn.Module, Parameters]:
        """Search on a subset, then the linear parts on all structures.

        Args:
            structures: labelled.
            starts: of the search.
            evaluations: of the search.
            done: told the objective after each evaluation.
            others: parameter vectors that are candidates too.

        Returns:
            The potential, and what became of its parameters.
        """
        potential = build(self.config, self.statistics).to(torch.float64)
        model = potential.get_submodule("terms.model")
        store = GraphStore(structures, float(model.cutoff))  # type: ignore[arg-type]
        parameters = Parameters(model, shortest_distances(store))
        references = self.statistics.reference_energies
        _require_labels(structures, parameters)
        everything = Problem(model, parameters, structures, self.weights, references, store)
        atoms = max(self.settings.atoms, int(LABELS_PER_PARAMETER / 3 * float(parameters.free.sum())))
        some = _subset(structures, atoms, self.seed)
        part = everything
        if len(some) < len(structures):
            part = Problem(model, parameters, structures.select(some), self.weights, references)
        vector = search(part, starts, evaluations, self.seed, done, others)
        if part is not everything:
            # what is best on the subset need not be best on all
            vector = solve_linear(everything, min((vector, *others), key=everything.objective))
        vector = parameters.completed(vector)
        parameters.store(model, vector)
        reference = potential.get_submodule("terms.reference")
        assert isinstance(reference, ReferenceEnergy)
        found = everything.reference_energies(vector)
        now = dict(zip(reference.species, reference.energies.tolist(), strict=True))
        reference.shift({number: energy - now[number] for number, energy in found.items()})
        potential.eval()
        parameters.final = vector
        return potential, parameters

    def full(self, structures: Structures, done: Callable[[float], None]) -> tuple[nn.Module, Parameters]:
        """The fit to all structures; where the folds of a cross-validation ended, it may begin."""
        return self.fit(structures, self.settings.starts, self.settings.evaluations, done, self._folds)

    def cross_validated(self, structures: Structures, done: Callable[[float], None]) -> Figures:
        """Errors on structures left out, pooled over the folds; nothing where there is but one structure."""
        folds = min(self.settings.folds, len(structures))
        if folds < 2:
            return {}
        order = np.random.default_rng(self.seed).permutation(len(structures))
        errors = []
        for fold in range(folds):
            left_out = np.sort(order[fold::folds])
            kept = np.setdiff1d(order, left_out)
            evaluations = max(self.settings.evaluations // SHORTER, 1)
            potential, parameters = self.fit(structures.select(kept), min(self.settings.starts, 2), evaluations, done)
            self._folds.append(parameters.final)
            errors.append(errors_of(potential, structures.select(left_out)))
        return figures_of([np.concatenate(parts) for parts in zip(*errors, strict=True)])

    def steps(self, cross_validation: bool, full: bool) -> int:
        """Evaluations at most, for the progress display."""

        def one(starts: int, evaluations: int) -> int:
            return evaluations + (starts * max(evaluations // 4, 2) if starts > 1 else 0)

        folds = self.settings.folds if cross_validation else 0
        short = one(min(self.settings.starts, 2), max(self.settings.evaluations // SHORTER, 1))
        return folds * short + (one(self.settings.starts, self.settings.evaluations) if full else 0)


def fit(
    settings: FitSettings,
    potential: Settings | PotentialConfig | None,
    structures: Structures,
    statistics: Statistics,
    *,
    seed: int = 0,
    say: Say = print,
) -> Fitted:
    """Fit a classical potential to labelled structures.

    Args:
        settings: how.
        potential: settings of the potential, reference energies left out; ``None`` for ``eam``. With
            ``settings.choose`` it is one more among the families.
        structures: labelled with forces, or at least energies.
        statistics: of the same data.
        seed: of starts, subset and folds.
        say: told what happens, line by line.

    Raises:
        UserError: a network, an element without structures, or too few labels for the potential.
    """
    began = time.perf_counter()
    _require_elements(structures, statistics)
    structures = structures.select(structures.labelled("energy") | structures.labelled("forces"))
    if not len(structures):
        raise UserError("no structure has energies or forces to fit to: label some, or name the labels in data.keys")
    candidates = _candidates(settings, potential, statistics)
    families: dict[str, Figures] = {}
    jobs: dict[str, _Job] = {}
    for name, model in candidates.items():
        start = time.perf_counter()
        try:
            job = _Job(settings, model, statistics, seed)
            with Watched(f"cross-validation of {name}", job.steps(True, False)) as done:
                figures = job.cross_validated(structures, done)
        except TooFewLabelsError as error:
            if len(candidates) > 1:
                say(f"fit: {name} is left out: {error}")
                continue
            figures = {}  # a fold is smaller than the whole, which may do
        except UserError as error:
            if len(candidates) == 1 or (potential is not None and name == _name(potential)):
                raise
            say(f"fit: {name} is left out: {error}")
            continue
        jobs[name], families[name] = job, {**figures, "seconds": time.perf_counter() - start}
        if len(candidates) > 1:
            say(f"fit: {name:<18} {sentence(figures)}, {families[name]['seconds']:.0f} s")
    if not jobs:
        raise UserError("fit: none of the families can be fitted to these data; see the lines above, or set choose")
    chosen = min(jobs, key=lambda name: rank(families[name]))
    if len(candidates) > 1 and not np.isfinite(rank(families[chosen])):
        raise UserError("fit: families are chosen by cross-validation, which needs two structures or more")
    relative = families[chosen].get("relative force error", np.nan)
    if settings.choose is not None and settings.trust is not None and relative > settings.trust:
        say(f"fit: none is good enough to be trusted (error above {100 * settings.trust:g} %): a wall alone is taken")
        chosen = "wall"
        jobs[chosen] = _Job(settings, {"kind": chosen}, statistics, seed)
        families[chosen] = jobs[chosen].cross_validated(structures, lambda _: None)
    job = jobs[chosen]
    with Watched(f"fit of {chosen}", job.steps(False, True)) as done:
        made, parameters = job.full(structures, done)
    inside = figures_of(errors_of(made, structures))
    attractive = attractive_cores(made, statistics)
    quality = {
        "force RMSE": inside["force RMSE"],
        "force MAE": inside["force MAE"],
        "energy MAE": inside["energy MAE"],
        **{f"cross-validated {k}": families[chosen].get(k, np.nan) for k in ("force RMSE", "force MAE", "energy MAE")},
        "relative force error": families[chosen].get("relative force error", inside["relative force error"]),
        "pairs with an attractive core": float(len(attractive)),
        "seconds": time.perf_counter() - began,
    }
    notes = notes_on(parameters, attractive)
    if not families[chosen]:
        notes = (*notes, "too few labels to cross-validate: relative force error is that of the fit itself")
    say(f"fit: {chosen} fitted in {quality['seconds']:.0f} s; {sentence(families[chosen] or inside)}")
    for note in notes:
        say(f"fit: {note}")
    return Fitted(made, job.config, quality, notes, families)


# what is fitted to what


def _name(potential: Settings | PotentialConfig) -> str:
    kind: str = registry.parse("potentials", potential).kind
    return kind


def _candidates(
    settings: FitSettings, potential: Settings | PotentialConfig | None, statistics: Statistics
) -> dict[str, Settings]:
    """Settings of the potentials to try, by name."""
    given: dict[str, Settings] = {}
    if potential is not None:
        given = {_name(potential): registry.parse("potentials", potential).model_dump(mode="json")}
    if settings.choose is None:
        return given or {"eam": {"kind": "eam"}}
    names = sensible(statistics) if settings.choose == "auto" else settings.choose
    if not names:
        raise UserError("fit: choose is empty; name families, write auto, or leave it out")
    return {name: settings_of(name) for name in names} | given


def _require_elements(structures: Structures, statistics: Statistics) -> None:
    missing = [chemical_symbols[number] for number in statistics.species if number not in structures.elements]
    if missing:
        raise UserError(
            f"no structure to fit to holds {', '.join(missing)}: add structures with it, or remove its isolated atoms"
        )


class TooFewLabelsError(UserError):
    """The data cannot fix the parameters."""


def _require_labels(structures: Structures, parameters: Parameters) -> None:
    """Refuse fewer labels than parameters."""
    energies, stresses = int(structures.labelled("energy").sum()), int(structures.labelled("stress").sum())
    forces = 3 * int(np.isfinite(structures.forces).all(axis=1).sum())
    linear, free = int((parameters.linear & parameters.free).sum()), int(parameters.free.sum())
    linear += len(structures.elements)
    if not forces and energies < linear:
        raise TooFewLabelsError(
            f"{energies} energies and no forces cannot fix the {linear} linear parameters of the potential: "
            "label forces, or give more structures"
        )
    if energies + forces + 6 * stresses < free:
        raise TooFewLabelsError(
            f"{energies + forces + 6 * stresses} labels cannot fix the {free} parameters of the potential: "
            "give more structures, or a potential with fewer parameters, such as morse"
        )


def _subset(structures: Structures, atoms: int, seed: int) -> npt.NDArray[np.int64]:
    """Random structures of ``atoms`` atoms together, every set of elements among them before any comes twice."""
    order = np.random.default_rng(seed).permutation(len(structures))
    present = np.zeros((len(structures), max(structures.elements) + 1), dtype=bool)
    present[structures.system, structures.species] = True
    _, first = np.unique(present[order], axis=0, return_index=True)
    first = first[np.argsort(-present[order][first].sum(axis=1), kind="stable")]  # those with most elements first
    order = order[np.concatenate([first, np.setdiff1d(np.arange(len(order)), first)])]
    count = int(np.searchsorted(np.cumsum(structures.sizes[order]), atoms, side="left")) + 1
    return np.sort(order[:count])


class Watched:
    """A bar of objective evaluations; a context that gives the function to tell."""

    def __init__(self, description: str, total: int) -> None:
        self._bar, self._description, self._total = bar(), description, total

    def __enter__(self) -> Callable[[float], None]:
        self._bar.start()
        task = self._bar.add_task(self._description, total=self._total, note="")
        return lambda objective: self._bar.update(task, advance=1, note=f"objective {objective:.4g}")

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

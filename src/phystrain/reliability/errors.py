"""Errors on labelled structures that the potential was not trained on: overall, by element and by group."""

from typing import ClassVar, Literal, cast

import numpy as np
from ase.data import chemical_symbols
from pydantic import Field
from torch import nn

from phystrain.data.graphs import GraphStore
from phystrain.data.statistics import composition
from phystrain.data.structures import Floats, Structures, groups, ragged
from phystrain.derive import Potential, evaluate, placement
from phystrain.errors import UserError
from phystrain.progress import track
from phystrain.reliability import Curve, Figures, ReliabilityTest, Result, Subject

GROUP_KEYS = ("topology", "config_type", "group")
"""Names in ``Structures.info`` by which errors are also listed; the first that occurs."""


APART = "apart from offsets of the elements"


class Config(ReliabilityTest):
    """Errors of energy, forces and stress on the test structures."""

    kind: Literal["errors"] = "errors"
    cost: ClassVar[int] = 0
    level: ClassVar[Literal[0, 1, 2]] = 2
    batch_atoms: int = Field(default=2000, ge=1, description="atoms predicted at a time")
    parity_points: int = Field(default=1000, ge=2, description="most points kept of each parity plot")
    hottest: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="fraction of the structures, those with the largest forces, whose force errors are told apart too",
    )
    energy_limit: float | None = Field(default=None, gt=0, description="largest RMSE, meV/atom; not judged by default")
    forces_limit: float | None = Field(default=None, gt=0, description="largest RMSE, meV/Å; not judged by default")

    def __call__(self, subject: Subject) -> Result:
        """Errors on ``subject.test``.

        Raises:
            UserError: no labelled test structures.
        """
        labelled = subject.test
        if labelled is None or not (labelled.labelled("energy").any() or labelled.labelled("forces").any()):
            raise UserError("errors: there is no labelled test structure; give a test set, or keep some data aside")
        predicted = predict(subject.potential, labelled, self.batch_atoms)
        figures = error_figures(labelled, predicted)
        if hasattr(subject.potential, "derived"):  # of someone else, who may count energies from another zero
            figures |= offset_figures(labelled, predicted)
        if self.hottest is not None:
            figures |= hottest_figures(labelled, predicted, self.hottest)
        limits = {"energy RMSE, meV/atom": self.energy_limit, "forces RMSE, meV/Å": self.forces_limit}
        judged = {name: limit for name, limit in limits.items() if limit is not None and name in figures}
        return Result(
            test=self.kind,
            title="Errors on held-out structures",
            figures=figures,
            passed=all(_number(figures[name]) <= limit for name, limit in judged.items()) if judged else None,
            threshold=", ".join(f"{name.split(',')[0]} <= {limit:g}" for name, limit in judged.items()),
            sentence=_sentence(figures),
            curves=self._parity(labelled, predicted),
        )

    def _parity(self, labelled: Structures, predicted: Structures) -> dict[str, Curve]:
        sizes = labelled.sizes
        quantities = {
            "energy parity": (labelled.energy / sizes, predicted.energy / sizes, "energy, eV/atom"),
            "forces parity": (labelled.forces.ravel(), predicted.forces.ravel(), "force component, eV/Å"),
            "stress parity": (labelled.stress.ravel(), predicted.stress.ravel(), "stress component, eV/Å³"),
        }
        curves = {}
        for name, (reference, ours, label) in quantities.items():
            known = np.flatnonzero(np.isfinite(reference) & np.isfinite(ours))
            if len(known):
                if len(known) > self.parity_points:
                    known = np.sort(np.random.default_rng(0).choice(known, self.parity_points, replace=False))
                curves[name] = Curve(
                    x=reference[known].tolist(),
                    y=ours[known].tolist(),
                    x_label=f"reference {label}",
                    y_label=f"predicted {label}",
                )
        return curves


def predict(potential: nn.Module, structures: Structures, batch_atoms: int = 2000) -> Structures:
    """The same structures with the potential's energies, forces and (where 3D periodic) stresses as labels.

    Args:
        potential: a :class:`phystrain.derive.Potential`, on its device and in its precision.
        structures: any.
        batch_atoms: atoms predicted at a time.
    """
    device, dtype = placement(potential)
    model = cast(Potential, potential)
    store = GraphStore(structures, model.cutoff)
    energy = np.full(len(structures), np.nan)
    forces = np.full_like(structures.positions, np.nan)
    stress = np.full_like(structures.cell, np.nan)
    # structures with the same kind of periodicity together: a strain costs time and is asked for only where it counts
    periodic = structures.pbc.all(axis=1)
    batches = [
        (of_kind[part], bool(kind))
        for kind in (True, False)
        for of_kind in [np.flatnonzero(periodic == kind)]
        for part in groups(structures.sizes[of_kind], batch_atoms)
    ]
    for indices, with_stress in track(batches, "predicting the test set"):
        want = ("energy", "forces", "stress") if with_stress else ("energy", "forces")
        predicted = evaluate(model, store.graph(indices, dtype).to(device), want)
        assert predicted.energy is not None and predicted.forces is not None  # noqa: PT018
        energy[indices] = predicted.energy.cpu().numpy()
        forces[ragged(structures.offsets, indices)] = predicted.forces.cpu().numpy()
        if predicted.stress is not None:
            stress[indices] = predicted.stress.cpu().numpy()
    return structures.with_labels(energy, forces, stress)


def error_figures(labelled: Structures, predicted: Structures) -> Figures:
    """Raw figures: energies in meV/atom, forces in meV/Å, stresses in meV/Å³; what is not labelled does not count."""
    figures: Figures = {"structures": len(labelled)}
    energy = 1000 * (predicted.energy - labelled.energy) / labelled.sizes
    forces = 1000 * (predicted.forces - labelled.forces)
    stress = 1000 * (predicted.stress - labelled.stress)
    for name, values, unit in (
        ("energy", energy, "meV/atom"),
        ("forces", forces, "meV/Å"),
        ("stress", stress, "meV/Å³"),
    ):
        if labelled.labelled(name).any() and np.isfinite(values).any():
            figures[f"{name} MAE, {unit}"] = float(np.nanmean(np.abs(values)))
            figures[f"{name} RMSE, {unit}"] = _rms(values)
    if labelled.labelled("forces").any():
        figures["force cosine"] = force_cosine(labelled.forces, predicted.forces)
        for number in labelled.elements:
            of_element = forces[labelled.species == number]
            if np.isfinite(of_element).any():
                figures[f"forces RMSE {chemical_symbols[number]}, meV/Å"] = _rms(of_element)
    return figures | _by_group(labelled, energy, forces)


def hottest_figures(labelled: Structures, predicted: Structures, fraction: float) -> Figures:
    """Force errors, meV/Å, of the structures whose reference forces have the largest RMS.

    A potential that has learnt to be stiff survives in dynamics, but is wrong on structures far from equilibrium.

    Args:
        labelled, predicted: the same structures.
        fraction: of the structures with forces.
    """
    squares = np.square(labelled.forces).mean(axis=1)
    known = np.isfinite(squares)
    counts = np.bincount(labelled.system[known], minlength=len(labelled))
    sums = np.bincount(labelled.system[known], weights=squares[known], minlength=len(labelled))
    scale = np.sqrt(sums / counts.clip(min=1))
    number = int(np.ceil(fraction * np.count_nonzero(counts)))
    chosen = np.argsort(np.where(counts > 0, -scale, np.inf), kind="stable")[:number]
    if not number:
        return {}
    errors = 1000 * (predicted.select(chosen).forces - labelled.select(chosen).forces)
    name = f"hottest {100 * fraction:g} %"
    return {
        f"forces MAE {name}, meV/Å": float(np.nanmean(np.abs(errors))),
        f"forces RMSE {name}, meV/Å": _rms(errors),
        f"smallest RMS force {name}, meV/Å": 1000 * float(scale[chosen[-1]]),
    }


def offset_figures(labelled: Structures, predicted: Structures) -> Figures:
    """Energy errors, meV/atom, apart from an offset of each element, by least squares: zeros of energy are a choice.

    Args:
        labelled, predicted: the same structures.
    """
    error = predicted.energy - labelled.energy
    known = np.isfinite(error)
    if not known.any():
        return {}
    atoms, sizes = composition(labelled)[known].astype(float), labelled.sizes[known]
    offsets = np.linalg.lstsq(atoms / sizes[:, None], error[known] / sizes, rcond=None)[0]
    left = 1000 * (error[known] - atoms @ offsets) / sizes
    return {
        f"energy MAE {APART}, meV/atom": float(np.abs(left).mean()),
        f"energy RMSE {APART}, meV/atom": _rms(left),
    }


def _by_group(labelled: Structures, energy: Floats, forces: Floats) -> Figures:
    key = next((name for name in GROUP_KEYS if name in labelled.info), None)
    if key is None or len(np.unique(labelled.info[key])) < 2:
        return {}
    figures: Figures = {}
    for group in np.unique(labelled.info[key]).tolist():
        chosen = labelled.info[key] == group
        name = group or "none"
        if np.isfinite(energy[chosen]).any():
            figures[f"energy RMSE {key}={name}, meV/atom"] = _rms(energy[chosen])
        if np.isfinite(forces[chosen[labelled.system]]).any():
            figures[f"forces RMSE {key}={name}, meV/Å"] = _rms(forces[chosen[labelled.system]])
    return figures


def force_cosine(reference: Floats, predicted: Floats, smallest: float = 1e-3) -> float:
    """Mean cosine of the angle between force vectors (atoms, 3), of atoms whose reference exceeds ``smallest`` eV/Å.

    Not a number if there is no such atom.
    """
    lengths = np.linalg.norm(reference, axis=1)
    chosen = (lengths > smallest) & np.isfinite(lengths)
    if not chosen.any():
        return float("nan")
    product = np.einsum("ax,ax->a", reference[chosen], predicted[chosen])
    return float(np.mean(product / (lengths[chosen] * np.linalg.norm(predicted[chosen], axis=1).clip(min=1e-12))))


def _number(value: float | int | str | None) -> float:
    return float("nan") if value is None else float(value)


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.nanmean(np.square(values))))


def _sentence(figures: Figures) -> str:
    parts = []
    if (energy := figures.get("energy RMSE, meV/atom")) is not None:
        offset = figures.get(f"energy RMSE {APART}, meV/atom")
        apart = "" if offset is None else f" ({_number(offset):.1f} {APART})"
        parts.append(f"energies {_number(energy):.1f} meV/atom{apart}")
    if (forces := figures.get("forces RMSE, meV/Å")) is not None:
        parts.append(f"forces {_number(forces):.0f} meV/Å")
    return f"RMSE on {figures['structures']} structures: {', '.join(parts)}."

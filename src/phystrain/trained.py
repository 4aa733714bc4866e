"""What is done with a finished potential: errors, audit, dynamics (:mod:`phystrain.md`), comparison, as functions.

Each takes ``say``, which is told what happens line by line.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import yaml
from ase.data import chemical_symbols

from phystrain.allocator import keep_memory
from phystrain.config import Reliability
from phystrain.data.read import LabelKeys, read
from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.md import run_md
from phystrain.preflight import checked, require_apart, require_temperature
from phystrain.reliability import Figures, Reference, Result, Subject
from phystrain.reliability._suite import audit
from phystrain.report.comparison import Comparison, Variant, comparison_table, with_material
from phystrain.report.covered import covered, store_covered
from phystrain.report.page import write_report
from phystrain.saving import load_model
from phystrain.uncertainty.calibration import LEAST_ATOMS, quality
from phystrain.uncertainty.ensemble import Ensemble, load_ensemble
from phystrain.verdict.audited import (
    audit_saved,
    comparable,
    load_results,
    name_of,
    say_verdict,
    smallest,
    store_results,
    variant_of,
)
from phystrain.verdict.examined import examined_calculator, examined_model

__all__ = ["audit_model", "compare_runs", "describe_model", "evaluate_model", "run_md"]

Say = Callable[[str], None]


def evaluate_model(
    path: Path,
    data: Path,
    *,
    output: Path | None = None,
    keys: Mapping[str, str | None] | None = None,
    spread: bool = False,
    say: Say = print,
) -> Result:
    """Errors of a model on labelled structures.

    Args:
        path: run folder or model file.
        data: labelled structures.
        output: folder for parity plots, page and figures.
        keys: names of the labels.
        spread: tell too how well the spread of the ensemble beside the model tells the errors of forces.
        say: told what was found.
    """
    keep_memory()
    if output is not None:
        require_apart(output)
    model = load_model(path)
    ensemble = load_ensemble(model) if spread else None
    found = read(data, keys=LabelKeys(**(keys or {})))
    say(found.summary())
    if not comparable(found.structures):
        raise UserError(f"{data} has neither energies nor forces: name them with --energy and --forces")
    subject = Subject(name_of(path), model.potential, model.statistics, test=found.structures)
    (result,) = audit(subject, {"errors": {}})
    if ensemble is not None:
        if ensemble.remark:
            say(ensemble.remark)
        result = result.model_copy(update={"figures": result.figures | _spread_figures(ensemble, found.structures)})
    _say_figures(result, say)
    if output is not None:
        variant = Variant(name_of(path), results=[result])
        store_results(output, variant, found.structures.digest())
        title = f"{path} on {data.name}"
        say(f"page {write_report(Comparison(title, [variant], data_hash=found.structures.digest()), output)}")
    return result


def audit_model(
    path: Path | str | None = None,
    *,
    ase: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    cutoff: float | None = None,
    start: Path | None = None,
    train: Path | None = None,
    temperatures: Sequence[float] | None = None,
    replicas: int = 4,
    minutes: float = 15.0,
    picoseconds: float | None = None,
    timestep: float | None = None,
    alone: bool = False,
    output: Path | None = None,
    seed: int = 0,
    reference: Reference | None = None,
    say: Say = print,
) -> Variant:
    """Put a model, or any calculator of ASE, to the reliability tests and write a page.

    Args:
        path: run folder or model file; beside ``ase`` a file of structures to test on.
        ase: calculator, as in :func:`phystrain.interfaces.ase_potential.load_calculator`.
        arguments: of the calculator.
        cutoff: Å, of the calculator; tests of the cut-off do not apply where it is not known.
        start: structures to start dynamics from; if labelled, errors are measured on them too. If not given and
            ``path`` is a run folder, the test or validation structures of that run; of its training structures, which
            it takes if there is nothing else, no errors are measured. Beside ``ase``, those of ``path``.
        train: structures that it was trained on; those of the run if not given.
        temperatures: K; those of the run if not given. They are not guessed.
        minutes: of wall time, from which the lengths of the dynamics follow.
        picoseconds: length of every run, instead of ``minutes``.
        replicas, timestep: of the dynamics.
        alone: leave out what a run holds to compare with: the model without physics, and the teacher.
        output: folder for results and page.
        seed: of the dynamics.
        reference: trajectory to compare dynamics with; see :func:`phystrain.reference.read_reference`.
        say: told what was found.
    """
    keep_memory()
    if ase is None and path is None:
        raise UserError("audit: name a run folder or model file; or a calculator with --ase, and a file of structures")
    if ase is None and (arguments or cutoff is not None):
        raise UserError("audit: --argument and --cutoff are for calculators: name one with --ase")
    place = Path(path) if path is not None else None
    shown = ase or str(path)
    name = re.split(r"[.:]", ase)[-1] if ase is not None else name_of(cast(Path, place))
    folder = output or Path(f"{name.removesuffix('.safetensors')}-audit")
    require_apart(folder)
    if ase is not None:
        subject = examined_calculator(ase, place, start, train, arguments, cutoff)
    else:
        subject = examined_model(cast(Path, place), start, train)
    known = list(temperatures or subject.model.meta.get("temperatures") or [])
    given = {"temperatures": known or None, "replicas": replicas, "timestep": timestep}
    given |= {"minutes": minutes} if picoseconds is None else {"picoseconds": picoseconds}
    settings = checked(Reliability, "audit", given)
    structures = subject.structures
    if structures is not None:
        require_temperature(settings, f"audit: the temperature of the data that {shown} was trained on is not known")
    results, beside = audit_saved(
        subject.model,
        settings,
        name=name,
        test=subject.test,
        start=None if structures is None else smallest(structures),
        seed=seed,
        frames_to=folder / "failed.xyz",
        train=subject.train,
        reference=reference,
        rivals=() if alone else subject.rivals,
        say=say,
    )
    variant = variant_of(name, results)
    store_results(folder, variant, "" if structures is None else structures.digest(), beside)
    store_covered(folder, covered(subject.model.statistics, subject.train))
    if beside:
        say(comparison_table([*beside, variant]))
    say_verdict(variant.verdict, say)
    say(f"page {write_report(Comparison(f'Audit of {shown}', [*beside, with_material(variant, folder)]), folder)}")
    return variant


def _spread_figures(ensemble: Ensemble, labelled: Structures) -> Figures:
    """How well the spread tells the errors of forces."""
    observed = ensemble.observe(labelled)
    if len(observed.known().spread) < LEAST_ATOMS:
        raise UserError("too few atoms with forces to compare the spread with: name them with --forces")
    figures: Figures = {
        "spread, models": len(ensemble.members),
        "spread, from": ensemble.source,
        "spread, calibrated": "no" if ensemble.calibration is None else "yes",
    }
    return figures | {f"spread, {name}": value for name, value in quality(observed).items()}


def compare_runs(runs: Iterable[Path], output: Path, *, say: Say = print) -> list[Variant]:
    """One table and one page for finished runs, the first the one to compare with.

    Args:
        runs: folders with ``results.json``.
        output: folder for the page.
        say: told the table.
    """
    folders = list(runs)
    if not folders:
        raise UserError("compare: name at least one run folder")
    require_apart(output)
    variants = [with_material(load_results(Path(folder)), Path(folder)) for folder in folders]
    names = Counter(variant.name for variant in variants)
    variants = [
        replace(variant, name=str(folder)) if names[variant.name] > 1 else variant
        for variant, folder in zip(variants, folders, strict=True)
    ]
    say(comparison_table(variants))
    for variant in variants:
        say_verdict(variant.verdict, say, variant.name)
    say(f"page {write_report(Comparison('Comparison', variants), output)}")
    return variants


def describe_model(path: Path) -> str:
    """What a model file is, in a few lines."""
    model = load_model(path)
    count = sum(parameter.numel() for parameter in model.potential.parameters())
    cutoff = float(model.potential.cutoff)  # type: ignore[arg-type]
    elements = " ".join(chemical_symbols[number] for number in model.statistics.species)
    lines = [
        f"file        {model.path}",
        f"elements    {elements}",
        f"cut-off     {cutoff:g} Å",
        f"parameters  {count:,}",
        f"references  {model.statistics.reference_source}",
        *(f"{name:11s} {value}" for name, value in model.meta.items()),
        "potential",
        *("  " + line for line in yaml.safe_dump(model.config, sort_keys=False).splitlines()),
    ]
    return "\n".join(lines)


def _say_figures(result: Result, say: Say) -> None:
    say(result.sentence)
    for name, value in result.figures.items():
        say(f"  {name:42s} {value:.4g}" if isinstance(value, float) else f"  {name:42s} {value}")

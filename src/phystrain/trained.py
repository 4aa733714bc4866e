"""What is done with a finished potential: errors, audit, dynamics, comparison, each as a function.

Each takes ``say``, which is told what happens line by line.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import yaml
from ase.data import chemical_symbols

from phystrain import config as run_file
from phystrain.allocator import keep_memory
from phystrain.config import Reliability
from phystrain.data.read import LabelKeys, read
from phystrain.data.structures import Structures
from phystrain.data.write import write
from phystrain.dynamics import Settings, Trajectory, replicate, simulate
from phystrain.dynamics.guards import Guards
from phystrain.errors import UserError
from phystrain.preflight import checked, require_apart, require_new, require_temperature
from phystrain.reliability import Reference, Result, Subject
from phystrain.reliability._suite import audit
from phystrain.report.comparison import Comparison, Variant, comparison_table, with_material
from phystrain.report.covered import covered, store_covered
from phystrain.report.page import write_report
from phystrain.saving import load_model
from phystrain.train.folder import digests
from phystrain.train.material import load_labelled
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
from phystrain.verdict.beside import others
from phystrain.verdict.examined import Examined, examined_calculator

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
        subject = _model(cast(Path, place), start, train)
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


def _model(path: Path, start: Path | None, train: Path | None) -> Examined:
    """A model of ours."""
    model = load_model(path)
    if start is None:
        test, structures, trained_on = _own_data(path)
    else:
        test = structures = read(start).structures
        trained_on = _trained_on(path)
    return Examined(model, test, structures, read(train).structures if train else trained_on, others(path))


def _own_data(folder: Path) -> tuple[Structures | None, Structures | None, Structures | None]:
    """Held-out structures of a run folder, structures to start from, and those it was trained on.

    Nothing for a bare model file.
    """
    if not (folder / "config.yaml").is_file():
        return None, None, None
    config = run_file.load(folder / "config.yaml")
    record = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    try:
        labelled = load_labelled(
            config.data, cutoff=3.0, seed=config.seed, base=folder / record["base"], say=lambda _: None
        )
    except UserError as error:
        raise UserError(f"the data of {folder} cannot be read ({error}). Give --start FILE") from error
    if any(record[part] != digest for part, digest in digests(labelled).items()):
        raise UserError(f"the data of {folder} has changed since it was trained on: give --start FILE")
    held_out = labelled.test or labelled.valid
    return held_out, held_out or labelled.train, labelled.train


def _trained_on(folder: Path) -> Structures | None:
    """Training structures of a run folder, where they are still what they were."""
    try:
        return _own_data(folder)[2]
    except UserError:
        return None


def run_md(
    path: Path,
    start: Path,
    *,
    temperature: float,
    picoseconds: float = 10.0,
    timestep: float | None = None,
    ensemble: str = "nvt",
    replicas: int = 1,
    output: Path = Path("trajectory.xyz"),
    every: int = 100,
    seed: int = 0,
    spread: str | None = None,
    spread_interval: int = 10,
    spread_stops: bool = True,
    say: Say = print,
) -> None:
    """Molecular dynamics with guards; writes frames and, apart from them, the frames that failed.

    Args:
        path: run folder or model file.
        start: one structure or several, which run side by side.
        temperature: K.
        picoseconds, timestep: length, and step in fs: 1, or 0.5 with hydrogen, if not given.
        ensemble: ``nvt`` or ``nve``.
        replicas: copies of each structure.
        output: file for the frames.
        every: steps between frames.
        seed: of velocities and thermostat.
        spread: eV/Å by which the models of the ensemble beside the model may disagree about a force, or ``auto`` for
            a limit from the held-out structures of the training.
        spread_interval: steps between looks at it.
        spread_stops: whether a run ends there, or it is only said.
        say: told what became of each run.
    """
    keep_memory()
    require_new(output, start)
    for field, value in {"replicas": replicas, "every": every}.items():
        if value < 1:
            raise UserError(f"md: {field} should be 1 or more, got {value}")
    given = {
        "ensemble": ensemble,
        "temperature": temperature,
        "timestep": timestep,
        "picoseconds": picoseconds,
        "frame_interval": every,
        "seed": seed,
    }
    model = load_model(path)
    committee = None
    if spread is not None:
        committee = load_ensemble(model)
        limits = {
            "spread": _limit(committee, spread),
            "spread_interval": spread_interval,
            "spread_stops": spread_stops,
        }
        given["guards"] = checked(Guards, "md", limits)
        say(f"spread of {len(committee.members)} models, limit {limits['spread']:.3g} eV/Å")
    settings = checked(Settings, "md", given)
    structures = replicate(read(start).structures, replicas)
    look = None if committee is None else committee.spread
    trajectory = simulate(model.potential, structures, settings, description="dynamics", spread=look)
    write(_recorded(trajectory, structures, every), output)
    failed = output.with_name(f"{output.stem.removesuffix('.xyz')}-failed.xyz")
    if not trajectory.survived.all():
        write(trajectory.failing, failed)
    for number, survived in enumerate(trajectory.survived.tolist()):
        reached = trajectory.picoseconds[number]
        fate = f"survived {reached:g} ps" if survived else f"stopped at {reached:g} ps: {trajectory.sentences[number]}"
        if trajectory.spread is not None:
            fate += f"; largest spread {trajectory.spread[number]:.2f} eV/Å"
            if survived and trajectory.warnings[number]:
                fate += f", beyond the limit first by a {trajectory.warnings[number]}"
        say(f"run {number}: {fate}")
    say(f"frames {output}" + ("" if trajectory.survived.all() else f"; failing frames {failed}"))


def _limit(ensemble: Ensemble, given: str) -> float:
    """eV/Å that a setting of the spread stands for."""
    if given == "auto":
        if ensemble.calibration is None:
            raise UserError("the spread of this model was not calibrated: give --spread a number, in eV/Å")
        return ensemble.calibration.limit
    try:
        limit = float(given)
    except ValueError:
        limit = float("nan")
    if not limit > 0:
        raise UserError(f"--spread should be auto or a positive number of eV/Å, got {given!r}")
    return limit


def _spread_figures(ensemble: Ensemble, labelled: Structures) -> dict[str, float | int | str | None]:
    """How well the spread tells the errors of forces."""
    observed = ensemble.observe(labelled)
    if len(observed.known().spread) < LEAST_ATOMS:
        raise UserError("too few atoms with forces to compare the spread with: name them with --forces")
    figures: dict[str, float | int | str | None] = {
        "spread, models": len(ensemble.members),
        "spread, from": ensemble.source,
        "spread, calibrated": "no" if ensemble.calibration is None else "yes",
    }
    return figures | {f"spread, {name}": value for name, value in quality(observed).items()}


def _recorded(trajectory: Trajectory, start: Structures, every: int) -> Structures:
    """Every recorded frame of every run, run after run, as long as the run was going."""
    assert trajectory.frames is not None
    moments = []
    for number, positions in enumerate(trajectory.frames):
        going = trajectory.steps >= number * every
        times = np.full(len(start), f"{number * every * trajectory.settings.step / 1000:g}")
        info = {"run": np.arange(len(start)).astype(str), "time_ps": times}
        moments.append(replace(start.without_labels(), positions=positions, info=info).select(going))
    joined = Structures.concatenate(moments)
    return joined.select(np.argsort(joined.info["run"].astype(np.int64), kind="stable"))


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

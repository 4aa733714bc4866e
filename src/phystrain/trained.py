"""What is done with a finished potential: errors, audit, dynamics, comparison, each as a function.

Each takes ``say``, which is told what happens line by line.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from ase.data import chemical_symbols

from phystrain import config as run_file
from phystrain.allocator import keep_memory
from phystrain.calibration import LEAST_ATOMS, quality
from phystrain.config import Reliability
from phystrain.data.read import LabelKeys, read
from phystrain.data.structures import Structures
from phystrain.data.write import write
from phystrain.dynamics import Settings, Trajectory, replicate, simulate
from phystrain.ensemble import Ensemble, load_ensemble
from phystrain.errors import UserError
from phystrain.guards import Guards
from phystrain.preflight import checked, require_apart, require_new
from phystrain.reliability import Result, Subject
from phystrain.reliability._suite import audit
from phystrain.report.comparison import Comparison, Variant, comparison_table
from phystrain.report.page import write_report
from phystrain.saving import load_model
from phystrain.train.folder import digests
from phystrain.train.material import load_labelled
from phystrain.verdict import audit_saved, comparable, load_results, name_of, say_results, smallest, store_results

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
    path: Path,
    *,
    start: Path | None = None,
    temperatures: Sequence[float] | None = None,
    replicas: int = 4,
    picoseconds: float = 2.0,
    timestep: float | None = None,
    output: Path | None = None,
    seed: int = 0,
    say: Say = print,
) -> list[Result]:
    """Put a model to the reliability tests and write a page.

    Args:
        path: run folder or model file.
        start: structures to start dynamics from; if labelled, errors are measured on them too. If not given and
            ``path`` is a run folder, the test or validation structures of that run; of its training structures, which
            it takes if there is nothing else, no errors are measured.
        temperatures: K; those of the run if not given.
        replicas, picoseconds, timestep: of the dynamics.
        output: folder for results and page.
        seed: of the dynamics.
        say: told what was found.
    """
    keep_memory()
    folder = output or Path(f"{name_of(path).removesuffix('.safetensors')}-audit")
    require_apart(folder)
    model = load_model(path)
    given = {
        "temperatures": list(temperatures or model.meta.get("temperatures", [300.0])),
        "replicas": replicas,
        "picoseconds": picoseconds,
        "timestep": timestep,
    }
    settings = checked(Reliability, "audit", given)
    test, structures = (read(start).structures,) * 2 if start is not None else _own_data(Path(path))
    results = audit_saved(
        model,
        settings,
        name=name_of(path),
        test=test,
        start=None if structures is None else smallest(structures),
        seed=seed,
        frames_to=folder / "failed.xyz",
    )
    variant = Variant(name_of(path), results=results)
    store_results(folder, variant, "" if structures is None else structures.digest())
    page = write_report(Comparison(f"Audit of {path}", [variant]), folder)
    say_results(results, say)
    say(f"page {page}")
    return results


def _own_data(folder: Path) -> tuple[Structures | None, Structures | None]:
    """Held-out structures of a run folder, and structures to start from; nothing for a bare model file."""
    if not (folder / "config.yaml").is_file():
        return None, None
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
    return held_out, held_out or labelled.train


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
    variants = [load_results(Path(folder)) for folder in folders]
    names = Counter(variant.name for variant in variants)
    variants = [
        replace(variant, name=str(folder)) if names[variant.name] > 1 else variant
        for variant, folder in zip(variants, folders, strict=True)
    ]
    say(comparison_table(variants))
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

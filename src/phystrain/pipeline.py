"""What the command line does, as functions: train and test, evaluate, audit, run dynamics, compare.

Each takes ``say``, which is told what happens line by line.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ase.data import chemical_symbols

from phystrain import config as run_file
from phystrain import recipes, registry
from phystrain.allocator import keep_memory
from phystrain.augment import load_teacher, relabel
from phystrain.config import Reliability, RunConfig
from phystrain.data.read import LabelKeys, read
from phystrain.data.structures import Structures
from phystrain.data.write import write
from phystrain.dynamics import Settings, Trajectory, replicate, simulate
from phystrain.errors import UserError
from phystrain.files import write_text
from phystrain.preflight import (
    checked,
    require_apart,
    require_device,
    require_held_out,
    require_new,
    require_sources,
    withdraw,
)
from phystrain.reliability import Result, Subject
from phystrain.reliability._suite import audit
from phystrain.report.comparison import Comparison, Variant, comparison_table
from phystrain.report.page import write_report
from phystrain.saving import SavedModel, load_model
from phystrain.train.run import Run

Say = Callable[[str], None]

STARTS = 4
"""Structures that dynamics starts from, the smallest ones of the test data."""


def run(
    config: RunConfig, folder: Path | str, *, base: Path | str = ".", restart: bool = False, say: Say = print
) -> list[Result]:
    """Train all stages, test the result and write ``report.html``.

    Args:
        config: settings.
        folder: run folder; an unfinished run in it goes on.
        base: folder that relative paths in the settings start from.
        restart: forget what is in the folder.
        say: told what happens.

    Returns:
        What the reliability tests found.

    Raises:
        UserError: a mistake in settings or data.
        Interrupted: stopped by a signal.
    """
    folder = Path(folder)
    require_sources(config, Path(base))
    require_device(config)
    require_held_out(config)
    job = Run(config, folder, base=base, restart=restart, say=say)
    try:
        model = load_model(job.train())
    except Exception:
        if job.is_first:
            withdraw(folder)
        raise
    if not job.is_first:
        return []
    labelled = job.labelled
    test = labelled.test or labelled.valid
    results = audit_saved(
        model,
        config.reliability,
        name=folder.name,
        test=test,
        start=smallest(test or labelled.train),
        seed=config.seed,
        frames_to=folder / "failed.xyz",
    )
    variant = Variant(folder.name, results=results, history=folder / "metrics.csv")
    store_results(folder, variant, labelled.train.digest())
    text = (folder / "config.yaml").read_text(encoding="utf-8")
    page = write_report(Comparison(f"Run {folder.name}", [variant], "", text, labelled.train.digest()), folder)
    _say_results(results, say)
    say(f"model  {folder / 'model' / 'model.safetensors'}\nreport {page}")
    return results


def _name(path: Path) -> str:
    """Of a run or model, for tables; also of a folder given as a dot."""
    return Path(path).resolve().name


def _comparable(structures: Structures | None) -> bool:
    """Whether there are labels to compare predictions with."""
    return structures is not None and bool(structures.labelled("energy").any() or structures.labelled("forces").any())


def audit_saved(
    model: SavedModel,
    settings: Reliability,
    *,
    name: str,
    test: Structures | None,
    start: Structures | None,
    seed: int = 0,
    frames_to: Path | None = None,
) -> list[Result]:
    """Run the reliability tests that the settings name, or all of them.

    Args:
        model: under test.
        settings: temperatures, replicas, lengths.
        name: for tables.
        test: labelled structures.
        start: structures that dynamics starts from.
        seed: of the dynamics.
        frames_to: file for failing frames.
    """
    if not settings.enabled:
        return []
    subject = Subject(
        name=name,
        potential=model.potential,
        statistics=model.statistics,
        test=test,
        start=start,
        temperatures=tuple(settings.temperatures),
        seed=seed,
    )
    tests: dict[str, Any] | None = dict(settings.tests) if settings.tests is not None else None
    if tests is None:
        length: dict[str, Any] = {"picoseconds": settings.picoseconds, "timestep": settings.timestep}
        tests = {kind: {} for kind in registry.kinds("reliability")}
        tests["drift"] = length | {"halving": False}
        tests["survival"] = length | {"replicas": settings.replicas, "frames_to": frames_to}
        if not _comparable(test):
            del tests["errors"]
        if start is None:
            tests = {kind: fields for kind, fields in tests.items() if kind in ("errors", "dimers")}
    return audit(subject, tests)


def smallest(structures: Structures, count: int = STARTS) -> Structures:
    """The smallest structures: the cheapest to run dynamics of."""
    return structures.select(np.argsort(structures.sizes, kind="stable")[:count])


def store_results(folder: Path, variant: Variant, data_hash: str) -> None:
    """Write ``results.json``, which :func:`compare_runs` reads."""
    content = {
        "name": variant.name,
        "description": variant.description,
        "data": data_hash,
        "results": [result.model_dump(mode="json") for result in variant.results],
    }
    write_text(folder / "results.json", json.dumps(content, indent=1, allow_nan=True) + "\n")


def load_results(folder: Path) -> Variant:
    """Read what :func:`store_results` wrote.

    Raises:
        UserError: the folder holds no results.
    """
    file = folder / "results.json"
    if not file.is_file():
        raise UserError(f"{folder} holds no results.json: give folders that 'train' or 'audit' has finished")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        results = [Result.model_validate(result) for result in content["results"]]
        name, description = str(content["name"]), str(content["description"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged: run 'phystrain audit' or 'phystrain train' again") from error
    history = folder / "metrics.csv"
    return Variant(name, description, results, history if history.is_file() else None)


def fit_classical(
    data: Path,
    folder: Path,
    *,
    kind: str = "eam",
    steps: int = 300,
    seed: int = 0,
    keys: Mapping[str, str | None] | None = None,
    restart: bool = False,
    say: Say = print,
) -> list[Result]:
    """Fit a classical potential to labelled structures and look at its errors and dimer curves.

    Args:
        data: labelled structures, with forces.
        folder: run folder.
        kind: of the potential.
        steps: of the optimiser.
        seed: of the split and the order.
        keys: names of the labels.
        restart: forget what is in the folder.
        say: told what happens.
    """
    found = read(data, keys=LabelKeys(**(keys or {}))).structures
    quantities = tuple(q for q in ("energy", "forces", "stress") if found.labelled(q).any())
    stage = recipes.teacher_stage(quantities, steps)
    del stage["potential"]  # that of the run
    settings = {
        "potential": {"kind": kind},
        "data": {"train": str(data.resolve()), "keys": dict(keys or {}), "valid_fraction": 0.2},
        "stages": [stage],
        "seed": seed,
        "reliability": {"tests": {"errors": {}, "dimers": {}}},
    }
    config = run_file.check(settings, f"fit of {kind}")
    if not config.potential.trains_reference:
        raise UserError(f"{kind} is a network; 'fit' is for classical potentials. 'phystrain init {data}' trains one.")
    return run(config, folder, restart=restart, say=say)


def augment_file(
    data: Path, output: Path, *, teacher: str, settings: Mapping[str, Any], seed: int = 0, say: Say = print
) -> Structures:
    """Make perturbed structures, label them and write them as extended XYZ.

    Args:
        data: structures to start from.
        output: file.
        teacher: run folder, model file, or ASE calculator as ``module:attribute``.
        settings: of the augmentation, ``kind`` included.
        seed: of the random choices.
        say: told what happens.
    """
    keep_memory()
    require_new(output, data)
    kind = registry.find("augment", settings["kind"]).Config
    recipe = checked(kind, f"augmentation {settings['kind']}", dict(settings))
    labeller = load_teacher(teacher)
    labelled = relabel(recipe(read(data).structures, seed), labeller)
    write(labelled, output)
    say(f"wrote {len(labelled)} structures labelled by {teacher} to {output}")
    return labelled


def evaluate_model(
    path: Path,
    data: Path,
    *,
    output: Path | None = None,
    keys: Mapping[str, str | None] | None = None,
    say: Say = print,
) -> Result:
    """Errors of a model on labelled structures.

    Args:
        path: run folder or model file.
        data: labelled structures.
        output: folder for parity plots, page and figures.
        keys: names of the labels.
        say: told what was found.
    """
    keep_memory()
    if output is not None:
        require_apart(output)
    model = load_model(path)
    found = read(data, keys=LabelKeys(**(keys or {})))
    say(found.summary())
    if not _comparable(found.structures):
        raise UserError(f"{data} has neither energies nor forces: name them with --energy and --forces")
    subject = Subject(_name(path), model.potential, model.statistics, test=found.structures)
    (result,) = audit(subject, {"errors": {}})
    _say_figures(result, say)
    if output is not None:
        variant = Variant(_name(path), results=[result])
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
    timestep: float = 1.0,
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
    folder = output or Path(f"{_name(path).removesuffix('.safetensors')}-audit")
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
        name=_name(path),
        test=test,
        start=None if structures is None else smallest(structures),
        seed=seed,
        frames_to=folder / "failed.xyz",
    )
    variant = Variant(_name(path), results=results)
    store_results(folder, variant, "" if structures is None else structures.digest())
    page = write_report(Comparison(f"Audit of {path}", [variant]), folder)
    _say_results(results, say)
    say(f"page {page}")
    return results


def _own_data(folder: Path) -> tuple[Structures | None, Structures | None]:
    """Held-out structures of a run folder, and structures to start from; nothing for a bare model file."""
    if not (folder / "config.yaml").is_file():
        return None, None
    data = run_file.load(folder / "config.yaml").data
    beside = folder.resolve().parents[1]  # a run folder is runs/NAME beside the run file, unless it was put elsewhere

    def load(files: str | list[str]) -> Structures:
        parts = []
        for file in [files] if isinstance(files, str) else files:
            found = next((base / file for base in (beside, Path()) if (base / file).is_file()), None)
            if found is None:
                raise UserError(f"the data of {folder} ({file}) is not to be found from here: give --start FILE")
            parts.append(read(found, keys=data.keys).structures)
        return Structures.concatenate(parts)

    if data.test is not None or data.valid is not None:
        held_out = load(data.test or data.valid or "")
        return held_out, held_out
    train = load(data.train)
    record = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    part = "test" if record["indices"].get("test") else "valid"
    numbers = np.array(record["indices"][part], dtype=np.int64)
    if not len(numbers):
        return None, train
    held_out = train.select(numbers[numbers < len(train)])
    if held_out.digest() != record[part]:
        raise UserError(f"the data of {folder} has changed since it was trained on: give --start FILE")
    return held_out, held_out


def run_md(
    path: Path,
    start: Path,
    *,
    temperature: float,
    picoseconds: float = 10.0,
    timestep: float = 1.0,
    ensemble: str = "nvt",
    replicas: int = 1,
    output: Path = Path("trajectory.xyz"),
    every: int = 100,
    seed: int = 0,
    say: Say = print,
) -> None:
    """Molecular dynamics with guards; writes frames and, apart from them, the frames that failed.

    Args:
        path: run folder or model file.
        start: one structure or several, which run side by side.
        temperature: K.
        picoseconds, timestep: length and step (fs).
        ensemble: ``nvt`` or ``nve``.
        replicas: copies of each structure.
        output: file for the frames.
        every: steps between frames.
        seed: of velocities and thermostat.
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
    settings = checked(Settings, "md", given)
    model = load_model(path)
    structures = replicate(read(start).structures, replicas)
    trajectory = simulate(model.potential, structures, settings, description="dynamics")
    write(_recorded(trajectory, structures, every), output)
    failed = output.with_name(f"{output.stem.removesuffix('.xyz')}-failed.xyz")
    if not trajectory.survived.all():
        write(trajectory.failing, failed)
    for number, survived in enumerate(trajectory.survived.tolist()):
        reached = trajectory.picoseconds[number]
        fate = f"survived {reached:g} ps" if survived else f"stopped at {reached:g} ps: {trajectory.sentences[number]}"
        say(f"run {number}: {fate}")
    say(f"frames {output}" + ("" if trajectory.survived.all() else f"; failing frames {failed}"))


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


def describe_kinds() -> str:
    """Every kind that a run file can name, with the first line of its description."""
    lines = []
    for group in ("potentials", "objectives", "augment", "reliability"):
        lines.append(group)
        for kind in registry.kinds(group):
            text = (registry.find(group, kind).Config.__doc__ or "").strip().splitlines()
            lines.append(f"  {kind:18s} {text[0] if text else ''}")
    return "\n".join(lines)


def _say_results(results: Sequence[Result], say: Say) -> None:
    for result in results:
        verdict = {True: "pass", False: "FAIL", None: "    "}[result.passed]
        say(f"{verdict}  {result.title}: {result.sentence}")


def _say_figures(result: Result, say: Say) -> None:
    say(result.sentence)
    for name, value in result.figures.items():
        say(f"  {name:42s} {value:.4g}" if isinstance(value, float) else f"  {name:42s} {value}")

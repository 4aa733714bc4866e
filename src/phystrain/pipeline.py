"""From data to potentials: train and test, fit a teacher. What the command line does, as functions.

Each takes ``say``, which is told what happens line by line. What is done with a finished potential is in
:mod:`phystrain.trained`; structures are made in :mod:`phystrain.augmented`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from phystrain import config as run_file
from phystrain import registry
from phystrain.config import Balance, RunConfig
from phystrain.data.read import LabelKeys, read
from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.fitting import FAMILIES
from phystrain.interfaces.lammps import write_lammps
from phystrain.potentials._network import NetworkConfig
from phystrain.preflight import require_device, require_held_out, require_sources, require_temperature, withdraw
from phystrain.reliability import Result
from phystrain.report.comparison import Comparison, Variant, comparison_table, with_material
from phystrain.report.covered import covered, store_covered
from phystrain.report.drawing import Drawing
from phystrain.report.page import write_report
from phystrain.report.parameters import write_parameters
from phystrain.report.teacher import draw_teacher
from phystrain.saving import load_model
from phystrain.train.launch import planned
from phystrain.train.processes import release, together
from phystrain.train.run import Run
from phystrain.verdict.audited import (
    audit_saved,
    name_of,
    say_verdict,
    smallest,
    store_results,
    variant_of,
)
from phystrain.verdict.beside import BASELINE, classical_stages, teachers
from phystrain.verdict.gate import judge

Say = Callable[[str], None]

HELD_OUT = 0.1
"""Part of the structures that ``fit_classical`` keeps back, to show errors on structures that the fit never saw."""


def run(
    config: RunConfig,
    folder: Path | str,
    *,
    base: Path | str = ".",
    restart: bool = False,
    say: Say = print,
    asked: tuple[int | None, int | None] = (None, None),
) -> list[Result]:
    """Train all stages, test the result and write ``report.html``.

    With ``reliability.baseline`` the same network is trained without physics too, in the folder ``baseline``, and
    stands beside it in the report. Of several processes the first one tests; the others are free as soon as there is
    nothing left to train.

    Args:
        config: settings.
        folder: run folder; an unfinished run in it goes on.
        base: folder that relative paths in the settings start from.
        restart: forget what is in the folder.
        say: told what happens.
        asked: processes on each machine and machines, where the settings are not to decide.

    Returns:
        What the reliability tests found; nothing in processes other than the first.

    Raises:
        UserError: a mistake in settings or data.
        Interrupted: stopped by a signal.
    """
    with together():
        return _run(config, Path(folder), Path(base), restart, say, asked)


def _run(
    config: RunConfig, folder: Path, base: Path, restart: bool, say: Say, asked: tuple[int | None, int | None]
) -> list[Result]:
    processes = planned(config.processes, config.nodes, asked=asked)
    config = config.model_copy(update={"processes": processes.each, "nodes": processes.nodes})
    require_sources(config, base)
    require_device(config)
    require_held_out(config)
    require_temperature(config.reliability)
    for stage in config.stages:
        if stage.gate is not None:
            require_temperature(config.reliability.model_copy(update={"tests": stage.gate.tests, "enabled": True}))
    job = _trained(config, folder, base, say, restart=restart)
    plain = without_physics(config) if config.reliability.enabled and config.reliability.baseline else None
    other: Run | None = None
    if plain is not None:  # before the tests: the other processes take part in training, and are free then
        if job.is_first:
            say("the same network without physics, to compare with:")
        read = replace(job.labelled, unlabelled=None)
        other = _trained(plain, folder / "baseline", base, say, labelled=read)
    if not job.is_first:
        return []
    release()
    variant, variants = _tested(job, say)
    variants.append(variant)
    labelled, digest = job.labelled.train, job.labelled.train.digest()
    if other is not None:
        baseline, _ = _tested(other, say)
        variants.insert(0, replace(baseline, name=BASELINE, description="the same network without physics"))
        store_results(folder, variant, digest, variants[:-1])
    if len(variants) > 1:
        say(comparison_table(variants))
    say_verdict(variant.verdict, say)
    text = (folder / "config.yaml").read_text(encoding="utf-8")
    comparison = Comparison(f"Run {folder.name}", variants, "", text, digest)
    page = write_report(comparison, folder, _classical(config, folder, labelled))
    say(f"model  {folder / 'model' / 'model.safetensors'}\nreport {page}")
    return list(variant.results)


def without_physics(config: RunConfig) -> RunConfig | None:
    """The last stage from scratch, with the terms of its loss that have labels; ``None`` if that is all there is."""
    last = config.stages[-1].model_copy(update={"members": 1, "snapshots": 0})  # the spread is not compared
    plain = last.model_copy(
        update={
            "init_from": None,
            "keep_optimiser": False,
            "prior": None,
            "stay_near": None,
            "replay": None,
            "unlabelled": None,
            "guide": None,
            "gate": None,
            "balance": Balance(),
            "objectives": {name: term for name, term in last.objectives.items() if term.validated},
        }
    )
    if last.data is not None or not plain.objectives or (plain == last and len(config.stages) == 1):
        return None
    reliability = config.reliability.model_copy(update={"baseline": False})
    data = config.data.model_copy(update={"unlabelled": None})
    return config.model_copy(update={"stages": [plain], "data": data, "reliability": reliability})


def _trained(config: RunConfig, folder: Path, base: Path, say: Say, **options: Any) -> Run:
    """A run with all its stages trained."""
    job = Run(config, folder, base=base, say=say, gate=judge, **options)
    try:
        job.train()
    except Exception:
        if job.is_first:
            withdraw(folder)
        raise
    return job


def _tested(job: Run, say: Say) -> tuple[Variant, list[Variant]]:
    """Results of a run, and those of its teachers."""
    config, folder, labelled = job.config, job.folder, job.labelled
    model = load_model(job.final)
    test = labelled.test or labelled.valid
    seen = labelled.test is None and config.stages[-1].fit is None
    results, beside = audit_saved(
        model,
        config.reliability,
        name=name_of(folder),
        test=test,
        start=smallest(test or labelled.train),
        seed=config.seed,
        frames_to=folder / "failed.xyz",
        train=labelled.train,
        rivals=teachers(config, folder) if config.reliability.teacher else (),
        note=_chosen_by if seen else lambda result: result,
        say=say,
    )
    variant = variant_of(name_of(folder), results, history=folder / "metrics.csv")
    store_results(folder, variant, labelled.train.digest(), beside)
    store_covered(folder, covered(model.statistics, labelled.train))
    return with_material(variant, folder), beside


def _chosen_by(result: Result) -> Result:
    """Errors of validation structures are no test."""
    if result.test != "errors":
        return result
    note = " These are validation structures, by which the weights were chosen too."
    return result.model_copy(update={"sentence": result.sentence + note})


def _classical(config: RunConfig, folder: Path, labelled: Structures) -> list[Drawing]:
    """Pair curves of every classical potential that the run fitted or trained."""
    models = [load_model(folder / "model" / f"{stage.name}.safetensors") for stage in classical_stages(config)]
    return [drawing for model in models for drawing in draw_teacher(model.potential, labelled)]


def fit_classical(
    data: Path,
    folder: Path,
    *,
    kind: str = "eam",
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    keys: Mapping[str, str | None] | None = None,
    restart: bool = False,
    say: Say = print,
) -> list[Result]:
    """Fit a classical potential to labelled structures; look at its errors and dimer curves; write it for LAMMPS.

    Args:
        data: labelled structures, with forces.
        folder: run folder.
        kind: of the potential, or a family of :mod:`phystrain.fitting`; several with commas between them to choose
            among by cross-validation; or ``auto``.
        settings: of the fit; see :class:`phystrain.fitting.FitSettings`.
        seed: of the split and the starts.
        keys: names of the labels.
        restart: forget what is in the folder.
        say: told what happens.
    """
    read(data, keys=LabelKeys(**(keys or {})))  # whatever is wrong with the file is said before anything else
    if kind in registry.kinds("potentials") and issubclass(registry.find("potentials", kind).Config, NetworkConfig):
        raise UserError(f"{kind} is a network; 'fit' is for classical potentials. 'phystrain init {data}' trains one.")
    several = kind in FAMILIES or "," in kind
    choose = "auto" if kind == "auto" else [name.strip() for name in kind.split(",")] if several else None
    stage: dict[str, Any] = {"name": "fit", "fit": dict(settings or {}) | ({"choose": choose} if choose else {})}
    if choose is None:
        stage["potential"] = {"kind": kind}
    config = run_file.check(
        {
            "potential": {"kind": "eam" if choose else kind},
            "data": {"train": str(data.resolve()), "keys": dict(keys or {}), "valid_fraction": HELD_OUT},
            "stages": [stage],
            "seed": seed,
            "reliability": {"tests": {"errors": {}, "dimers": {}}},
        },
        f"fit of {kind}",
    )
    results = run(config, folder, restart=restart, say=say)
    model = load_model(folder)
    write_parameters(model.potential, folder / "parameters.csv")
    files = write_lammps(model.potential, folder / "lammps", model.statistics)
    say(f"parameters {folder / 'parameters.csv'}\nfor LAMMPS {files[0]}")
    return results

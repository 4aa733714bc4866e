"""From data to potentials: train and test, fit a teacher, augment. What the command line does, as functions.

Each takes ``say``, which is told what happens line by line. What is done with a finished potential is in
:mod:`phystrain.trained`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from phystrain import config as run_file
from phystrain import recipes, registry
from phystrain.allocator import keep_memory
from phystrain.augment import load_teacher, relabel
from phystrain.config import RunConfig
from phystrain.data.read import LabelKeys, read
from phystrain.data.structures import Structures
from phystrain.data.write import write
from phystrain.errors import UserError
from phystrain.preflight import checked, require_device, require_held_out, require_new, require_sources, withdraw
from phystrain.reliability import Result
from phystrain.report.comparison import Comparison, Variant, comparison_table
from phystrain.report.page import write_report
from phystrain.saving import load_model
from phystrain.train.run import Run
from phystrain.verdict import audit_saved, name_of, say_results, smallest, store_results

Say = Callable[[str], None]


def run(
    config: RunConfig, folder: Path | str, *, base: Path | str = ".", restart: bool = False, say: Say = print
) -> list[Result]:
    """Train all stages, test the result and write ``report.html``.

    With ``reliability.baseline`` the same network is trained without physics too, in the folder ``baseline``, and
    stands beside it in the report.

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
    variant, digest = _trained_and_tested(config, folder, Path(base), restart, say)
    if variant is None:
        return []
    variants = [variant]
    plain = without_physics(config)
    if config.reliability.enabled and config.reliability.baseline and plain is not None:
        if config.processes > 1:
            say("the baseline is left out: it is trained in runs of one process only")
        else:
            say("the same network without physics, to compare with:")
            baseline, _ = _trained_and_tested(plain, folder / "baseline", Path(base), False, say)
            assert baseline is not None
            variants = [replace(baseline, name="labels only", description="the same network without physics"), variant]
            say(comparison_table(variants))
    text = (folder / "config.yaml").read_text(encoding="utf-8")
    page = write_report(Comparison(f"Run {folder.name}", variants, "", text, digest), folder)
    say(f"model  {folder / 'model' / 'model.safetensors'}\nreport {page}")
    return list(variant.results)


def without_physics(config: RunConfig) -> RunConfig | None:
    """The last stage from scratch, with the terms of its loss that have labels; ``None`` if that is all there is."""
    last = config.stages[-1]
    plain = last.model_copy(
        update={
            "init_from": None,
            "replay": None,
            "objectives": {name: term for name, term in last.objectives.items() if term.needs},
        }
    )
    if last.data is not None or not plain.objectives or (plain == last and len(config.stages) == 1):
        return None
    reliability = config.reliability.model_copy(update={"baseline": False})
    return config.model_copy(update={"stages": [plain], "reliability": reliability})


def _trained_and_tested(
    config: RunConfig, folder: Path, base: Path, restart: bool, say: Say
) -> tuple[Variant | None, str]:
    """Results of a run, and the hash of its data; none in processes other than the first."""
    job = Run(config, folder, base=base, restart=restart, say=say)
    try:
        model = load_model(job.train())
    except Exception:
        if job.is_first:
            withdraw(folder)
        raise
    labelled = job.labelled
    if not job.is_first:
        return None, ""
    test = labelled.test or labelled.valid
    results = audit_saved(
        model,
        config.reliability,
        name=name_of(folder),
        test=test,
        start=smallest(test or labelled.train),
        seed=config.seed,
        frames_to=folder / "failed.xyz",
    )
    if labelled.test is None:
        note = " These are validation structures, by which the weights were chosen too."
        results = [r.model_copy(update={"sentence": r.sentence + note}) if r.test == "errors" else r for r in results]
    variant = Variant(name_of(folder), results=results, history=folder / "metrics.csv")
    store_results(folder, variant, labelled.train.digest())
    say_results(results, say)
    return variant, labelled.train.digest()


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

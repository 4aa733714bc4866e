"""The search itself: Optuna proposes, a training answers, until enough were tried. It can be interrupted."""

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from phystrain.config import RunConfig, load, read_settings
from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.files import require_writable, write_text
from phystrain.preflight import checked, require_device, require_sources
from phystrain.train.launch import planned
from phystrain.train.loop import VALIDATIONS, DivergedError
from phystrain.train.material import load_labelled
from phystrain.tune.defaults import default_space, last_trained
from phystrain.tune.results import Trial, label, short, table, write_best, write_results
from phystrain.tune.space import Dimension, Search, Value, parse
from phystrain.tune.trial import Trials

Say = Callable[[str], None]

RANDOM = 8
"""Trials before the sampler learns from what was found."""

_HOPELESS = 5


def tune(
    run_file: Path,
    folder: Path,
    *,
    overrides: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    restart: bool = False,
    say: Say = print,
) -> Path:
    """Search settings of a run file that lower an error on its validation structures.

    Every trial trains the whole run file from the same seed on the same split; the first one with the values as they
    are written. Stages before the first one that is searched are trained once. The sampler is Optuna's tree-structured
    Parzen estimator (Bergstra et al. 2011), unpromising trials are ended by its median rule or Hyperband.

    Args:
        run_file: YAML file; its section ``tune`` may say what is searched.
        folder: of the search; an unfinished one in it goes on.
        overrides: changes to the run file by dotted path, the same in every trial.
        settings: of :class:`phystrain.tune.space.Search`, in place of those of the file.
        restart: forget what is in the folder.
        say: told what happens.

    Returns:
        The run file of the best trial, beside ``run_file``.

    Raises:
        UserError: a mistake in settings or data, another search in the folder, or Optuna is missing.
        Interrupted: stopped by a signal; the same call goes on.
    """
    optuna = require_optuna()
    overrides = tuple(overrides)
    config = load(run_file, overrides)
    given = {} if config.tune is None else config.tune.model_dump(exclude_unset=True)
    search = checked(Search, "tune", given | dict(settings or {}))
    space = [parse(path, text) for path, text in search.search.items()] or default_space(config)
    stage = last_trained(config)
    if planned(config.processes, config.nodes).total > 1:
        raise UserError("tune trains in one process: set processes=1, and start it without torchrun or srun")
    require_sources(config, run_file.parent)
    require_device(config)
    for dimension in space:
        for end in dimension.ends:
            load(run_file, Trials(run_file, overrides, folder, space, "").overrides({dimension.path: end}))
    best_file = run_file.with_name(f"{run_file.stem}.best.yaml")
    require_writable(best_file)
    require_writable(folder / "tune.json")
    metric, digests = _metric(config, run_file.parent, search.metric)
    _prepare(folder, config, space, metric, digests, restart)
    study = _study(optuna, folder, config, search, max(1, _validations(stage) // 4))
    trials = Trials(run_file, overrides, folder, space, metric)
    say(f"search of {len(space)} settings by {label(metric)}, on {digests['frames']} validation structures:")
    for dimension in space:
        say(f"  {dimension.path}: {_described(dimension)}")
    _begin(study, config, space, say)
    _loop(optuna, study, trials, space, search, folder, metric, say)
    ended = finished(study)
    best = min((trial for trial in ended if trial.state == "complete"), key=lambda trial: trial.value, default=None)
    if best is None:
        raise UserError(f"none of {len(ended)} trials came to an end: allow more --trials, or search smaller ranges")
    say(table(ended, space, metric))
    write_best(best_file, read_settings(run_file, trials.overrides(best.values)), best, metric, run_file.name)
    say(f"table {folder / 'trials.csv'}\npicture {folder / 'trials.png'}\nbest run file {best_file}")
    return best_file


def require_optuna() -> Any:
    """Optuna, an extra of the package.

    Raises:
        UserError: it is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise UserError("tune needs Optuna, which is not installed: pip install 'phystrain[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _metric(config: RunConfig, base: Path, chosen: str | None) -> tuple[str, dict[str, Any]]:
    """The figure to lower, and hashes of the structures that all trials share."""
    cutoff = float(getattr(config.potential, "cutoff", 5.0))
    labelled = load_labelled(config.data, cutoff=cutoff, seed=config.seed, base=base, say=lambda _: None)
    valid = labelled.valid
    if valid is None:
        raise UserError("tune judges on validation structures: give data.valid, or a data.valid_fraction")
    there = [quantity for quantity in ("energy", "forces") if valid.labelled(quantity).any()]
    metric = chosen or ("energy_and_forces" if len(there) == 2 else f"{there[0]}_rmse")
    _require_figure(metric, valid, config)
    return metric, {"train": labelled.train.digest(), "valid": valid.digest(), "frames": len(valid)}


def _require_figure(metric: str, valid: Structures, config: RunConfig) -> None:
    quantities = ("energy", "forces") if metric == "energy_and_forces" else (metric.partition("_")[0],)
    for quantity in quantities:
        if not valid.labelled(quantity).any():
            raise UserError(f"metric {metric} needs {quantity}, which no validation structure has: choose another")
    if "stress" in quantities and not any("stress" in o.needs for o in config.stages[-1].objectives.values()):
        raise UserError(f"metric {metric} needs a stress term in the loss of the last stage: choose another")


def _validations(stage: Any) -> int:
    """How many validations a trial has, as far as that is known before."""
    if stage.validate_every and stage.steps:
        return int(stage.steps // stage.validate_every)
    return VALIDATIONS


def _prepare(
    folder: Path, config: RunConfig, space: list[Dimension], metric: str, digests: dict[str, Any], restart: bool
) -> None:
    """Make the folder, or check that it holds the same search."""
    record = folder / "tune.json"
    if restart and record.is_file():
        shutil.rmtree(folder)
    free = {"tune", "reliability", "checkpoint_seconds", "device"}
    content = {
        "settings": config.model_dump(mode="json", exclude=free),
        "search": {dimension.path: _described(dimension) for dimension in space},
        "metric": metric,
        "structures": digests,
    }
    if record.is_file():
        present = json.loads(record.read_text(encoding="utf-8"))
        for part, value in content.items():
            if present.get(part) != json.loads(json.dumps(value)):
                raise UserError(
                    f"{folder} holds another search ({part} differs; see its tune.json). Give another --output, or "
                    "--restart to forget it"
                )
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and holds no search: give another --output")
    write_text(record, json.dumps(content, indent=1) + "\n")


def _study(optuna: Any, folder: Path, config: RunConfig, search: Search, warmup: int) -> Any:
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "journal.log")))
    pruner = {
        "median": optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=warmup),
        "hyperband": optuna.pruners.HyperbandPruner(min_resource=warmup, max_resource=4 * warmup),
        "none": optuna.pruners.NopPruner(),
    }[search.pruner]
    study = optuna.create_study(
        storage=storage, study_name="tune", direction="minimize", pruner=pruner, load_if_exists=True
    )
    # A sampler that begins anew must not repeat the random numbers of the one before the interruption.
    seed = config.seed + len(study.get_trials(deepcopy=False))
    study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM)
    return study


def _begin(study: Any, config: RunConfig, space: list[Dimension], say: Say) -> None:
    """Queue the values as written first, or what was interrupted."""
    before = study.get_trials(deepcopy=False)
    if before:
        say(f"{len(finished(study))} trials were there already")
        for trial in before:
            if trial.state.name == "RUNNING":  # its checkpoint is in the folder of its values
                study.enqueue_trial(trial.params)
                study.tell(trial.number, state=_state("FAIL"))
        return
    settings = config.model_dump(mode="json")
    written = {dimension.path: _at(settings, dimension.path) for dimension in space}
    if all(dimension.holds(written[dimension.path]) for dimension in space):
        study.enqueue_trial(written)


def _loop(
    optuna: Any, study: Any, trials: Trials, space: list[Dimension], search: Search, folder: Path, metric: str, say: Say
) -> None:
    """One trial after another."""
    distributions = {dimension.path: _distribution(optuna, dimension) for dimension in space}
    end = math.inf if search.minutes is None else time.monotonic() + 60 * search.minutes
    while len(finished(study)) < search.trials and time.monotonic() < end:
        trial = study.ask(distributions)
        values = rounded(trial.params)

        def report(number: int, value: float, last: bool, trial: Any = trial) -> None:
            trial.report(value, number)
            if not last and trial.should_prune():
                raise optuna.TrialPruned

        try:
            study.tell(trial, trials.train(values, report))
        except optuna.TrialPruned:
            study.tell(trial, state=_state("PRUNED"))
        except DivergedError as error:
            # Pruned without a figure, it counts as the worst there is, and the sampler keeps away.
            trial.set_user_attr("diverged", str(error))
            study.tell(trial, state=_state("PRUNED"))
        except UserError:
            study.tell(trial, state=_state("FAIL"))
            raise
        ended = finished(study)
        best = min((one for one in ended if one.state == "complete"), key=lambda one: one.value, default=None)
        for one in ended:
            if best is None or one.number != best.number:
                trials.forget(one.values)
        write_results(folder, ended, space, metric)
        _tell(ended[-1], best, say)
        if best is None and len(ended) >= _HOPELESS and all(one.state == "diverged" for one in ended):
            raise UserError(f"the first {len(ended)} trials all diverged: search smaller learning rates")


def _tell(trial: Trial, best: Trial | None, say: Say) -> None:
    values = ", ".join(f"{short(path)} {value}" for path, value in trial.values.items())
    outcome = {
        "complete": f"{trial.value:.4g}",
        "pruned": f"ended early at {trial.value:.4g}, after {trial.validations} validations",
        "diverged": "diverged",
    }[trial.state]
    standing = f" (best {best.value:.4g}, trial {best.number})" if best is not None and best != trial else ""
    say(f"trial {trial.number}: {values}: {outcome}{standing}")


def finished(study: Any) -> list[Trial]:
    """Every trial that came to an end, in order."""
    found = []
    for trial in study.get_trials(deepcopy=False):
        if trial.state.name not in ("COMPLETE", "PRUNED"):
            continue
        reports = [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)]
        complete = trial.state.name == "COMPLETE"
        state = "complete" if complete else "diverged" if "diverged" in trial.user_attrs else "pruned"
        value = trial.value if complete else reports[-1] if reports and state == "pruned" else math.nan
        seconds = trial.duration.total_seconds() if trial.duration else 0.0
        found.append(Trial(trial.number, state, float(value), len(reports), seconds, rounded(trial.params)))
    return found


def rounded(values: Mapping[str, Value]) -> dict[str, Value]:
    """Numbers with four digits: more say nothing, and people read them."""
    return {path: float(f"{value:.4g}") if isinstance(value, float) else value for path, value in values.items()}


def _distribution(optuna: Any, dimension: Dimension) -> Any:
    if dimension.choices:
        return optuna.distributions.CategoricalDistribution(dimension.choices)
    if dimension.whole:
        return optuna.distributions.IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return optuna.distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _state(name: str) -> Any:
    from optuna.trial import TrialState

    return TrialState[name]


def _described(dimension: Dimension) -> str:
    if dimension.choices:
        return ", ".join(map(str, dimension.choices))
    return f"{'log:' * dimension.log}{dimension.low:.4g}..{dimension.high:.4g}"


def _at(settings: Any, path: str) -> Any:
    """The value at a dotted path; ``None`` where there is none."""
    for part in path.split("."):
        if isinstance(settings, list):
            entries = {str(n): entry for n, entry in enumerate(settings)} | {entry["name"]: entry for entry in settings}
            settings = entries.get(part)
        else:
            settings = settings.get(part) if isinstance(settings, dict) else None
    return settings

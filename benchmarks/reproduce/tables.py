"""Tables in Markdown, made from experiments and result files alone."""

import math
import re
import statistics
from pathlib import Path
from typing import Any

from benchmarks.reproduce import experiment as experiments
from benchmarks.reproduce.experiment import Experiment
from benchmarks.reproduce.plots import draw
from benchmarks.reproduce.results import Job, all_jobs, training_seconds
from phystrain.dynamics.guards import Guards
from phystrain.files import write_text
from phystrain.reliability import ReliabilityTest

COLUMNS = (
    # section, test, figure (both patterns), heading, factor, digits
    ("In short", r"errors, (.+)", r"forces MAE, meV/Å", r"force error, \1, meV/Å", 1, 0),
    ("In short", r"survival", r"survived at (.+)", r"alive at the end at \1, %", 100, 0),
    ("In short", r"heating", r"lowest temperature reached, K", r"heated: first failure, K", 1, 0),
    ("In short", r"dimers", r"faulty pairs", r"faulty pair curves", 1, 1),
    ("In short", r"slopes", r"slope MAE, meV/Å", r"error of slopes, meV/Å", 1, 0),
    ("Errors", r"errors, (.+)", r"energy MAE, meV/atom", r"\1: energy MAE, meV/atom", 1, 1),
    ("Errors", r"errors, (.+)", r"energy RMSE, meV/atom", r"\1: energy RMSE, meV/atom", 1, 1),
    ("Errors", r"errors, (.+)", r"forces MAE, meV/Å", r"\1: force MAE, meV/Å", 1, 1),
    ("Errors", r"errors, (.+)", r"forces MAE hottest (.+?) %, meV/Å", r"\1: force MAE, hottest \2 %, meV/Å", 1, 1),
    ("Dynamics", r"survival", r"survived at (.+)", r"survived at \1, %", 100, 0),
    ("Dynamics", r"survival", r"mean survival at ([^,]+), ps", r"mean survival at \1, ps", 1, 2),
    ("Dynamics", r"heating", r"(mean|lowest) temperature reached, K", r"heated: \1 temperature reached, K", 1, 0),
    ("Dynamics", r"rdf", r"error(|, %)", r"RDF error\1", 1, 2),
    ("Dynamics", r"rdf", r"error between halves of the reference(|, %)", r"RDF error of the reference itself\1", 1, 2),
    ("Dynamics", r"drift", r"(slope, meV/atom/ps|drift ratio)", r"NVE \1", 1, 3),
    ("Static tests and cost", r"dimers", r"faulty pairs", r"faulty pair curves", 1, 1),
    ("Static tests and cost", r"compression", r"(structures|bonds) with a hole", r"compressed \1 with a hole", 1, 1),
    ("Static tests and cost", r"compression", r"largest drop, (structures|bonds), eV", r"largest drop, \1, eV", 1, 2),
    ("Static tests and cost", r"derivatives", r"(largest|RMS) force error, meV/Å", r"\1 gradient error, meV/Å", 1, 3),
    ("Static tests and cost", r"cost", r"training, s", r"training, s", 1, 0),
    ("Static tests and cost", r"cost", r"steps", r"steps of the last stage", 1, 0),
    ("Static tests and cost", r"cost", r"training step, ms", r"training step, ms", 1, 0),
    ("Static tests and cost", r"cost", r"(prediction of a frame of .+, ms)", r"\1", 1, 2),
    ("Static tests and cost", r"cost", r"memory, MB", r"memory, MB", 1, 0),
)

Figures = dict[tuple[str, str], float]

_SEED = ("run", "seed")

LITTLE = 5.0
"""Per cent by which twice the steps may lower the error of a baseline that counts."""

TWICE = 1.9
"""Times as many steps, or nearly: they follow measured times."""


def write_tables(chosen: list[Experiment], results: Path, folder: Path = experiments.EXPERIMENTS) -> str:
    """Write the tables beside the folder of the results, and pictures into it.

    Args:
        chosen: experiments.
        results: folder of the result files.
        folder: of the experiments that others refer to.

    Returns:
        The tables.
    """
    lines = [
        "# Reproductions",
        "",
        f"Made by `python -m benchmarks.reproduce table` from the files in `{results.name}/`. Mean ± standard",
        "deviation over seeds; the labelled frames are drawn anew for each seed and are the same for all variants. In",
        "brackets: change against the first line on the same frames, or, where networks are compared, against the line",
        "of the same network on labels only.",
        "Training time is processor time of the one thread that a job has, teachers and their labels included: what",
        "the clock would show on a machine that does nothing else.",
        "",
        *_contents(chosen, results),
    ]
    for experiment in chosen:
        lines += _experiment_lines(experiment, results, folder)
    text = "\n".join(lines).rstrip() + "\n"
    write_text(results.with_suffix(".md"), text)
    return text


def _contents(chosen: list[Experiment], results: Path) -> list[str]:
    """What there is, and how much of it has been run."""
    lines = ["| experiment | | trainings run | planned |", "| --- | --- | --- | --- |"]
    for experiment in chosen:
        jobs = all_jobs([experiment])
        done = sum(job.state(results) == "done" for job in jobs)
        anchor = re.sub(r"[^\w\- ]", "", experiment.title.lower()).replace(" ", "-")
        lines.append(f"| `{experiment.name}` | [{experiment.title}](#{anchor}) | {done or 'none'} | {len(jobs)} |")
    return [*lines, ""]


def _experiment_lines(experiment: Experiment, results: Path, folder: Path) -> list[str]:
    found = {
        variant: [
            (job.load(results), job.state(results))
            for job in (Job(experiment, variant, seed) for seed in range(experiment.seeds))
        ]
        for variant in experiment.variants
    }
    usable = {v: [result for result, state in items if result and state == "done"] for v, items in found.items()}
    outdated = sum(state == "out of date" for items in found.values() for _, state in items)
    lines = [f"## {experiment.title}", "", *header(experiment), ""]
    if outdated:
        lines += [f"{outdated} results were made with other settings and are left out.", ""]
    own = {variant: [_figures(result) for result in items] for variant, items in usable.items()}
    bases = [variant.equal_time for variant in experiment.variants.values() if variant.equal_time]
    figures = {base: own[base] for base in bases[:1]} | _borrowed(experiment, results, folder) | own
    for section in dict.fromkeys(column[0] for column in COLUMNS):
        lines += _section(section, experiment, figures)
    lines += [line for base in dict.fromkeys(bases) for line in _converged(base, experiment, own)]
    picture = draw(experiment, usable, results)
    if picture is not None:
        lines += [f"![Fraction of runs surviving]({results.name}/{picture.relative_to(results).as_posix()})", ""]
    return lines


def _converged(base: str, experiment: Experiment, figures: dict[str, list[Figures]]) -> list[str]:
    """Whether a baseline had converged: with twice its steps or more its errors fall by less than :data:`LITTLE` %."""
    lines = []
    for longer in (name for name, variant in experiment.variants.items() if variant.equal_time == base):
        steps = {one[_SEED]: one["cost", "steps"] for one in figures[base] if ("cost", "steps") in one}
        of = [one["cost", "steps"] / steps[one[_SEED]] for one in figures[longer] if steps.get(one[_SEED])]
        errors = [key for key in dict.fromkeys(key for one in figures[longer] for key in one) if _is_error(key)]
        changes = {key: found for key in errors[:2] if (found := _changes(figures[base], figures[longer], key))}
        if not of or not changes:
            continue
        factor = statistics.mean(of)
        said = " and ".join(f"of {key[1].split(' ')[0]} by {_percent(found)}" for key, found in changes.items())
        if min(statistics.mean(found) for found in changes.values()) <= -LITTLE:
            verdict = f"*{longer}* is what to compare with"
        else:
            verdict = "it had converged" if factor >= TWICE else "that is less than twice as many, and says little"
        lines.append(f"{factor:.1f} times the steps change the errors of *{base}*, {said}: {verdict}.")
        lines.append("")
    return lines


def _is_error(key: tuple[str, str]) -> bool:
    """Of the energy or of all forces, on one of the test sets."""
    return key[0].startswith("errors") and key[1] in ("energy MAE, meV/atom", "forces MAE, meV/Å")


def _borrowed(experiment: Experiment, results: Path, folder: Path) -> dict[str, list[Figures]]:
    """Figures of variants of other experiments that stand beside this one's."""
    found = {}
    for name, variants in experiment.beside.items():
        other = experiments.load(name, folder)
        for variant in variants:
            jobs = [Job(other, variant, seed) for seed in range(other.seeds)]
            results_of = [job.load(results) for job in jobs if job.state(results) == "done"]
            found[f"{variant} ({name})"] = [_figures(result) for result in results_of if result]
    return found


def header(experiment: Experiment) -> list[str]:
    """The settings in a few lines."""
    potential = dict(experiment.potential)
    network = f"{potential.pop('kind')} ({', '.join(f'{name} {value}' for name, value in potential.items())})"
    if all(any(change.startswith("potential=") for change in v.overrides) for v in experiment.variants.values()):
        network = "networks as the variants say"
    valid = round(experiment.labels * experiment.valid_fraction)
    tests = ", ".join(
        f"{name}: `{test.file}`" + (f", {test.frames} frames of it" if test.frames else "")
        for name, test in experiment.tests.items()
    )
    lines = [experiment.about.strip(), ""] if experiment.about else []
    seeds = f"{experiment.seeds} seed{'s' if experiment.seeds > 1 else ''}"
    lines.append(
        f"* `{experiment.name}`: {experiment.labels} labelled frames ({valid} of them for validation) of "
        f"`{'`, `'.join(experiment.train)}`; {seeds}; {network}."
    )
    lines.append(f"* Errors on {tests}.")
    dynamics = [test for test in experiment.reliability_tests() if test.cost]
    lines += [f"* {_dynamics(test, experiment)}" for test in dynamics]
    rules: dict[str, list[str]] = {}
    for test in dynamics:
        rules.setdefault(failure_rules(test.guards), []).append(test.kind)  # type: ignore[attr-defined]
    for rule, kinds in rules.items():
        lines.append(f"* A run ({', '.join(kinds)}) ends {rule}.")
    if dynamics:
        lines.append("* Velocities at the start are drawn from the Maxwell-Boltzmann distribution.")
    for name, variant in experiment.variants.items():
        if variant.about:
            lines.append(f"* {name}: {variant.about.strip()}")
    return lines


def _dynamics(test: ReliabilityTest, experiment: Experiment) -> str:
    """How a test of dynamics runs."""
    settings = test.model_dump()
    step = settings["timestep"]
    parts = [f"{settings['replicas']} runs of {settings['picoseconds']:g} ps"]
    if test.kind == "survival":
        kelvin = settings["temperatures"] or experiment.temperatures
        parts.append(f"at each of {', '.join(f'{t:g}' for t in kelvin)} K")
    elif test.kind == "heating":
        first = settings["temperature"] or experiment.temperatures[0]
        parts.append(f"from {first:g} to {settings['highest'] * first:g} K")
    else:
        parts.append(f"at {settings['temperature'] or experiment.temperatures[0]:g} K")
    parts.append(f"from {min(experiment.starts.count, settings['replicas'])} structures")
    parts.append("time step " + ("1 fs (0.5 with hydrogen)" if step is None else f"{step:g} fs"))
    thermostat = f"Langevin with friction {settings['friction']:g} per fs" if "friction" in settings else "NVE"
    name = "RDF" if test.kind == "rdf" else test.kind.capitalize()
    return f"{name}: {parts[0]} {parts[1]}, {', '.join(parts[2:])}, {thermostat}."


def failure_rules(guards: Guards) -> str:
    """When a run ends, in words."""
    rules = ["when energy or forces are not finite"]
    if guards.contact is not None:
        rules.append(f"when two atoms are closer than {guards.contact:g} of the sum of their covalent radii")
    if guards.bond_stretch is not None:
        rules.append(f"when a bond is {guards.bond_stretch:g} Å longer or shorter than at the start")
    if guards.temperature_rise is not None:
        rules.append(f"when it is {guards.temperature_rise:,.0f} K hotter than set")
    if guards.temperature_factor is not None:
        rules.append(f"when it is {guards.temperature_factor:g} times as hot as set")
    if guards.temperature_jump is not None:
        rules.append(f"when the temperature jumps by a factor of {guards.temperature_jump:g} between records")
    return ", ".join(rules[:-1]) + f" or {rules[-1]}" if len(rules) > 1 else rules[0]


def _section(section: str, experiment: Experiment, figures: dict[str, list[Figures]]) -> list[str]:
    """One table; nothing if there is no figure for it."""
    present = dict.fromkeys(key for items in figures.values() for one in items for key in one)
    columns = []
    for part, test, figure, heading, factor, digits in COLUMNS:
        if part != section:
            continue
        for key in present:
            if (match := re.fullmatch(rf"{test}\n{figure}", "\n".join(key))) is not None:
                columns.append((match.expand(heading), key, factor, digits))
    if not columns:
        return []
    head = ["variant", "seeds", *(column[0] for column in columns)]
    lines = [f"### {section}", "", _row(head), "|" + " --- |" * len(head)]
    for variant, items in figures.items():
        if not items:
            lines.append(_row([variant, "not run", *[""] * len(columns)]))
            continue
        cells, base = [], figures[_base(variant, experiment, list(figures))]
        for _, key, factor, digits in columns:
            cell = spread([factor * one[key] for one in items if key in one], digits, len(items))
            paired = _changes(base, items, key) if key[0].startswith(("errors", "slopes")) else []
            cells.append(f"{cell} ({_percent(paired)})" if paired else cell)
        seeds = str(len(items)) if len(items) == experiment.seeds else f"{len(items)} of {experiment.seeds}"
        lines.append(_row([variant, seeds, *cells]))
    return [*lines, ""]


def _base(variant: str, experiment: Experiment, known: list[str]) -> str:
    """The variant that changes are told against; it may be the variant itself."""
    if experiment.compare == "first":
        return known[0]
    return max((name for name in known if variant.startswith(f"{name},")), key=len, default=variant)


def _changes(base: list[Figures], items: list[Figures], key: tuple[str, str]) -> list[float]:
    """Change of a figure, per cent, against another variant trained on the same frames; none against itself."""
    before = {one[_SEED]: one[key] for one in base if key in one}
    if items is base:
        return []
    return [100 * (one[key] / before[one[_SEED]] - 1) for one in items if key in one and before.get(one[_SEED])]


def _percent(changes: list[float]) -> str:
    mean = f"{statistics.mean(changes):+.0f}"
    return f"{mean} ± {statistics.stdev(changes):.0f} %" if len(changes) > 1 else f"{mean} %"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def spread(values: list[float], digits: int, wanted: int) -> str:
    """Mean and standard deviation over seeds; says from how many where some lack the figure.

    Args:
        values: of the seeds that have one.
        digits: behind the point.
        wanted: number of seeds.
    """
    if not values:
        return "–"
    mean = statistics.mean(values)
    text = "infinite" if math.isinf(mean) else f"{mean:,.{digits}f}"
    if len(values) > 1 and math.isfinite(mean):
        text += f" ± {statistics.stdev(values):,.{digits}f}"
    return text if len(values) == wanted else f"{text} ({len(values)} of {wanted})"


def _figures(result: dict[str, Any]) -> Figures:
    """Every number of a result by test and name, its cost too."""
    found = {
        (test, name): float(value)
        for test, figures in result["figures"].items()
        for name, value in figures.items()
        if isinstance(value, int | float) and not math.isnan(value)
    }
    found[_SEED] = float(result["seed"])
    found["cost", "training, s"] = training_seconds(result)
    if result["steps"]:
        found["cost", "steps"] = float(list(result["steps"].values())[-1])
    if "cost" in result:
        found |= {("cost", name): float(value) for name, value in result["cost"].items()}
        found["cost", "training step, ms"] = 1000 * training_seconds(result) / sum(result["steps"].values())
    return found

"""Verdicts of short audits beside what runs ten times as long show; verdicts of other models; what levels cost.

Usage:
  python -m benchmarks.verdicts run --data DIR --work WORK [--only TEXT ...]
  python -m benchmarks.verdicts real --data DIR --work WORK [--demo FOLDER] [--python PYTHON] [--only NAME ...]
  python -m benchmarks.verdicts times --data DIR --work WORK [--steps 1000] [--minutes 12] [--only NAME ...]
  python -m benchmarks.verdicts table

``run`` takes the cases of benchmarks/verdicts.yaml, which were listed before any of them was run. A case is a training
of benchmarks.reproduce: one that stands in WORK/EXPERIMENT/VARIANT-SEED is used, another is trained there. Its verdict
is that of ``phystrain audit``, called as on the command line; the truth is the survival test of the package, longer,
with other random numbers. A verdict that calls a potential unsafe predicts that no temperature is safe.

``real`` audits CHGNet on ``li_electrode`` (PYTHON is an interpreter with phystrain and chgnet), a network with a direct
force head, trained here on 100 frames of aspirin, and the models of a folder that ``phystrain demo`` has made.

``times`` measures level 0 on a system of five elements, and levels 0 and 1 on a molecule of 27 and a cell of 72 atoms,
with the small preset of a network: wall time, for which the machine must be quiet. Each leaves small files in
benchmarks/results/verdicts/, which are not made again; ``table`` makes benchmarks/results/verdicts.md from them.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from ase.data import atomic_numbers

from benchmarks.reproduce import experiment as experiments
from benchmarks.reproduce.experiment import Experiment, Starts
from benchmarks.reproduce.job import choose_starts, of_known_elements, run_config
from benchmarks.reproduce.results import RESULTS as REPRODUCED
from benchmarks.reproduce.results import Job
from benchmarks.reproduce.training import processor_seconds, train
from phystrain import config as run_file
from phystrain import registry
from phystrain.allocator import keep_memory
from phystrain.data.read import read
from phystrain.data.structures import Structures
from phystrain.data.write import write
from phystrain.files import write_text
from phystrain.reliability import Result, Subject
from phystrain.saving import load_model
from phystrain.verdict.audited import audit_saved, load_results, smallest
from phystrain.verdict.grade import grade_of, kelvin_of

PLAN = Path(__file__).with_suffix(".yaml")
RESULTS = Path(__file__).parent / "results" / "verdicts"
TRUTH_SEED = 1000
"""Added to the seed of a case: dynamics that the audit has not seen."""

FIVE = ("Al", "Ca", "Mg", "O", "Si")
"""The five elements of most frames of ``mptrj-random-1k``, all of them together or some."""

LEVEL_TIMES = {  # file, elements or size that are chosen, temperature in K, levels, what is asked for in s
    "five elements": ("mattersim_bench/mptrj-random-1k.xyz", 0, 300.0, (0,), 60),
    "molecule": ("3bpa/train_300K.xyz", 27, 300.0, (0, 1), 900),
    "cell": ("si_zeo22/train.xyz", 72, 1000.0, (0, 1), 900),
}


class Case(NamedTuple):
    """One training, its verdict and the truth.

    Attributes:
        experiment: of benchmarks.reproduce.
        variant: way of training.
        seed: of frames, weights and dynamics.
        timestep: fs, of all dynamics.
        expect: good or bad; a guess.
        settings: lengths, numbers of runs and the ladder, the same for all cases.
    """

    experiment: Experiment
    variant: str
    seed: int
    timestep: float
    expect: str
    settings: dict[str, Any]

    @property
    def job(self) -> Job:
        """The training."""
        return Job(self.experiment, self.variant, self.seed)

    @property
    def file(self) -> Path:
        """Where its result is."""
        return RESULTS / f"{self.experiment.name}-{self.job.name}.json"

    @property
    def kelvin(self) -> float:
        """Temperature that the ladder counts from."""
        return self.experiment.temperatures[0]

    @property
    def ladder(self) -> list[float]:
        """K, the rungs above none."""
        return [self.kelvin * multiple for multiple in self.settings["multiples"]]

    @property
    def described(self) -> dict[str, Any]:
        """All that its result depends on: a result with another description is made anew."""
        return {
            "experiment": self.experiment.name,
            "variant": self.variant,
            "seed": self.seed,
            "timestep": self.timestep,
            "expect": self.expect,
            "ladder": self.ladder,
            **self.settings,
        }

    def load(self) -> dict[str, Any]:
        """Its result so far."""
        found = json.loads(self.file.read_text(encoding="utf-8")) if self.file.is_file() else {}
        return found if found.get("case") == self.described else {"case": self.described}


def cases() -> list[Case]:
    """Those that are listed."""
    plan = yaml.safe_load(PLAN.read_text(encoding="utf-8"))
    listed = plan.pop("cases")
    return [Case(**case | {"experiment": experiments.load(case["experiment"])}, settings=plan) for case in listed]


def store(file: Path, content: dict[str, Any]) -> None:
    """Write a result."""
    write_text(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def run_case(case: Case, data: Path, work: Path) -> None:
    """Train, audit and look at the truth, each unless it is done."""
    result = case.load()
    folder = work / case.experiment.name / case.job.name
    if "truth" in result:
        return
    if not (folder / "run" / "model" / "model.safetensors").is_file():
        config, _ = run_config(case.job, data, work, REPRODUCED, print)
        train(config, folder / "run", folder / "seconds.json", print)
    starts = _starts(case, data)
    if "verdict" not in result:
        file = folder / "starts.xyz"
        write(starts, file)
        options = ["--start", str(file), "--temperature", f"{case.kelvin:g}", "--alone"]
        options += ["--picoseconds", f"{case.settings['picoseconds']:g}", "--timestep", f"{case.timestep:g}"]
        options += ["--replicas", str(case.settings["replicas"]["verdict"])]
        result["verdict"] = audited([str(folder / "run"), *options], folder / "audit")
        store(case.file, result)
    result["truth"] = truth(case, folder, starts)
    store(case.file, result)


def _starts(case: Case, data: Path) -> Structures:
    """Structures that dynamics starts from: as in the experiment, but fewer."""
    experiment = case.experiment
    source = read(data / (experiment.starts.file or next(iter(experiment.tests.values())).file)).structures
    return choose_starts(source, Starts(count=case.settings["starts"], atoms=experiment.starts.atoms))


def audited(arguments: Sequence[str], output: Path, python: Path | str = sys.executable) -> dict[str, Any]:
    """What ``phystrain audit`` says, from the file that it leaves, and the processor time it took.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    shutil.rmtree(output, ignore_errors=True)
    command = [str(python), "-m", "phystrain.cli", "audit", *arguments, "--output", str(output)]
    print(*command, flush=True)
    began, clock = processor_seconds(), time.perf_counter()
    subprocess.run(command, check=True)
    seconds = {"processor": round(processor_seconds() - began, 1), "wall": round(time.perf_counter() - clock, 1)}
    found = load_results(output)
    assert found.verdict is not None
    survival = next((result for result in found.results if result.test == "survival"), None)
    return {
        **found.verdict.model_dump(include={"grade", "kelvin", "sentence", "reasons"}),
        "survival, K": None if survival is None else survival.kelvin,
        "survival": "" if survival is None else survival.sentence,
        "failed": {result.test: kelvin_of(result) for result in found.results if result.passed is False},
        "grades": {result.test: grade for result in found.results if (grade := grade_of(result)) is not None},
        "seconds": seconds,
    }


def truth(case: Case, folder: Path, starts: Structures) -> dict[str, Any]:
    """What longer runs at every rung of the ladder show."""
    model = load_model(folder / "run")
    subject = Subject(
        name=case.job.name,
        potential=model.potential,
        statistics=model.statistics,
        start=smallest(starts),
        temperatures=(case.kelvin,),
        seed=TRUTH_SEED + case.seed,
    )
    settings = {
        "multiples": case.settings["multiples"],
        "picoseconds": case.settings["longer"] * case.settings["picoseconds"],
        "replicas": case.settings["replicas"]["truth"],
        "timestep": case.timestep,
    }
    began = processor_seconds()
    result = registry.parse("reliability", {"kind": "survival", **settings})(subject)
    return {
        "survival, K": result.kelvin,
        "survived": {f"{kelvin:g}": result.figures[f"survived at {kelvin:g} K"] for kelvin in case.ladder},
        "mean survival, ps": {
            f"{kelvin:g}": result.figures[f"mean survival at {kelvin:g} K, ps"] for kelvin in case.ladder
        },
        "sentence": result.sentence,
        "seconds": round(processor_seconds() - began, 1),
    }


def rung(kelvin: float | None, ladder: Sequence[float]) -> int:
    """How many rungs of a ladder are not above a temperature."""
    return sum(step <= (kelvin or 0.0) + 1e-6 for step in ladder)


def predicted(verdict: dict[str, Any]) -> float:
    """K that a verdict calls safe: none if it calls the potential unsafe."""
    return 0.0 if verdict["grade"] == "unsafe" else float(verdict["kelvin"] or 0.0)


def chgnet(options: argparse.Namespace) -> dict[str, Any]:
    """CHGNet on Li-Mn-O crystals."""
    data = options.data / "li_electrode" / "test.xyz"
    lengths = ["--temperature", "1000", "--picoseconds", "1", "--timestep", "2", "--replicas", str(options.replicas)]
    start = options.work / "chgnet.xyz"
    source = read(data).structures
    write(choose_starts(source, Starts(count=options.replicas)), start)  # without labels: their zero is another
    return audited(["--ase", "chgnet", str(start), *lengths], options.work / "chgnet-audit", options.python)


def direct(options: argparse.Namespace) -> dict[str, Any]:
    """A network whose forces are an output of their own, on aspirin."""
    settings: dict[str, Any] = {
        "potential": {"kind": "painn", "preset": "small", "head": "direct"},
        "data": {"train": [str((options.data / "rmd17_aspirin/train.xyz").resolve())], "use": 100},
        "stages": [{"name": "finetune", "objectives": {"energy": {}, "forces": {"weight": 10}}, "steps": 1500}],
        "reliability": {"enabled": False, "temperatures": [300]},
    }
    settings["stages"][0] |= {"batch_size": 4, "optimiser": {"learning_rate": 0.002}}
    folder = options.work / "direct"
    train(run_file.check(settings), folder / "run", folder / "seconds.json", print)
    start = folder / "starts.xyz"
    write(choose_starts(read(options.data / "rmd17_aspirin/test.xyz").structures, Starts(count=4)), start)
    lengths = ["--temperature", "300", "--picoseconds", "1", "--alone"]
    return audited([str(folder / "run"), "--start", str(start), *lengths], folder / "audit")


def demo(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """A model of the demo, from its own held-out frames."""
    lengths = ["--picoseconds", "1", "--timestep", "2", "--alone"]
    return audited([str(options.demo / name), *lengths], options.work / f"demo-{name}-audit")


def real(options: argparse.Namespace) -> None:
    """Verdicts of real models."""
    todo = {"chgnet": chgnet, "direct": direct}
    names = [*todo]
    if options.demo is not None:
        names += sorted(f"demo {run.parent.name}" for run in options.demo.glob("*/config.yaml"))
    for name in names:
        file = RESULTS / "real" / f"{name.replace(' ', '-')}.json"
        if file.is_file() or (options.only and name not in options.only):
            continue
        found = todo[name](options) if name in todo else demo(options, name.removeprefix("demo "))
        store(file, {"name": name, **found})


def times(options: argparse.Namespace) -> None:
    """What the levels of tests cost on this machine."""
    for name, (file, size, kelvin, levels, limit) in LEVEL_TIMES.items():
        if options.only and name not in options.only:
            continue
        structures = read(options.data / file).structures
        if size:
            structures = structures.select(structures.sizes == size)
        else:
            structures = of_known_elements(structures, tuple(atomic_numbers[symbol] for symbol in FIVE))
        folder = options.work / f"times-{name.replace(' ', '-')}-{options.steps}"
        folder.mkdir(parents=True, exist_ok=True)
        write(structures, folder / "data.xyz")
        settings = {
            "potential": {"kind": "painn", "preset": "small"},
            "data": {"train": [str((folder / "data.xyz").resolve())], "use": min(100, len(structures))},
            "stages": [
                {"name": "teacher", "potential": {"kind": "wall"}, "fit": {}},
                {
                    "name": "finetune",
                    "prior": "teacher",
                    "objectives": {"energy": {}, "forces": {"weight": 10}},
                    "steps": options.steps,
                    "batch_size": 4,
                    "optimiser": {"learning_rate": 0.002},
                },
            ],
            "reliability": {"enabled": False, "temperatures": [kelvin]},
        }
        train(run_file.check(settings), folder / "run", folder / "seconds.json", print)
        store(
            RESULTS / "times" / f"{name.replace(' ', '-')}.json",
            {"name": name, "limit": limit, "steps": options.steps, "minutes": options.minutes}
            | _level_times(folder, structures, kelvin, levels, options.minutes),
        )


def _level_times(
    folder: Path, structures: Structures, kelvin: float, levels: Sequence[int], minutes: float
) -> dict[str, Any]:
    """Wall time of the tests of these levels, one by one and together, in the time that a user would give them."""
    model = load_model(folder / "run")
    kinds = [
        kind for kind in registry.kinds("reliability") if registry.find("reliability", kind).Config.level in levels
    ]
    given: dict[str, Any] = {"enabled": True, "temperatures": [kelvin], "tests": {kind: {} for kind in kinds}}
    settings = run_file.Reliability(**given | ({"minutes": minutes} if 1 in levels else {}))
    kinds_of_atoms = [len(set(frame.numbers)) for frame in structures.frames()]
    start = smallest(structures.select(np.flatnonzero(np.equal(kinds_of_atoms, max(kinds_of_atoms)))))
    marks: list[tuple[str, float]] = []

    def mark(result: Result) -> Result:
        marks.append((result.test, time.perf_counter()))
        return result

    began = time.perf_counter()
    results, _ = audit_saved(
        model,
        settings,
        name=folder.name,
        test=None,
        start=start,
        train=structures,
        note=mark,
        say=print,
    )
    total = time.perf_counter() - began
    spans = {}
    for (test, at), before in zip(marks, [began, *(at for _, at in marks)], strict=False):
        spans[test] = round(at - before, 1)
    survival = next((result for result in results if result.test == "survival"), None)
    assert start is not None
    return {
        "levels": list(levels),
        "atoms": start.sizes.tolist(),
        "elements": len(model.statistics.species),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "seconds": round(total, 1),
        "tests": spans,
        "survival": "" if survival is None else survival.sentence,
    }


def cause(result: dict[str, Any]) -> str:
    """Why a verdict names another rung than the truth, in one line."""
    verdict, true, ladder = result["verdict"], result["truth"], result["case"]["ladder"]
    said, found = rung(predicted(verdict), ladder), rung(true["survival, K"], ladder)
    alone = rung(verdict["survival, K"], ladder)
    if said > found:
        return f"too high: runs of {result['case']['picoseconds']:g} ps are too short. Longer: {true['sentence']}"
    if alone < found:
        return f"too low: a short run was lost, with other random numbers: {verdict['survival']}"
    grade = "unsafe" if verdict["grade"] == "unsafe" else "limited"
    low = [test for test, each in verdict["grades"].items() if each == grade]
    return f"too low: runs live, but it is {verdict['grade']} by {', '.join(low)}."


def table() -> str:
    """Write the page."""
    done = [result for case in cases() if "truth" in (result := case.load())]
    lines = [
        "# Verdicts",
        "",
        f"Made by `python -m benchmarks.verdicts table` from the files in `{RESULTS.name}/`.",
        "",
    ]
    lines += _case_lines(done) if done else []
    others = [json.loads(file.read_text(encoding="utf-8")) for file in sorted((RESULTS / "real").glob("*.json"))]
    lines += _real_lines(others) if others else []
    timed = [json.loads(file.read_text(encoding="utf-8")) for file in sorted((RESULTS / "times").glob("*.json"))]
    lines += _time_lines(timed) if timed else []
    page = "\n".join(lines).rstrip() + "\n"
    write_text(RESULTS.with_suffix(".md"), page)
    return page


READINGS = {
    "the whole verdict": predicted,
    "its temperature, whatever its grade": lambda verdict: float(verdict["kelvin"] or 0.0),
    "its survival test alone": lambda verdict: float(verdict["survival, K"] or 0.0),
}
"""What of a verdict may be taken for the prediction, K; the first one is what counts."""


def _case_lines(done: Sequence[dict[str, Any]]) -> list[str]:
    settings = done[0]["case"]
    lines = [
        "## Beside runs that are longer",
        "",
        f"Verdict: `phystrain audit RUN --alone`, runs of {settings['picoseconds']:g} ps, "
        f"{settings['replicas']['verdict']} at each of three temperatures. Truth: the survival test, "
        f"{settings['longer']} times as long, {settings['replicas']['truth']} runs at each, other random numbers. "
        "The cases and guesses of good and bad were listed beforehand in `benchmarks/verdicts.yaml`. K is the highest "
        "temperature at which runs are safe, 0 if there is none. In brackets: by how many rungs of the ladder (none, "
        "1, 1.5 and 2 times the training temperature) that is off. What counts is the whole verdict, of which "
        "`unsafe` says that no temperature is safe. Seconds are those of the processor.",
        "",
        "| case | guess | grade | verdict, K | temperature, K | survival, K | truth, K | verdict, s | truth, s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    off: dict[str, list[int]] = {name: [] for name in READINGS}
    misses = []
    for result in done:
        case, verdict, true = result["case"], result["verdict"], result["truth"]
        found = rung(true["survival, K"], case["ladder"])
        cells = []
        for name, reading in READINGS.items():
            off[name].append(rung(reading(verdict), case["ladder"]) - found)
            cells.append(f"{reading(verdict):,.0f} ({off[name][-1]:+d})".replace("(+0)", "(0)"))
        title = f"{case['experiment']}, {case['variant']}, {case['seed']}"
        lines.append(
            f"| {title} | {case['expect']} | {verdict['grade']} | {' | '.join(cells)} | {true['survival, K']:,.0f} | "
            f"{verdict['seconds']['processor']:.0f} | {true['seconds']:.0f} |"
        )
        if off["the whole verdict"][-1]:
            misses.append(f"* {title} ({off['the whole verdict'][-1]:+d}): {cause(result)}")
    always = [2 - rung(result["truth"]["survival, K"], result["case"]["ladder"]) for result in done]
    lines += ["", "| read as | exact | within one rung | too high | too low |", "| --- | --- | --- | --- | --- |"]
    for name, each in (off | {f"{settings['multiples'][1]:g} times the training temperature, always": always}).items():
        counts = (each.count(0), sum(abs(one) <= 1 for one in each), sum(one > 0 for one in each))
        shown = " | ".join(f"{count} of {len(each)}" for count in (*counts, sum(one < 0 for one in each)))
        lines.append(f"| {name} | {shown} |")
    return [*lines, "", *(["Where the whole verdict is off:", "", *misses, ""] if misses else [])]


def _real_lines(others: Sequence[dict[str, Any]]) -> list[str]:
    lines = ["## Other models", "", "From the command line; seconds of the processor.", ""]
    for found in others:
        sentence = found["sentence"].split(" Known besides")[0].split(";")[0].rstrip(".")  # without the conditions
        lines += [f"**{found['name']}** ({found['seconds']['processor']:.0f} s): {sentence}.", ""]
        lines += [*(f"* {reason}" for reason in found["reasons"]), ""]
    return lines


def _time_lines(timed: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "## What the levels cost",
        "",
        "Wall time with the small preset of PaiNN beside a wall. Tests in dynamics share the minutes they are given.",
        "",
        "| system | atoms that move | levels | threads | minutes given | seconds | asked for | slowest |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for found in timed:
        slow = sorted(found["tests"].items(), key=lambda item: -item[1])[:3]
        lines.append(
            f"| {found['name']}, {found['elements']} elements | {', '.join(map(str, found['atoms']))} | "
            f"{', '.join(map(str, found['levels']))} | {found['threads']} | "
            f"{found['minutes'] if 1 in found['levels'] else '–'} | {found['seconds']:.0f} | {found['limit']} | "
            f"{', '.join(f'{test} {seconds:.0f} s' for test, seconds in slow)} |"
        )
    return [*lines, ""]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "real", "times", "table"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--only", nargs="*", default=[], help="cases whose name contains a text; others by name")
    parser.add_argument("--demo", type=Path, help="folder of phystrain demo")
    parser.add_argument("--python", default=sys.executable, help="with phystrain and chgnet")
    parser.add_argument("--replicas", type=int, default=1, help="of CHGNet, which is slow: runs at each temperature")
    parser.add_argument("--steps", type=int, default=1000, help="of the networks that are timed")
    parser.add_argument("--minutes", type=float, default=12.0, help="for the tests of level 1")
    options = parser.parse_args()
    if options.action != "table" and (options.data is None or options.work is None):
        parser.error(f"{options.action} needs --data and --work")
    keep_memory()
    if options.action == "run":
        for case in cases():
            if not options.only or any(text in case.file.stem for text in options.only):
                run_case(case, options.data, options.work)
    elif options.action == "real":
        real(options)
    elif options.action == "times":
        times(options)
    print(table())


if __name__ == "__main__":
    main()

"""Command line: ``python -m benchmarks.reproduce {plan,run,table}``."""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.reproduce import experiment as experiments
from benchmarks.reproduce.experiment import EXPERIMENTS, Experiment
from benchmarks.reproduce.results import RESULTS, Job, all_jobs, expected_minutes
from benchmarks.reproduce.tables import write_tables
from phystrain.errors import UserError

ROOT = Path(__file__).parents[2]


class Runner:
    """Keeps a number of jobs going, each a process of one thread.

    Args:
        options: of the command line.
        jobs: what is to be done, in order.
    """

    def __init__(self, options: argparse.Namespace, jobs: list[Job]) -> None:
        self._options, self._waiting = options, jobs
        self._going: list[tuple[subprocess.Popen, Job]] = []
        self._ends = None if options.minutes is None else time.monotonic() + 60 * options.minutes
        self.failed: list[Job] = []

    def run(self) -> None:
        """Until nothing is left that can be started, or the time is up and what is going has finished."""
        try:
            while self._start() or self._going:
                time.sleep(0.2)
                self._collect()
        finally:
            for process, _ in self._going:  # they store a checkpoint, and the same command goes on from there
                process.terminate()
            for process, _ in self._going:
                process.wait()
        if self._waiting:
            print(f"{len(self._waiting)} not started", flush=True)

    def _start(self) -> bool:
        """Start what there is room and time for; whether anything was started."""
        started = False
        while len(self._going) < self._options.processes and not self._is_over():
            job = next((job for job in self._waiting if self._is_ready(job)), None)
            if job is None:
                break
            self._waiting.remove(job)
            self._going.append((self._launch(job), job))
            started = True
        return started

    def _is_over(self) -> bool:
        return self._ends is not None and time.monotonic() >= self._ends

    def _is_ready(self, job: Job) -> bool:
        """Whether the times that it needs are known."""
        return all(other.state(self._options.results) == "done" for other in job.others())

    def _launch(self, job: Job) -> subprocess.Popen:
        options = self._options
        log = self._log(job)
        log.parent.mkdir(parents=True, exist_ok=True)
        places = [f"--{name}={getattr(options, name).resolve()}" for name in ("data", "work", "results", "experiments")]
        command = [sys.executable, "-m", "benchmarks.reproduce.job", job.experiment.name, job.variant, str(job.seed)]
        # labels of teachers are cached in the work folder; one thread each, as timings are compared
        surroundings = os.environ | {
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "XDG_CACHE_HOME": str(options.work.resolve() / "cache"),
        }
        with log.open("a") as output:
            return subprocess.Popen(
                [*command, *places, *["--compiled"] * options.compiled],
                cwd=ROOT,
                env=surroundings,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def _collect(self) -> None:
        for entry in [entry for entry in self._going if entry[0].poll() is not None]:
            self._going.remove(entry)
            process, job = entry
            if process.returncode:
                self.failed.append(job)
                where = self._log(job)
                print(f"{job.experiment.name}/{job.name}: exit code {process.returncode}, see {where}", flush=True)
            else:
                left = len(self._waiting) + len(self._going)
                print(f"{job.experiment.name}/{job.name} done; {left} left", flush=True)

    def _log(self, job: Job) -> Path:
        """Beside the folder of the job: that folder is emptied when settings change."""
        return self._options.work / job.experiment.name / f"{job.name}.log"


def run(options: argparse.Namespace) -> int:
    """Train and test what is not done yet."""
    states = ("to do", "out of date") if options.redo else ("to do",)
    jobs = [job for job in all_jobs(_chosen(options)) if job.state(options.results) in states]
    missing = sorted({str(file) for job in jobs for file in _files(job.experiment, options.data) if not file.is_file()})
    if missing:
        raise UserError(f"not found: {', '.join(missing)}. Give the folder of the data sets with --data")
    if options.redo:
        for job in jobs:
            job.file(options.results).unlink(missing_ok=True)
    runner = Runner(options, jobs)
    runner.run()
    return 1 if runner.failed else 0


def plan(options: argparse.Namespace) -> int:
    """Say what is done and what is to do, with the time it should take on one thread."""
    total, unknown = 0.0, 0
    for experiment in _chosen(options):
        print(f"{experiment.name}: {experiment.title}")
        for variant in experiment.variants:
            jobs = [Job(experiment, variant, seed) for seed in range(experiment.seeds)]
            states = [job.state(options.results) for job in jobs]
            minutes = expected_minutes(jobs[0], options.results)
            left = sum(state != "done" for state in states)
            total += left * (minutes or 0)
            unknown += left if minutes is None else 0
            counts = ", ".join(f"{states.count(s)} {s}" for s in ("done", "to do", "out of date") if s in states)
            each = "time unknown" if minutes is None else f"{minutes:.1f} min each"
            print(f"  {variant:<28} {counts:<28} {each}")
    more = f", and {unknown} jobs of unknown time" if unknown else ""
    print(f"left: {total:.0f} min of one thread, {total / options.processes:.0f} min in {options.processes}{more}")
    return 0


def table(options: argparse.Namespace) -> int:
    """Write tables and pictures from the result files."""
    print(write_tables(_chosen(options), options.results, options.experiments))
    return 0


def _chosen(options: argparse.Namespace) -> list[Experiment]:
    wanted = options.only or experiments.names(options.experiments)
    return [experiments.load(name, options.experiments) for name in wanted]


def _files(experiment: Experiment, data: Path) -> list[Path]:
    """Of the data that an experiment reads."""
    named = [*experiment.train, *(test.file for test in experiment.tests.values()), experiment.starts.file]
    named += [name for model in experiment.models.values() for name in model.train]
    return [data / name for name in named if name is not None]


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reproduce", description="Experiments and their tables.")
    commands = parser.add_subparsers(required=True)
    for name, action in (("plan", plan), ("run", run), ("table", table)):
        command = commands.add_parser(name, help=(action.__doc__ or "").strip())
        command.set_defaults(do=action)
        command.add_argument("--only", nargs="+", metavar="NAME", help="experiments; all if not given")
        command.add_argument("--results", type=Path, default=RESULTS, help="folder of the result files")
        command.add_argument("--experiments", type=Path, default=EXPERIMENTS, help="folder of the YAML files")
        command.add_argument("--processes", type=int, default=2, help="jobs at a time, of one thread each")
        if name == "run":
            command.add_argument("--data", type=Path, required=True, help="folder of the data sets")
            command.add_argument("--minutes", type=float, help="start nothing new after this time")
            command.add_argument("--redo", action="store_true", help="repeat what is out of date")
            command.add_argument("--compiled", action="store_true", help="compile the steps of every training")
            command.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "phystrain-reproduce")
    options = parser.parse_args(arguments)
    try:
        return int(options.do(options))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main())

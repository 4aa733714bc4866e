"""Verdicts of other models: CHGNet, a network with a direct force head, and those of the demo."""

import argparse
from typing import Any

from benchmarks.reproduce.experiment import Starts
from benchmarks.reproduce.job import choose_starts
from benchmarks.reproduce.training import train
from benchmarks.verdicts.results import RESULTS, audited, store
from phystrain import config as run_file
from phystrain.data.read import read
from phystrain.data.write import write


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

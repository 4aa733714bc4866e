"""Result files, and what ``phystrain audit`` says from the command line."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.reproduce.training import processor_seconds
from phystrain.files import write_text
from phystrain.verdict.audited import load_results
from phystrain.verdict.grade import grade_of, kelvin_of

RESULTS = Path(__file__).parents[1] / "results" / "verdicts"


def store(file: Path, content: dict[str, Any]) -> None:
    """Write a result."""
    write_text(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def loaded(kind: str) -> list[dict[str, Any]]:
    """Results in the folder of a kind, by name."""
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted((RESULTS / kind).glob("*.json"))]


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

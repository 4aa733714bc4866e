"""Training, with its processor time by stage."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from phystrain.config import RunConfig
from phystrain.files import write_text
from phystrain.train.run import Run


class Clock:
    """Processor time by stage, over all sessions of a run, kept in a file.

    A job is one thread, so this is the wall time it would take alone, whatever else the machine does meanwhile. Time
    of finished worker processes (labels of calculators) counts too. Each line of the log that begins with ``stage
    NAME`` ends a span of time that belongs to that stage: making and labelling structures, and training.

    Args:
        file: where the times are.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.seconds: dict[str, float] = json.loads(file.read_text()) if file.is_file() else {}
        self._last, self._stage = processor_seconds(), "start"

    def note(self, line: str) -> None:
        """Look at a line of the log."""
        if match := re.match(r"stage ([^\s:]+)", line):
            self._stage = match[1]
            self.stop()

    def stop(self) -> None:
        """Count the time since the last line for the stage it named."""
        now = processor_seconds()
        self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._last
        self._last = now
        write_text(self._file, json.dumps(self.seconds))


def processor_seconds() -> float:
    """Of this process and of those it has waited for."""
    return sum(os.times()[:4])


def train(config: RunConfig, folder: Path, times: Path, say: Callable[[str], None]) -> dict[str, float]:
    """Train what is not trained yet; processor time by stage."""
    clock = Clock(times)
    if (folder / "model" / "model.safetensors").is_file():
        return clock.seconds

    def listen(line: str) -> None:
        clock.note(line)
        say(line)

    try:
        Run(config, folder, base=folder.parent, say=listen).train()
    finally:
        clock.stop()
    return clock.seconds

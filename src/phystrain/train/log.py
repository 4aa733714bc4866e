"""What a run writes while it trains: ``metrics.csv`` and ``train.log``."""

import csv
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from phystrain.files import write_text

Rows = list[dict[str, Any]]

FIRST = ("stage", "step", "epoch", "seconds", "learning_rate", "loss")


class Metrics:
    """Rows of figures in a CSV file that is rewritten whole, so that it never ends in half a line.

    Rows are held in memory (about fifty a stage). Columns appear as figures appear.

    Args:
        path: the file; ``None`` keeps the rows in memory only (processes other than the first).
        watch: shown all rows whenever one was added; what it raises ends the training.
    """

    def __init__(self, path: Path | None, watch: Callable[[Rows], None] = lambda _: None) -> None:
        self._path, self._watch = path, watch
        self.rows: Rows = []
        if path is not None and path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                self.rows = [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]

    def add(self, row: dict[str, Any]) -> None:
        """Append a row and write the file."""
        self.rows.append(row)
        self._write()
        self._watch(self.rows)

    def cut(self, stage: str, step: int) -> None:
        """Drop the rows of a stage beyond a step: training resumes there and will write them again."""
        self.rows = [row for row in self.rows if row["stage"] != stage or int(row["step"]) <= step]
        self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        columns = list(FIRST) + [n for n in dict.fromkeys(n for row in self.rows for n in row) if n not in FIRST]
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self._path, text.getvalue())


class Log:
    """Lines with a time stamp, to a file and to a listener.

    Args:
        path: the file, appended to; ``None`` for none.
        say: called with each line too, for the terminal.
    """

    def __init__(self, path: Path | None, say: Any = None) -> None:
        self._path, self._say = path, say

    def __call__(self, line: str) -> None:
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
        if self._say is not None:
            self._say(line)

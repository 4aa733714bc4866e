"""Verdicts of short audits beside what runs ten times as long show; verdicts of other models; what levels cost.

Usage:
  python -m benchmarks.verdicts run --data DIR --work WORK [--only TEXT ...]
  python -m benchmarks.verdicts real --data DIR --work WORK [--demo FOLDER] [--python PYTHON] [--only NAME ...]
  python -m benchmarks.verdicts times --data DIR --work WORK [--steps 1000] [--minutes 12] [--only NAME ...]
  python -m benchmarks.verdicts table

``run`` takes the cases of benchmarks/verdicts/cases.yaml, which were listed before any of them was run. A case is a
training of benchmarks.reproduce: one that stands in WORK/EXPERIMENT/VARIANT-SEED is used, another is trained there. Its
verdict is that of ``phystrain audit``, called as on the command line; the truth is the survival test of the package,
longer, with other random numbers. A verdict that calls a potential unsafe predicts that no temperature is safe.

``real`` audits CHGNet on ``li_electrode`` (PYTHON is an interpreter with phystrain and chgnet), a network with a direct
force head, trained here on 100 frames of aspirin, and the models of a folder that ``phystrain demo`` has made.

``times`` measures level 0 on a system of five elements, and levels 0 and 1 on a molecule of 27 and a cell of 72 atoms,
with the small preset of a network: wall time, for which the machine must be quiet. Each leaves small files in
benchmarks/results/verdicts/; those of ``run`` and ``real`` are not made again. ``table`` makes
benchmarks/results/verdicts.md from them.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.verdicts.cases import cases, run_case
from benchmarks.verdicts.models import real
from benchmarks.verdicts.tables import table
from benchmarks.verdicts.times import times
from phystrain.allocator import keep_memory


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

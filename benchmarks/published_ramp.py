"""The heating ramp of ``mo-40`` with a published potential in place of a network.

Its end tells whether the contacts that end a network's ramp are faults.

``python -m benchmarks.published_ramp --data DIR`` writes ``results/published_ramp.json``. The potential is the
one of Finnis and Sinclair, Phil. Mag. A 50, 45 (1984), without the stiffer core that was added to it later, tabulated
for LAMMPS (``eam/MoW_FS1984.eam.fs``).
"""

import argparse
import json
from pathlib import Path

from benchmarks.reproduce.experiment import load
from benchmarks.reproduce.job import choose_starts
from phystrain.data.read import read
from phystrain.files import write_text
from phystrain.potentials import build
from phystrain.reliability import Subject
from phystrain.reliability._suite import audit, parse_tests
from phystrain.statistics import Statistics

RESULT = Path(__file__).parent / "results" / "published_ramp.json"
MOLYBDENUM = 42


def main() -> None:
    """From the same starting structures, with the same seeds, as each draw of the experiment."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    experiment = load("mo-40")
    statistics = Statistics.bare((MOLYBDENUM,))
    settings = {"kind": "eam_table", "file": str((data / "eam/MoW_FS1984.eam.fs").resolve())}
    potential = build(settings, statistics).eval()
    starts = choose_starts(read(data / "zuo2020/Mo_test.xyz").structures, experiment.starts)
    ramp = parse_tests({"heating": experiment.reliability["heating"]})
    found = {}
    for seed in range(experiment.seeds):
        subject = Subject(
            name="published",
            potential=potential,
            statistics=statistics,
            start=starts,
            temperatures=tuple(experiment.temperatures),
            seed=seed,
        )
        (result,) = audit(subject, {test.kind: test for test in ramp})
        found[str(seed)] = dict(result.figures)
        print(result.sentence)
    write_text(RESULT, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

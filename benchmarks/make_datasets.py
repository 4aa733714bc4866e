"""Cut the small data sets that ship with the package from a folder of the full ones.

Usage: python benchmarks/make_datasets.py --data DIR

DIR holds si_zeo22/, rmd17_aspirin/ and nbmotaw/ with train.xyz, test*.xyz, META.json and LICENSE. Frames are drawn at
random (seed 0); silica over all its topologies alike.
"""

import argparse
import json
import lzma
import shutil
from io import StringIO
from pathlib import Path

import numpy as np
from ase.io import read, write

TARGET = Path(__file__).parents[1] / "src" / "phystrain" / "datasets"
RECIPES = {
    "silica": ("si_zeo22", {"train": ("train.xyz", 56, "topology"), "test": ("test_id.xyz", 28, "topology")}),
    "aspirin": ("rmd17_aspirin", {"train": ("train.xyz", 100, None), "test": ("test.xyz", 60, None)}),
    "nbmotaw": ("nbmotaw", {"train": ("train.xyz", 60, "group"), "test": ("test.xyz", 30, "group")}),
}
NOTES = {
    "silica": "PBE-D3(BJ), 14 zeolite frameworks, molecular dynamics at 298-1000 K",
    "aspirin": "PBE/def2-SVP, molecular dynamics at 500 K",
    "nbmotaw": "PBE, elements and binaries of Nb, Mo, Ta and W, with stress; tests with four-element cells",
}


def draw(frames: list, wanted: int, group: str | None, rng: np.random.Generator) -> list:
    """Frames at random, in turn over the groups."""
    order = rng.permutation(len(frames))
    if group is None:
        return [frames[i] for i in order[:wanted]]
    queues: dict[str, list[int]] = {}
    for i in order:
        queues.setdefault(str(frames[i].info[group]), []).append(i)
    chosen: list[int] = []
    while len(chosen) < wanted:
        chosen += [queue.pop(0) for queue in queues.values() if queue]
    return [frames[i] for i in chosen[:wanted]]


def main() -> None:
    """Write every data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the full data sets")
    data = parser.parse_args().data
    for name, (source, parts) in RECIPES.items():
        folder = TARGET / name
        folder.mkdir(parents=True, exist_ok=True)
        meta = json.loads((data / source / "META.json").read_text())
        for part, (file, wanted, group) in parts.items():
            frames = draw(read(data / source / file, ":"), wanted, group, np.random.default_rng(0))
            text = StringIO()
            write(text, frames, format="extxyz")
            (folder / f"{part}.xyz.xz").write_bytes(lzma.compress(text.getvalue().encode(), preset=9))
        shutil.copyfile(data / source / "LICENSE", folder / "LICENSE")
        (folder / "README.md").write_text(
            f"# {name}\n\n{NOTES[name]}.\n\n"
            f"* Frames: {', '.join(f'{part} {wanted}' for part, (_, wanted, _) in parts.items())}, "
            f"drawn at random by `benchmarks/make_datasets.py`.\n"
            f"* Source: {meta['source']['repository']}, commit {meta['source']['commit']}.\n"
            f"* Licence: {meta['source']['licence']} (text in LICENSE).\n"
            f"* Citation: {meta['citation']}.\n"
            f"* Level of theory: {meta['level_of_theory']}. Units: eV, Å, eV/Å, eV/Å³ (tension positive).\n"
        )


if __name__ == "__main__":
    main()

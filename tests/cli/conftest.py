import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import yaml
from ase import Atoms

from phystrain.cli import main
from phystrain.data.structures import Structures
from phystrain.data.write import write
from phystrain.potentials import build
from phystrain.saving import save_model
from phystrain.statistics import Statistics


@dataclass
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str


def ended(code):
    """Exit code of a SystemExit as the shell would see it."""
    return 0 if code is None else code


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """In place of the user's own."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def call(capsys, tmp_path, cache, monkeypatch):
    """Run a command in this process, in a folder of its own; gives exit code and output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", cache)

    def run(*arguments):
        capsys.readouterr()
        try:
            main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as stop:
            code = ended(stop.code)
        text = capsys.readouterr()
        return Outcome(code, text.out, text.err)

    return run


@pytest.fixture
def refuse(call):
    """Run a command that must end in exit code 2 and a line or two of stderr that hold all the words."""

    def run(*arguments, words):
        outcome = call(*arguments)
        assert outcome.code == 2, outcome
        lines = outcome.err.strip().splitlines()
        assert lines[0].startswith("phystrain: "), outcome.err
        assert 1 <= len(lines) <= 2, outcome.err
        assert "Traceback" not in outcome.err + outcome.out
        for word in (words,) if isinstance(words, str) else words:
            assert word in outcome.err, outcome.err
        return outcome

    return run


@pytest.fixture
def files_below():
    """Contents of all files below a folder, by relative name."""

    def contents(folder):
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    return contents


@pytest.fixture
def stop_after():
    """In place of ``Training._finished_early``: makes a training ask to stop once so many steps have been made."""

    def after(steps):
        def asked(self):
            self._should_stop = lambda: self.step >= steps
            return False

        return asked

    return after


@pytest.fixture
def shell(tmp_path, cache):
    """Start a command in a process of its own, one thread, and hand over the process."""

    def start(*arguments, cwd=tmp_path):
        environment = os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": cache}
        return subprocess.Popen(
            [sys.executable, "-m", "phystrain.cli", *map(str, arguments)],
            env=environment,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def harmonic(count=8, sign=1.0, box=6.0):
    """Silicon oxide dimers on a spring of 20 eV/Å², crystals of one molecule a cell, with energies and forces."""
    frames = []
    random = np.random.default_rng(7)
    for number in range(count):
        direction = random.normal(size=3) * 0.05 + [1.0, 0.0, 0.0]
        direction /= np.linalg.norm(direction)
        stretch = 0.04 * (number - (count - 1) / 2)
        atoms = Atoms("SiO", [[0.0, 0.0, 0.0], (1.6 + stretch) * direction], cell=[box] * 3, pbc=True)
        pull = 20.0 * stretch * direction
        frames.append((atoms, -8.0 + 10.0 * stretch**2, sign * np.array([pull, -pull])))
    structures = Structures.from_ase([atoms for atoms, _, _ in frames])
    return structures.with_labels(
        energy=np.array([energy for _, energy, _ in frames]), forces=np.concatenate([forces for _, _, forces in frames])
    )


@pytest.fixture
def data(tmp_path):
    """A small file of labelled structures."""
    write(harmonic(), tmp_path / "good.xyz")
    return tmp_path / "good.xyz"


@pytest.fixture
def hydride(tmp_path):
    """A file of one structure of elements that are not in ``data``."""
    (tmp_path / "nh.xyz").write_text(
        """2
Lattice="6 0 0 0 6 0 0 0 6" Properties=species:S:1:pos:R:3:forces:R:3 energy=-1
N 0 0 0 0 0 0
H 1 0 0 0 0 0
"""
    )
    return tmp_path / "nh.xyz"


@pytest.fixture
def settings():
    """Settings that train in a moment."""
    return {
        "potential": {"kind": "painn", "channels": 4, "layers": 1, "cutoff": 3.0},
        "data": {"train": "good.xyz", "valid_fraction": 0.25},
        "stages": [{"name": "finetune", "objectives": {"energy": {}, "forces": {}}, "steps": 2, "batch_size": 2}],
        "reliability": {"enabled": False},
    }


@pytest.fixture
def run_file(tmp_path, data, settings):
    """A run file for ``data``."""
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "run.yaml"


@pytest.fixture
def model(tmp_path):
    """A model file of an untrained network for silicon and oxygen."""
    torch.manual_seed(0)
    statistics = Statistics.bare((8, 14))
    config = {
        "kind": "sum",
        "terms": {
            "reference": {"kind": "reference_energy"},
            "model": {"kind": "painn", "channels": 4, "layers": 1, "cutoff": 3.0},
        },
    }
    potential = build(config, statistics)
    save_model(tmp_path / "model.safetensors", potential.state_dict(), config, statistics)
    return tmp_path / "model.safetensors"

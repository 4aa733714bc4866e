"""Compiled networks give what plain ones give, and what cannot be compiled runs as it is."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ase.build import bulk, molecule

from phystrain import compiled
from phystrain.derive import evaluate
from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.potentials import build
from phystrain.statistics import Statistics

CUTOFF = 4.0
TERMS = {
    "reference": {"kind": "reference_energy", "energies": {"Si": -3.0, "O": -1.0}},
    "model": {"kind": "schnet", "channels": 8, "filters": 8, "layers": 1, "cutoff": CUTOFF},
    "prior": {"kind": "frozen", "potential": {"kind": "zbl"}},
}


def make_network(confined=False):
    torch.manual_seed(0)
    terms = dict(TERMS)
    if confined:  # a wide fade that every atom of the crystal is in
        densities = {8: [(100.0, 200.0)] * 2, 14: [(1e-3, 2e-3)] * 2}
        terms["model"] = {
            "kind": "confined",
            "potential": TERMS["model"],
            "densities": densities,
            "lowest": 0,
            "highest": 1e6,
        }
    return build({"kind": "sum", "terms": terms}, Statistics.bare((8, 14)))


def make_crystal():
    atoms = bulk("Si", cubic=True)
    atoms.numbers[::2] = 8
    atoms.rattle(0.05, seed=1)
    return atoms


@pytest.mark.skipif(not compiled.available(), reason="no C++ compiler")
def test_compiled_code():
    file = Path(__file__).with_name("compiled_untyped.py")
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=--import-mode=importlib", str(file)]
    found = subprocess.run(command, cwd=file.parents[1], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def same_as_plain(network):
    graph = AtomGraph.from_ase(make_crystal(), CUTOFF, dtype=torch.float32)
    found, plain = evaluate(compiled.faster(network), graph), evaluate(network, graph)
    return torch.equal(found.energy, plain.energy) and torch.equal(found.forces, plain.forces)


def test_a_failing_compiler_is_told_and_changes_nothing(monkeypatch, caplog):
    monkeypatch.setattr(compiled.torch, "compile", lambda *_, **__: lambda *_: 1 / 0)
    assert same_as_plain(make_network())
    assert "not compiled (division by zero)" in caplog.text


def test_wrong_code_is_told_and_not_used(monkeypatch, caplog):
    monkeypatch.setattr(compiled.torch, "compile", lambda run, **_: lambda *given: tuple(2 * x for x in run(*given)))
    assert same_as_plain(make_network())
    assert "other energies or forces" in caplog.text


def test_unknown_elements_are_refused():
    with pytest.raises(UserError, match="not H, C"):
        evaluate(compiled.faster(make_network()), AtomGraph.from_ase(molecule("CH4"), CUTOFF, dtype=torch.float32))


def test_what_multiplies_a_network_is_not_compiled_inside():
    terms = {"network": TERMS["model"], "wall": {"kind": "zbl"}}
    potential = build({"kind": "confined", "potential": {"kind": "sum", "terms": terms}}, Statistics.bare((8, 14)))
    assert compiled.faster(potential) is potential


def test_what_holds_no_network_stays_as_it_is():
    potential = build({"kind": "zbl"}, Statistics.bare((8, 14)))
    assert compiled.faster(potential) is potential

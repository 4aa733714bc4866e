"""The verdict on the command line: exit codes, what stands beside, calculators of ASE, and mistakes."""

import json

import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk

from phystrain.data.structures import Structures
from phystrain.data.write import write
from phystrain.verdict.results_file import ResultsFile

SHORT = ("--picoseconds", "0.004", "--replicas", "1")
LENNARD_JONES = ("--ase", "ase.calculators.lj:LennardJones", "--argument", "sigma=3.4", "--argument", "epsilon=0.0103")
SMOOTH = ("--argument", "rc=6.5", "--argument", "smooth=true", "--cutoff", "6.5")

CALCULATORS = """
import numpy as np
from ase.calculators.lj import LennardJones


class Wrong(LennardJones):
    implemented_properties = ["energy", "forces"]

    def calculate(self, *given, **named):
        super().calculate(*given, **named)
        self.results["forces"] = 1.5 * self.results["forces"]


class Energies(LennardJones):
    implemented_properties = ["energy"]

    def calculate(self, *given, **named):
        super().calculate(*given, **named)
        del self.results["forces"]
        self.results = {"energy": self.results["energy"]}


ready = LennardJones(sigma=3.4, epsilon=0.0103, rc=6.5, smooth=True)
wrong = Wrong(sigma=3.4, epsilon=0.0103, rc=6.5, smooth=True)
"""


@pytest.fixture
def argon(tmp_path):
    """Structures without labels, and calculators in a file beside them."""
    frames = [bulk("Ar", "fcc", a=5.3, cubic=True) * (2, 2, 2) for _ in range(2)]
    for number, frame in enumerate(frames):
        frame.rattle(0.05, seed=number)
    ase.io.write(tmp_path / "argon.xyz", frames)
    (tmp_path / "calculators_of_mine.py").write_text(CALCULATORS)
    return tmp_path / "argon.xyz"


def results_of(folder):
    return ResultsFile.model_validate_json((folder / "results.json").read_text())


def test_a_sound_calculator_of_ase(call, argon, tmp_path):
    arguments = (*LENNARD_JONES, *SMOOTH, argon, "--temperature", "40", *SHORT)
    outcome = call("audit", *arguments)
    assert outcome.code == 0, outcome.err
    assert "VERDICT: Limited" in outcome.out  # runs of 0.004 ps prove nothing
    assert "too short to tell" in outcome.out
    found = results_of(tmp_path / "LennardJones-audit")
    assert found.verdict.grade == "limited"
    assert found.verdict.kelvin is None
    assert {result.test for result in found.results if result.passed is False} == set()
    assert len(found.data) == 64
    assert (tmp_path / "LennardJones-audit" / "report.html").is_file()


@pytest.mark.parametrize(
    ("calculator", "least", "code"),
    [
        ("ready", "safe", 1),
        ("wrong", "limited", 1),
        ("wrong", "unsafe", 0),
    ],
)
def test_exit_codes(call, argon, calculator, least, code):
    spec = f"calculators_of_mine:{calculator}"
    outcome = call("audit", "--ase", spec, argon, "--temperature", "40", *SHORT, "--fail-under", least)
    assert outcome.code == code, outcome.err
    assert ("Unsafe for dynamics: it fails Derivatives" in outcome.out) == (calculator == "wrong")


def test_where_dynamics_starts_and_what_it_was_trained_on(call, argon, tmp_path):
    bigger = bulk("Ar", "fcc", a=5.4, cubic=True) * (3, 3, 3)
    ase.io.write(tmp_path / "bigger.xyz", bigger)
    near = Atoms("Ar2", [[0, 0, 0], [0, 0, 3.0]])
    ase.io.write(tmp_path / "trained.xyz", near)
    arguments = ("--start", "bigger.xyz", "--train", "trained.xyz", "--output", "page")
    outcome = call("audit", *LENNARD_JONES, *SMOOTH, argon, "--temperature", "40", *SHORT, *arguments)
    assert outcome.code == 0, outcome.err
    titles = {curve for result in results_of(tmp_path / "page").results for curve in result.curves}
    assert any("Ar108" in title for title in titles)
    alone = call("audit", *LENNARD_JONES, *SMOOTH, "--start", argon, "--temperature", "40", *SHORT)
    assert alone.code == 0, alone.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name a run folder or model file"),
        (["--ase", "calculators_of_mine:ready"], "name a file"),
        (["--ase", "calculators_of_mine:ready", "nosuch.xyz"], "nosuch.xyz"),
        (["--ase", "calculators_of_mine:ready", "model.safetensors"], "is a model"),
        (["--ase", "calculators_of_mine:raedy", "argon.xyz"], "check the spelling"),
        (["--ase", "nosuch.module:Thing", "argon.xyz"], "Install the package"),
        (["--ase", "calculators_of_mine", "argon.xyz"], "write module:attribute"),
        (["--ase", "gfn3-xtb", "argon.xyz"], "did you mean 'gfn"),
        (["--ase", "os:getcwd", "argon.xyz"], "makes no calculator"),
        (["--ase", "calculators_of_mine:Energies", "argon.xyz"], "no energy and forces of Ar32 (periodic)"),
        (["--ase", "ase.calculators.emt:EMT", "argon.xyz"], "Is it made for these elements"),
        (["--ase", "calculators_of_mine:ready", "argon.xyz", "--argument", "rc"], "write name=value"),
        (["--ase", "calculators_of_mine:ready", "argon.xyz", "--cutoff", "-2"], "--cutoff should be greater than 0"),
        (["--ase", "calculators_of_mine:ready", "argon.xyz", "--temperature", "-2"], "greater than 0"),
        (["--ase", "calculators_of_mine:ready", "argon.xyz", "--fail-under", "good"], "fail-under"),
        (["model.safetensors", "--argument", "rc=3"], "name one with --ase"),
        (["model.safetensors", "--cutoff", "3"], "name one with --ase"),
        (["model.safetensors", "--train", "nosuch.xyz"], "nosuch.xyz"),
    ],
)
def test_mistakes(refuse, model, argon, tmp_path, arguments, words):
    refuse("audit", *arguments, *SHORT, "--output", "new", words=words)
    assert not (tmp_path / "new").exists()


@pytest.fixture
def taught(call, run_file, settings, tmp_path):
    """A run with a classical teacher and a network without physics beside it."""
    settings["stages"] = [
        {"name": "teacher", "fit": {"choose": ["morse_zbl"], "evaluations": 4, "starts": 1, "folds": 2}},
        {**settings["stages"][0], "prior": "teacher"},
    ]
    tests = {"dimers": {"points": 20}, "survival": {"picoseconds": 0.004, "replicas": 2}}
    settings["reliability"] = {"temperatures": [300.0], "baseline": True, "tests": tests}
    run_file.write_text(yaml.safe_dump(settings))
    outcome = call("train", run_file, "--output", "run")
    assert outcome.code == 0, outcome.err
    return outcome


def test_a_run_stands_beside_its_teacher_and_the_network_without_physics(call, taught, tmp_path):
    stored = results_of(tmp_path / "run")
    assert [other.name for other in stored.beside] == ["labels only", "teacher"]
    assert "VERDICT: " in taught.out
    for name in ("labels only", "teacher", "run"):
        assert any(line.startswith(name) and "of 2" in line for line in taught.out.splitlines()), taught.out
    starts = [other.results[-1].figures["runs"] for other in (stored, *stored.beside)]
    assert starts == [6, 6, 6]

    outcome = call("audit", "run", *SHORT, "--output", "page")
    assert outcome.code == 0, outcome.err
    found = results_of(tmp_path / "page")
    assert [other.name for other in found.beside] == ["labels only", "teacher"]
    assert all(other.verdict is not None for other in found.beside)
    page = (tmp_path / "page" / "report.html").read_text()
    assert "labels only" in page
    assert "classical potential of this run" in page

    outcome = call("audit", "run", *SHORT, "--alone", "--output", "alone")
    assert outcome.code == 0, outcome.err
    alone = results_of(tmp_path / "alone")
    assert alone.beside == []
    assert alone.results[-1].figures == found.results[-1].figures  # same starts, same seeds

    outcome = call("compare", "run", "page")
    assert outcome.code == 0, outcome.err
    assert "VERDICT on run" in outcome.out
    assert "Verdict" in outcome.out


def test_the_teacher_can_be_left_out(call, taught, run_file, tmp_path):
    text = yaml.safe_load(run_file.read_text())
    text["reliability"] |= {"teacher": False, "baseline": False}
    run_file.write_text(yaml.safe_dump(text))
    assert call("train", run_file, "--output", "run").code == 0
    assert results_of(tmp_path / "run").beside == []


def test_the_schema_of_results(call):
    schema = json.loads(call("schema", "--results").out)
    assert set(schema["properties"]) == set(ResultsFile.model_fields)
    assert schema["$defs"]["Verdict"]["properties"]["grade"]["anyOf"][0]["enum"] == ["safe", "limited", "unsafe"]


def test_energies_from_another_zero(call, tmp_path, argon):
    frames = ase.io.read(argon, ":")
    labelled = Structures.from_ase(frames).with_labels(energy=np.array([-1.0, -2.0]))
    write(labelled, tmp_path / "labelled.xyz")
    outcome = call("audit", "--ase", "calculators_of_mine:ready", "labelled.xyz", "--temperature", "40", *SHORT)
    assert outcome.code == 0, outcome.err
    assert "apart from offsets of the elements" in outcome.out

"""Every command as it is meant to be used, on tiny data."""

import csv
import inspect
import json
import os
import pty
import re
import subprocess
import sys

import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms

from phystrain import config, registry
from phystrain.cli import app, main
from phystrain.data.read import read
from phystrain.data.structures import Structures
from phystrain.data.write import write

from .conftest import harmonic

COMMANDS = sorted(name for name in app if not name.startswith("-"))
TINY = ["potential.channels=4", "potential.layers=1", "potential.cutoff=3.0"]


@pytest.fixture(scope="module")
def project(tmp_path_factory, cache):
    """A project with a run that init proposed and train finished: data in one folder, run files in another."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "data").mkdir()
    structures = harmonic(12)
    text = folder / "data" / "our labels.xyz"
    write(structures, text)
    text.write_text(text.read_text().replace("REF_energy", "E_pbe").replace("REF_forces", "F_pbe"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", cache)
        keys = ["--energy", "E_pbe", "--forces", "F_pbe"]
        main(["init", "data/our labels.xyz", "--output", "settings/run.yaml", "--temperature", "300", *keys])
        stages = config.load("settings/run.yaml").stages
        short = [f"stages.{stage.name}.steps=3" for stage in stages if stage.fit is None]
        short.append("stages.teacher.fit={choose: [morse_zbl], evaluations: 4, starts: 1, folds: 2}")
        reliability = "reliability={replicas: 1, picoseconds: 0.003, temperatures: [300, 600]}"
        main(["train", "settings/run.yaml", *TINY, *short, reliability])
    return folder


def test_init_proposes_all_stages(project):
    text = (project / "settings" / "run.yaml").read_text()
    found = config.load(project / "settings" / "run.yaml")
    assert [stage.name for stage in found.stages] == ["teacher", "committee", "taught", "finetune"]
    assert (found.stages[0].fit.choose, found.stages[-1].prior) == ("auto", "teacher")
    assert found.data.train == "../data/our labels.xyz"
    assert (found.data.keys.energy, found.data.keys.forces) == ("E_pbe", "F_pbe")
    assert "12 structures, 24 atoms, elements O Si" in text
    assert sum("#" in line for line in text.splitlines()) > 5


def test_init_never_guesses_a_temperature(call, refuse, data, tmp_path):
    outcome = call("init", data)
    assert "fill in reliability.temperatures in run.yaml" in outcome.out
    assert config.load(tmp_path / "run.yaml").reliability.temperatures is None
    refuse("train", "run.yaml", *TINY, words=("is not guessed", "temperatures: [300]"))
    assert not (tmp_path / "runs").exists()
    given = call("init", data, "--output", "given.yaml", "--temperature", "450", "--temperature", "900")
    assert "fill in" not in given.out
    assert config.load(tmp_path / "given.yaml").reliability.temperatures == [450, 900]
    refuse("init", data, "--output", "cold.yaml", "--temperature", "-4", words="K above 0")
    # frames that name it are believed
    text = data.read_text().replace("REF_energy", "temperature=700 REF_energy")
    (tmp_path / "named.xyz").write_text(text)
    assert "fill in" not in call("init", "named.xyz", "--output", "named.yaml").out
    found = config.load(tmp_path / "named.yaml")
    assert found.reliability.temperatures == [700]
    assert "as your frames name them" in (tmp_path / "named.yaml").read_text()


def test_a_terminal_is_asked(data, tmp_path):
    outer, inner = pty.openpty()
    command = [sys.executable, "-m", "phystrain.cli", "init", str(data)]
    process = subprocess.Popen(command, cwd=tmp_path, stdin=inner, stderr=inner, stdout=subprocess.DEVNULL)
    os.close(inner)
    asked = b""
    while b"training data, K" not in asked:
        asked += os.read(outer, 100)
    os.write(outer, b"350 K\n")
    assert process.wait(timeout=60) == 0
    os.close(outer)
    assert config.load(tmp_path / "run.yaml").reliability.temperatures == [350]


def test_init_names_test_structures(call, data, tmp_path):
    (tmp_path / "settings").mkdir()
    write(harmonic(4), tmp_path / "held out.xyz")
    outcome = call("init", data, "--test", "held out.xyz", "--output", "settings/run.yaml")
    assert outcome.code == 0, outcome.err
    found = config.load(tmp_path / "settings" / "run.yaml").data
    assert (found.train, found.test) == (str(data), "../held out.xyz")  # absolute paths stay as they are
    assert found.keys == type(found.keys)()


def test_train_leaves_a_whole_run_folder(project):
    folder = project / "settings" / "runs" / "run"
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "data.json", "metrics.csv", "train.log", "model", "plots"} <= names
    assert {"report.html", "results.json"} <= names
    assert not [name for name in names if name.startswith(".")]
    results = {result["test"]: result for result in json.loads((folder / "results.json").read_text())["results"]}
    # what needs a trajectory, the training structures or energies alone, or runs only if it is named
    asked = {"diffusion", "vibrations", "novelty", "slopes", "elastic", "phonons"}
    assert set(registry.kinds("reliability")) - set(results) <= asked
    assert {"survived at 300 K", "survived at 600 K"} <= set(results["survival"]["figures"])
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    trained = [row["stage"] for row in rows if row["step"] == "3"]
    assert trained == ["committee", "committee.2", "committee.3", "taught", "finetune"]


def test_the_same_command_again_changes_no_model(project, call, monkeypatch):
    monkeypatch.chdir(project)
    folder = project / "settings" / "runs" / "run"
    before = (folder / "model" / "model.safetensors").read_bytes()
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    (project / "settings" / "again.yaml").write_text(yaml.safe_dump(saved))
    outcome = call("train", "settings/again.yaml", "--output", folder)
    assert outcome.code == 0, outcome.err
    assert (folder / "model" / "model.safetensors").read_bytes() == before


def test_evaluate(project, call):
    folder = project / "settings" / "runs" / "run"
    file = project / "data" / "our labels.xyz"
    outcome = call("evaluate", folder, file, "--energy", "E_pbe", "--forces", "F_pbe", "--output", "page")
    assert outcome.code == 0, outcome.err
    assert "RMSE on 12 structures" in outcome.out
    result = json.loads((folder.parents[0] / "run" / "results.json").read_text())
    assert result["name"] == "run"
    for name in ("forces RMSE O, meV/Å", "forces RMSE Si, meV/Å", "energy MAE, meV/atom"):
        assert name in outcome.out
    assert call("compare", "page").code == 0


def test_audit_of_a_run_uses_its_held_out_structures(project, call, tmp_path):
    """From any folder, and with the keys of the run."""
    folder = project / "settings" / "runs" / "run"
    outcome = call("audit", folder, "--picoseconds", "0.003", "--replicas", "1", "--output", "page")
    assert outcome.code == 0, outcome.err
    ours = {r["test"]: r for r in json.loads((tmp_path / "page" / "results.json").read_text())["results"]}
    trained = {r["test"]: r for r in json.loads((folder / "results.json").read_text())["results"]}
    assert ours["errors"]["figures"] == trained["errors"]["figures"]
    assert ours["errors"]["figures"]["structures"] == 2
    assert "survived at 600 K" in ours["survival"]["figures"]
    assert (tmp_path / "page" / "report.html").is_file()


def test_audit_of_a_model_file_alone(model, call, tmp_path):
    outcome = call("audit", model)
    assert outcome.code == 0, outcome.err
    results = json.loads((tmp_path / "model-audit" / "results.json").read_text())["results"]
    assert [result["test"] for result in results] == ["dimers"]


def test_audit_beside_a_reference_trajectory(model, call, tmp_path):
    """Which needs neither a run folder nor structures to start from."""
    molecule = Atoms("OSiO", [[-1.6, 0, 0], [0, 0, 0], [1.6, 0, 0]])
    frames = []
    for number in range(24):
        frame = molecule.copy()
        frame.positions[0, 1] += 0.003 * number
        frame.info = {"time_fs": 2.0 * number, "temperature_K": 300}
        frames.append(frame)
    ase.io.write(tmp_path / "reference.xyz", frames)
    given = ("--picoseconds", "0.04", "--replicas", "1", "--output", "page")
    outcome = call("audit", model, "--reference", "reference.xyz", *given)
    assert outcome.code == 0, outcome.err
    results = json.loads((tmp_path / "page" / "results.json").read_text())["results"]
    assert {"dimers", "rdf", "angles", "bonds", "diffusion", "vibrations"} <= {result["test"] for result in results}
    distances = next(result for result in results if result["test"] == "rdf")
    assert distances["figures"]["temperature, K"] == 300
    assert distances["passed"] is not None
    outcome = call("audit", model, "--reference", "reference.xyz", "--reference-interval", "0.1", *given)
    assert outcome.code == 2
    assert "--reference-interval" in outcome.err


def test_audit_of_a_run_whose_data_has_changed(project, call, tmp_path):
    folder = tmp_path / "project"
    subprocess.run(["cp", "-r", project, folder], check=True)
    file = folder / "data" / "our labels.xyz"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[4:]) + "\n")
    outcome = call("audit", folder / "settings" / "runs" / "run", "--output", "page")
    assert outcome.code == 2
    assert "has changed" in outcome.err
    assert "--start" in outcome.err
    file.unlink()
    outcome = call("audit", folder / "settings" / "runs" / "run", "--output", "page")
    assert outcome.code == 2
    assert "no such file" in outcome.err
    assert "--start" in outcome.err
    assert not (tmp_path / "page").exists()


def test_dynamics(model, data, call, tmp_path):
    arguments = ("--temperature", "300", "--picoseconds", "0.02", "--every", "5", "--replicas", "2")
    outcome = call("md", model, data, *arguments, "--output", "frames.xyz.gz")
    assert outcome.code == 0, outcome.err
    frames = read(tmp_path / "frames.xyz.gz").structures
    assert set(frames.info["run"]) == {str(number) for number in range(16)}
    first = frames.select(frames.info["run"] == "0")
    assert first.info["time_ps"].tolist() == ["0", "0.005", "0.01", "0.015", "0.02"]
    np.testing.assert_allclose(first.positions[:2], read(data).structures.positions[:2], atol=1e-12)
    assert np.abs(first.positions[:2] - first.positions[-2:]).max() > 1e-4
    assert outcome.out.count("survived 0.02 ps") == 16


def test_dynamics_that_fail_name_the_reason_and_keep_the_frame(model, data, call, tmp_path):
    outcome = call("md", model, data, "--temperature", "2e6", "--picoseconds", "0.05", "--output", "hot.xyz")
    assert outcome.code == 0, outcome.err
    assert re.search(r"run \d: stopped at [\d.]+ ps: .*(contact|temperature)", outcome.out)
    failed = read(tmp_path / "hot-failed.xyz").structures
    assert len(failed) == outcome.out.count("stopped at")
    for sentence in failed.info["failure"]:
        assert sentence in outcome.out


def test_compare_tells_runs_of_one_name_apart(project, call, tmp_path):
    folder = project / "settings" / "runs" / "run"
    subprocess.run(["cp", "-r", folder, tmp_path / "run"], check=True)
    outcome = call("compare", folder, tmp_path / "run")
    assert outcome.code == 0, outcome.err
    page = (tmp_path / "comparison" / "report.html").read_text()
    assert str(folder) in page
    assert str(tmp_path / "run") in page


def test_info(project, call):
    outcome = call("info", project / "settings" / "runs" / "run")
    assert outcome.code == 0, outcome.err
    for words in ("elements    O Si", "cut-off     6 Å", "stage       finetune", "kind: painn", "channels: 4"):
        assert words in outcome.out
    kinds = call("info", "--kinds").out
    for group in ("potentials", "objectives", "augment", "reliability"):
        for kind in registry.kinds(group):
            assert re.search(rf"^  {kind} +\S+", kinds, re.MULTILINE), kind


def test_schema_describes_every_field(call):
    schema = json.loads(call("schema").out)
    assert set(schema["properties"]) == set(config.RunConfig.model_fields)
    assert set(schema["$defs"]["Stage"]["properties"]) == set(config.Stage.model_fields)


def test_fit(call, data, tmp_path):
    outcome = call("fit", data, "--kind", "morse", "--output", "teacher")
    assert outcome.code == 0, outcome.err
    assert "Pair curves" in outcome.out
    figures = {
        r["test"]: r["figures"] for r in json.loads((tmp_path / "teacher" / "results.json").read_text())["results"]
    }
    pull = np.sqrt(np.nanmean(read(data).structures.forces ** 2))
    assert figures["errors"]["forces RMSE, meV/Å"] < 500 * pull  # half of what no force at all would give
    assert call("info", "teacher").out.count("kind: morse") == 1


@pytest.mark.parametrize("name", ["augmented.xyz", "augmented.extxyz.xz"])
def test_augment_is_read_by_ase_and_by_us(call, model, data, tmp_path, name):
    outcome = call("augment", data, "--teacher", model, "--rounds", "2", "--output", name)
    assert outcome.code == 0, outcome.err
    ours = read(tmp_path / name).structures
    theirs = ase.io.read(tmp_path / name, ":", format="extxyz")
    assert len(ours) == len(theirs) == 16
    assert ours.labelled("energy").all()
    assert ours.labelled("forces").all()
    assert ours.labelled("stress").all()
    np.testing.assert_array_equal([atoms.info["REF_energy"] for atoms in theirs], ours.energy)
    np.testing.assert_array_equal(np.concatenate([atoms.arrays["REF_forces"] for atoms in theirs]), ours.forces)
    assert {atoms.info["config_type"] for atoms in theirs} == {"pull_perturb"}


def test_augment_by_a_calculator_of_ase(call, data, tmp_path):
    teacher = "ase.calculators.lj:LennardJones"
    assert call("augment", data, "--teacher", teacher, "--kind", "rattle", "--output", "lj.xyz").code == 0
    assert len(read(tmp_path / "lj.xyz").structures) >= 8


def test_check_tells_right_forces_from_wrong_ones(call, tmp_path):
    write(harmonic(14), tmp_path / "right.xyz")
    write(harmonic(14, sign=-1.0), tmp_path / "wrong.xyz")
    right, wrong = call("check", "right.xyz"), call("check", "wrong.xyz")
    assert right.code == 0
    assert right.out.rstrip().splitlines()[-1].startswith("0 errors")
    assert wrong.code == 2
    assert "change their sign" in wrong.out


def test_a_cell_thinner_than_the_cutoff(call, run_file, tmp_path):
    """Two atoms in a 3 Å cell see their own images: as many neighbours as in a cell repeated twice along each axis."""
    random = np.random.default_rng(3)
    small, energies, forces = [], [], []
    for _ in range(6):
        atoms = Atoms("SiO", [[0, 0, 0], [1.5, 1.5, 1.5]], cell=[3.0] * 3, pbc=True)
        atoms.rattle(0.1, rng=random)
        small.append(atoms)
        energies.append(random.normal() - 8)
        forces.append(random.normal(size=(2, 3)))
    for name, repeat in (("small", 1), ("large", 2)):
        structures = Structures.from_ase([atoms * ((repeat,) * 3) for atoms in small])
        labels = {
            "energy": np.array(energies) * repeat**3,
            "forces": np.concatenate([np.tile(force, (repeat**3, 1)) for force in forces]),
        }
        write(structures.with_labels(**labels), tmp_path / f"{name}.xyz")
    arguments = ("data.train=small.xyz", "potential.cutoff=4.0", "precision=float64", "stages.finetune.steps=5")
    outcome = call("train", run_file, *arguments, "--output", "new")
    assert outcome.code == 0, outcome.err
    figures = []
    for name in ("small", "large"):
        assert call("evaluate", "new", f"{name}.xyz", "--output", name).code == 0
        (result,) = json.loads((tmp_path / name / "results.json").read_text())["results"]
        figures.append(result["figures"])
    assert figures[0] == pytest.approx(figures[1], rel=1e-9)
    assert figures[0]["forces RMSE, meV/Å"] > 10


def test_a_random_split_never_takes_the_last_of_an_element(call, run_file, tmp_path):
    """Sets of many compositions train as they are, whatever the seed."""
    frames = []
    for number, symbol in enumerate(["Si", "Ge", "Sn", "Pb", "C", "Ti"]):
        frames += [Atoms(f"{symbol}O", [[0, 0, 0], [1.9, 0, 0]])] * (1 if number % 2 else 3)
    structures = Structures.from_ase(frames)
    random = np.random.default_rng(0)
    labels = {"energy": random.normal(size=len(frames)), "forces": random.normal(size=(2 * len(frames), 3))}
    write(structures.with_labels(**labels), tmp_path / "many.xyz")
    for seed in range(2):
        arguments = ("data.train=many.xyz", "data.valid_fraction=0.4", f"seed={seed}", "--output", f"run{seed}")
        outcome = call("train", run_file, *arguments)
        assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_mentions_every_argument(call, command):
    outcome = call(command, "--help")
    assert outcome.code == 0
    function = app[command].default_command
    text = " ".join(outcome.out.split())
    assert inspect.getdoc(function).split(".")[0].split()[0] in text
    for name in inspect.signature(function).parameters:
        assert name.replace("_", "-").upper() in text or f"--{name.replace('_', '-')}" in text, name


def test_help_lists_the_commands(call):
    text = call("--help").out
    for command in COMMANDS:
        assert command in text
    assert call("--version").out.startswith("phystrain ")
    assert {"demo", "init", "check", "train", "evaluate", "audit", "md", "compare"} <= set(COMMANDS)


def test_a_reader_that_has_seen_enough():
    """``phystrain schema | head -1`` leaves no traceback."""
    line = f"{sys.executable} -m phystrain.cli schema | head -1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "{\n"
    assert done.stderr == ""


def test_fit_leaves_parameters_and_files_for_lammps(call, data, tmp_path):
    outcome = call("fit", data, "--kind", "morse_zbl", "--starts", "1", "--output", "teacher")
    assert outcome.code == 0, outcome.err
    rows = list(csv.DictReader((tmp_path / "teacher" / "parameters.csv").open()))
    depths = {row["belongs"]: float(row["value"]) for row in rows if row["parameter"] == "depth"}
    assert set(depths) == {"O-O", "O-Si", "Si-Si"}
    assert all(depth > 0 for depth in depths.values())
    assert "pair_style" in (tmp_path / "teacher" / "lammps" / "in.potential").read_text()
    assert (tmp_path / "teacher" / "report.html").read_text().count("The classical potential") >= 1
    assert not call("info", "teacher").code


@pytest.mark.parametrize("with_forces", [True, False])
def test_init_gives_molecules_a_teacher_that_knows_them(call, tmp_path, with_forces):
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write as write_frames

    molecules = []
    labels = {"forces": [[0.1, 0, 0], [-0.1, 0, 0], [0, 0, 0]]} if with_forces else {}
    for number in range(12):
        water = Atoms("OH2", positions=[[0, 0, 0], [0.96 + 0.002 * number, 0, 0], [-0.24, 0.93, 0]])
        water.calc = SinglePointCalculator(water, energy=-10.0 - 0.01 * number, **labels)
        molecules.append(water)
    write_frames(tmp_path / "water.xyz", molecules)
    outcome = call("init", "water.xyz", "--output", "water.yaml")
    assert outcome.code == 0, outcome.err
    stages = {stage.name: stage for stage in config.load(tmp_path / "water.yaml").stages}
    assert stages["pretrain"].data.label_by == "gfn2-xtb"
    replay = stages["finetune"].replay
    assert replay.weight == ("auto" if with_forces else 0.1)
    assert replay.objectives is None if with_forces else list(replay.objectives) == ["forces"]
    assert list(stages["finetune"].objectives) == (["energy", "forces"] if with_forces else ["energy"])
    assert stages["finetune"].prior == stages["pretrain"].prior == "wall"
    assert stages["finetune"].confine == stages["pretrain"].confine
    assert stages["finetune"].confine.counted

"""Arguments that no command can follow: exit code 2 and nothing half-written."""

import pytest


def test_audit_does_not_guess_the_temperature(refuse, model, data, tmp_path):
    words = ("temperature of the data", "not known", "--temperature 300")
    refuse("audit", model, "--start", data, "--output", "new", words=words)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--temperature", "-3"], "temperature should be greater than or equal to 0, got -3"),
        (["--temperature", "hot"], "hot"),
        (["--temperature", "300", "--ensemble", "npt"], "ensemble should be 'nvt' or 'nve', got 'npt'"),
        (["--temperature", "300", "--timestep", "0"], "timestep should be greater than 0"),
        (["--temperature", "300", "--picoseconds", "-1"], "picoseconds should be greater than 0"),
        (["--temperature", "300", "--replicas", "0"], "replicas should be 1 or more"),
        (["--temperature", "300", "--every", "0"], "every should be 1 or more"),
        (["--temperature", "300", "--output", "new.traj"], "let the name end in .xyz"),
        (["--temperature", "300", "--output", "good.xyz"], "is the file to read"),
        ([], "--temperature"),
    ],
)
def test_dynamics_that_cannot_be(refuse, model, data, tmp_path, arguments, words, files_below):
    before = files_below(tmp_path)
    refuse("md", model, data, *arguments, words=words)
    assert files_below(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--temperature", "-3"], "should be greater than 0, got -3"),
        (["--minutes", "0"], "minutes should be greater than 0"),
        (["--timestep", "0"], "timestep should be greater than 0"),
        (["--replicas", "0"], "replicas should be greater than 0"),
    ],
)
def test_audits_that_cannot_be(refuse, model, data, tmp_path, arguments, words):
    refuse("audit", model, "--start", data, "--output", "new", *arguments, words=words)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--teacher", "model.safetensors", "--kind", "ratle"], "did you mean 'rattle'?"),
        (["--teacher", "model.safetensors", "--kind", "rattle", "--rounds", "3"], "no augmentation 'pull_perturb'"),
        (["--teacher", "model.safetensors", "--rounds", "0"], "rounds should be greater than or equal to 1, got 0"),
        (["--teacher", "model.safetensors", "--output", "new.csv"], "let the name end in .xyz"),
        (["--teacher", "model.safetensors", "--output", "good.xyz"], "is the file to read"),
        (["--teacher", "nosuch"], "no such model file or run folder: nosuch"),
        (["--teacher", "nosuch.module:Thing"], "Install the package"),
        (["--teacher", "ase.calculators.lj:LennardJone"], "check the spelling"),
        (["--teacher", "ase.calculators.emt:EMT"], "labelled none of the"),
        (["--teacher", "os:getcwd"], "makes no calculator of ASE"),
        ([], "--teacher"),
    ],
)
def test_augmentations_that_cannot_be(refuse, model, data, tmp_path, arguments, words, files_below):
    before = files_below(tmp_path)
    refuse("augment", data, *arguments, words=words)
    assert files_below(tmp_path) == before


def test_fits_that_cannot_be(refuse, data, tmp_path):
    refuse("fit", data, "--output", "new", "--kind", "emm", words="did you mean 'eam'?")
    refuse("fit", data, "--output", "new", "--kind", "painn", words=("painn is a network", "phystrain init"))
    refuse("fit", data, "--output", "new", "--starts", "0", words="starts should be greater than")
    refuse("fit", data, "--output", "new", "--kind", "eam,sum", words="sum needs settings of its own")
    assert not (tmp_path / "new").exists()


def test_nothing_to_compare(refuse, tmp_path):
    refuse("compare", words="name at least one run folder")
    refuse("compare", "nosuch", words="no results.json")
    (tmp_path / "damaged").mkdir()
    for content in ("{", "[]", '{"name": "x", "results": []}', '{"name": "x", "results": [{"test": 3}]}'):
        (tmp_path / "damaged" / "results.json").write_text(content)
        refuse("compare", "damaged", words=("damaged", "again"))
    assert not (tmp_path / "comparison").exists()


def test_init_replaces_nothing_unasked(refuse, call, run_file, data, tmp_path, files_below):
    before = files_below(tmp_path)
    refuse("init", data, words=("run.yaml exists", "--output", "--force"))
    refuse("init", data, "--output", data, "--force", words="is the file to read")
    assert files_below(tmp_path) == before
    assert call("init", data, "--force").code == 0
    assert run_file.read_text() != before["run.yaml"].decode()


def test_unknown_commands_and_options(refuse, run_file):
    refuse("trian", run_file, words=("Unknown command", 'Did you mean "train"?', "'phystrain --help'"))
    refuse("train", run_file, "--outptu", "x", words=("--outptu", "Did you mean --output?", "'phystrain train --help'"))
    refuse("train", words=("--run-file", "'phystrain train --help'"))
    refuse("md", "model", words="'phystrain md --help'")
    refuse("info", words="--kinds")

"""Files without structures, broken frames, labels that are missing: exit code 2 and nothing half-written."""

import pytest

from phystrain.data.read import read
from phystrain.data.write import write

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4


def bent(data, old, new):
    """``data`` with a piece of its text replaced once."""
    text = data.read_text()
    assert old in text
    path = data.with_name("bent.xyz")
    path.write_text(text.replace(old, new, 1))
    return path


def moved(data, index, position):
    """``data`` with the second atom of one structure at a place relative to the first, Å."""
    structures = read(data).structures
    structures.positions[structures.offsets[index] + 1] = structures.positions[structures.offsets[index]] + position
    return structures


NOT_STRUCTURES = {
    "empty.xyz": (b"", "is empty"),
    "picture.xyz": (PNG, "not a text file"),
    "picture.png": (PNG, "extended XYZ"),
    "notes.xyz": (b"dear diary\ntoday\n", "not an XYZ file"),
    "notes.txt": (b"dear diary\ntoday\n", "extended XYZ"),
    "binary": (bytes(range(256)), "extended XYZ"),
}


@pytest.mark.parametrize("name", NOT_STRUCTURES)
@pytest.mark.parametrize("command", ["check", "init", "fit", "train"])
def test_a_file_that_holds_no_structures(refuse, run_file, tmp_path, command, name, files_below):
    content, words = NOT_STRUCTURES[name]
    (tmp_path / name).write_bytes(content)
    before = files_below(tmp_path)
    arguments = {
        "check": [name],
        "init": [name, "--output", "new.yaml"],
        "fit": [name, "--output", "new"],
        "train": [run_file, "--output", "new", f"data.train={name}"],
    }
    refuse(command, *arguments[command], words=(name, words))
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("command", ["check", "init", "train", "evaluate", "md", "augment"])
def test_no_such_file(refuse, run_file, model, tmp_path, command, files_below):
    before = files_below(tmp_path)
    arguments = {
        "check": ["goood.xyz"],
        "init": ["goood.xyz", "--output", "new.yaml"],
        "train": [run_file, "--output", "new", "data.train=goood.xyz"],
        "evaluate": [model, "goood.xyz", "--output", "new"],
        "md": [model, "goood.xyz", "--temperature", "300"],
        "augment": ["goood.xyz", "--teacher", model],
    }
    refuse(command, *arguments[command], words=("no such file", "did you mean 'good.xyz'?"))
    assert files_below(tmp_path) == before


BROKEN_FRAMES = {
    "not-a-number energy": ("REF_energy=-7.804", "REF_energy=nan", "frame 0", "REF_energy holds nan"),
    "forces of two columns": ("REF_forces:R:3", "REF_forces:R:2", "frame 0", "have 2 columns where three are needed"),
    "a line that is cut": (None, None, "frame 7", "cut"),
    "positions that are words": ("\nSi 0.0 0.0 0.0", "\nSi 0.0 here 0.0", "frame 0", "which is no number"),
    "an unknown element": ("\nSi ", "\nSl ", "frame 0", "unknown element 'Sl'"),
}


@pytest.mark.parametrize("what", BROKEN_FRAMES)
def test_a_broken_frame(refuse, run_file, data, tmp_path, what):
    old, new, *words = BROKEN_FRAMES[what]
    path = data.with_name("bent.xyz")
    path.write_text(data.read_text()[:-40]) if old is None else bent(data, old, new)
    refuse("train", run_file, "--output", "new", "data.train=bent.xyz", words=("bent.xyz", *words))
    assert not (tmp_path / "new").exists()
    refuse("check", path, words=("bent.xyz", *words))


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("column", [1, 4])
def test_values_that_are_not_finite(refuse, run_file, data, tmp_path, value, column):
    lines = data.read_text().splitlines()
    words = lines[6].split()
    lines[6] = " ".join([*words[:column], value, *words[column + 1 :]])
    (tmp_path / "bent.xyz").write_text("\n".join(lines) + "\n")
    name = "positions" if column < 4 else "REF_forces"
    refuse(
        "train", run_file, "--output", "new", "data.train=bent.xyz",
        words=("frame 1", f"{name} of atom 0 holds {value}"),
    )  # fmt: skip
    assert not (tmp_path / "new").exists()


def test_coincident_atoms_are_refused(refuse, run_file, data, tmp_path):
    structures = moved(data, 3, [0.0, 0.0, 0.0])
    write(structures, tmp_path / "bent.xyz")
    refuse("train", run_file, "--output", "new", "data.train=bent.xyz", words=("frame 3", "atoms 0 and 1", "remove it"))
    assert not (tmp_path / "new").exists()


def test_close_atoms_are_remarked_upon(call, run_file, data, tmp_path):
    write(moved(data, 3, [0.4, 0.0, 0.0]), tmp_path / "bent.xyz")
    outcome = call("train", run_file, "--output", "new", "data.train=bent.xyz")
    assert outcome.code == 0, outcome
    assert "nearest: frame 3" in outcome.out
    assert "atoms 0 and 1 (Si, O) are 0.4 Å apart" in outcome.out
    assert (tmp_path / "new" / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("init", ["good.xyz", "--output", "new.yaml", "--energy", "REF_enrgy"]),
        ("check", ["good.xyz", "--energy", "REF_enrgy"]),
        ("train", ["run.yaml", "--output", "new", "data.keys.energy=REF_enrgy"]),
        ("fit", ["good.xyz", "--output", "new", "--energy", "REF_enrgy"]),
        ("evaluate", ["model.safetensors", "good.xyz", "--output", "new", "--energy", "REF_enrgy"]),
    ],
)
def test_a_label_key_that_is_not_there(refuse, run_file, model, tmp_path, command, arguments):
    refuse(command, *arguments, words=("no frame has 'REF_enrgy'", "did you mean 'REF_energy'? In the file:"))
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "new.yaml").exists()


@pytest.mark.parametrize("objective", ["stress", "forces"])
def test_an_objective_without_labels(refuse, run_file, data, tmp_path, objective):
    structures = read(data).structures
    write(structures.with_labels(energy=structures.energy), tmp_path / "energies.xyz")
    refuse(
        "train", run_file, "--output", "new", "data.train=energies.xyz",
        "stages.finetune.objectives={energy: {}, " + objective + ": {}}",
        words=(f"objective '{objective}' needs {objective}", "Remove the objective", f"data.keys.{objective}"),
    )  # fmt: skip
    assert not (tmp_path / "new").exists()


def test_nothing_to_compare_with(refuse, model, data, tmp_path):
    write(read(data).structures.without_labels(), tmp_path / "bare.xyz")
    refuse("evaluate", model, "bare.xyz", "--output", "new", words=("neither energies nor forces", "--energy"))
    refuse("init", "bare.xyz", "--output", "new", words=("0 structures with energies", "--energy"))
    assert not (tmp_path / "new").exists()


def test_nothing_but_isolated_atoms(refuse, tmp_path):
    (tmp_path / "atoms.xyz").write_text("1\nenergy=-1\nSi 0 0 0\n1\nenergy=-2\nO 0 0 0\n")
    refuse("init", "atoms.xyz", "--output", "new", words="0 structures with energies besides isolated atoms")


def test_more_structures_than_there_are(refuse, run_file, tmp_path):
    refuse("train", run_file, "--output", "new", "data.use=1000", words=("data.use is 1000", "only 8", "lower it"))
    assert not (tmp_path / "new").exists()


def test_a_test_file_with_another_element(refuse, run_file, data, tmp_path, hydride):
    refuse("train", run_file, "--output", "new", "data.test=nh.xyz", words=("is in the test structures", "leave"))
    refuse("init", data, "--test", hydride, "--output", "new", words=("is in the test structures", "leave"))
    assert not (tmp_path / "new").exists()

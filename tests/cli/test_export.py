"""``phystrain export``."""

from pathlib import Path

import pytest

from phystrain.potentials import build
from phystrain.saving import save_model
from phystrain.statistics import Statistics


@pytest.fixture
def teacher(tmp_path):
    """A model file of a classical potential."""
    statistics = Statistics.bare((8, 14))
    config = {
        "kind": "sum",
        "terms": {"reference": {"kind": "reference_energy", "energies": {8: -3.5, 14: -1.5}}, "model": {"kind": "eam"}},
    }
    save_model(tmp_path / "teacher.safetensors", build(config, statistics).state_dict(), config, statistics)
    return tmp_path / "teacher.safetensors"


def test_files_and_how_to_use_them(call, teacher, tmp_path):
    outcome = call("export", teacher, "--to", "lammps", "--output", "files")
    assert outcome.code == 0, outcome
    assert sorted(file.name for file in (tmp_path / "files").iterdir()) == ["in.potential", "potential.eam.fs"]
    assert "wrote files/in.potential" in outcome.out
    text = (tmp_path / "files" / "in.potential").read_text()
    assert "pair_style eam/fs\npair_coeff * * ${potential_folder}/potential.eam.fs O Si\n" in text
    assert "O -3.50000000, Si -1.50000000" in text


def test_what_cannot_be_exported(refuse, model, teacher, tmp_path):
    refuse("export", model, "--output", "new", words=("PaiNN cannot be written", "PhystrainCalculator"))
    refuse("export", teacher, "--to", "lamps", "--output", "new", words="did you mean 'lammps'?")
    refuse("export", "nosuch", "--output", "new", words="no such model file or run folder: nosuch")
    refuse("export", teacher, words="--output")
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "in.potential").write_text("precious")
    refuse("export", teacher, "--output", "old", words=("old exists", "another --output"))
    refuse("export", teacher, "--output", teacher, words="another --output")
    refuse("export", teacher, "--output", Path("old") / "in.potential" / "new", words="rite elsewhere")
    assert (tmp_path / "old" / "in.potential").read_text() == "precious"

import bz2
import gzip
import lzma
import re

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect

from phystrain.data.read import LabelKeys, read
from phystrain.data.structures import Structures
from phystrain.data.write import write
from phystrain.errors import UserError

RNG = np.random.default_rng(0)


def labelled(atoms: Atoms, energy: float, stress: bool = False) -> Atoms:
    atoms = atoms.copy()
    atoms.rattle(0.05, seed=int(abs(energy) * 10))
    results = {"energy": energy, "forces": RNG.normal(size=(len(atoms), 3))}
    if stress:
        results["stress"] = RNG.normal(size=6)
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def frame(*lines: str, comment: str = "Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.0") -> str:
    return "\n".join([str(len(lines)), comment, *lines]) + "\n"


HYDROGEN = ("H 0 0 0 0 0 1", "H 0 0 0.8 0 0 -1")


def one(tmp_path, text: str, **options):
    path = tmp_path / "a.xyz"
    path.write_text(text)
    return read(path, **options)


def refusal(tmp_path, text: str, **options) -> str:
    with pytest.raises(UserError) as caught:
        one(tmp_path, text, **options)
    message = str(caught.value)
    assert len(message.splitlines()) <= 2
    assert "a.xyz" in message
    return message


def test_what_ase_writes_is_read_like_ase(tmp_path):
    frames = [labelled(bulk("Cu", cubic=True), -3.0, stress=True), labelled(molecule("CH3CH2OH"), -7.25)]
    frames[0].info["config_type"] = 'a bulk, "quoted"'
    path = tmp_path / "a.xyz"
    ase.io.write(path, frames, format="extxyz")
    again, dataset = Structures.from_ase(ase.io.read(path, ":")), read(path)
    for name in ("positions", "species", "offsets", "cell", "pbc", "energy", "forces", "stress", "weight"):
        np.testing.assert_array_equal(getattr(dataset.structures, name), getattr(again, name), err_msg=name)
    assert dataset.structures.info["config_type"].tolist() == ['a bulk, "quoted"', ""]
    assert dataset.structures.info["frame"].tolist() == ["0", "1"]
    assert dataset.found == {"energy": {"energy": 2}, "forces": {"forces": 2}, "stress": {"stress": 1}, "weight": {}}


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip), ("bz2", bz2), ("xz", lzma)])
def test_compressed(tmp_path, suffix, pack):
    path = tmp_path / f"a.xyz.{suffix}"
    path.write_bytes(pack.compress(frame(*HYDROGEN).encode()))
    assert len(read(path).structures) == 1
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(UserError, match="damaged"):
        read(path)


@pytest.mark.parametrize("suffix", ["xyz", "xyz.gz", "extxyz.xz", "xyz.bz2"])
def test_written_and_read_back_bit_for_bit(tmp_path, suffix):
    frames = [labelled(bulk("Si", cubic=True), -1 / 3, stress=True), labelled(molecule("H2O"), -17000 / 7), Atoms("H")]
    frames[2].pbc = (True, True, False)
    frames[2].cell = np.diag([7.1, 8.3, 0]) + 0.0
    frames[0].info.update(note='with "quotes", \\ and = signs', group="plain-1")
    structures = Structures.from_ase(frames, info=("note", "group"))
    structures.weight[1] = 0.3
    path = tmp_path / f"b.{suffix}"
    write(structures, path)
    again = read(path)
    assert again.structures.digest() == structures.digest()
    assert again.found["energy"] == {"REF_energy": 2}
    assert again.found["weight"] == {"config_weight": 1}
    for name in ("note", "group"):
        assert again.structures.info[name].tolist() == structures.info[name].tolist()
    first = path.read_bytes()
    write(structures, path)
    assert path.read_bytes() == first


def test_ase_reads_what_is_written(tmp_path):
    structures = Structures.from_ase([labelled(bulk("Si", cubic=True), -1 / 3, stress=True)])
    write(structures, tmp_path / "a.xyz")
    atoms = ase.io.read(tmp_path / "a.xyz")
    np.testing.assert_array_equal(atoms.arrays["REF_forces"], structures.forces)
    np.testing.assert_array_equal(np.reshape(atoms.info["REF_stress"], (3, 3)), structures.stress[0])
    assert atoms.info["REF_energy"] == structures.energy[0]
    with pytest.raises(UserError, match=r"\.xyz"):
        write(structures, tmp_path / "a.cif")


def test_database(tmp_path):
    with connect(tmp_path / "a.db") as database:
        atoms = labelled(molecule("H2O"), -2.0)
        database.write(atoms, group="wet")
        database.write(molecule("H2O"), REF_energy=-5.0, data={"REF_forces": np.ones((3, 3))})
    dataset = read(tmp_path / "a.db")
    assert dataset.structures.energy.tolist() == [-2.0, -5.0]
    assert dataset.found["forces"] == {"forces": 1, "REF_forces": 1}
    np.testing.assert_array_equal(dataset.structures.forces[:3], atoms.calc.results["forces"])
    assert dataset.structures.info["group"].tolist() == ["wet", ""]
    (tmp_path / "a.db").write_text("no database")
    with pytest.raises(UserError, match="database"):
        read(tmp_path / "a.db")


def test_other_formats_of_ase(tmp_path):
    frames = [labelled(bulk("Cu", cubic=True), energy, stress=True) for energy in (-3.0, -4.0)]
    ase.io.write(tmp_path / "a.traj", frames)
    structures = read(tmp_path / "a.traj").structures
    assert structures.energy.tolist() == [-3.0, -4.0]
    assert structures.labelled("stress").all()
    (tmp_path / "b.txt").write_text("hello")
    with pytest.raises(UserError, match=r"b\.txt cannot be read"):
        read(tmp_path / "b.txt")


def test_labels_are_looked_for_in_order(tmp_path):
    columns = "Properties=species:S:1:pos:R:3:forces:R:3:REF_forces:R:3:mine:R:3"
    text = frame("H 0 0 0 1 1 1 2 2 2 3 3 3", comment=f"{columns} energy=1 REF_energy=2 dft=3 DFT_energy=4")
    structures = one(tmp_path, text).structures
    assert (structures.energy[0], structures.forces[0, 0]) == (2, 2)
    chosen = one(tmp_path, text, keys=LabelKeys(energy="dft", forces="mine"))
    assert (chosen.structures.energy[0], chosen.structures.forces[0, 0]) == (3, 3)
    assert chosen.found["energy"] == {"dft": 1}
    plain = one(tmp_path, text.replace("REF_", "other_"))
    assert (plain.structures.energy[0], plain.structures.forces[0, 0]) == (1, 1)
    assert one(tmp_path, frame("H 0 0 0", comment="free_energy=7")).structures.energy[0] == 7


def test_a_key_of_the_users_is_the_only_one(tmp_path):
    text = frame("H 0 0 0", comment="energy=1 mine=2") + frame("H 0 0 0", comment="energy=1")
    energy = one(tmp_path, text, keys=LabelKeys(energy="mine")).structures.energy
    assert energy[0] == 2
    assert np.isnan(energy[1])


def test_a_key_that_is_nowhere(tmp_path):
    text = frame(*HYDROGEN)
    message = refusal(tmp_path, text, keys=LabelKeys(energy="enrgy"))
    assert "'enrgy'" in message
    assert "did you mean 'energy'" in message
    assert "forces" in refusal(tmp_path, text, keys=LabelKeys(forces="REF_forces"))
    assert "group" in refusal(tmp_path, frame("H 0 0 0", comment="group=a"), info=["grup"])


def test_missing_labels_are_nan(tmp_path):
    structures = one(tmp_path, frame(*HYDROGEN) + frame("H 0 0 0", comment="")).structures
    assert np.isnan(structures.energy).tolist() == [False, True]
    assert structures.labelled("forces").tolist() == [True, False]
    assert not structures.labelled("stress").any()


FULL = np.array([[1.0, 6, 5], [6, 2, 4], [5, 4, 3]])


@pytest.mark.parametrize(
    ("text", "factor"),
    [
        ('stress="1 2 3 4 5 6"', 1),
        ('REF_stress="1 6 5 6 2 4 5 4 3"', 1),
        ('stress="_JSON [[1, 6, 5], [6, 2, 4], [5, 4, 3]]"', 1),
        ('virial="1 6 5 6 2 4 5 4 3"', -1 / 8),
        ('REF_virials="1 2 3 4 5 6"', -1 / 8),
    ],
)
def test_stress_and_virial(tmp_path, text, factor):
    comment = f'Lattice="2 0 0 0 2 0 0 0 2" Properties=species:S:1:pos:R:3 {text}'
    np.testing.assert_allclose(one(tmp_path, frame("H 0 0 0", comment=comment)).structures.stress[0], factor * FULL)
    slab = one(tmp_path, frame("H 0 0 0", comment=f'{comment} pbc="T T F"'))
    assert not slab.structures.labelled("stress").any()
    assert any("not periodic" in warning for warning in slab.warnings)


def test_weights(tmp_path):
    text = frame("H 0 0 0", comment="config_weight=0.5 mine=3") + frame("H 0 0 0", comment="mine=4")
    assert one(tmp_path, text).structures.weight.tolist() == [0.5, 1.0]
    assert one(tmp_path, text, keys=LabelKeys(weight="mine")).structures.weight.tolist() == [3.0, 4.0]
    assert "negative" in refusal(tmp_path, text.replace("0.5", "-1"))
    dropped = one(tmp_path, frame(*HYDROGEN).replace("energy", "config_forces_weight=0 energy"))
    assert not dropped.structures.labelled("forces").any()


@pytest.mark.parametrize(
    ("comment", "pbc"),
    [
        ('pbc="T F T"', [True, False, True]),
        ("pbc=F", [False] * 3),
        ("", [True] * 3),
        ("pbc=[1,0,0]", [True, False, False]),
    ],
)
def test_periodic_directions(tmp_path, comment, pbc):
    text = frame("H 0 0 0", comment=f'Lattice="3 0 0 0 4 0 0 0 5" {comment}')
    assert one(tmp_path, text).structures.pbc[0].tolist() == pbc


def test_groups(tmp_path):
    comment = 'config_type=slab note="two words" step=7 vector="1 2 3" frame=9 flag'
    info = one(tmp_path, frame("H 0 0 0", comment=comment)).structures.info
    assert {name: values[0] for name, values in info.items()} == {
        "frame": "0",
        "own_frame": "9",
        "config_type": "slab",
        "note": "two words",
        "step": "7",
        "flag": "T",
    }
    assert set(one(tmp_path, frame("H 0 0 0", comment=comment), info=["vector"]).structures.info) == {"frame", "vector"}


def test_blank_lines_between_frames_lose_nothing(tmp_path):
    assert len(one(tmp_path, f"{frame(*HYDROGEN)}\n\n{frame(*HYDROGEN)}\n").structures) == 2


def test_symbols_and_numbers(tmp_path):
    assert one(tmp_path, frame("SI 0 0 0", "si 0 0 2", "8 0 2 2", comment="")).structures.species.tolist() == [
        14,
        14,
        8,
    ]
    text = frame("14 1 0 0", comment="Properties=Z:I:1:pos:R:3")
    assert one(tmp_path, text).structures.species.tolist() == [14]


GOOD = frame(*HYDROGEN)
CELL = 'Lattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("\n\n", "no structures"),
        ("potential: {kind: painn}\n", "not an XYZ file"),
        (GOOD + frame(HYDROGEN[0], "H 0 0 0.8 0 0"), r"frame 1 \(counted from 0\): atom 1 \(line 8\) has 6 columns"),
        (GOOD + "\n".join(GOOD.splitlines()[:-1]), r"frame 1 .*ends after 1 of 2 atoms"),
        ("3" + GOOD[1:] + GOOD, r"frame 0 .*atom 2 \(line 5\) has 1 columns"),
        ("1" + GOOD[1:] + GOOD, r"frame 1 .*line 4 .*number of atoms"),
        (GOOD.replace("0.8", "nan"), r"frame 0 .*positions of atom 1 holds nan"),
        (GOOD + GOOD.replace("0 -1", "0 inf"), r"frame 1 .*forces of atom 1 holds inf"),
        (GOOD + GOOD.replace("-1.0", "NaN"), r"frame 1 .*energy holds nan"),
        (GOOD.replace("-1.0", "abc"), r"frame 0 .*energy is 'abc'"),
        (GOOD.replace("-1.0", '"1 2"'), r"frame 0 .*energy has 2 numbers"),
        (GOOD.replace("0.8", "0.*8"), r"frame 0 .*positions of atom 1 \(line 4\) holds '0\.\*8'"),
        (GOOD.replace("forces:R:3", "forces:R:2:q:R:1"), r"frame 0 .*forces have 2 columns"),
        (GOOD.replace("forces:R:3", "forces:S:3"), r"frame 0 .*forces are not numbers"),
        (GOOD.replace("R:3:", "R:"), r"frame 0 .*Properties"),
        (GOOD.replace("0.8", "0.0000001"), r"frame 0 .*atoms 0 and 1 \(H, H\)"),
        (frame("Cu 0 0 0", "Cu 3 3 2.9999", comment=CELL), r"frame 0 .*atoms 0 and 1 \(Cu, Cu\) are 0\.0001"),
        (GOOD + frame("X 0 0 0", comment=""), r"frame 1 .*atom 0 .*ghost"),
        (GOOD + frame("Qq 0 0 0", comment=""), r"frame 1 .*unknown element 'Qq'"),
        (GOOD + "0\n\n", r"frame 1 .*0 atoms"),
        (frame("H 0 0 0", comment='pbc="T T T"'), r"frame 0 .*no volume"),
        (frame("H 0 0 0", comment='Lattice="3 0 0 0 3 0 3 3 0"'), r"frame 0 .*no volume"),
        (frame("H 0 0 0", comment='Lattice="3 0 0 0 3 0 0 0 nan"'), r"frame 0 .*the cell holds nan"),
        (frame("H 0 0 0", comment='Lattice="3 0 0"'), r"frame 0 .*nine numbers"),
        (frame("H 0 0 0", comment=f'{CELL} stress="1 2 3 4 5 nan"'), r"frame 0 .*stress holds nan"),
        (frame("H 0 0 0", comment=f'{CELL} stress="1 2 3"'), r"frame 0 .*stress has 3 numbers"),
    ],
)
def test_refusals(tmp_path, text, expected):
    assert re.search(expected, refusal(tmp_path, text))


def test_refusals_of_files(tmp_path):
    (tmp_path / "train.xyz").write_text(GOOD)
    with pytest.raises(UserError, match=r"no such file: .*trian\.xyz; did you mean 'train\.xyz'"):
        read(tmp_path / "trian.xyz")
    with pytest.raises(UserError, match="folder"):
        read(tmp_path)
    (tmp_path / "b.xyz").write_bytes(b"\xff\xfe\x00\x01" * 20)
    with pytest.raises(UserError, match="not a text file"):
        read(tmp_path / "b.xyz")


def test_warnings(tmp_path):
    close = one(tmp_path, GOOD + GOOD.replace("0.8", "0.2"))
    assert len(close.warnings) == 1
    assert re.search(r"frame 1 .*\(H, H\) are 0\.2 Å", close.warnings[0])
    extra = one(tmp_path, GOOD.replace(":forces:R:3", ""))
    assert any("the others are not read" in warning for warning in extra.warnings)
    overlooked = one(tmp_path, GOOD.replace("energy", "total_energy"))
    assert any("'total_energy' looks like it" in warning for warning in overlooked.warnings)
    mixed = one(tmp_path, GOOD + GOOD.replace("energy", "REF_energy"))
    assert any("several names" in warning for warning in mixed.warnings)
    smeared = one(tmp_path, GOOD.replace("energy=", "free_energy=-1.2 energy="))
    assert any("free_energy differs" in warning for warning in smeared.warnings)
    assert not one(tmp_path, GOOD).warnings


def test_summary(tmp_path):
    summary = one(tmp_path, GOOD + frame("O 0 0 0", comment=CELL)).summary()
    for text in ("2 frames, 3 atoms (1 to 2 a frame)", "H O", "1 periodic, 1 not periodic", "energy in 1 of 2 frames"):
        assert text in summary
    assert re.search(r"stress +none", summary)

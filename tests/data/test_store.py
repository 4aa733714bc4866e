import gzip
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.db import connect

from phystrain import datasets
from phystrain.data.convert import convert
from phystrain.data.read import Dataset, LabelKeys, read
from phystrain.data.store import HEADER, is_store, verify, write_store
from phystrain.data.structures import Structures
from phystrain.data.write import write
from phystrain.errors import UserError

ARRAYS = ("positions", "species", "offsets", "cell", "pbc", "energy", "forces", "stress", "weight")


def same(one: Structures, other: Structures) -> None:
    for name in ARRAYS:
        first, second = getattr(one, name), getattr(other, name)
        assert first.dtype == second.dtype, name
        np.testing.assert_array_equal(first, second, err_msg=name)
    assert list(one.info) == list(other.info)
    for name, values in one.info.items():
        assert values.tolist() == other.info[name].tolist(), name


def silent(_: str) -> None:
    """Nobody to tell."""


@pytest.fixture
def silica(tmp_path):
    """A store of the packaged silica."""
    convert([datasets.path("silica")], tmp_path / "silica.store", say=silent)
    return tmp_path / "silica.store"


@pytest.mark.parametrize("name", ["silica", "aspirin", "nbmotaw"])
def test_a_store_is_what_read_gives(tmp_path, name, monkeypatch):
    from phystrain.data import _reading

    expected = read(datasets.path(name))
    monkeypatch.setattr(_reading, "ATOMS", 500)  # several blocks
    said: list[str] = []
    convert([datasets.path(name)], tmp_path / "a.store", say=said.append)
    found = read(tmp_path / "a.store")
    same(found.structures, expected.structures)
    assert found.found == expected.found
    assert found.warnings == expected.warnings
    assert found.structures.digest() == expected.structures.digest()
    assert found.structures.elements == expected.structures.elements
    assert found.summary().partition(":")[2] == expected.summary().replace(str(expected.path), "").partition(":")[2]
    assert f"wrote {len(expected.structures)} frames" in said[0]
    verify(tmp_path / "a.store")


def test_blocks_do_not_show(tmp_path, monkeypatch):
    """Names, facts and warnings of the whole file, whichever block they are in."""
    from phystrain.data import _reading

    frames = [
        "1\nenergy=1 group=a\nH 0 0 0\n",
        "1\nenergy=1 frame=9\nH 0 0 0\n",
        "2\nREF_energy=2\nH 0 0 0\nH 0 0 0.3\n",
    ]
    frames += ["2\nenergy=1 group=long_name\nH 0 0 0\nH 0 0 0.2\n", '1\nenergy=1 own=""\nH 0 0 0\n']
    (tmp_path / "a.xyz").write_text("".join(frames))
    whole = read(tmp_path / "a.xyz")
    assert list(whole.structures.info) == ["frame", "own_frame", "group"]
    assert any("several names" in text for text in whole.warnings)
    assert any("2 frames with atoms nearer" in text and "frame 3" in text for text in whole.warnings)
    monkeypatch.setattr(_reading, "ATOMS", 1)
    pieces = read(tmp_path / "a.xyz")
    same(pieces.structures, whole.structures)
    assert (pieces.found, pieces.warnings) == (whole.found, whole.warnings)
    convert([tmp_path / "a.xyz"], tmp_path / "a.store", say=silent)
    stored = read(tmp_path / "a.store")
    same(stored.structures, whole.structures)
    assert (stored.found, stored.warnings) == (whole.found, whole.warnings)
    with pytest.raises(UserError, match="'enrgy'"):
        convert([tmp_path / "a.xyz"], tmp_path / "b.store", keys=LabelKeys(energy="enrgy"), say=silent)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.store", "a.xyz"]


def test_other_files(tmp_path):
    atoms = molecule("H2O")
    with connect(tmp_path / "a.db") as database:
        for number in range(5):
            database.write(atoms, REF_energy=-5.0 - number, group="wet" * (number % 2))
        del database[2]
    plain = tmp_path / "b.xyz"
    write(read(datasets.path("aspirin")).structures.select(range(4)), plain)
    (tmp_path / "c.xyz.gz").write_bytes(gzip.compress(plain.read_bytes()))
    convert([tmp_path / "a.db", tmp_path / "c.xyz.gz"], tmp_path / "one.store", say=silent)
    convert([tmp_path / "one.store", plain], tmp_path / "two.store", say=silent)
    database, text = read(tmp_path / "a.db"), read(plain)
    parts = [database.structures, text.structures, text.structures]
    found = read(tmp_path / "two.store")
    expected = Structures.concatenate(parts)
    assert found.structures.digest() == expected.digest()
    assert found.structures.info["frame"].tolist() == [str(number) for number in range(12)]
    assert found.structures.info["group"].tolist()[:4] == database.structures.info["group"].tolist()
    assert found.found["energy"] == {"REF_energy": 12}
    sources = json.loads((tmp_path / "two.store" / HEADER).read_text())["sources"]
    assert sources == [{"file": "one.store", "frames": 8}, {"file": "b.xyz", "frames": 4}]


def test_lmdb(tmp_path):
    pytest.importorskip("ase_db_backends.aselmdb")
    frames = [molecule(name) for name in ("H2O", "CH4", "NH3")]
    with connect(tmp_path / "a.aselmdb") as database:
        for number, atoms in enumerate(frames):
            database.write(atoms, REF_energy=-1.0 - number, data={"REF_forces": np.ones((len(atoms), 3))})
    convert([tmp_path / "a.aselmdb"], tmp_path / "a.store", say=silent)
    found = read(tmp_path / "a.store")
    assert found.structures.energy.tolist() == [-1.0, -2.0, -3.0]
    assert (found.structures.forces == 1).all()
    np.testing.assert_array_equal(found.structures.positions, np.concatenate([atoms.positions for atoms in frames]))


def test_lmdb_without_its_package(tmp_path):
    if "ase_db_backends" in sys.modules or _has("ase_db_backends"):
        pytest.skip("ase-db-backends is installed")
    (tmp_path / "a.aselmdb").write_bytes(b"anything")
    with pytest.raises(UserError, match="pip install ase-db-backends"):
        convert([tmp_path / "a.aselmdb"], tmp_path / "a.store", say=silent)


def _has(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


def test_names_are_settled_when_a_store_is_made(tmp_path):
    (tmp_path / "a.xyz").write_text("1\nenergy=1 dft=2 group=x\nH 0 0 0\n")
    convert([tmp_path / "a.xyz"], tmp_path / "a.store", keys=LabelKeys(energy="dft"), say=silent)
    assert read(tmp_path / "a.store").structures.energy.tolist() == [2.0]
    assert read(tmp_path / "a.store", keys=LabelKeys(energy="dft")).structures.energy.tolist() == [2.0]
    with pytest.raises(UserError, match="'dft', not 'energy'"):
        read(tmp_path / "a.store", keys=LabelKeys(energy="energy"))
    assert list(read(tmp_path / "a.store", info=["group"]).structures.info) == ["frame", "group"]
    with pytest.raises(UserError, match="did you mean 'group'"):
        read(tmp_path / "a.store", info=["grup"])


def refused(path, words: str) -> str:
    """What is said, a line that names the store."""
    with pytest.raises(UserError, match=words) as caught:
        read(path)
    assert len(str(caught.value).splitlines()) == 1
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "a picture"}, "damaged.*'a picture'"),
        ({"version": 2}, "version 2, this phystrain reads version 1"),
        ({"units": {"length": "Bohr"}}, "other units"),
        ({"atoms": None}, "counts nothing"),
        ({"atoms": 7}, "has .* bytes where .* are needed"),
        ({"digest": ...}, "no 'digest'"),
        ({"info": []}, "not complete"),
    ],
)
def test_damaged_headers(silica, change, words):
    file = silica / HEADER
    header = json.loads(file.read_text()) | change
    file.write_text(json.dumps({name: value for name, value in header.items() if value is not ...}))
    assert "Traceback" not in refused(silica, words)


def test_damaged_files(silica):
    whole = (silica / HEADER).read_text()
    for text in (whole[:100], "[]", ""):
        (silica / HEADER).write_text(text)
        refused(silica, "damaged")
    (silica / HEADER).write_text(whole)
    forces = silica / "forces.bin"
    content = forces.read_bytes()
    forces.write_bytes(content[:-8])
    refused(silica, "forces.bin has .* bytes")
    forces.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    read(silica)
    with pytest.raises(UserError, match="not those that were written"):
        verify(silica)
    forces.unlink()
    refused(silica, "forces.bin is missing")
    offsets = silica / "offsets.bin"
    offsets.write_bytes(bytes(offsets.stat().st_size))
    forces.write_bytes(content)
    refused(silica, "offsets")


def test_what_is_there_is_not_lost(tmp_path, silica):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("years")
    for place in ("folder", "folder/thesis.txt"):
        with pytest.raises(UserError, match="is no store"):
            convert([silica], tmp_path / place, say=silent)
    with pytest.raises(UserError, match="is to be read"):
        convert([silica], silica, say=silent)
    with pytest.raises(UserError, match=r"not end in \.xyz"):
        convert([silica], tmp_path / "a.xyz", say=silent)
    before = read(silica).structures
    (tmp_path / "bad.xyz").write_text("1\nenergy=1\nH 0 0 0\n1\nenergy=nan\nH 0 0 0\n")
    with pytest.raises(UserError, match="frame 1"):
        convert([tmp_path / "bad.xyz"], silica, say=silent)
    same(read(silica).structures, before)
    convert([datasets.path("aspirin")], silica, say=silent)
    assert len(read(silica).structures) == len(read(datasets.path("aspirin")).structures)
    assert (
        len(before.positions) == 56 * 72 + 48 or np.isfinite(before.positions).all()
    )  # the old files are still mapped
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.xyz", "folder", "silica.store"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted(tmp_path, how):
    """Killed or stopped in the middle, a conversion leaves nothing that looks like a store."""
    pipe, frame = tmp_path / "endless.xyz", b"1\nenergy=1\nH 0 0 0\n"
    os.mkfifo(pipe)
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in a shell's background
        "import sys, pathlib; from phystrain.data import _reading, convert; _reading.ATOMS = 1\n"
        "_reading._require_file = lambda path: None\n"  # which would wait for what is at the other end
        "convert.convert([pathlib.Path(sys.argv[1])], sys.argv[2], say=print)"
    )
    job = subprocess.Popen([sys.executable, "-c", script, pipe, tmp_path / "a.store"], stderr=subprocess.DEVNULL)
    with pipe.open("wb", buffering=0) as writer:
        writer.write(50 * frame)
        deadline = time.monotonic() + 60
        while not (begun := list(tmp_path.glob(".a.store.*/energy.bin"))) or not begun[0].stat().st_size:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        job.send_signal(how)
        until = time.monotonic() + 60
        while job.poll() is None and time.monotonic() < until:  # a signal just before a read is heeded after it
            with suppress(BrokenPipeError):
                writer.write(frame)
            time.sleep(0.05)
        assert job.wait(0) != 0
    assert not (tmp_path / "a.store").exists()
    left = list(tmp_path.glob(".a.store.*"))
    assert bool(left) == (how == signal.SIGKILL)
    for folder in left:
        assert not is_store(folder)
        with pytest.raises(UserError, match="no store"):
            read(folder)


def test_two_processes_read_the_same_pages(silica):
    script = (
        "import sys; from phystrain.data.read import read\n"
        "s = read(sys.argv[1]).structures; print(s.select([5, 1]).digest(), s.positions.flags.writeable)"
    )
    jobs = [
        subprocess.Popen([sys.executable, "-c", script, silica], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    expected = read(datasets.path("silica")).structures.select([5, 1]).digest()
    for job in jobs:
        assert job.communicate(timeout=120)[0].split() == [expected, "False"]


def test_a_store_goes_to_another_process_by_its_name(silica, tmp_path):
    structures = read(silica).structures
    for chosen in (structures, structures.part(np.arange(5, 9))):
        content = pickle.dumps(chosen)
        assert len(content) < 2000 + 32 * len(chosen)
        same(pickle.loads(content), chosen)  # noqa: S301 - made here
    convert([datasets.path("aspirin")], silica, say=silent)
    with pytest.raises(UserError, match="not the same for all processes"):
        pickle.loads(content)  # noqa: S301 - made here
    silica.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="not seen by all processes"):
        pickle.loads(content)  # noqa: S301 - made here


def test_nothing_is_written_into_a_store(silica):
    structures = read(silica).structures
    with pytest.raises(ValueError, match="read-only"):
        structures.weight[0] = 2
    changed = structures.with_labels(energy=structures.energy + 1)
    assert changed.digest() != structures.digest()


def test_facts_of_parts_that_lack_them(tmp_path):
    """A fact of some parts, and one whose texts grow."""
    one = Structures.from_ase([Atoms("H", info={"group": "a"})], info=("group",))
    two = Structures.from_ase([Atoms("He", info={"group": "ten letters", "x": "ü"})] * 2, info=("group", "x"))
    none = Structures.from_ase([Atoms("Li")])
    parts = [none, one, two, none]
    write_store(iter(parts), tmp_path / "a.store")
    found = read(tmp_path / "a.store")
    assert isinstance(found, Dataset)
    same(found.structures, Structures.concatenate(parts))


def test_parts_are_selections(silica):
    """A part gathers what is asked for, and blocks of it are blocks of its copy."""
    whole = read(silica).structures
    chosen = np.array([7, 3, 3, 50, 0])
    copy, part = whole.select(chosen), whole.part(chosen)
    assert set(part.__dict__) == {"offsets", "_origin", "_known"}
    assert part.digest() == copy.digest()
    assert part.elements == copy.elements
    for block in part.blocks(150):
        assert len(block) == 1 or len(block.positions) <= 150
    assert Structures.concatenate(list(part.blocks(150))).digest() == copy.digest()
    assert Structures.concatenate(list(copy.blocks(150))).digest() == copy.digest()
    assert part.select([2, 0]).digest() == part.part([2, 0]).digest() == copy.select([2, 0]).digest()
    assert part.part(np.array([True, False, False, True, False])).digest() == copy.select([0, 3]).digest()
    assert not {"positions", "forces", "species", "cell", "energy"} & set(part.__dict__)
    same(part, copy)
    with pytest.raises(AttributeError, match="energies"):
        _ = part.energies
    with pytest.raises(ValueError, match="read-only"):
        part.weight[0] = 2

import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from phystrain.data.read import read
from phystrain.data.structures import Structures
from phystrain.data.write import write
from phystrain.errors import UserError
from phystrain.label import calculator, job
from phystrain.label.job import electrons, label_file
from phystrain.label.level import Level

pytest.importorskip("pyscf")

HF = {"method": "hf", "basis": "sto-3g"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def waters(count):
    frames = [molecule("H2O") for _ in range(count)]
    for number, frame in enumerate(frames):
        frame.rattle(0.05, seed=number)
    return frames


def save(frames, path, **facts):
    structures = Structures.from_ase(frames)
    structures.info.update({name: np.array(values) for name, values in facts.items()})
    write(structures, path)
    return path


def run(path, output, settings, **options):
    lines = []
    return label_file(path, output, settings=settings, say=lines.append, **options), "\n".join(lines)


def test_labels_units_and_provenance(folder):
    path = save([*waters(2), Atoms("H", [[0, 0, 0]])], folder / "in.xyz", config_type=["a", "b", "atom"])
    run(path, folder / "out.xyz", HF)
    found = read(folder / "out.xyz").structures
    assert found.labelled("energy").all()
    assert found.labelled("forces").all()
    assert (found.positions == read(path).structures.positions).all()
    assert found.info["level"].tolist() == ["HF/sto-3g"] * 3
    assert found.info["program"][0].startswith("PySCF ")
    assert found.info["config_type"].tolist() == ["a", "b", "atom"]
    assert found.info["spin"].tolist() == ["0", "0", "1"]  # an atom alone is in its ground state
    # a molecule near its minimum: energies follow forces, in eV and Å
    step = found.positions[3:6] - found.positions[:3]
    by_forces = -0.5 * ((found.forces[:3] + found.forces[3:6]) * step).sum()
    assert found.energy[1] - found.energy[0] == pytest.approx(by_forces, abs=0.05 * abs(by_forces) + 0.02)


def test_several_processes_agree_with_one(folder, monkeypatch):
    path = save(waters(6), folder / "in.xyz")
    run(path, folder / "one.xyz", HF, processes=1, cache=folder / "first")
    monkeypatch.setattr("phystrain.augment._calculators.LONG", 0.0)  # however short the work is
    run(path, folder / "two.xyz", HF, processes=2, cache=folder / "second")
    one, two = (read(folder / name).structures for name in ("one.xyz", "two.xyz"))
    assert np.abs(one.energy - two.energy).max() < 1e-6
    assert len(list((folder / "second").iterdir())) == 6


def test_an_interrupted_labelling_goes_on(folder, monkeypatch):
    path, calls = save(waters(4), folder / "in.xyz"), []
    compute = calculator.compute

    def counted(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return compute(*arguments, **options)

    monkeypatch.setattr(calculator, "compute", counted)
    with pytest.raises(KeyboardInterrupt):
        run(path, folder / "out.xyz", HF, processes=1)
    assert not (folder / "out.xyz").exists()
    found, said = run(path, folder / "out.xyz", HF, processes=1)
    assert found.computed == 2
    assert "2 were on disk already" in said
    assert len(calls) == 5


def test_what_a_result_depends_on_is_in_its_name():
    numbers, positions = np.array([8]), np.zeros((1, 3))
    level = Level(method="pbe", basis="def2-svp")
    name = calculator.entry_name(numbers, positions, level, 0, 2)
    assert name == calculator.entry_name(numbers, positions, level.model_copy(update={"cycles": 9}), 0, 2)
    others = [
        calculator.entry_name(numbers, positions + 1e-9, level, 0, 2),
        calculator.entry_name(numbers, positions, level, 0, 0),
        calculator.entry_name(numbers, positions, level, 2, 2),
        *(
            calculator.entry_name(numbers, positions, level.model_copy(update=change), 0, 2)
            for change in ({"grid": 4}, {"method": "pbe0"}, {"basis": ("def2-tzvp",)}, {"density_fit": True})
        ),
    ]
    assert len({name, *others}) == 8


def test_a_damaged_result_is_computed_again(folder):
    path = save(waters(1), folder / "in.xyz")
    first, _ = run(path, folder / "out.xyz", HF, cache=folder / "kept")
    (entry,) = (folder / "kept").iterdir()
    entry.write_text(entry.read_text()[:20])
    second, _ = run(path, folder / "out.xyz", HF, cache=folder / "kept")
    assert second.computed == 1
    assert second.structures.energy == pytest.approx(first.structures.energy, abs=1e-9)


def test_what_does_not_converge_is_named_and_left_out(folder):
    nitrogen = Atoms("N2", [[0, 0, 0], [0, 0, 2.4]])
    path = save([molecule("H2O"), nitrogen, molecule("N2")], folder / "in.xyz")
    found, said = run(path, folder / "out.xyz", {"method": "ccsd", "basis": "cc-pvdz", "cycles": 12})
    assert list(found.failed) == [1]
    assert "frame 1 (NotConvergedError: CCSD did not converge in 12 cycles)" in said
    written = read(folder / "out.xyz").structures
    assert written.sizes.tolist() == [3, 2]
    assert written.labelled("energy").all()
    assert not written.labelled("forces").any()


def test_nothing_is_written_where_nothing_converges(folder):
    path = save(waters(2), folder / "in.xyz")
    with pytest.raises(UserError, match=r"no calculation succeeded.*cycles"):
        run(path, folder / "out.xyz", HF | {"cycles": 1})
    assert not (folder / "out.xyz").exists()


def test_charge_and_spin_from_frames_options_and_atoms():
    frames = [molecule("OH"), molecule("OH"), Atoms("O", [[0, 0, 0]])]
    structures = Structures.from_ase(frames)
    structures.info.update(
        frame=np.array(["0", "1", "2"]), charge=np.array(["-1", "", ""]), spin=np.array(["", "1", ""])
    )
    charges, spins = electrons(structures)
    assert charges.tolist() == [-1, 0, 0]
    assert spins.tolist() == [0, 1, 2]
    with pytest.raises(UserError, match=r"frame 0: 0 unpaired electrons do not go with 9 electrons \(1 more"):
        electrons(structures, charge=0, spin=0)
    structures.info["spin"] = np.array(["1", "2", ""])  # multiplicities, as some files say, never fit
    with pytest.raises(UserError, match="frame 0: 1 unpaired electrons do not go with 10"):
        electrons(structures)


def test_crystals_are_refused(folder):
    frame = molecule("H2O", cell=[9, 9, 9], pbc=True)
    with pytest.raises(UserError, match="1 of 1 structures are periodic"):
        run(save([frame], folder / "in.xyz"), folder / "out.xyz", HF)


def test_without_pyscf_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyscf", None)
    with pytest.raises(UserError, match=r"pip install 'phystrain\[label\]'"):
        run(save(waters(1), folder / "in.xyz"), folder / "out.xyz", HF)


def test_quality_is_told(folder, monkeypatch):
    monkeypatch.setattr(job, "_MULTIREFERENCE", 0.001)
    path = save([molecule("H2O")], folder / "in.xyz")
    found, said = run(path, folder / "out.xyz", {"method": "ccsd(t)", "basis": "cc-pvdz"})
    assert "warning: T1 is above 0.001 in 1 structures (frames 0)" in said
    assert float(found.structures.info["t1"][0]) > 0.001

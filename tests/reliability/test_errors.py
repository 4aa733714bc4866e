from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones

from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.interfaces.ase_potential import AsePotential
from phystrain.reliability import Subject
from phystrain.reliability._suite import audit
from phystrain.reliability.errors import APART, Config, force_cosine, offset_figures, predict
from phystrain.statistics import Statistics


@pytest.fixture
def labelled(lennard_jones, argon) -> Structures:
    """Frames of two sizes and kinds, labelled by the potential itself."""
    frames = [argon.copy() for _ in range(3)] + [Atoms("ArNe", positions=[[0, 0, 0], [0, 0, 3.5]]) for _ in range(2)]
    for number, frame in enumerate(frames):
        frame.rattle(0.1, seed=number)
    structures = Structures.from_ase(frames)
    structures.info["config_type"] = np.array(["crystal"] * 3 + ["dimer"] * 2)
    return predict(lennard_jones, structures, batch_atoms=40)


def test_no_error_on_own_labels(lennard_jones, labelled, subject_of):
    result = Config()(subject_of(lennard_jones, test=labelled))
    for name, value in result.figures.items():
        if "RMSE" in name or "MAE" in name:
            assert value < 1e-9, name
    assert result.figures["force cosine"] == pytest.approx(1)
    assert result.passed is None
    assert np.isnan(labelled.stress[3:]).all()
    assert np.isfinite(labelled.stress[:3]).all()


def test_known_errors(lennard_jones, labelled, subject_of):
    """Energies off by 2 meV/atom in the crystals, forces on neon by 30 meV/Å along x, one frame without labels."""
    energy, forces = labelled.energy.copy(), labelled.forces.copy()
    energy[:3] += 0.002 * 32
    forces[labelled.species == 10, 0] += 0.030
    energy[4], forces[-2:] = np.nan, np.nan
    result = Config(energy_limit=1, batch_atoms=10)(
        subject_of(lennard_jones, test=replace(labelled, energy=energy, forces=forces))
    )
    figures = result.figures
    assert figures["energy MAE, meV/atom"] == pytest.approx(1.5)
    assert figures["energy RMSE, meV/atom"] == pytest.approx(np.sqrt(3))
    assert figures["energy RMSE config_type=crystal, meV/atom"] == pytest.approx(2)
    assert figures["energy RMSE config_type=dimer, meV/atom"] == pytest.approx(0, abs=1e-9)
    assert figures["forces RMSE Ne, meV/Å"] == pytest.approx(30 / np.sqrt(3))
    assert figures["forces RMSE Ar, meV/Å"] == pytest.approx(0, abs=1e-9)
    assert figures["forces RMSE, meV/Å"] == pytest.approx(30 / np.sqrt(3 * 98))
    assert result.passed is False
    assert len(result.curves["energy parity"].x) == 4


def test_forces_of_the_hottest_frames(lennard_jones, labelled, subject_of):
    """One frame's labels are ten times as large: it is the hottest, and nine tenths of its forces are missed."""
    forces = labelled.forces.copy()
    part = slice(labelled.offsets[1], labelled.offsets[2])
    forces[part] *= 10
    forces[-2:] = np.nan  # the last frame has no labels and does not count
    subject = subject_of(lennard_jones, test=replace(labelled, forces=forces))
    figures = Config(hottest=0.25)(subject).figures
    assert figures["forces MAE hottest 25 %, meV/Å"] == pytest.approx(1000 * 0.9 * np.abs(forces[part]).mean())
    assert figures["smallest RMS force hottest 25 %, meV/Å"] == pytest.approx(
        1000 * np.sqrt((forces[part] ** 2).mean())
    )
    assert "forces MAE hottest 25 %, meV/Å" not in Config()(subject).figures


def test_parity_is_subsampled(lennard_jones, labelled, subject_of):
    result = Config(parity_points=7)(subject_of(lennard_jones, test=labelled))
    curve = result.curves["forces parity"]
    assert len(curve.x) == len(curve.y) == 7
    assert curve.x == pytest.approx(curve.y)


def test_cosine():
    reference = np.array([[1.0, 0, 0], [0, 2.0, 0], [0, 0, 1e-6]])
    assert force_cosine(reference, np.array([[3.0, 0, 0], [1.0, 0, 0], [5.0, 0, 0]])) == pytest.approx(0.5)


def test_needs_labels(lennard_jones, subject_of):
    with pytest.raises(UserError, match="no labelled test structure"):
        Config()(subject_of(lennard_jones))


def test_energies_of_others_are_compared_apart_from_their_zero(crystal):
    """A calculator may count energies from another zero; ours learn that of the data."""
    frames = Structures.concatenate([crystal, crystal.select([0])])
    frames = replace(frames, species=np.where(np.arange(len(frames.species)) < 5, 36, 18))
    labelled = frames.with_labels(energy=np.array([1.0, 2.0]))
    predicted = frames.with_labels(energy=np.array([1.0 + 5 * 7.0 + 27 * 3.0, 2.0 + 32 * 3.0]))
    figures = offset_figures(labelled, predicted)
    assert figures[f"energy RMSE {APART}, meV/atom"] == pytest.approx(0.0, abs=1e-9)
    outsider = AsePotential(lambda: LennardJones(sigma=3.4, epsilon=0.0103, rc=6.0), "lj")
    (result,) = audit(
        Subject("lj", outsider, Statistics.bare((18,)), test=crystal.with_labels(energy=np.array([50.0]))),
        {"errors": {}},
        progress=False,
    )
    assert result.figures["energy RMSE, meV/atom"] > 1000
    assert f"(0.0 {APART})" in result.sentence

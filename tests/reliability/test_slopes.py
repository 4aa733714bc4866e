from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from scipy.spatial.transform import Rotation

from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.reliability.errors import predict
from phystrain.reliability.slopes import Config, near_pairs, rotations


@pytest.fixture
def molecules(lennard_jones) -> Structures:
    """Forty clusters in near pairs, each turned and moved at random, with energies of the potential and no forces."""
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(20):
        places = 3.6 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0.5]]) + rng.normal(0, 0.2, (5, 3))
        for _ in range(2):
            turned = Rotation.random(random_state=rng).apply(places + rng.normal(0, 0.01, (5, 3)))
            frames.append(Atoms("Ar5", turned + rng.normal(0, 5, 3)))
    labelled = predict(lennard_jones, Structures.from_ase(frames))
    return replace(labelled, forces=np.full_like(labelled.forces, np.nan))


def test_no_error_on_own_energies(lennard_jones, molecules, subject_of):
    result = Config()(subject_of(lennard_jones, test=molecules))
    assert result.figures["pairs"] >= 20
    assert result.figures["RMS of the labelled slopes, meV/Å"] > 10
    # what is left is the trapezoidal rule's own error
    assert result.figures["slope RMSE, meV/Å"] < 0.01 * result.figures["RMS of the labelled slopes, meV/Å"]
    own = result.figures["RMS by which work and difference of the predicted energies differ, meV/Å"]
    assert own == pytest.approx(result.figures["slope RMSE, meV/Å"])
    assert result.passed is None


def test_error_is_as_large_as_it_is(lennard_jones, molecules, subject_of):
    wrong = replace(molecules, energy=1.1 * molecules.energy)  # all forces too small by a tenth
    result = Config(limit=1e-3)(subject_of(lennard_jones, test=wrong))
    slopes = result.figures["RMS of the labelled slopes, meV/Å"]
    assert result.figures["slope RMSE, meV/Å"] == pytest.approx(slopes / 11, rel=0.05)
    assert result.passed is False
    assert "Forces miss the slopes" in result.sentence


def test_pairs_are_turned_onto_one_another(molecules):
    pairs = near_pairs(molecules, 0.001, 0.15, 1000)
    assert {(0, 1), (2, 3), (38, 39)} <= set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert (np.diff(pairs.distance) >= 0).all()
    for distance, step, rotation in zip(pairs.distance, pairs.step, pairs.rotation, strict=True):
        assert np.linalg.norm(step) == pytest.approx(distance)
        assert np.linalg.det(rotation) == pytest.approx(1)
        np.testing.assert_allclose(step.sum(axis=0), 0, atol=1e-12)
    assert len(near_pairs(molecules, 0.001, 0.15, 3).first) == 3


def test_a_mirror_image_is_no_neighbour(molecules):
    single = molecules.select([0])
    image = replace(single, positions=single.positions * [1, 1, -1])
    both = Structures.concatenate([single, image])
    assert not len(near_pairs(both, 0.001, 0.15, 10).first)
    centred = (single.positions - single.positions.mean(axis=0))[None]
    assert np.linalg.det(rotations(centred * [1, 1, -1], centred)) == pytest.approx(1)


def test_copies_and_other_molecules_do_not_matter(lennard_jones, molecules, subject_of):
    """Near-copies would divide the digits of the labels by nothing, and pairs are of the same atoms."""
    plain = Config()(subject_of(lennard_jones, test=molecules))
    copies = [molecules.select([number]) for number in range(40) for _ in range(7)]
    rounded = [replace(copy, positions=copy.positions.round(6)) for copy in copies]
    single = Structures.from_ase([Atoms("Ar2", [[0, 0, 0], [4.0, 0, 0]])] * 2).with_labels(energy=np.zeros(2))
    mixed = Structures.concatenate([single, *rounded])
    pairs = near_pairs(mixed, 0.02, 0.15, 5000)
    of = [(p - 2) // 7 for p in pairs.first], [(q - 2) // 7 for q in pairs.second]
    assert min(pairs.first.min(), pairs.second.min()) >= 2
    assert all(p != q for p, q in zip(*of, strict=True))
    assert pairs.distance.min() >= 0.02
    found = Config(most=5000)(subject_of(lennard_jones, test=mixed))
    assert found.figures["slope RMSE, meV/Å"] < 0.01 * found.figures["RMS of the labelled slopes, meV/Å"]
    assert found.figures["pairs"] == 49 * plain.figures["pairs"]


def test_where_it_says_nothing(lennard_jones, molecules, subject_of, argon):
    apart = Config()(subject_of(lennard_jones, test=molecules.select(np.arange(0, 40, 2))))
    assert apart.passed is None
    assert "Not done" in apart.sentence
    crystal = Structures.from_ase([argon]).with_labels(energy=np.zeros(1))
    assert Config()(subject_of(lennard_jones, test=crystal)).applies is False
    with pytest.raises(UserError, match="no test structure with an energy"):
        Config()(subject_of(lennard_jones, test=molecules.without_labels()))
    assert Config().runs_unasked(subject_of(lennard_jones, test=molecules))
    some = replace(molecules, forces=np.where(molecules.system[:, None] == 0, 0.0, molecules.forces))
    assert not Config().runs_unasked(subject_of(lennard_jones, test=some))  # forces are told by themselves
    assert not Config().runs_unasked(subject_of(lennard_jones))

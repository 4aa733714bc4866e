import numpy as np
import pytest
from ase import Atoms
from hypothesis import given as for_all
from hypothesis import strategies as st

from phystrain.data.split import given, split
from phystrain.data.structures import Structures
from phystrain.errors import UserError


def make(count: int, groups: list[str] | None = None, single: int = 0, key: str = "group") -> Structures:
    frames = [Atoms("H2", [[0, 0, 0], [0, 0, 1.0]]) for _ in range(count)] + [Atoms("H") for _ in range(single)]
    for atoms, group in zip(frames, groups or [], strict=False):
        atoms.info[key] = group
    return Structures.from_ase(frames, info=(key,) if groups else ())


@for_all(st.integers(2, 40), st.floats(0.01, 0.99), st.integers(0, 5), st.integers(0, 3))
def test_random_split_is_a_partition(count, fraction, seed, single):
    structures = make(count, single=single)
    train, valid = split(structures, fraction, seed)
    assert sorted([*train, *valid]) == list(range(count + single))
    assert len(valid) == min(max(1, round(fraction * count)), count - 1)
    assert (valid < count).all()  # isolated atoms stay in training
    again = split(structures, fraction, seed)
    np.testing.assert_array_equal(valid, again[1])


@for_all(st.lists(st.sets(st.sampled_from("HCNOF"), min_size=1), min_size=4, max_size=25), st.floats(0.1, 0.9))
def test_the_last_of_an_element_stays(elements, fraction):
    """As one by one: the first in random order whose elements all occur in what is left."""
    names = ["".join(sorted(own)) + "H" for own in elements]
    structures = Structures.from_ase([Atoms(name, np.arange(3 * len(name)).reshape(-1, 3)) for name in names])
    holds = [{*own, "H"} for own in elements]
    target = min(max(1, round(fraction * len(elements))), len(elements) - 1)
    left = {name: sum(name in own for own in holds) for name in "HCNOF"}
    expected = []
    for member in np.random.default_rng(0).permutation(len(elements)).tolist():
        if len(expected) < target and all(left[name] > 1 for name in holds[member]):
            expected.append(member)
            for name in holds[member]:
                left[name] -= 1
    if expected:
        assert split(structures, fraction, 0)[1].tolist() == sorted(expected)


def test_seed_matters():
    structures = make(30)
    assert len({tuple(split(structures, 0.2, seed)[1]) for seed in range(5)}) == 5


@for_all(st.lists(st.sampled_from("abcdef"), min_size=4, max_size=40), st.floats(0.05, 0.6), st.integers(0, 3))
def test_groups_are_never_divided(groups, fraction, seed):
    structures = make(len(groups), groups)
    if len(set(groups)) < 2:
        with pytest.raises(UserError, match="same group"):
            split(structures, fraction, seed, "group")
        return
    train, valid = split(structures, fraction, seed, "group")
    assert sorted([*train, *valid]) == list(range(len(groups)))
    assert len(train)
    assert len(valid)
    assert not {groups[i] for i in train} & {groups[i] for i in valid}


def test_grouped_fraction_is_met_where_it_can_be():
    structures = make(100, [str(i // 5) for i in range(100)])
    assert len(split(structures, 0.2, 0, "group")[1]) == 20


def test_frames_without_group_are_on_their_own():
    train, valid = split(make(10, [""] * 10 + ["x"]), 0.3, 0, "group")
    assert (len(train), len(valid)) == (7, 3)


def test_mistakes():
    with pytest.raises(UserError, match="at least 2"):
        split(make(1, single=3), 0.5, 0)
    for fraction in (0.0, 1.0, -0.1):
        with pytest.raises(UserError, match="valid_fraction"):
            split(make(4), fraction, 0)
    with pytest.raises(UserError, match="did you mean 'group'"):
        split(make(4, ["a", "b", "c", "d"]), 0.5, 0, "grup")
    with pytest.raises(UserError, match="no such facts"):
        split(make(4), 0.5, 0, "group")


def test_given_split():
    train, valid = given(make(4, ["train", "Val", "test", "train"], key="split"))
    assert (train.tolist(), valid.tolist()) == ([0, 3], [1])
    with pytest.raises(UserError, match=r"structure 1.*'vlaid'"):
        given(make(2, ["train", "vlaid"], key="split"))
    with pytest.raises(UserError, match="into valid"):
        given(make(2, ["train", "train"], key="split"))

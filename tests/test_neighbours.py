"""Neighbour lists at the ends of what they are given."""

import numpy as np
import pytest

from phystrain.errors import UserError
from phystrain.neighbours import neighbour_list

OPEN = np.zeros(3, dtype=bool)


def sorted_pairs(positions, cell, pbc, cutoff=3.0):
    edges, shifts = neighbour_list(positions, cell, pbc, cutoff)
    return sorted((*pair, *shift) for pair, shift in zip(edges.T.tolist(), shifts.tolist(), strict=True))


@pytest.mark.parametrize("away", [1e5, 1e7, 1e12])
def test_atoms_very_far_apart(away):
    """The search lays boxes through the space between, and ended the process."""
    molecule = np.random.default_rng(0).uniform(0, 4, size=(6, 3))
    both = np.concatenate([molecule, molecule + np.array([away, -away, 0.0])])
    alone = sorted_pairs(molecule, np.zeros((3, 3)), OPEN)
    assert alone
    second = [(first + 6, second + 6, *shift) for first, second, *shift in alone]
    found = sorted_pairs(both, np.zeros((3, 3)), OPEN)
    # far from the origin positions are rounded: at 1e12 Å to a tenth of a milliångström
    assert [pair for pair in found if pair[0] < 6] == alone
    if away < 1e12:
        assert found == alone + second


def test_an_atom_very_far_from_a_slab():
    cell = np.diag([4.0, 5.0, 0.0])
    slab = np.array([[0, 0, 0], [2, 2, 1], [1, 3, 2]], dtype=float)
    pbc = np.array([True, True, False])
    lone = np.concatenate([slab, [[0, 0, 1e9]]])
    of_the_slab = sorted_pairs(slab, cell, pbc)
    found = sorted_pairs(lone, cell, pbc)
    assert [pair for pair in found if 3 not in pair[:2]] == of_the_slab
    assert not [pair for pair in found if 3 in pair[:2]]


@pytest.mark.parametrize("place", ["positions", "cell"])
def test_what_is_not_finite_is_refused(place):
    given = {"positions": np.zeros((2, 3)), "cell": np.eye(3) * 5.0}
    given[place][0, 0] = np.nan
    with pytest.raises(UserError, match="not finite"):
        neighbour_list(**given, pbc=~OPEN, cutoff=3.0)

import pytest

from phystrain.uncertainty.ensemble import Ensemble


@pytest.fixture
def disagreeing(lennard_jones, with_hole):
    """Two models that are the same beyond 2.6 Å, which is where crystals are."""
    return Ensemble((lennard_jones, with_hole), "seeds")

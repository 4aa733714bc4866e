"""Subjects made from the small potentials."""

from collections.abc import Callable

import pytest
from torch import nn

from phystrain.data.structures import Structures
from phystrain.reliability import Subject
from phystrain.statistics import Statistics


@pytest.fixture
def subject_of(crystal: Structures) -> Callable[..., Subject]:
    def make(potential: nn.Module, **fields: object) -> Subject:
        given = {"statistics": Statistics.bare((18,)), "start": crystal, "temperatures": (40.0,), **fields}
        return Subject(name="small", potential=potential, **given)

    return make

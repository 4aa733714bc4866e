"""What a fault behind a barrier means: whether dynamics can get there."""

from collections.abc import Iterable

from pydantic import Field

from phystrain.reliability import Grade, Subject
from phystrain.reliability._static import ROOM, StaticTest, worst_grade
from phystrain.units import BOLTZMANN

REGION = 12
"""Atoms that strain together at the least: one and its neighbours."""


class BarrierTest(StaticTest):
    """Base of tests that look for faults on ways along which the energy rises first."""

    reach: float = Field(default=20.0, gt=0, description="k_B T that dynamics may climb, at twice its temperature")

    def grade_behind(self, barriers: Iterable[float], subject: Subject) -> Grade:
        """The worst of faults, ``safe`` if there are none.

        Args:
            barriers: eV, from where dynamics is to the top before each fault; not a number if unknown.
            subject: whose temperatures tell how high dynamics climbs.
        """
        return worst_grade(*(grade_of(barrier, self.reach, hottest(subject)) for barrier in barriers))


def grade_of(barrier: float, reach: float, kelvin: float) -> Grade:
    """What a fault behind a barrier means: ``unsafe`` if hot dynamics can climb it, else ``limited``.

    Args:
        barrier: eV, from where dynamics is to the top before the fault; not a number if unknown.
        reach: how many k_B T dynamics may climb.
        kelvin: highest temperature of dynamics.
    """
    return "limited" if barrier > reach * BOLTZMANN * kelvin else "unsafe"


def hottest(subject: Subject) -> float:
    """K, twice the highest temperature of the subject: hot runs go there."""
    return 2 * max(subject.temperatures, default=ROOM)

"""What every potential must satisfy, as functions that raise ``AssertionError``.

For a test of one's own potential::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_contract(check):
        potential = perturbed(MyPotential())
        check(potential, species=(8, 14))

or all at once, ``check_potential(MyPotential(), species=(8, 14))``. A check is given a potential in float64 and
elements that it knows, and makes structures of them whose distances fit the potential's cut-off. Checks that presume
forces to be the gradient of the energy do nothing for a potential with a direct force head.
"""

from collections.abc import Callable, Sequence

from torch import nn

from phystrain.testing._modules import (
    check_compiled,
    check_inputs_kept,
    check_not_constant,
    check_precision,
    check_state,
    check_unknown_element,
)
from phystrain.testing._probes import TIGHT, perturbed
from phystrain.testing._surfaces import (
    DIFFERENCES,
    STEP,
    check_energy_conservation,
    check_forces,
    check_isolated_atoms,
    check_locality,
    check_second_derivatives,
    check_smoothness,
    check_stress,
)
from phystrain.testing._symmetries import (
    check_batching,
    check_extensivity,
    check_permutation,
    check_reflection,
    check_rotation,
    check_separation,
    check_thin_cell,
    check_translation,
    check_wrapping,
)

__all__ = [
    "CHECKS",
    "DIFFERENCES",
    "STEP",
    "TIGHT",
    "check_batching",
    "check_compiled",
    "check_energy_conservation",
    "check_extensivity",
    "check_forces",
    "check_inputs_kept",
    "check_isolated_atoms",
    "check_locality",
    "check_not_constant",
    "check_permutation",
    "check_potential",
    "check_precision",
    "check_reflection",
    "check_rotation",
    "check_second_derivatives",
    "check_separation",
    "check_smoothness",
    "check_state",
    "check_stress",
    "check_thin_cell",
    "check_translation",
    "check_unknown_element",
    "check_wrapping",
    "perturbed",
]

CHECKS: tuple[Callable[[nn.Module, Sequence[int]], None], ...] = (
    check_not_constant,
    check_forces,
    check_stress,
    check_rotation,
    check_reflection,
    check_translation,
    check_permutation,
    check_wrapping,
    check_batching,
    check_separation,
    check_isolated_atoms,
    check_locality,
    check_smoothness,
    check_extensivity,
    check_thin_cell,
    check_second_derivatives,
    check_inputs_kept,
    check_state,
    check_precision,
    check_energy_conservation,
    check_unknown_element,
)
"""Everything but what is slow."""


def check_potential(potential: nn.Module, species: Sequence[int]) -> None:
    """All of :data:`CHECKS` on a perturbed copy.

    Args:
        potential: any potential, left as it is.
        species: atomic numbers that it knows.
    """
    potential = perturbed(potential)
    for check in CHECKS:
        check(potential, species)

"""The sum of several potentials, such as a network and the energies of isolated atoms, or a network and a wall."""

from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor, nn

from phystrain import registry
from phystrain.derive import Potential
from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.potentials import PotentialConfig
from phystrain.statistics import Statistics

TRIM_RATIO = 1.15
"""A term whose cut-off is smaller than the list's by more than this factor gets a list of its own."""


class Config(PotentialConfig):
    """Sum of potentials, each by a name of its own."""

    kind: Literal["sum"] = "sum"
    terms: dict[str, Any] = Field(min_length=1, description="settings of each potential, 'kind' included, by name")

    @property
    def trains_reference(self) -> bool:
        return all(config.trains_reference for config in self.terms.values())

    @field_validator("terms")
    @classmethod
    def _parse(cls, terms: dict[str, Any]) -> dict[str, Any]:
        return {name: registry.parse("potentials", settings) for name, settings in terms.items()}

    def build(self, statistics: Statistics) -> "SumPotential":
        built = {name: config.build(statistics) for name, config in self.terms.items()}
        return DirectSumPotential(built) if any(hasattr(term, "heads") for term in built.values()) else SumPotential(built)


class SumPotential(nn.Module):
    """Adds atomic energies.

    Args:
        terms: potentials by name.
    """

    def __init__(self, terms: dict[str, nn.Module]) -> None:
        super().__init__()
        self.terms = nn.ModuleDict(terms)
        self.cutoff = max(float(term.cutoff) for term in terms.values())  # type: ignore[arg-type]

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV, in the highest precision of the terms."""
        return _total([term.atomic_energies(_cut(graph, term)) for term in self.terms.values()])  # type: ignore[operator]


class DirectSumPotential(SumPotential):
    """The same where one term has a direct force head and no other depends on positions.

    Raises:
        UserError: a second term would add forces that only its gradient knows.
    """

    def __init__(self, terms: dict[str, nn.Module]) -> None:
        super().__init__(terms)
        moving = [name for name, term in terms.items() if float(term.cutoff) > 0]  # type: ignore[arg-type]
        if len(moving) > 1:
            raise UserError(
                f"sum: {' and '.join(moving)} cannot be added, because one of them has 'head: direct'. "
                f"Use 'head: conservative'"
            )
        self._direct = moving[0]

    def heads(self, graph: AtomGraph) -> tuple[Float[Tensor, " atoms"], Float[Tensor, "atoms 3"]]:
        """(atoms,) eV and (atoms, 3) eV/Å."""
        direct = self.terms[self._direct]
        energies, forces = direct.heads(_cut(graph, direct))  # type: ignore[operator]
        others = [t.atomic_energies(_cut(graph, t)) for name, t in self.terms.items() if name != self._direct]  # type: ignore[operator]
        return _total([energies, *others]), forces


def _cut(graph: AtomGraph, term: nn.Module) -> AtomGraph:
    assert isinstance(term, Potential)
    return graph.within(term.cutoff) if 0 < term.cutoff * TRIM_RATIO < graph.cutoff else graph


def _total(energies: list[Tensor]) -> Tensor:
    """Sum in the widest precision of the parts."""
    return torch.stack([energy.to(torch.float64) for energy in energies]).sum(0) if len(energies) > 1 else energies[0]

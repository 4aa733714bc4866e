"""Sum of potentials: reference energies, a classical prior and a network that learns the rest (delta learning)."""

from typing import Any, ClassVar, Literal

from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor, nn

from phystrain.derive import Denoised, Potential
from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.potentials import InnerConfig, PotentialConfig
from phystrain.potentials._network import trimmed
from phystrain.statistics import Statistics


class Config(PotentialConfig):
    """Sum of potentials, each with its own settings."""

    kind: Literal["sum"] = "sum"
    terms: dict[str, InnerConfig] = Field(min_length=1, description="settings of each potential, by a name of choice")

    @property
    def trains_reference(self) -> bool:
        return all(term.trains_reference for term in self.terms.values())

    @property
    def denoises(self) -> bool:
        return any(term.denoises for term in self.terms.values())

    @field_validator("terms")
    @classmethod
    def _usable_names(cls, terms: dict[str, Any]) -> dict[str, Any]:
        for name in terms:
            if not name.isidentifier() or hasattr(nn.ModuleDict, name):
                raise ValueError(f"{name!r} cannot be the name of a term; use a plain word such as 'network'")
        return terms

    def build(self, statistics: Statistics) -> "Sum":
        terms: dict[str, Any] = {name: settings.build(statistics) for name, settings in self.terms.items()}
        if len(denoising := [name for name, term in self.terms.items() if term.denoises]) > 1:
            raise UserError(f"sum: only one term can denoise: leave 'denoise: true' out of {denoising[1]}")
        direct = [name for name, term in terms.items() if hasattr(term, "heads")]
        if not direct:
            return Sum(terms)
        if moving := [name for name, term in terms.items() if name != direct[0] and term.cutoff > 0]:
            raise UserError(
                f"sum: {direct[0]} has forces of its own, which do not add to those of {moving[0]}.\n"
                f"Use 'head: conservative' in {direct[0]}, or only terms without forces, such as reference_energy."
            )
        return DirectSum(terms, direct[0])


class Sum(nn.Module):
    """Sum of conservative potentials.

    Args:
        terms: potentials by name.
    """

    terms: Any  # an nn.ModuleDict of potentials
    additive: ClassVar[bool] = True

    def __init__(self, terms: dict[str, Any]) -> None:
        super().__init__()
        self.terms = nn.ModuleDict(terms)
        self.cutoff = max(float(term.cutoff) for term in terms.values())

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV, in the highest precision among the terms."""
        return self._sum_energies(graph, skip="")

    @property
    def denoises(self) -> bool:
        """Whether a term has a noise head."""
        return any(getattr(term, "denoises", False) for term in self.terms.values())

    def denoised(self, corrupted: AtomGraph, forces: Float[Tensor, "atoms 3"], original: AtomGraph) -> Denoised:
        """What the term with the noise head says; to its energies those that the others give the original are added."""
        name = next(name for name, term in self.terms.items() if getattr(term, "denoises", False))
        term = self.terms[name]
        found = term.denoised(_reach(corrupted, term), forces, _reach(original, term))
        return found._replace(energy=found.energy + self._sum_energies(original, skip=name))

    def _sum_energies(self, graph: AtomGraph, skip: str) -> Float[Tensor, " atoms"]:
        """(atoms,) eV of all terms but one."""
        total = graph.positions.new_zeros(graph.n_atoms)
        for name, term in self.terms.items():
            if name != skip:
                total = total + term.atomic_energies(_reach(graph, term))
        return total


class DirectSum(Sum):
    """A potential with forces of its own and others that have none at all.

    Args:
        terms: potentials by name.
        direct: name of the one with forces of its own.
    """

    def __init__(self, terms: dict[str, Any], direct: str) -> None:
        super().__init__(terms)
        self.direct = direct

    def heads(self, graph: AtomGraph) -> tuple[Float[Tensor, " atoms"], Float[Tensor, "atoms 3"]]:
        """Atomic energies (atoms,) eV of all terms and forces (atoms, 3) eV/Å of the one that has them."""
        term = self.terms[self.direct]
        energies, forces = term.heads(_reach(graph, term))
        return energies + self._sum_energies(graph, skip=self.direct), forces


def _reach(graph: AtomGraph, term: Potential) -> AtomGraph:
    """The graph as far as a term looks; unchanged for one that looks at no neighbours."""
    return trimmed(graph, term.cutoff) if term.cutoff > 0 else graph

"""A potential that training leaves as it is: the fixed prior of delta learning."""

from typing import Any, ClassVar, Literal, cast

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from phystrain.derive import Potential
from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.potentials import InnerConfig, PotentialConfig
from phystrain.statistics import Statistics


class Config(PotentialConfig):
    """A potential whose parameters no optimiser moves; its forces still follow from its energy."""

    kind: Literal["frozen"] = "frozen"
    potential: InnerConfig = Field(description="what is held fixed")

    @property
    def trains_reference(self) -> bool:
        return self.potential.trains_reference

    def build(self, statistics: Statistics) -> "Frozen":
        return Frozen(self.potential.build(statistics))


class Frozen(nn.Module):
    """See the module.

    Args:
        potential: what is held fixed; conservative.

    Raises:
        UserError: a potential with forces of its own, which could not be added to another one's.
    """

    additive: ClassVar[bool] = True

    def __init__(self, potential: Any) -> None:
        super().__init__()
        if hasattr(potential, "heads"):
            raise UserError("frozen: a potential with direct forces cannot be a prior; use one with head: conservative")
        self.potential = potential.requires_grad_(False)
        self.cutoff = float(potential.cutoff)

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV, those of the potential inside."""
        return cast(Potential, self.potential).atomic_energies(graph)

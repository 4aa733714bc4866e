"""Jitter: a displaced copy must have the labels of the original. A baseline, not physics."""

from typing import Literal

from pydantic import Field

from phystrain.graph import AtomGraph
from phystrain.labels import Batch
from phystrain.objectives import Evaluator, Term
from phystrain.objectives._displacement import Displacing, displaced
from phystrain.objectives._errors import energy_term, forces_term


class Config(Displacing):
    """The plain loss of energy or forces, on displaced copies with unchanged labels.

    Augmentation by noise: it says that the energy does not change when atoms move, which is wrong wherever forces
    act, and is there to be compared with (the noise baseline of arXiv:2408.05215). Two of these in the place of
    ``energy`` and ``forces``, with the same displacements, share one pass; nothing else changes.

    Attributes:
        quantity: label to be kept, counted and weighted as in the objective of that name.
    """

    kind: Literal["jitter"] = "jitter"
    quantity: Literal["energy", "forces"] = Field(default="energy", description="label that the copy keeps")

    @property
    def needs(self) -> frozenset[str]:
        """The label that is kept."""
        return frozenset({self.quantity})

    def asks_forces_of(self, batch: Batch, model: Evaluator) -> list[AtomGraph]:
        """The copies, where their forces are what is compared."""
        if self.quantity == "energy" or not self.is_random:
            return []
        return [displaced(batch, model, self, draw=0)]

    def __call__(self, batch: Batch, model: Evaluator) -> Term:
        """Sum over what is labelled, as in the plain loss."""
        copy = displaced(batch, model, self, draw=0)
        if self.quantity == "energy":
            return energy_term(batch, model, copy)
        return forces_term(batch, model, copy)

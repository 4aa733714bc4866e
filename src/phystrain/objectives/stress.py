"""Squared error of the stress, scaled to an energy per atom."""

from typing import ClassVar, Literal

import torch

from phystrain.labels import Batch
from phystrain.objectives import Evaluator, Objective, Term, masked_sum

ATOMIC_VOLUME = 10.0
"""Å³, that of an ordinary solid (diamond 6, copper 12, silicon 20)."""


class Config(Objective):
    """(10 Å³ x (stress - stress_reference))², (eV/atom)², summed over all nine components.

    The fixed volume makes the stress an energy per atom of the size that energies and forces have, so that a weight
    near that of the forces is a fair start: an error of 1 GPa counts as 0.062 eV/atom. The volume is the same for
    every structure, so what is minimised is the error of the stress itself, also in cells with much vacuum.
    All nine components are summed, not the six of Voigt, because only then does the sum not depend on how the cell
    is turned.

    A stress label on a structure that is not periodic in three directions makes the sum not a number; reading the
    data is where such a label is refused.
    """

    kind: Literal["stress"] = "stress"
    needs: ClassVar[frozenset[str]] = frozenset({"stress"})

    def __call__(self, batch: Batch, model: Evaluator) -> Term:
        """Sum over labelled components; the count is their number, nine for a structure."""
        reference = batch.labels.stress
        labelled = ~torch.isnan(reference)
        stress = model.predict(batch.graph, ("stress",)).stress
        assert stress is not None
        # chosen before the arithmetic, also the prediction, which is not a number for molecules
        zero = torch.zeros_like(reference)
        difference = torch.where(labelled, stress, zero) - torch.where(labelled, reference, zero)
        return masked_sum((ATOMIC_VOLUME * difference).square(), batch.labels.weight, labelled)

"""PISC: the energy of a displaced structure must be the same when it is reached through another one."""

from typing import Literal

from phystrain.labels import Batch
from phystrain.objectives import Evaluator, Term
from phystrain.objectives._displacement import WeakObjective, displaced, step_term


class Config(WeakObjective):
    """Physics-informed spatial consistency, the scheme of three points.

    With independent displacements d and d' of structure S, B = S + d' and C = S + d, the residual, in eV, is

        E(C) - E(B) + <d - d', (1 - k) F(B) + k F(C)>

    where the product is summed over the atoms of that structure. C is the displaced structure of PITC if both have
    the same displacement settings; then this loss costs one pass more. Source: arXiv:2408.05215, PISC loss.
    """

    kind: Literal["pisc"] = "pisc"

    def __call__(self, batch: Batch, model: Evaluator) -> Term:
        """Sum over all structures, labelled or not; the count is their number."""
        through = displaced(batch, model, self, draw=1)
        return step_term(batch, model, self, start=through, end=displaced(batch, model, self, draw=0))

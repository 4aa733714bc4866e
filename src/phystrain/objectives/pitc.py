"""PITC: the energy of a displaced structure must follow from energy and forces of the structure itself."""

from typing import Literal

from phystrain.labels import Batch
from phystrain.objectives import Evaluator, Term
from phystrain.objectives._displacement import WeakObjective, displaced, step_term


class Config(WeakObjective):
    """Physics-informed Taylor-expansion consistency.

    With a random displacement d of structure S the residual, in eV, is

        E(S + d) - E(S) + <d, (1 - k) F(S) + k F(S + d)>

    where the product is summed over the atoms of that structure. One pass through the potential besides that of the
    labelled structures. Source: arXiv:2408.05215, PITC loss.
    """

    kind: Literal["pitc"] = "pitc"

    def __call__(self, batch: Batch, model: Evaluator) -> Term:
        """Sum over all structures, labelled or not; the count is their number."""
        return step_term(batch, model, self, start=batch.graph, end=displaced(batch, model, self, draw=0))

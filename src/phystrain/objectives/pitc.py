"""PITC: the energy of a displaced structure must follow from energy and forces of the structure itself."""

from typing import Literal

from phystrain.graph import AtomGraph
from phystrain.labels import Batch
from phystrain.objectives import Evaluator, Term
from phystrain.objectives._anchor import of_anchor, of_model
from phystrain.objectives._displacement import displaced
from phystrain.objectives._taylor import WeakObjective, extrapolation, forces_asked_of, residual_term


class Config(WeakObjective):
    """Physics-informed Taylor-expansion consistency.

    With a random displacement d of structure S the residual, in eV, is

        E(S + d) - E(S) + <d, (1 - k) F(S) + k F(S + d)>

    where the product is summed over the atoms of that structure. One pass through the potential besides that of the
    labelled structures. Source: arXiv:2408.05215, PITC loss.

    With ``anchor: label`` E(S) and F(S) are the reference's: augmentation by Taylor expansion, at k = 0 as published
    (Cooper et al. 2020, npj Comput. Mater. 6:54), at k = 1/2 without the curvature that k = 0 neglects.
    """

    kind: Literal["pitc"] = "pitc"

    def asks_forces_of(self, batch: Batch, model: Evaluator) -> list[AtomGraph]:
        """S and S + d."""
        return forces_asked_of(batch, model, self, copies=1, start=True)

    def __call__(self, batch: Batch, model: Evaluator) -> Term:
        """Sum over the structures that the anchor knows, all of them by default; the count is their number."""
        start = of_anchor(batch, model, self.anchor)
        end = of_model(model, displaced(batch, model, self, draw=0))
        return residual_term(batch, self, end.energy(), extrapolation(start, end, self.k), start.counted)

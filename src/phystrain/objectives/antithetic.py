"""Antithetic steps: the difference of the energies on both sides of a structure must be the work of its forces."""

from typing import Literal

from pydantic import Field

from phystrain.labels import Batch
from phystrain.objectives import Evaluator, Term
from phystrain.objectives._anchor import forces_of_anchor, of_model
from phystrain.objectives._displacement import Displacing, displaced
from phystrain.objectives._taylor import Residual, residual_term, work


class Config(Residual, Displacing):
    """Consistency of central differences.

    With a random displacement d of structure S the residual, in eV, is

        E(S + d) - E(S - d) + 2 <d, F(S)>

    where the product is summed over the atoms of that structure. For a conservative potential with gradient g,
    Hessian H and third derivative T at S,

        E(S ± d) = E(S) ± g.d + d.H.d / 2 ± T[d, d, d] / 6 + O(|d|^4),    F(S) = -g,

    so that even terms cancel and the residual is T[d, d, d] / 3 + O(|d|^5): of third order, as that of PITC at
    k = 1/2, minus four times as large, and with no term of fourth order. At the displaced points energies are
    enough, so nothing there is differentiated twice. S + d is the displaced structure of PITC if both have the same
    displacement settings.

    Attributes:
        anchor: where F(S) comes from: ``model``, ``label`` (structures with forces of all atoms), ``auto`` (labels
            where there are, else the model's) or ``guide`` (forces from outside the network). No energy label enters.
    """

    kind: Literal["antithetic"] = "antithetic"
    anchor: Literal["model", "label", "auto", "guide"] = Field(
        default="model", description="source of the forces of the undisplaced structure"
    )

    @property
    def needs(self) -> frozenset[str]:
        """Forces, if they are the anchor."""
        return frozenset({"forces"}) if self.anchor == "label" else frozenset()

    def __call__(self, batch: Batch, model: Evaluator) -> Term:
        """Sum over the structures whose anchor is known, all of them by default; the count is their number."""
        centre = forces_of_anchor(batch, model, self.anchor)
        ahead, behind = (of_model(model, displaced(batch, model, self, draw=0, sign=sign)) for sign in (1, -1))
        beyond, before = model.energies_alone(ahead.graph, behind.graph)
        return residual_term(batch, self, beyond - before, -work(behind, ahead, centre.forces()), centre.counted)

"""PISC: the energy of a displaced structure must be the same when it is reached through another one."""

from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor

from phystrain.graph import AtomGraph
from phystrain.labels import Batch
from phystrain.objectives import Evaluator, Term
from phystrain.objectives._anchor import Point, of_anchor, of_model, with_reference_energy
from phystrain.objectives._displacement import displaced
from phystrain.objectives._taylor import WeakObjective, extrapolation, forces_asked_of, residual_term


class Config(WeakObjective):
    """Physics-informed spatial consistency, in all its published variants.

    With independent displacements d, d' and d'' of structure S, the points are B = S + d', C = S + d and D = S + d''.
    The extrapolation from X to Y, in eV, is

        W(X, Y) = E(X) - <Y - X, (1 - k) F(X) + k F(Y)>

    where the product is summed over the atoms of that structure. Compared are

    ====  ==========================  ======================================================================
    A     E(C) with W(B, C)           three points, the default; S itself does not enter
    B     W(B, C) with W(S, C)        two extrapolations to the same point, whose energy is not used
    C     E(B) with W(C, B)           A backwards; the same as A at k = 1/2
    D     W(B, C) with W(D, C)        B with a fourth point in the place of S
    A10   E(S) with W(C, S)           two points: PITC backwards; the same as PITC at k = 1/2
    A11   E_ref(S) with W(C, S)       two points, anchored on the reference energy
    ====  ==========================  ======================================================================

    C is the displaced structure of PITC if both have the same displacement settings; then A costs one pass more.
    Source: arXiv:2408.05215, PISC loss, and eqs. A10 and A11 of its appendix.
    """

    kind: Literal["pisc"] = "pisc"
    case: Literal["A", "B", "C", "D", "A10", "A11"] = Field(
        default="A", description="which points are compared: A three points, A10 two, A11 two with the reference energy"
    )

    @model_validator(mode="after")
    def _undisplaced_structure_enters(self) -> "Config":
        if self.anchor != "model" and self.case not in ("B", "A10", "A11"):
            raise ValueError(
                f"case {self.case} does not look at the undisplaced structure: "
                f"leave out anchor, or use case B, A10 or A11"
            )
        return self

    @property
    def needs(self) -> frozenset[str]:
        """Labels that the anchor consists of; A11 compares with the reference energy."""
        return super().needs | (frozenset({"energy"}) if self.case == "A11" else frozenset())

    def asks_forces_of(self, batch: Batch, model: Evaluator) -> list[AtomGraph]:
        """The displaced copies, and S where it enters."""
        return forces_asked_of(batch, model, self, self._copies, start=self.case in ("B", "A10", "A11"))

    def __call__(self, batch: Batch, model: Evaluator) -> Term:
        """Sum over the structures that the anchor knows, all of them by default; the count is their number."""
        undisplaced = of_anchor(batch, model, self.anchor)
        if self.case == "A11":
            undisplaced = with_reference_energy(batch, undisplaced)
        copies = [of_model(model, displaced(batch, model, self, draw)) for draw in range(self._copies)]
        reached, label = self._compared(undisplaced, copies)
        return residual_term(batch, self, reached, label, undisplaced.counted)

    @property
    def _copies(self) -> int:
        return {"A10": 1, "A11": 1, "D": 3}.get(self.case, 2)

    def _compared(self, s: Point, copies: list[Point]) -> tuple[Tensor, Tensor]:
        """What is compared and the weak label it is compared with, (systems,) eV each."""
        c, *others = copies
        if self.case in ("A10", "A11"):
            return s.energy(), extrapolation(c, s, self.k)
        b = others[0]
        if self.case == "A":
            return c.energy(), extrapolation(b, c, self.k)
        if self.case == "C":
            return b.energy(), extrapolation(c, b, self.k)
        return extrapolation(b, c, self.k), extrapolation(s if self.case == "B" else others[1], c, self.k)

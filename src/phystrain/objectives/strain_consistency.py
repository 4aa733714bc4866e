"""Strain consistency: the energy of a strained crystal must follow from energy and stress of the crystal itself."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from phystrain.graph import AtomGraph
from phystrain.labels import Batch
from phystrain.noise import uniform
from phystrain.objectives import Evaluator, Term
from phystrain.objectives._taylor import Residual, residual_term

_STREAM = 0x73747261  # keeps these numbers apart from others that are drawn from the same key


class Config(Residual):
    """PITC for the cell in the place of the atoms.

    With a random symmetric strain e, positions and cell are multiplied by 1 + e. Along the path 1 + t e the energy
    changes by V(t) stress(t) : e (1 + t e)^-1 dt, because stress is the derivative for a further strain of the cell
    as it then is (:mod:`phystrain.units`). The residual, in eV, is

        E(1) - E(0) - (1 - k) V(0) stress(0) : e - k V(1) stress(1) : e (1 + e)^-1

    of second order in e for k < 1/2 and of third for k = 1/2. Without the factor (1 + e)^-1 it would be of second
    order at any k. Only structures that are periodic in three directions count. One pass besides that of the labelled
    structures, and stress in both: a strain in the pass, no label. Source: arXiv:2408.05215 for atoms.

    Attributes:
        strain: every component of e is uniform on [-strain, strain]. A distance changes by at most three times this,
            as a share of itself.
        k: share of the stress at the end of the step, 0 to 1/2.
    """

    kind: Literal["strain_consistency"] = "strain_consistency"
    strain: float = Field(default=0.01, gt=0, le=0.1, description="largest component of the strain")
    k: float = Field(default=0.5, ge=0, le=0.5, description="share of the stress at the end of the step")

    @property
    def asks(self) -> frozenset[str]:
        """Stress, without a label."""
        return frozenset({"stress"})

    @property
    def relative_reach(self) -> float:
        """The largest eigenvalue of a symmetric matrix of three rows is at most three times its largest component."""
        return 3 * self.strain

    def __call__(self, batch: Batch, model: Evaluator) -> Term:
        """Sum over the structures that are periodic in three directions; the count is their number."""
        start, strain = batch.graph, strains(batch.graph, batch.key, self.strain)
        end = model.shared(("strained", start, self.strain), lambda: start.strained(strain.to(start.cell.dtype)))
        first, last = (model.predict(graph, ("energy",)).energy for graph in (start, end))
        assert first is not None
        assert last is not None
        work = (1 - self.k) * (_virial(model, start) * strain).sum(dim=(1, 2))
        if self.k > 0:
            one = torch.eye(3, dtype=strain.dtype, device=strain.device)
            work = work + self.k * (_virial(model, end) * torch.linalg.solve(one + strain, strain)).sum(dim=(1, 2))
        return residual_term(batch, self, last, first + work, start.pbc.all(dim=1))


def strains(graph: AtomGraph, key: Int[Tensor, " systems"], size: float) -> Float[Tensor, "systems 3 3"]:
    """Random symmetric strains that depend on the key of each structure alone.

    Args:
        graph: the structures.
        key: (systems,) random stream of each.
        size: largest component.

    Returns:
        (systems, 3, 3) float64; zero for structures that are not periodic in three directions.
    """
    index = torch.arange(3, device=key.device)
    pair = 3 * torch.minimum(index[:, None], index) + torch.maximum(index[:, None], index)  # (3, 3), symmetric
    numbers = size * (2 * uniform(key[:, None, None], _STREAM, pair) - 1)
    return torch.where(graph.pbc.all(dim=1)[:, None, None], numbers, torch.zeros_like(numbers))


def _virial(model: Evaluator, graph: AtomGraph) -> Float[Tensor, "systems 3 3"]:
    """(systems, 3, 3) eV, float64: volume times stress; zero without a volume."""
    stress = model.predict(graph, ("stress",)).stress
    assert stress is not None
    # chosen before the product: not-a-number would reach the gradient
    known = graph.pbc.all(dim=1)
    volumes = torch.where(known, graph.volumes, torch.zeros_like(graph.volumes)).to(torch.float64)
    return torch.where(known[:, None, None], stress, torch.zeros_like(stress)) * volumes[:, None, None]

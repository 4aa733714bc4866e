"""Weights of terms without labels that nobody has to choose: a fixed share of the gradient of the terms with labels.

The units of a weak loss and of a supervised one have nothing to do with each other, and a weight that serves one
potential drowns the labels of another. What can be compared is how hard each pulls at the parameters:

    weight = share * |gradient of the terms with labels| / |gradient of the term|

as in Wang, Teng, Perdikaris 2021 (arXiv 2001.04536, algorithm 1), where the ratio is of the largest to the mean entry
and the share is one. A share below one lets the labels decide wherever the two disagree. The norms are measured every
few steps, on the batch of that step, and the weights are averaged over measurements: of their logarithms, since norms
of gradients spread over decades.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from phystrain.config import Balance
from phystrain.train.processes import global_sum


class Balancer:
    """The weights as they stand, and how they are measured.

    Args:
        settings: share, smoothing, and how often to measure.

    Attributes:
        state: weight and step of the last measurement by name of the term; plain data, for checkpoints.
    """

    def __init__(self, settings: Balance) -> None:
        self._settings = settings
        self.state: dict[str, dict[str, Any]] = {}

    def weight(self, name: str) -> float:
        """Present weight of a term; zero until there were labels to measure it by."""
        return float(self.state[name]["weight"]) if name in self.state else 0.0

    def due(self, names: Iterable[str], step: int) -> list[str]:
        """Those of the terms that act at a step whose weight is to be measured there."""
        every = self._settings.every
        return [name for name in names if name not in self.state or step >= self.state[name]["step"] + every]

    def measure(self, step: int, labelled: Tensor, terms: Mapping[str, Tensor], parameters: list[nn.Parameter]) -> None:
        """Take up the gradients of a step.

        Args:
            step: its number.
            labelled: share of this process in the loss of the terms with labels.
            terms: the same of each term to balance, at weight one.
            parameters: what is trained.
        """
        pull = _norm(labelled, parameters)
        for name, term in terms.items():
            own = _norm(term, parameters)
            if pull == 0 or own == 0:  # no label in this batch, or nothing that the term could say about it
                continue
            settings = self._settings
            new = min(settings.largest, settings.share * pull / own)
            if name in self.state:
                new = self.weight(name) ** settings.smoothing * new ** (1 - settings.smoothing)
            self.state[name] = {"weight": new, "step": step}


def _norm(loss: Tensor, parameters: list[nn.Parameter]) -> float:
    """Norm of the gradient of a loss, the shares of all processes added."""
    found: list[Tensor | None] = [None] * len(parameters)
    if loss.requires_grad:  # a process without a structure for this term has nothing to differentiate
        found = list(torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True))
    filled = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
    flat = torch.cat([gradient.detach().reshape(-1).to(torch.float64) for gradient in filled])
    return float(torch.linalg.vector_norm(global_sum(flat)))

"""The optimiser, its learning rate and the averaged weights."""

import math
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from phystrain.config import Optimiser
from phystrain.errors import UserError

Tensors = list[Tensor] | tuple[Tensor, ...]


def make_optimiser(potential: nn.Module, settings: Optimiser) -> torch.optim.AdamW:
    """AdamW over the parameters that are trained, in groups of equal ``factor`` of the learning rate.

    Raises:
        UserError: a pattern of ``rates`` that no parameter matches.
    """
    groups: dict[float, list[Tensor]] = {}
    for name, factor in factors(potential, settings.rates).items():
        groups.setdefault(factor, []).append(potential.get_parameter(name))
    return torch.optim.AdamW(
        [{"params": parameters, "factor": factor} for factor, parameters in groups.items()],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        amsgrad=settings.amsgrad,
    )


def factors(potential: nn.Module, rates: dict[str, float]) -> dict[str, float]:
    """Factor of the learning rate by name of a trained parameter; the last pattern that matches decides.

    Args:
        potential: what is trained.
        rates: factor by shell pattern.
    """
    names = [name for name, parameter in potential.named_parameters() if parameter.requires_grad]
    for pattern in rates:
        if not any(fnmatchcase(name, pattern) for name in names):
            shown = ", ".join(names[:4])
            raise UserError(f"optimiser.rates: no parameter matches {pattern!r}; parameters are called {shown}, ...")
    return {
        name: next((factor for pattern, factor in reversed(rates.items()) if fnmatchcase(name, pattern)), 1.0)
        for name in names
    }


def optimiser_names(potential: nn.Module, optimiser: torch.optim.Optimizer) -> list[str]:
    """Names of the parameters in the order in which the optimiser numbers its state."""
    known = {id(parameter): name for name, parameter in potential.named_parameters()}
    return [known[id(parameter)] for group in optimiser.param_groups for parameter in group["params"]]


class LearningRate:
    """The learning rate of each step: a function of the step alone, times the plateau's factor.

    Attributes:
        plateau: factor that the plateau schedule has reached.
        best: lowest validation loss that the plateau schedule has seen.
        waited: validations since then.
    """

    def __init__(self, settings: Optimiser, steps: int) -> None:
        self._settings, self._steps = settings, steps
        self.plateau, self.best, self.waited = 1.0, math.inf, 0

    def at(self, step: int) -> float:
        """Rate of a step, counted from 0."""
        settings = self._settings
        rate = settings.learning_rate * min(1.0, (step + 1) / (settings.warmup + 1))
        if settings.schedule == "cosine":
            done = max(0, step - settings.warmup) / max(1, self._steps - settings.warmup)
            rate *= settings.final + (1 - settings.final) * (1 + math.cos(math.pi * min(1.0, done))) / 2
        elif settings.schedule == "plateau":
            rate = max(rate * self.plateau, min(rate, settings.minimum))
        return rate

    def validated(self, loss: float) -> None:
        """Tell the plateau schedule of a validation."""
        if loss < self.best:
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > self._settings.patience:
            self.plateau, self.waited = self.plateau * self._settings.factor, 0


def average_of(potential: nn.Module, decay: float) -> AveragedModel:
    """Exponentially averaged weights, whose memory grows with the number of steps up to ``decay``.

    A fixed decay of 0.999 would still remember the random start after a thousand steps, which is a whole run here.
    """

    @torch.no_grad()
    def update(averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        kept = min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(averaged, current, 1 - kept)

    return AveragedModel(potential, multi_avg_fn=update)

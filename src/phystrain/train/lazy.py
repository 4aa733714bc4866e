"""When a term of the loss acts, with what factor, and on which structures: so that weak losses cost less.

A term with ``every: n`` acts on every n-th step at n times its weight, one with ``part: p`` on a random part of the
structures, whose mean estimates that of all: the gradient is the same on average, its noise larger. Lazy
regularisation is known from StyleGAN2 (Karras et al. 2020, arXiv 1912.04958, section 3.1).
"""

from collections.abc import Mapping

from jaxtyping import Bool
from torch import Tensor

from phystrain.labels import Batch
from phystrain.noise import uniform
from phystrain.objectives import Evaluator, Objective

_STREAM = 0x70617274  # keeps these numbers apart from others that are drawn from the same key


def factor(objective: Objective, step: int) -> float:
    """What the weight of a term is multiplied by at a step of its stage, counted from 0; zero where it is skipped."""
    since = step - objective.warmup
    if since < 0 or since % objective.every:
        return 0.0
    return objective.every * risen(objective, step)


def risen(objective: Objective, step: int) -> float:
    """How much of its weight a term has after its warm-up and on its ramp, from 0 to 1."""
    since = step + 1 - objective.warmup
    return min(1.0, max(0, since) / max(1, objective.ramp))


def acting(objectives: Mapping[str, Objective], step: int) -> dict[str, Objective]:
    """The terms that are not skipped at a step."""
    return {name: objective for name, objective in objectives.items() if factor(objective, step) > 0}


def drawn(batch: Batch, part: float) -> Bool[Tensor, " systems"]:
    """(systems,) which structures a term with this ``part`` acts on.

    Each by a number that its key alone decides, so that the choice does not depend on the number of processes; of two
    parts the larger holds the smaller one.
    """
    return uniform(batch.key, _STREAM) < part


def some(part: float, systems: int) -> float:
    """Probability that at least one of so many structures is drawn.

    Where none is, the term is zero. Its mean over those that are drawn, divided by this, is without bias.
    """
    return 1.0 - (1.0 - part) ** systems


class Parts:
    """Parts of a batch, each cut once, so that terms of equal ``part`` share displaced copies and passes.

    Args:
        batch: the whole.
        model: told which graph is a part of which.
    """

    def __init__(self, batch: Batch, model: Evaluator) -> None:
        self._batch, self._model = batch, model
        self._cut: dict[float, Batch] = {1.0: batch}

    def of(self, part: float) -> Batch:
        """The structures that a term with this ``part`` acts on; perhaps none."""
        if part not in self._cut:
            chosen = drawn(self._batch, part)
            self._cut[part] = self._batch.select(chosen)
            self._model.part_of(self._batch.graph, chosen, self._cut[part].graph)
        return self._cut[part]

"""One training step as a module: model, derivatives and objectives inside one ``forward``.

Everything that needs gradients happens here, because that is what a distributed wrapper can see. The loss is
divided by counts over *all* processes and multiplied by their number, because the wrapper averages gradients: so
two processes give the gradient of one, whatever the sizes of the structures they were dealt.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from phystrain import compiled
from phystrain.config import Balance
from phystrain.derive import Potential
from phystrain.labels import Batch
from phystrain.objectives import Evaluator, Objective, Term
from phystrain.train.balance import Balancer
from phystrain.train.lazy import Parts, acting, factor, risen, some
from phystrain.train.processes import global_sum, world_size


class Source(NamedTuple):
    """Structures that a step takes beside the labelled ones, and their loss.

    Attributes:
        name: before the names of its terms where they are reported.
        objectives: terms of the loss by name.
        weight: factor of that loss.
    """

    name: str
    objectives: Mapping[str, Objective]
    weight: float = 1.0


class Found(NamedTuple):
    """A term of a step.

    Attributes:
        name: in logs and checkpoints.
        objective: its settings.
        source: weight of the source.
        share: of this process in its mean over all structures, differentiable.
        mean: over all processes, detached; ``None`` where nothing was counted.
    """

    name: str
    objective: Objective
    source: float
    share: Tensor
    mean: Tensor | None


class TrainingStep(nn.Module):
    """The loss of a batch, and of batches from other sources beside it.

    Args:
        potential: what is trained.
        objectives: terms of the loss by name.
        others: further sources.
        stay_near: weight of the penalty on leaving the present values of the parameters (L2-SP, arXiv 1802.01483:
            half of it times the squared distance); 0 for none.
        balance: of terms with ``weight: auto``.

    Attributes:
        sources: the labelled structures, whose name is empty, and the others.
        balancer: automatic weights, by reported name.
    """

    def __init__(
        self,
        potential: nn.Module,
        objectives: Mapping[str, Objective],
        others: Sequence[Source] = (),
        *,
        stay_near: float = 0.0,
        balance: Balance | None = None,
    ) -> None:
        super().__init__()
        self.potential = potential
        self.sources = (Source("", dict(objectives)), *others)
        self.balancer = Balancer(balance or Balance())
        self._fast: list[nn.Module] = []  # in a list: it holds the parameters of the potential, which has them already
        self._stay_near = stay_near
        self._home = [parameter.detach().clone() for parameter in self._trained()] if stay_near else []

    def compile_passes(self) -> bool:
        """Make further passes in compiled code; false where there is nothing that can be compiled."""
        fast = compiled.faster(self.potential, training=True)
        self._fast = [] if fast is self.potential else [fast]
        return bool(self._fast)

    def forward(self, *batches: Batch | None, step: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to differentiate, and the mean of each term that acted over all processes (detached).

        Args:
            batches: this process's share of the step's structures, from each source in turn; ``None`` for a source
                of which no term acts.
            step: number of the step in the stage, which decides what acts.
        """
        found: list[Found] = []
        for source, batch in zip(self.sources, batches, strict=False):
            terms = acting(source.objectives, step)
            if batch is not None and terms:
                found += self._found(source, batch, terms, step)
        self._measure(found, step)
        loss = torch.zeros((), dtype=torch.float64, device=self._trained()[0].device)
        for term in found:
            weight = term.source * self.weight(term.name, term.objective) * factor(term.objective, step)
            loss = loss + weight * term.share
        if self._stay_near:
            pairs = zip(self._trained(), self._home, strict=True)
            distance = sum((parameter - home).square().sum().to(torch.float64) for parameter, home in pairs)
            # every process holds the same weights: the penalty is already that of all of them
            loss = loss + 0.5 * self._stay_near * distance / world_size()
        # A parameter that no term of this step uses gets a zero gradient: the wrapper waits for every parameter.
        idle = sum(parameter.sum() for parameter in self._trained())
        means = {term.name: term.mean for term in found if term.mean is not None}
        return world_size() * loss + 0.0 * idle, means

    def weight(self, name: str, objective: Objective) -> float:
        """Present weight of a term by its reported name, before that of its source."""
        return self.balancer.weight(name) if objective.weight == "auto" else float(objective.weight)

    def _trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.potential.parameters() if parameter.requires_grad]

    def _found(self, source: Source, batch: Batch, objectives: Mapping[str, Objective], step: int) -> list[Found]:
        """Terms of a batch. Those that act on all structures come first: parts of them read from their passes."""
        plain = as_potential(self.potential)
        passed = as_potential(self._fast[0]) if self._fast else plain
        gradient = any("gradient" in objective.asks for objective in objectives.values())
        model = Evaluator(passed, stress=wants_stress(objectives), plain=plain, gradient=gradient)
        parts = Parts(batch, model)
        automatic = [reported(source.name, name) for name, term in objectives.items() if term.weight == "auto"]
        if not self.balancer.due(automatic, step):  # terms are then differentiated one by one, each its passes alone
            acted = [(objective, parts.of(objective.part)) for objective in objectives.values()]
            asked = [objective.asks_forces_of(mine, model) for objective, mine in acted if len(mine.key)]
            model.join(itertools.chain.from_iterable(asked))
        terms: dict[str, Term] = {}
        for name, objective in sorted(objectives.items(), key=lambda item: -item[1].part):
            mine = parts.of(objective.part)
            zero = torch.zeros((), dtype=torch.float64, device=batch.key.device)
            # none drawn, or fewer structures in the last batch of an epoch than there are processes
            terms[name] = objective(mine, model) if len(mine.key) else Term(zero, zero)
        # The totals take part only to be reported; the counts decide.
        present = torch.tensor([0.0, len(batch.key)], dtype=torch.float64, device=batch.key.device)
        rows = [torch.stack([terms[name].total.detach(), terms[name].count]) for name in objectives]
        sums = global_sum(torch.stack([*rows, present]))
        counts = sums[:, 1].tolist()
        found = []
        for row, (name, objective) in enumerate(objectives.items()):
            count = max(1.0, counts[row]) * (1.0 if objective.part == 1 else some(objective.part, round(counts[-1])))
            mean = sums[row, 0] / max(1.0, counts[row])
            share, known = terms[name].total / count, mean if counts[row] else None
            found.append(Found(reported(source.name, name), objective, source.weight, share, known))
        return found

    def _measure(self, found: Sequence[Found], step: int) -> None:
        """Let the automatic weights follow the gradients, where that is due."""
        automatic = {term.name: term.share for term in found if term.objective.weight == "auto"}
        if not (due := self.balancer.due(automatic, step)):
            return
        labelled = torch.zeros((), dtype=torch.float64, device=self._trained()[0].device)
        for term in found:
            if term.objective.validated:
                weight = term.source * self.weight(term.name, term.objective) * risen(term.objective, step)
                labelled = labelled + weight * term.share
        self.balancer.measure(step, labelled, {name: automatic[name] for name in due}, self._trained())


def reported(source: str, name: str) -> str:
    """Name of a term of a source in logs and checkpoints."""
    return f"{source}_{name}" if source else name


def wants_stress(objectives: Mapping[str, Objective]) -> bool:
    """Whether any term needs the stress in its pass."""
    return any("stress" in objective.needs | objective.asks for objective in objectives.values())


def as_potential(module: nn.Module) -> Potential:
    """Narrow the type of a module that is a potential.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(module, Potential):
        raise TypeError(f"{type(module).__name__} is no potential: it lacks cutoff or atomic_energies")
    return module

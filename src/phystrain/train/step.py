"""One training step as a module: model, derivatives and objectives inside one ``forward``.

Everything that needs gradients happens here, because that is what a distributed wrapper can see. The loss is
divided by counts over *all* processes and multiplied by their number, because the wrapper averages gradients: so
two processes give the gradient of one, whatever the sizes of the structures they were dealt.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from phystrain.derive import Potential
from phystrain.labels import Batch
from phystrain.objectives import Evaluator, Objective
from phystrain.train.processes import global_sum, world_size


class TrainingStep(nn.Module):
    """The loss of a batch, and of a batch of replayed data beside it.

    Args:
        potential: what is trained.
        objectives: terms of the loss by name.
        replay: terms of the loss of the replayed data by name.
        replay_weight: factor of that loss.
        stay_near: weight of the penalty on leaving the present values of the parameters (L2-SP, arXiv 1802.01483:
            half of it times the squared distance); 0 for none.
    """

    def __init__(
        self,
        potential: nn.Module,
        objectives: Mapping[str, Objective],
        replay: Mapping[str, Objective] | None = None,
        replay_weight: float = 0.0,
        stay_near: float = 0.0,
    ) -> None:
        super().__init__()
        self.potential = potential
        self._objectives = dict(objectives)
        self._replay = dict(replay or {})
        self._replay_weight = replay_weight
        self._stay_near = stay_near
        self._home = [parameter.detach().clone() for parameter in self._trained()] if stay_near else []

    def forward(self, batch: Batch, replayed: Batch | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to differentiate, and the mean of each term over all processes (detached).

        Args:
            batch: this process's share of the step's structures.
            replayed: this process's share of the replayed structures.
        """
        loss, means = self._loss(batch, self._objectives)
        if replayed is not None:
            extra, replay_means = self._loss(replayed, self._replay)
            loss = loss + self._replay_weight * extra
            means |= {f"replay_{name}": mean for name, mean in replay_means.items()}
        if self._stay_near:
            pairs = zip(self._trained(), self._home, strict=True)
            distance = sum((parameter - home).square().sum().to(torch.float64) for parameter, home in pairs)
            # every process holds the same weights: the penalty is already that of all of them
            loss = loss + 0.5 * self._stay_near * distance / world_size()
        # A parameter that no term of this step uses gets a zero gradient: the wrapper waits for every parameter.
        idle = sum(parameter.sum() for parameter in self._trained())
        return world_size() * loss + 0.0 * idle, means

    def _trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.potential.parameters() if parameter.requires_grad]

    def _loss(self, batch: Batch, objectives: Mapping[str, Objective]) -> tuple[Tensor, dict[str, Tensor]]:
        model = Evaluator(as_potential(self.potential), stress=wants_stress(objectives))
        terms = {name: objective(batch, model) for name, objective in objectives.items()}
        # The totals take part only to be reported; the counts decide.
        sums = torch.stack([torch.stack([term.total.detach(), term.count]) for term in terms.values()])
        totals, counts = global_sum(sums).unbind(1)
        loss = torch.zeros((), dtype=torch.float64, device=batch.key.device)
        means = {}
        for (name, term), total, count in zip(terms.items(), totals, counts.clamp(min=1), strict=True):
            loss = loss + objectives[name].weight * term.total / count
            means[name] = total / count
        return loss, means


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

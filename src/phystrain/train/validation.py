"""Errors on held-out structures during training."""

import math
from collections.abc import Mapping, Sequence

import numpy.typing as npt
import torch
from torch import Tensor, nn

from phystrain.data.graphs import GraphStore
from phystrain.labels import Batch
from phystrain.objectives import Evaluator, Objective
from phystrain.train.processes import global_sum
from phystrain.train.step import as_potential, wants_stress

_UNITS = {"energy": "meV/atom", "forces": "meV/A", "stress": "meV/A3"}


def validate(
    potential: nn.Module,
    store: GraphStore,
    batches: Sequence[npt.NDArray],
    objectives: Mapping[str, Objective],
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, float]:
    """Mean absolute and root-mean-square errors, and the loss of the terms that have labels.

    Args:
        potential: the weights to judge.
        store: held-out structures.
        batches: numbers of the structures of each batch, this process's share.
        objectives: terms of the training loss; those that are no error against labels (weak terms) do not count.
        device, dtype: of the potential.

    Returns:
        ``loss``, and ``energy_mae``, ``energy_rmse`` in meV/atom, ``forces_*`` in meV/Å, ``stress_*`` in meV/Å³ where
        there are labels.
    """
    supervised = {name: objective for name, objective in objectives.items() if objective.validated}
    stress = wants_stress(supervised)
    sums = torch.zeros(len(supervised), 2, dtype=torch.float64, device=device)
    errors = torch.zeros(len(_UNITS), 3, dtype=torch.float64, device=device)
    for numbers in batches:
        batch = store.batch(numbers, dtype=dtype).to(device)
        model = Evaluator(as_potential(potential), stress=stress, create_graph=False)
        for row, objective in enumerate(supervised.values()):
            term = objective(batch, model)
            sums[row] += torch.stack([term.total.detach(), term.count])
        for row, quantity in enumerate(_UNITS):
            if quantity != "stress" or stress:
                errors[row] += _errors(quantity, batch, model)
    sums, errors = global_sum(sums), global_sum(errors)
    figures = {"loss": 0.0}
    for (total, count), objective in zip(sums.tolist(), supervised.values(), strict=True):
        figures["loss"] += float(objective.weight) * total / max(count, 1)
    for quantity, (absolute, squared, count) in zip(_UNITS, errors.tolist(), strict=True):
        if count:
            figures[f"{quantity}_mae"] = 1000 * absolute / count
            figures[f"{quantity}_rmse"] = 1000 * math.sqrt(squared / count)
    return figures


def _errors(quantity: str, batch: Batch, model: Evaluator) -> Tensor:
    """(3,) sums of absolute and squared errors, and their number; energies per atom."""
    label = getattr(batch.labels, quantity)
    labelled = torch.isfinite(label)
    if not labelled.any():
        return torch.zeros(3, dtype=torch.float64, device=label.device)
    error = (getattr(model.predict(batch.graph, (quantity,)), quantity).detach() - label).to(torch.float64)
    if quantity == "energy":
        error = error / batch.graph.atoms_per_system
    error = torch.where(labelled, error, torch.zeros_like(error))
    return torch.stack([error.abs().sum(), error.square().sum(), labelled.sum().to(torch.float64)])

"""Directions in which a potential is wrong: where it is worth looking, as far as labels tell.

Directions are detached: they decide where the loss is taken, and the loss does not act on that choice.

Source: Takamoto, Zaverkin, Niepert, ICML 2025, arXiv:2408.05215, adversarial displacements: the gradient of the error
in the text, the error of the forces in the experiments.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from phystrain.derive import Prediction
from phystrain.labels import Batch
from phystrain.objectives import Evaluator


def against_forces(batch: Batch, model: Evaluator) -> Float[Tensor, "atoms 3"]:
    """-(F - F_reference), eV/Å, float64; zero for atoms without a label of all three components."""
    reference = batch.labels.forces
    labelled = ~torch.isnan(reference).any(dim=1, keepdim=True)
    forces = model.predict(batch.graph, ("forces",)).forces
    assert forces is not None
    forces = forces.detach()
    return (torch.where(labelled, reference, forces) - forces).to(torch.float64)


def against_energy_and_forces(batch: Batch, model: Evaluator, adversary: str) -> Float[Tensor, "atoms 3"]:
    """Gradient of the squared error with respect to positions.

    The error is ((E - E_reference) / atoms)², in (eV/atom)², plus the mean over the components of
    (F - F_reference)², in (eV/Å)², each where labelled: the sum of the plain losses with weights of one.

    Args:
        batch: structures and labels.
        model: the potential; for the forces it is differentiated twice.
        adversary: ``energy``, ``forces`` or ``both``.

    Returns:
        (atoms, 3) float64; zero in structures without the labels.
    """
    want = ("energy", "forces") if adversary == "both" else (adversary,)

    def error(prediction: Prediction) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=batch.graph.positions.device)
        if prediction.energy is not None:
            total = total + _energy_error(batch, prediction.energy)
        if prediction.forces is not None:
            total = total + _forces_error(batch, prediction.forces)
        return total

    return model.slope(batch.graph, want, error).to(torch.float64)


def _energy_error(batch: Batch, energy: Tensor) -> Tensor:
    reference = batch.labels.energy
    known = torch.where(torch.isnan(reference), energy.detach(), reference)
    return ((energy - known) / batch.graph.atoms_per_system).square().sum()


def _forces_error(batch: Batch, forces: Tensor) -> Tensor:
    """Mean over the labelled components of each structure, summed over structures."""
    reference, graph = batch.labels.forces, batch.graph
    labelled = ~torch.isnan(reference)
    difference = forces - torch.where(labelled, reference, forces.detach())
    counts = graph.sum_per_system(labelled.sum(dim=1)).clamp(min=1)
    return (graph.sum_per_system(difference.square().sum(dim=1)) / counts).sum()

"""Squared errors against labels, of the labelled structures or of copies that are to keep their labels."""

import torch

from phystrain.graph import AtomGraph
from phystrain.labels import Batch
from phystrain.objectives import Evaluator, Term, masked_sum


def energy_term(batch: Batch, model: Evaluator, graph: AtomGraph) -> Term:
    """((E - E_reference) / atoms)², (eV/atom)², summed over labelled structures; the count is their number.

    Args:
        batch: labels.
        model: the potential.
        graph: structures whose energies are compared with the labels.
    """
    reference = batch.labels.energy
    labelled = ~torch.isnan(reference)
    energy = model.predict(graph, ("energy",)).energy
    assert energy is not None
    # chosen before the subtraction: a NaN that is masked afterwards still reaches the gradient
    difference = (energy - torch.where(labelled, reference, energy.detach())) / graph.atoms_per_system
    return masked_sum(difference.square(), batch.labels.weight, labelled)


def forces_term(batch: Batch, model: Evaluator, graph: AtomGraph) -> Term:
    """(F - F_reference)², (eV/Å)², summed over labelled components; the count is their number, three for an atom.

    Args:
        batch: labels.
        model: the potential.
        graph: structures whose forces are compared with the labels.
    """
    reference = batch.labels.forces
    labelled = ~torch.isnan(reference)
    forces = model.predict(graph, ("forces",)).forces
    assert forces is not None
    # chosen before the subtraction: a NaN that is masked afterwards still reaches the gradient
    difference = forces - torch.where(labelled, reference, forces.detach())
    return masked_sum(difference.square(), batch.labels.weight[graph.system], labelled)

"""What every objective must satisfy, as functions that raise ``AssertionError``.

For a test of one's own objective::

    @pytest.mark.parametrize("check", CHECKS)
    def test_contract(check):
        potential = MyPotential().double()
        check(MyObjective(), examples(potential.cutoff + 1.0), potential)

The examples hold H, C, O and Cu, so the potential must know these elements. It may be any potential whose energy
depends on its parameters and on distances; it should be in float64. The neighbour lists must exceed its cut-off by as
much as displaced and strained copies need (``reach``, ``relative_reach``). A loss that takes gradients of all that it
depends on passes :func:`check_gradient` too.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from ase import Atoms
from ase.build import bulk, molecule
from torch import Tensor, nn

from phystrain.derive import Potential
from phystrain.graph import AtomGraph
from phystrain.labels import Batch, Labels, unlabelled
from phystrain.noise import index_in_system
from phystrain.objectives import Evaluator, Objective, Term

TOLERANCE = 1e-10


def examples(cutoff: float) -> list[Batch]:
    """Batches of one structure each, float64, which between them hold every way of being labelled.

    Args:
        cutoff: Å, for the neighbour lists: that of the potential and a reserve for the objective's copies.

    Returns:
        A molecule with energy and forces, a crystal with everything and a weight of 2, an isolated atom with energy
        only, a molecule with energy and guide forces, a molecule without labels.
    """
    crystal = bulk("Cu", cubic=True)
    crystal.rattle(0.1, seed=1)
    cases: list[tuple[Atoms, tuple[str, ...], float]] = [
        (molecule("H2O"), ("energy", "forces"), 1.0),
        (crystal, ("energy", "forces", "stress", "guide"), 2.0),
        (Atoms("H"), ("energy",), 0.5),
        (molecule("CH3OH"), ("energy", "guide"), 1.0),
        (molecule("CH4"), (), 1.0),
    ]
    return [_example(*case, number=number, cutoff=cutoff) for number, case in enumerate(cases)]


def _example(atoms: Atoms, labelled: tuple[str, ...], weight: float, *, number: int, cutoff: float) -> Batch:
    """One structure with random labels."""
    graph = AtomGraph.from_ase(atoms, cutoff)
    generator = torch.Generator().manual_seed(number)
    labels = bare(graph)
    drawn = {name: torch.randn(getattr(labels, name).shape, generator=generator).double() for name in labelled}
    labels = labels._replace(weight=labels.weight * weight, **drawn)
    return Batch(graph, labels, torch.tensor([1000 + number]))


def bare(graph: AtomGraph) -> Labels:
    """No labels, and a guide that knows nothing."""
    labels = unlabelled(graph)
    return labels._replace(guide=torch.full_like(labels.forces, torch.nan))


def join(batches: Sequence[Batch]) -> Batch:
    """Several batches as one."""
    labels = [batch.labels for batch in batches]
    if any(one.guide is not None for one in labels):
        labels = [one._replace(guide=one.forces * torch.nan) if one.guide is None else one for one in labels]
    columns: list[Any] = [None if column[0] is None else torch.cat(column) for column in zip(*labels, strict=True)]
    return Batch(
        graph=AtomGraph.concatenate([batch.graph for batch in batches]),
        labels=Labels(*columns),
        key=torch.cat([batch.key for batch in batches]),
    )


def empty(batch: Batch) -> Batch:
    """A batch without structures."""
    return batch.select(torch.zeros(batch.graph.n_systems, dtype=torch.bool))


def reorder_atoms(batch: Batch) -> Batch:
    """The same batch with the atoms of every structure in reverse order."""
    graph = batch.graph
    index = index_in_system(graph.system, graph.atoms_per_system)
    last = torch.cumsum(graph.atoms_per_system, 0) - 1
    order = last[graph.system] - index  # its own inverse
    moved = replace(graph, positions=graph.positions[order], species=graph.species[order], edges=order[graph.edges])
    labels = batch.labels._replace(forces=batch.labels.forces[order])
    if labels.guide is not None:
        labels = labels._replace(guide=labels.guide[order])
    return batch._replace(graph=moved, labels=labels)


def turn(batch: Batch, rotation: Tensor) -> Batch:
    """The same batch in another orientation: structures and labels multiplied by ``rotation``, (3, 3) orthogonal."""
    graph, labels = batch.graph, batch.labels
    moved = replace(graph, positions=graph.positions @ rotation.T, cell=graph.cell @ rotation.T)
    labels = labels._replace(forces=labels.forces @ rotation.T, stress=rotation @ labels.stress @ rotation.T)
    if labels.guide is not None:
        labels = labels._replace(guide=labels.guide @ rotation.T)
    return batch._replace(graph=moved, labels=labels)


def term(objective: Objective, batch: Batch, potential: nn.Module) -> Term:
    """The objective on a batch, every pass made anew."""
    return objective(batch, Evaluator(cast(Potential, potential), stress=True))


def gradient(objective: Objective, batch: Batch, potential: nn.Module) -> Tensor:
    """(parameters,) derivative of the objective's sum, zero where it does not depend on a parameter."""
    return _gradient(term(objective, batch, potential).total, potential)


def _gradient(total: Tensor, potential: nn.Module) -> Tensor:
    parameters = [parameter for parameter in potential.parameters() if parameter.requires_grad]
    if not total.requires_grad:
        return torch.zeros(sum(parameter.numel() for parameter in parameters), dtype=total.dtype)
    found = torch.autograd.grad(total, parameters, allow_unused=True)
    filled = (torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True))
    return torch.cat([part.reshape(-1) for part in filled])


def _same(one: Tensor, other: Tensor, what: str) -> None:
    torch.testing.assert_close(one, other, rtol=TOLERANCE, atol=TOLERANCE, msg=lambda text: f"{what}: {text}")


def check_finite(objective: Objective, singles: Sequence[Batch], potential: nn.Module) -> None:
    """Sum and gradient are finite, the gradient is not zero, and the count is positive."""
    total, count = term(objective, join(singles), potential)
    assert total.shape == count.shape == (), "total and count must be scalars"
    assert total.dtype == count.dtype == torch.float64, "total and count must be float64"
    assert torch.isfinite(total), f"total is {total}"
    assert count > 0, "nothing was counted"
    slope = gradient(objective, join(singles), potential)
    assert torch.isfinite(slope).all(), "the gradient is not finite"
    assert slope.abs().max() > 0, "no gradient reaches the parameters"


def check_composition(objective: Objective, singles: Sequence[Batch], potential: nn.Module) -> None:
    """A batch gives the sum of its structures, in any order: totals, counts and gradients."""
    for batch in (join(singles), join(singles[::-1])):
        together = term(objective, batch, potential)
        apart = [term(objective, single, potential) for single in singles]
        _same(together.total, torch.stack([one.total for one in apart]).sum(), "batch against singles")
        _same(together.count, torch.stack([one.count for one in apart]).sum(), "count of batch against singles")
        slopes = torch.stack([gradient(objective, single, potential) for single in singles])
        _same(gradient(objective, batch, potential), slopes.sum(0), "gradient of batch against singles")


def check_translation(objective: Objective, singles: Sequence[Batch], potential: nn.Module) -> None:
    """Nothing changes when structures are moved as a whole."""
    batch = join(singles)
    shift = torch.arange(3 * batch.graph.n_systems, dtype=torch.float64).reshape(-1, 3) / 7
    moved = batch._replace(graph=batch.graph.displaced(shift[batch.graph.system]))
    _same(term(objective, batch, potential).total, term(objective, moved, potential).total, "translation")


def check_permutation(objective: Objective, singles: Sequence[Batch], potential: nn.Module) -> None:
    """The order of the atoms does not matter; objectives that draw a number for each atom are left out."""
    if objective.reach > 0:
        return
    batch = join(singles)
    one, other = (term(objective, which, potential) for which in (batch, reorder_atoms(batch)))
    _same(one.total, other.total, "permutation of atoms")


def check_rotation(objective: Objective, singles: Sequence[Batch], potential: nn.Module) -> None:
    """The orientation does not matter; objectives that draw a direction are left out."""
    if objective.reach > 0 or objective.relative_reach > 0:
        return
    batch = join(singles)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(5)).double()).Q
    one, other = (term(objective, which, potential) for which in (batch, turn(batch, rotation)))
    _same(one.total, other.total, "rotation")


def check_weight(objective: Objective, singles: Sequence[Batch], potential: nn.Module) -> None:
    """The weight of a structure is a factor of its part of the sum and leaves the count alone."""
    batch = join(singles)
    heavier = batch._replace(labels=batch.labels._replace(weight=3 * batch.labels.weight))
    one, other = (term(objective, which, potential) for which in (batch, heavier))
    _same(3 * one.total, other.total, "weights tripled")
    _same(one.count, other.count, "count with weights tripled")


def check_unlabelled(objective: Objective, singles: Sequence[Batch], potential: nn.Module) -> None:
    """A structure without the labels in ``needs`` adds nothing: to the sum, to the count, to the gradient."""
    if not objective.needs:
        return
    without = [single._replace(labels=bare(single.graph)) for single in singles]
    total, count = term(objective, join(without), potential)
    assert total == 0, f"no labels, but a total of {total}"
    assert count == 0, f"no labels, but a count of {count}"
    assert (gradient(objective, join(without), potential) == 0).all(), "no labels, but a gradient"
    beside = join([*singles, *without])
    _same(
        term(objective, beside, potential).total, term(objective, join(singles), potential).total, "unlabelled beside"
    )
    slopes = [gradient(objective, batch, potential) for batch in (beside, join(singles))]
    _same(slopes[0], slopes[1], "gradient with unlabelled structures beside")


def check_empty(objective: Objective, singles: Sequence[Batch], potential: nn.Module) -> None:
    """No structures, as on a process that has run out of data: zero, not an error."""
    total, count = term(objective, empty(singles[0]), potential)
    assert total == 0, f"no structures, but a total of {total}"
    assert count == 0, f"no structures, but a count of {count}"


def check_shared_pass(objective: Objective, singles: Sequence[Batch], potential: nn.Module) -> None:
    """What it says it asks for may be evaluated together with anything else."""
    batch, other = join(singles), join(singles[:2])
    model = Evaluator(cast(Potential, potential), stress=True)
    model.join([*objective.asks_forces_of(batch, model), batch.graph, other.graph])
    total, apart = objective(batch, model).total, term(objective, batch, potential).total
    _same(total, apart, "a pass shared with other structures")
    _same(_gradient(total, potential), _gradient(apart, potential), "gradient, a pass shared with other structures")


def check_gradient(objective: Objective, singles: Sequence[Batch], potential: nn.Module) -> None:
    """The gradient against a difference of the sum along a random direction of the parameters.

    For objectives without a stop-gradient: adversarial directions, for example, are constants to the gradient.
    """
    batch, parameters = join(singles), [p for p in potential.parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(7)
    moves = [torch.randn(p.shape, generator=generator).to(p) for p in parameters]
    exact = float(gradient(objective, batch, potential) @ torch.cat([move.reshape(-1) for move in moves]))
    ends, step = [], 1e-5
    for factor in (step, -2 * step, step):  # there, to the other side, and back
        for parameter, move in zip(parameters, moves, strict=True):
            parameter.data += factor * move
        ends.append(float(term(objective, batch, potential).total.detach()))
    slope = (ends[0] - ends[1]) / (2 * step)
    assert abs(slope - exact) <= 1e-5 * abs(exact) + 1e-8, f"gradient {exact}, by differences {slope}"


CHECKS: tuple[Callable[[Objective, Sequence[Batch], nn.Module], None], ...] = (
    check_finite,
    check_composition,
    check_translation,
    check_permutation,
    check_rotation,
    check_weight,
    check_unlabelled,
    check_empty,
    check_shared_pass,
)
"""Every check takes the objective, batches of one structure each, and a potential in float64."""

"""Objectives: what training minimises. One file is one kind.

An objective is its own configuration: a pydantic class with a ``weight`` that is called with a batch and a model
and returns a :class:`Term`. It is handed the *model*, not finished predictions, so that it may evaluate structures
of its own making; passes that several objectives need are made once (see :class:`Evaluator`).
"""

from abc import abstractmethod
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from phystrain.derive import Derivation, Potential, Prediction
from phystrain.graph import AtomGraph
from phystrain.labels import Batch
from phystrain.registry import PluginConfig


class Term(NamedTuple):
    """A sum and how many things were summed. The mean is taken once, over all processes.

    Attributes:
        total: () sum, differentiable.
        count: () number of things summed, float64.
    """

    total: Tensor
    count: Tensor  # type: ignore[assignment]  # the field's word; a tuple's own count() is not missed


class Evaluator:
    """A potential as objectives see it: every pass through it is made once per step.

    Args:
        potential: the potential in training.
        stress: whether an objective may ask for stress.
        create_graph: keep derivatives differentiable; false for validation.
    """

    def __init__(self, potential: Potential, *, stress: bool = False, create_graph: bool = True) -> None:
        self._potential = potential
        self._stress = stress
        self._create_graph = create_graph
        self._passes: dict[int, tuple[AtomGraph, Derivation]] = {}
        self._graphs: dict[Hashable, AtomGraph] = {}

    def predict(self, graph: AtomGraph, want: tuple[str, ...]) -> Prediction:
        """Energy, forces or stress of ``graph``, memoised by the identity of the graph.

        Derivatives are taken when they are first asked for, so energy and forces of one graph cost one pass.
        """
        derivation = self._derivation(graph)
        return Prediction(
            energy=derivation.energy() if "energy" in want else None,
            forces=derivation.forces() if "forces" in want else None,
            stress=derivation.stress() if "stress" in want else None,
        )

    def _derivation(self, graph: AtomGraph) -> Derivation:
        if id(graph) not in self._passes:  # the graph is kept too, so that its identity is not used again
            derivation = Derivation(self._potential, graph, stress=self._stress, create_graph=self._create_graph)
            self._passes[id(graph)] = (graph, derivation)
        return self._passes[id(graph)][1]

    def slope(
        self, graph: AtomGraph, want: tuple[str, ...], value: Callable[[Prediction], Tensor]
    ) -> Float[Tensor, "atoms 3"]:
        """Derivative with respect to positions of a number that is made of predictions; detached.

        Args:
            graph: the structures; in training the pass is that of :meth:`predict`.
            want: what ``value`` is made of.
            value: () from the prediction.

        Returns:
            (atoms, 3) units of ``value`` per Å.
        """
        model = self if self._create_graph else Evaluator(self._potential)
        with torch.enable_grad():
            return model._derivation(graph).slope(value(model.predict(graph, want)))

    def shared(self, name: Hashable, make: Callable[[], AtomGraph]) -> AtomGraph:
        """The graph of that name, made on first use: objectives that displace alike share the pass."""
        if name not in self._graphs:
            self._graphs[name] = make()
        return self._graphs[name]


class Objective(PluginConfig):
    """Base of every objective.

    Attributes:
        weight: factor of the mean in the loss.
    """

    weight: float = Field(default=1.0, ge=0, description="factor of the mean in the loss")

    @property
    def needs(self) -> frozenset[str]:
        """Labels that it cannot do without: structures that lack them do not count. A class attribute will do."""
        return frozenset()

    @property
    def uses(self) -> frozenset[str]:
        """Labels that steer it where there are any, of which the data must have some."""
        return frozenset()

    @property
    def asks(self) -> frozenset[str]:
        """Quantities that it has predicted without a label, besides energy and forces; stress costs a strain."""
        return frozenset()

    @property
    def validated(self) -> bool:
        """Whether it is an error against labels, which says how good a potential is on held-out structures."""
        return bool(self.needs)

    @property
    def relative_reach(self) -> float:
        """Largest shortening of a distance that it causes, as a share of the distance; below one."""
        return 0.0

    @property
    def reach(self) -> float:
        """Å, half the largest change of a pair distance that it causes; the neighbour list gets twice this reserve."""
        return 0.0

    @abstractmethod
    def __call__(self, batch: Batch, model: Evaluator) -> Term:
        """The sum over the structures of ``batch`` and the number of things summed."""


def masked_sum(squared: Tensor, weight: Tensor, labelled: Tensor) -> Term:
    """Weighted sum over what is labelled.

    Args:
        squared: (n, ...) finite everywhere, also where ``labelled`` is false.
        weight: (n,) factor of each row.
        labelled: (n, ...) which entries count.
    """
    shape = (-1, *[1] * (squared.dim() - 1))
    total = torch.where(labelled, squared * weight.reshape(shape), torch.zeros_like(squared)).sum()
    return Term(total.to(torch.float64), labelled.sum().to(torch.float64))


def parse(settings: dict[str, Any]) -> dict[str, Objective]:
    """``{"energy": {}, "mine": {"kind": "pitc"}}`` to objectives by name; the name is the kind unless one is given."""
    from phystrain import registry

    return {
        name: registry.parse("objectives", {"kind": name, **value} if isinstance(value, dict) else value)
        for name, value in settings.items()
    }

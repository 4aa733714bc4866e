"""Objectives: what training minimises. One file is one kind.

An objective is its own configuration: a pydantic class with a ``weight`` that is called with a batch and a model
and returns a :class:`Term`. It is handed the *model*, not finished predictions, so that it may evaluate structures
of its own making; passes that several objectives need are made once (see :class:`Evaluator`).
"""

from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable
from typing import Annotated, Any, Literal, NamedTuple, cast

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor

from phystrain.derive import Denoised, Denoiser, Derivation, Potential, Prediction
from phystrain.errors import UserError
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


_JOINED_EDGES = {"cpu": 10_000, "cuda": 1_000_000}
"""Up to how many edges structures share a pass: small passes cost what they cost at any size. Measured on a processor
(docs/decisions.md): half the time for one molecule, nothing gained at 10,000 edges. That of a GPU is a guess."""


class Evaluator:
    """A potential as objectives see it: every pass through it is made once per step.

    Args:
        potential: the potential in training.
        stress: whether an objective may ask for stress.
        create_graph: keep derivatives differentiable; false for validation.
        plain: the same potential where ``potential`` is compiled and cannot be differentiated by positions twice.
        gradient: whether an objective may ask for the gradient of the energy beside forces of a direct head; without
            ``plain`` it always may.
    """

    def __init__(
        self,
        potential: Potential,
        *,
        stress: bool = False,
        create_graph: bool = True,
        plain: Potential | None = None,
        gradient: bool = True,
    ) -> None:
        self._potential = potential
        self._plain = potential if plain is None else plain
        self._gradient = gradient or self._plain is potential
        self._stress = stress
        self._create_graph = create_graph
        self._passes: dict[int, tuple[AtomGraph, Derivation]] = {}
        self._graphs: dict[Hashable, AtomGraph] = {}
        self._known: dict[int, set[str]] = {}
        self._parts: dict[int, tuple[AtomGraph, AtomGraph, Tensor]] = {}
        self._joined: dict[int, _Place] = {}

    def join(self, graphs: Iterable[AtomGraph]) -> None:
        """Say that the forces of all of these will be asked for: where that is faster, they share a pass.

        What :meth:`part_of` was told of is left out, and so is what has had its pass.
        """
        fresh = {id(graph): graph for graph in graphs if not self._is_known(graph)}
        self._joined |= _places(list(fresh.values()))

    def predict(self, graph: AtomGraph, want: tuple[str, ...]) -> Prediction:
        """Energy, forces or stress of ``graph``, memoised by the identity of the graph.

        Derivatives are taken when they are first asked for, so energy and forces of one graph cost one pass. What
        the pass of a whole batch knows already is read from there for a part of it (see :meth:`part_of`).
        """
        if id(graph) in self._parts and id(graph) not in self._passes:
            _, whole, systems = self._parts[id(graph)]
            if set(want) <= self._known.get(id(whole), set()):
                return _selected(self.predict(whole, want), systems, systems[whole.system])
        self._known.setdefault(id(graph), set()).update(want)
        if id(graph) in self._joined:
            _, whole, mine, atoms = self._joined[id(graph)]
            return _selected(self.predict(whole, want), mine, atoms)
        derivation = self._derivation(graph)
        return Prediction(
            energy=derivation.energy() if "energy" in want else None,
            forces=derivation.forces() if "forces" in want else None,
            stress=derivation.stress() if "stress" in want else None,
        )

    def gradient(self, graph: AtomGraph) -> Float[Tensor, "atoms 3"]:
        """(atoms, 3) eV/Å, of the energy of each structure by its positions: minus the forces, but for a direct head.

        From the pass of :meth:`predict`, in the same way.
        """
        if id(graph) in self._parts and id(graph) not in self._passes:
            _, whole, systems = self._parts[id(graph)]
            if "gradient" in self._known.get(id(whole), set()):
                return self.gradient(whole)[systems[whole.system]]
        self._known.setdefault(id(graph), set()).add("gradient")
        if id(graph) in self._joined:
            _, whole, _, atoms = self._joined[id(graph)]
            return self.gradient(whole)[atoms]
        return self._derivation(graph).gradient()

    def energies_alone(self, *graphs: AtomGraph) -> list[Float[Tensor, " systems"]]:
        """(systems,) eV each, of structures of which nothing else will be asked: cheaper, as nothing is differentiated.

        Read from the pass of :meth:`predict` where there is one, else from one that is not memoised.
        """
        places = _places([graph for graph in graphs if not self._is_known(graph)])
        if not places:
            return [self._energy_alone(graph) for graph in graphs]
        together = self._energy_alone(next(iter(places.values())).whole)
        return [
            together[places[id(graph)].systems] if id(graph) in places else self._energy_alone(graph)
            for graph in graphs
        ]

    def _energy_alone(self, graph: AtomGraph) -> Float[Tensor, " systems"]:
        if self._is_known(graph):
            energy = self.predict(graph, ("energy",)).energy
            assert energy is not None
            return energy
        with torch.set_grad_enabled(self._create_graph):
            return graph.sum_per_system(self._potential.atomic_energies(graph).to(torch.float64))

    def _is_known(self, graph: AtomGraph) -> bool:
        """Whether there is a pass that has this graph in it, or will be."""
        return id(graph) in self._passes or id(graph) in self._parts or id(graph) in self._joined

    def _derivation(self, graph: AtomGraph) -> Derivation:
        if id(graph) not in self._passes:  # the graph is kept too, so that its identity is not used again
            derivation = Derivation(
                self._potential,
                graph,
                stress=self._stress,
                create_graph=self._create_graph,
                gradient=self._gradient,
            )
            self._passes[id(graph)] = (graph, derivation)
        return self._passes[id(graph)][1]

    def slope(
        self, graph: AtomGraph, want: tuple[str, ...], value: Callable[[Prediction], Tensor]
    ) -> Float[Tensor, "atoms 3"]:
        """Derivative with respect to positions of a number that is made of predictions; detached.

        Args:
            graph: the structures; in training the pass is that of :meth:`predict`, unless that is compiled.
            want: what ``value`` is made of.
            value: () from the prediction.

        Returns:
            (atoms, 3) units of ``value`` per Å.
        """
        own = self._create_graph and self._plain is self._potential
        model = self if own else Evaluator(self._plain)
        with torch.enable_grad():
            # the pass is made before the prediction, which for a part might be read from that of the whole
            if id(graph) not in model._joined:
                return model._derivation(graph).slope(value(model.predict(graph, want)))
            _, whole, _, atoms = model._joined[id(graph)]
            return model._derivation(whole).slope(value(model.predict(graph, want)))[atoms]

    def denoised(self, corrupted: AtomGraph, forces: Float[Tensor, "atoms 3"], original: AtomGraph) -> Denoised:
        """What the potential says of structures from corrupted copies (see :class:`phystrain.derive.Denoiser`).

        Raises:
            UserError: the potential cannot denoise.
        """
        if not getattr(self._plain, "denoises", False):
            raise UserError("denoise: the potential has no noise head; train a painn with 'denoise: true'")
        with torch.set_grad_enabled(self._create_graph):
            return cast(Denoiser, self._plain).denoised(corrupted, forces, original)

    def part_of(self, whole: AtomGraph, systems: Bool[Tensor, " systems"], part: AtomGraph) -> None:
        """Say that a graph is a selection from another: predictions for it may be read from the other's pass.

        That is done only for quantities that something has asked of the whole by then: to take the forces of a whole
        batch for the sake of a few structures would cost more than a pass through these few.
        """
        self._parts[id(part)] = (part, whole, systems)

    def shared(self, name: Hashable, make: Callable[[], AtomGraph]) -> AtomGraph:
        """The graph of that name, made on first use: objectives that displace alike share the pass."""
        if name not in self._graphs:
            self._graphs[name] = make()
        return self._graphs[name]


class _Place(NamedTuple):
    """Where a graph is in one that it was joined into; it is kept, so that its identity is not used again."""

    graph: AtomGraph
    whole: AtomGraph
    systems: slice
    atoms: slice


def _places(graphs: list[AtomGraph]) -> dict[int, _Place]:
    """Places in the union of the graphs by identity; none where passes of their own are as fast."""
    edges = sum(graph.edges.shape[1] for graph in graphs)
    if len(graphs) < 2 or edges > _JOINED_EDGES.get(graphs[0].positions.device.type, 0):
        return {}
    whole = AtomGraph.concatenate(graphs)
    found, systems, atoms = {}, 0, 0
    for graph in graphs:
        mine = slice(systems, systems + graph.n_systems), slice(atoms, atoms + graph.n_atoms)
        found[id(graph)] = _Place(graph, whole, *mine)
        systems, atoms = mine[0].stop, mine[1].stop
    return found


def _selected(prediction: Prediction, systems: Tensor | slice, atoms: Tensor | slice) -> Prediction:
    """Of some structures."""
    energy, forces, stress = prediction
    return Prediction(
        energy=None if energy is None else energy[systems],
        forces=None if forces is None else forces[atoms],
        stress=None if stress is None else stress[systems],
    )


Weight = Annotated[float, Field(ge=0)] | Literal["auto"]
"""Factor of a part of the loss, or the word that leaves it to be measured."""


class Objective(PluginConfig):
    """Base of every objective.

    Attributes:
        weight: factor of the mean in the loss; ``auto``, for terms without labels only: such that its gradient stays a
            fraction of that of the rest of the loss (see :mod:`phystrain.train.balance`).
        every: it is applied on every n-th step only, its weight then times n, so that the loss is the same on average.
        part: it is applied to this part of the structures of a batch, drawn at random by their keys; their mean
            estimates that of the batch.
        warmup: steps of the stage before it acts.
        ramp: steps after these over which its weight rises linearly.
    """

    weight: Weight = Field(
        default=1.0, description="factor of the mean in the loss; auto holds a term without labels at a share of it"
    )
    every: int = Field(default=1, ge=1, description="apply it on every n-th step only, at n times the weight")
    part: float = Field(default=1.0, gt=0, le=1, description="apply it to this random part of the structures")
    warmup: int = Field(default=0, ge=0, description="steps before it acts")
    ramp: int = Field(default=0, ge=0, description="steps over which its weight then rises to the full one")

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
        """Quantities that it has predicted without a label, besides energy and forces.

        ``stress`` costs a strain, ``noise`` takes a potential that can denoise, ``gradient`` one
        with a direct force head.
        """
        return frozenset()

    @property
    def validated(self) -> bool:
        """Whether it is an error against labels, which says how good a potential is on held-out structures."""
        return bool(self.needs)

    @property
    def relative_reach(self) -> float:
        """Largest shortening of a distance that it causes, as a share of the distance; below one."""
        return 0.0

    @model_validator(mode="after")
    def _balanced_without_labels(self) -> "Objective":
        if self.weight == "auto" and self.validated:
            raise ValueError(f"weight: auto is for terms without labels; give the weight of {self.kind} as a number")
        return self

    @property
    def reach(self) -> float:
        """Å, half the largest change of a pair distance that it causes; the neighbour list gets twice this reserve."""
        return 0.0

    def asks_forces_of(self, batch: Batch, model: Evaluator) -> list[AtomGraph]:  # noqa: ARG002
        """Structures whose forces it will ask ``model`` for, as far as they can be named without asking it anything.

        Those of all terms may then share a pass (:meth:`Evaluator.join`); to leave some out costs time, nothing else.
        """
        return []

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

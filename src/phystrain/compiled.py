"""Networks compiled for long dynamics and long trainings: energies and their gradient in one fused pass.

A network that sees positions only through the vectors of its edges (class attribute ``edgewise``) is differentiated
with respect to those and compiled once for all sizes (``torch.compile``, dynamic shapes). In training the compiled pass
is differentiated once more, by its parameters: autograd cannot differentiate compiled code twice, but the first
derivative is inside it. The compiled code is kept by torch between processes, also for other weights of the same
network. Everything else runs as it is.
"""

import copy
import importlib
import logging
import shutil
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from phystrain.derive import Potential
from phystrain.graph import AtomGraph

log = logging.getLogger(__name__)

WORTH = 60.0
"""Seconds of uncompiled work ahead from which compiling pays: it takes 20 to 40 s the first time, 5 s after that."""

WORTH_TRAINING = 300.0
"""The same of training: half a minute (painn) to two minutes (tensornet) the first time, for steps 1.6 to 3.5 times as
fast."""

_AGREEMENT = 1e-3
"""Largest difference between compiled and plain results, relative to the largest of them, at the first use."""

_VARIANTS = 64
"""How many networks and kinds of sizes one process may compile; torch's own limit is for loops gone wrong."""


def faster(potential: nn.Module, *, training: bool = False) -> nn.Module:
    """The same potential with its networks compiled; weights are shared, derivatives are first derivatives only.

    Compiling happens at the first evaluation. Where it fails, or gives something else than the plain network, a
    warning is logged and the plain network is used.

    Args:
        potential: terms of sums and frozen potentials (attribute ``additive``) are compiled one by one.
        training: energies, their gradient, forces and stresses can be differentiated by the parameters, and by nothing
            else: a derivative of them by positions is left out without a word. Networks without trained parameters
            stay plain.

    Returns:
        ``potential`` itself where there is nothing to compile.
    """
    direct = hasattr(potential, "heads")
    if getattr(potential, "edgewise", False):
        if not training:
            return (_CompiledForces if direct else _Compiled)(potential)
        trained = any(parameter.requires_grad for parameter in potential.parameters())
        return (_CompiledHeads if direct else _CompiledTraining)(potential) if trained else potential
    # the gradient of one term is that of the whole only where terms are added, not where they are multiplied
    inside = any(getattr(module, "edgewise", False) for module in potential.modules())
    if not inside or not (isinstance(potential, nn.ModuleDict) or getattr(potential, "additive", False)):
        return potential
    changed = copy.copy(potential)  # shares parameters; only the table of children is new
    changed._modules = {
        name: None if child is None else faster(child, training=training) for name, child in potential._modules.items()
    }
    same = all(changed._modules[name] is child for name, child in potential._modules.items())
    return potential if same else changed


def available() -> bool:
    """Whether this machine has the compiler that torch needs."""
    return any(shutil.which(name) for name in ("g++", "c++", "clang++"))


@dataclass(frozen=True, eq=False)
class _EdgeGraph(AtomGraph):
    """A graph of which nothing is known but species, edges and the vectors along them."""

    # properties that are not kept: the lock of Python 3.11's cached_property cannot be compiled

    given: Tensor

    @property
    def vectors(self) -> Float[Tensor, "edges 3"]:
        return self.given

    @property
    def distances(self) -> Float[Tensor, " edges"]:
        return torch.linalg.vector_norm(self.given, dim=1)


class _Traced(nn.Module):
    """What is compiled: a function of edge vectors, species and edges that makes tensors."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def graph(self, vectors: Tensor, species: Tensor, edges: Tensor) -> _EdgeGraph:
        """The graph that the network sees."""
        cell = vectors.new_zeros(1, 3, 3)
        return _EdgeGraph(
            positions=vectors.new_zeros(len(species), 3),
            species=species,
            system=torch.zeros_like(species),
            cell=cell,
            pbc=cell[:, 0] > 0,
            edges=edges,
            shifts=torch.zeros_like(vectors),
            cutoff=self.network.cutoff,
            given=vectors,
        )


class _Differentiated(_Traced):
    """Atomic energies and the gradient of their sum with respect to the edge vectors."""

    def forward(
        self, vectors: Float[Tensor, "edges 3"], species: Int[Tensor, " atoms"], edges: Int[Tensor, "2 edges"]
    ) -> tuple[Float[Tensor, " atoms"], Float[Tensor, "edges 3"]]:
        def energy(given: Tensor) -> tuple[Tensor, Tensor]:
            atomic = self.network.atomic_energies(self.graph(given, species, edges))
            return atomic.sum(), atomic

        gradient, (_, atomic) = torch.func.grad_and_value(energy, has_aux=True)(vectors)
        return atomic, gradient


class _WithHeads(_Traced):
    """Atomic energies, and forces that are an output of their own."""

    def forward(
        self, vectors: Float[Tensor, "edges 3"], species: Int[Tensor, " atoms"], edges: Int[Tensor, "2 edges"]
    ) -> tuple[Float[Tensor, " atoms"], Float[Tensor, "atoms 3"]]:
        return cast(tuple[Tensor, Tensor], self.network.heads(self.graph(vectors, species, edges)))


class _WithHeadsDifferentiated(_Traced):
    """Atomic energies, forces that are an output of their own, and the gradient of the energies by the edge vectors."""

    def forward(
        self, vectors: Float[Tensor, "edges 3"], species: Int[Tensor, " atoms"], edges: Int[Tensor, "2 edges"]
    ) -> tuple[Float[Tensor, " atoms"], Float[Tensor, "atoms 3"], Float[Tensor, "edges 3"]]:
        def energy(given: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            atomic, forces = self.network.heads(self.graph(given, species, edges))
            return atomic.sum(), (atomic, forces)

        gradient, (_, (atomic, forces)) = torch.func.grad_and_value(energy, has_aux=True)(vectors)
        return atomic, forces, gradient


class _EnergiesAlone(_Traced):
    """Atomic energies."""

    def forward(
        self, vectors: Float[Tensor, "edges 3"], species: Int[Tensor, " atoms"], edges: Int[Tensor, "2 edges"]
    ) -> tuple[Float[Tensor, " atoms"]]:
        return (cast(Tensor, self.network.atomic_energies(self.graph(vectors, species, edges))),)


class _Code:
    """A traced network that is compiled, and compared with the plain one, when it is first used.

    Args:
        traced: what is compiled.
        training: whether results are differentiated by the parameters.
    """

    def __init__(self, traced: _Traced, *, training: bool) -> None:
        self._traced, self._training = traced, training
        if training:
            # objectives may ask for gradients of parts of the loss: buffers must outlive the first of them. For good,
            # because torch looks at this when it compiles and again whenever it differentiates
            importlib.import_module("torch._functorch.config").donated_buffer = False  # type: ignore[attr-defined]
        self._run: Any = torch.compile(traced, dynamic=True, fullgraph=True)
        self._checked, self._plain = False, False

    def is_ready(self, graph: AtomGraph) -> bool:
        """Whether compiled code can be used; the first time it is compiled and compared."""
        # sizes zero and one would each be compiled for themselves
        if self._plain or graph.n_atoms < 2 or graph.edges.shape[1] < 2:
            return False
        if not self._checked:
            self._check(graph)  # by plain code, which also refuses elements that the network does not know
            return False
        return True

    def __call__(self, vectors: Tensor, species: Tensor, edges: Tensor) -> Any:
        """Results of the traced network."""
        with torch._dynamo.config.patch(recompile_limit=_VARIANTS), torch.set_grad_enabled(self._training):
            return self._run(vectors, species, edges)

    def _check(self, graph: AtomGraph) -> None:
        self._checked = True
        name = type(self._traced.network).__name__
        given = graph.vectors.detach(), graph.species, graph.edges  # before gradients may be off: vectors are kept
        expected = self._figures(self._traced, *given)
        try:
            found = self._figures(self, *given)
        except Exception as error:  # whatever the compiler may raise, the plain network still works
            log.warning("%s: not compiled (%s)", name, str(error).strip().splitlines()[0])
            self._plain = True
            return
        if not all(map(_alike, found, expected)):
            log.warning("%s: compiled code gives other energies or forces; not used", name)
            self._plain = True

    def _figures(self, run: Any, *given: Tensor) -> list[Tensor]:
        """What compiled and plain network must agree on: results, and derivatives of a sum by all parameters."""
        with torch.set_grad_enabled(self._training):
            results = run(*given)
            figures = [result.detach() for result in results]
            if self._training:
                trained = [parameter for parameter in self._traced.parameters() if parameter.requires_grad]
                # a sum of squares, because the plain sum of a gradient hardly depends on anything
                total = results[0].sum() + sum(result.square().sum() for result in results[1:])
                slopes = torch.autograd.grad(total, trained, allow_unused=True)
                figures.append(torch.cat([slope.flatten() for slope in slopes if slope is not None]))
        return figures


class _Compiled(nn.Module):
    """A network for dynamics."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.cutoff = float(cast(Potential, network).cutoff)
        self._pass = _Code(_Differentiated(network), training=False)

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV."""
        graph = graph.within(self.cutoff)
        if not self._pass.is_ready(graph):
            return cast(Potential, self.network).atomic_energies(graph)
        return cast(Tensor, _Known.apply(graph.vectors, graph.species, graph.edges, self._pass))


class _CompiledForces(_Compiled):
    """A network with a direct force head, for dynamics."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self._heads = _Code(_WithHeads(network), training=False)

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV, as they are: nothing that is asked for often needs them without the forces."""
        return cast(Potential, self.network).atomic_energies(graph)

    def heads(self, graph: AtomGraph) -> tuple[Float[Tensor, " atoms"], Float[Tensor, "atoms 3"]]:
        """Atomic energies (atoms,) eV and forces (atoms, 3) eV/Å, without derivatives but those of the energy."""
        graph = graph.within(self.cutoff)
        if not self._heads.is_ready(graph):
            network: Any = self.network
            return cast(tuple[Tensor, Tensor], network.heads(graph))
        atomic, forces = self._heads(graph.vectors.detach(), graph.species, graph.edges)
        if graph.cell.requires_grad:  # for the stress, which is a derivative of the energy
            atomic = super().atomic_energies(graph)
        return cast(Tensor, atomic), cast(Tensor, forces)


class _CompiledTraining(nn.Module):
    """A network whose energies and forces are made in one compiled pass that can be differentiated by its parameters.

    Without gradients (validation), it is the plain network. Passes that need no derivative by positions have code of
    their own.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.cutoff = float(cast(Potential, network).cutoff)
        self._pass = _Code(self._traced(network), training=True)
        self._alone = _Code(_EnergiesAlone(network), training=True)

    def _traced(self, network: nn.Module) -> _Traced:
        return _Differentiated(network)

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV."""
        graph = graph.within(self.cutoff)
        vectors = graph.vectors
        code = self._pass if vectors.requires_grad else self._alone
        if not torch.is_grad_enabled() or not code.is_ready(graph):
            return cast(Potential, self.network).atomic_energies(graph)
        results = code(vectors.detach(), graph.species, graph.edges)
        return cast(Tensor, _Attached.apply(vectors, *results) if vectors.requires_grad else results[0])


class _CompiledHeads(_CompiledTraining):
    """A network with energies and forces of their own, both made in one compiled pass.

    The gradient of the energy is in that pass where positions or the cell ask for one.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self._sloped = _Code(_WithHeadsDifferentiated(network), training=True)

    def _traced(self, network: nn.Module) -> _Traced:
        return _WithHeads(network)

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV, without a derivative by positions or cell."""
        return super().atomic_energies(replace(graph, positions=graph.positions.detach(), cell=graph.cell.detach()))

    def heads(self, graph: AtomGraph) -> tuple[Float[Tensor, " atoms"], Float[Tensor, "atoms 3"]]:
        """Atomic energies (atoms,) eV and forces (atoms, 3) eV/Å."""
        graph = graph.within(self.cutoff)
        vectors = graph.vectors
        code = self._sloped if vectors.requires_grad else self._pass
        if torch.is_grad_enabled() and code.is_ready(graph):
            results = code(vectors.detach(), graph.species, graph.edges)
            if vectors.requires_grad:
                atomic, forces, gradient = results
                return cast(Tensor, _Attached.apply(vectors, atomic, gradient)), forces
            return cast(tuple[Tensor, Tensor], results)
        network: Any = self.network
        return cast(tuple[Tensor, Tensor], network.heads(graph))


def _alike(found: Tensor, expected: Tensor) -> bool:
    """Whether two tensors differ by little beside the largest entry; a NaN is not the same."""
    limit = _AGREEMENT * max(float(expected.abs().max()), 1e-6)
    return bool(float((found - expected).abs().max()) <= limit)


class _Attached(torch.autograd.Function):
    """Atomic energies whose sum has a gradient by the vectors that is already known, and differentiable itself.

    The sum's gradient is asked for once, for the forces. Whatever else comes back is the loss, of which only the
    derivatives by the parameters are wanted, and these go through the energies and the gradient as they came.
    """

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, atomic: Tensor, gradient: Tensor) -> Tensor:  # noqa: ARG004
        ctx.save_for_backward(gradient)
        return atomic.clone()

    @staticmethod
    def backward(ctx: Any, *weights: Tensor) -> tuple[Tensor | None, Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient if bool((weights[0] == 1).all()) else None, weights[0], None


class _Known(torch.autograd.Function):
    """Atomic energies whose sum has a gradient that is already known."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, species: Tensor, edges: Tensor, run: Any) -> Tensor:
        atomic, gradient = run(vectors, species, edges)
        ctx.save_for_backward(gradient)
        return cast(Tensor, atomic)

    @staticmethod
    def backward(ctx: Any, *weights: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        if not bool((weights[0] == 1).all()):
            raise RuntimeError("a compiled network knows the gradient of the sum of its energies only")
        return gradient, None, None, None

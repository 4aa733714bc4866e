"""Energies to forces and stress: the one place where an energy is differentiated.

A potential gives atomic energies; everything else follows here, in one call of autograd, whether the
potential is a network, an EAM or a sum of both.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from phystrain.graph import AtomGraph

QUANTITIES = ("energy", "forces", "stress")


@runtime_checkable
class Potential(Protocol):
    """What a potential must be: an ``nn.Module`` with a cut-off that gives atomic energies.

    A potential with a direct force head has in addition
    ``heads(graph) -> (atomic energies (atoms,), forces (atoms, 3))``. One that can denoise is a :class:`Denoiser` too.
    """

    cutoff: float

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV. Edges of ``graph`` that are longer than ``cutoff`` must have no effect."""
        ...


class Prediction(NamedTuple):
    """What was asked for; ``None`` for the rest.

    Attributes:
        energy: (systems,) eV, always in float64: total energies lose meV in float32.
        forces: (atoms, 3) eV/Å.
        stress: (systems, 3, 3) eV/Å³; not a number for structures that are not periodic in three directions.
    """

    energy: Float[Tensor, " systems"] | None = None
    forces: Float[Tensor, "atoms 3"] | None = None
    stress: Float[Tensor, "systems 3 3"] | None = None


class Denoised(NamedTuple):
    """What a potential says of structures from their corrupted copies and their forces.

    Attributes:
        energy: (atoms,) eV, whose sum is the energy before the corruption.
        noise: (atoms, 3) what moved each atom, in units of the standard deviation of the noise.
        forces: (atoms, 3) eV/Å before the corruption, from a direct force head; ``None`` without one.
    """

    energy: Float[Tensor, " atoms"]
    noise: Float[Tensor, "atoms 3"]
    forces: Float[Tensor, "atoms 3"] | None = None


class Denoiser(Protocol):
    """What a potential with a noise head has besides.

    Attributes:
        denoises: whether it has this head.
    """

    @property
    def denoises(self) -> bool: ...

    def denoised(self, corrupted: AtomGraph, forces: Float[Tensor, "atoms 3"], original: AtomGraph) -> Denoised:
        """What the corrupted structures were.

        Args:
            corrupted: structures with noise on their positions, neighbour lists complete up to ``cutoff``.
            forces: eV/Å before the corruption, input of the network; zero where nothing is to be said.
            original: the structures before, for what is added to the network and needs no denoising: reference
                energies, a prior.
        """
        ...


class SelfDeriving(Protocol):
    """What a potential has besides whose forces and stress are made elsewhere, such as a calculator of ASE.

    Tests of reliability look at three more attributes, where there are any:
    ``cutoff_known`` (false: ``cutoff`` is no more than the radius of neighbour lists, and tests of it do not apply),
    ``gives_stress`` (false: its stress is not a number), and ``take_failures`` (see
    :class:`phystrain.interfaces.ase_potential.AsePotential`).
    """

    def derived(self, graph: AtomGraph, want: frozenset[str]) -> Prediction:
        """The quantities asked for, detached; not a number for structures of which it has none."""
        ...


def gives_stress(potential: object) -> bool:
    """Whether a potential has stresses; all do that are differentiated here."""
    return bool(getattr(potential, "gives_stress", True))


def cutoff_known(potential: object) -> bool:
    """Whether nothing beyond ``potential.cutoff`` has an effect, so that tests of the cut-off mean something."""
    return bool(getattr(potential, "cutoff_known", True))


class Derivation:
    """One pass through a potential whose derivatives are taken when they are first asked for.

    Args:
        potential: the potential.
        graph: the structures.
        stress: whether stress may be asked for (it needs a strain in the pass).
        create_graph: keep the derivatives differentiable, for training.
        gradient: whether a derivative by positions may be asked for beside forces of a direct head; if not, compiled
            code, which has to know its derivatives beforehand, leaves it out.
    """

    def __init__(
        self, potential: Potential, graph: AtomGraph, *, stress: bool, create_graph: bool, gradient: bool = True
    ) -> None:
        self._create_graph = create_graph
        self._graph = graph
        heads = getattr(potential, "heads", None)
        self._forces: Tensor | None = None
        self._stress: Tensor | None = None
        self._gradient: Tensor | None = None
        with torch.enable_grad():
            leaf = graph.positions.detach().requires_grad_(heads is None or gradient or stress)
            self._leaves = [leaf]
            graph = replace(graph, positions=leaf)
            if stress:
                strain = torch.zeros_like(graph.cell).requires_grad_()
                self._leaves.append(strain)
                graph = graph.strained(strain)
            if heads is None:
                atomic = potential.atomic_energies(graph)
            else:
                atomic, forces = heads(graph)
                self._forces = forces if create_graph else forces.detach()
            self._energy = graph.sum_per_system(atomic.to(torch.float64))

    def energy(self) -> Float[Tensor, " systems"]:
        """(systems,) eV."""
        return self._energy if self._create_graph else self._energy.detach()

    def forces(self) -> Float[Tensor, "atoms 3"]:
        """(atoms, 3) eV/Å: those of the direct head where there is one, else minus the gradient."""
        if self._forces is None:
            self._differentiate()
        assert self._forces is not None
        return self._forces

    def stress(self) -> Float[Tensor, "systems 3 3"]:
        """(systems, 3, 3) eV/Å³, always from the energy."""
        if self._stress is None:
            self._differentiate()
        assert self._stress is not None, "the pass was made without a strain"
        return self._stress

    def gradient(self) -> Float[Tensor, "atoms 3"]:
        """(atoms, 3) eV/Å, derivative of the energy of each structure by its positions, also beside a direct head."""
        if self._gradient is None:
            self._differentiate()
        assert self._gradient is not None
        return self._gradient

    def slope(self, value: Tensor) -> Float[Tensor, "atoms 3"]:
        """(atoms, 3) derivative of ``value``, a number made of this pass's results, by the positions; detached.

        The pass must have been made with ``create_graph``.
        """
        if not value.requires_grad:
            return torch.zeros_like(self._leaves[0])
        (gradient,) = torch.autograd.grad(value, self._leaves[:1], retain_graph=True, allow_unused=True)
        return torch.zeros_like(self._leaves[0]) if gradient is None else gradient

    def _differentiate(self) -> None:
        if not self._energy.requires_grad:  # no atom has a neighbour, and nothing depends on positions
            gradients: list[Tensor | None] = [None] * len(self._leaves)
        else:
            with torch.enable_grad():  # also for a caller who has turned gradients off
                total = self._energy.sum()
            gradients = list(
                torch.autograd.grad(
                    total,
                    self._leaves,
                    create_graph=self._create_graph,
                    retain_graph=self._create_graph,
                    allow_unused=True,
                )
            )
        filled = [
            torch.zeros_like(leaf) if gradient is None else gradient
            for leaf, gradient in zip(self._leaves, gradients, strict=True)
        ]
        self._gradient = filled[0]
        if self._forces is None:
            self._forces = -filled[0]
        if len(filled) == 2:
            # chosen after a division by a finite number: dividing by NaN would put NaN into every gradient
            volumes = self._graph.volumes[:, None, None]
            finite = torch.isfinite(volumes)
            stress = filled[1] / torch.where(finite, volumes, torch.ones_like(volumes))
            self._stress = torch.where(finite, stress, torch.full_like(stress, torch.nan))


def placement(potential: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device of a potential and the precision it computes in; float64 if it holds no single-precision number."""
    device, dtype = torch.device("cpu"), torch.float64
    for tensor in (*potential.parameters(), *potential.buffers()):
        device = tensor.device
        if tensor.is_floating_point() and tensor.dtype != torch.float64:
            return device, tensor.dtype
    return device, dtype


def evaluate(
    potential: Potential, graph: AtomGraph, want: Iterable[str] = ("energy", "forces"), *, create_graph: bool = False
) -> Prediction:
    """Predict energy, forces and stress.

    Args:
        potential: conservative, or with a direct force head; or :class:`SelfDeriving`.
        graph: the structures, with edges up to the potential's cut-off.
        want: any of ``energy``, ``forces``, ``stress``.
        create_graph: keep the result differentiable with respect to the parameters (training). Otherwise the
            result is detached.

    Returns:
        The quantities asked for, ``None`` for the rest.

    Raises:
        ValueError: an unknown quantity, a graph whose edges end before the potential's cut-off, or derivatives of the
            results of a potential that makes them elsewhere.
    """
    wanted = frozenset(want)
    if unknown := wanted - set(QUANTITIES):
        raise ValueError(f"unknown quantity {sorted(unknown)[0]!r}; choose from {', '.join(QUANTITIES)}")
    if graph.cutoff < potential.cutoff - 1e-6:
        raise ValueError(f"the graph ends at {graph.cutoff} Å, the potential needs {potential.cutoff} Å")
    own: Callable[[AtomGraph, frozenset[str]], Prediction] | None = getattr(potential, "derived", None)
    if own is not None:
        if create_graph:
            raise ValueError(f"the results of {type(potential).__name__} cannot be differentiated")
        return own(graph, wanted)
    if wanted == {"energy"} and not create_graph:
        with torch.no_grad():
            atomic = potential.atomic_energies(graph)
            return Prediction(energy=graph.sum_per_system(atomic.to(torch.float64)))
    derivation = Derivation(potential, graph, stress="stress" in wanted, create_graph=create_graph)
    return Prediction(
        energy=derivation.energy() if "energy" in wanted else None,
        forces=derivation.forces() if "forces" in wanted else None,
        stress=derivation.stress() if "stress" in wanted else None,
    )

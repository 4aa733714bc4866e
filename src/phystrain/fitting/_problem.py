"""What a fit makes small: weighted errors of energies, forces and stress, walls, and distance from the start.

    objective = w_F |dF|² / |F|² + w_E |de|² / var(e) + w_S |ds|² / |s|² + walls + ridge

Each of the three is one for a potential that says nothing. e is the energy per atom after the energies of single atoms
were fitted, and so is its error: whatever they can take is projected out exactly (variable projection of Golub and
Pereyra 1973, doi:10.1137/0710036), so that energies never have a constant offset.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from phystrain.data.graphs import GraphStore
from phystrain.data.statistics import LEAST_FORCE, composition
from phystrain.data.structures import Structures
from phystrain.fitting._parameters import Parameters
from phystrain.fitting._walls import walls_of
from phystrain.graph import AtomGraph

CHUNK_EDGES = 40_000
"""Directed edges evaluated together."""

COLUMNS_TIMES_EDGES = 600_000
"""Derivatives with respect to so many parameters at once that this many numbers arise: more fall out of the cache."""

RIDGE = 3e-5
"""Weight of the squared distance of each raw parameter from its start: that of the error of a useful potential (a
relative square of some hundredths) over a thousand labels, so that it decides where the labels do not."""

HOPELESS = 1e30
"""The objective where a potential gives no number."""

LEAST_ENERGY, LEAST_STRESS = 1e-3, 1e-5
"""eV/atom, eV/Å, eV/Å³: smaller spreads of the labels do not raise the weight further."""


@dataclass(frozen=True)
class Weights:
    """Factors of the relative squared errors of energies per atom, forces and stress."""

    energy: float
    forces: float
    stress: float


class Normal(NamedTuple):
    """The objective about a point, to second order (Gauss and Newton).

    Attributes:
        objective: its value.
        gradient: (columns,) half its derivatives.
        hessian: (columns, columns) half its second derivatives without those of the residuals.
    """

    objective: float
    gradient: Float[Tensor, " columns"]
    hessian: Float[Tensor, "columns columns"]


class Chunk(NamedTuple):
    """Structures evaluated together: the energies of all, some forces, some stresses.

    Attributes:
        graph: the structures.
        stress: whether stress is evaluated.
        systems: numbers of the structures within the problem's energies, as a slice; what follows them are walls.
        target: (values,) labels of forces and stress, zero where there are none; minima of the forces of walls.
        scale: (values,) factor of each error, zero where there is no label.
        wall: (values,) 1 where only values below the target count, -1 where only those above it, else 0.
    """

    graph: AtomGraph
    stress: bool
    systems: slice
    target: Float[Tensor, " values"]
    scale: Float[Tensor, " values"]
    wall: Int[Tensor, " values"]


class _Energies(nn.Module):
    """A potential as a module that can be called with other parameters."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, graph: AtomGraph) -> Tensor:
        energies: Tensor = self.model.atomic_energies(graph)  # type: ignore[operator]
        return energies


class Problem:
    """The objective and its derivatives, a function of the vector of raw parameters.

    Args:
        model: the potential without reference energies, in float64.
        parameters: of the model.
        structures: labelled.
        weights: of the quantities.
        reference: eV by atomic number: energies of single atoms to stay near to.
        store: neighbour lists of ``structures``; built if not given.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Parameters,
        structures: Structures,
        weights: Weights,
        reference: dict[int, float],
        store: GraphStore | None = None,
    ) -> None:
        self.parameters = parameters
        self.structures = structures
        self._call = _Energies(model)
        self.cutoff = float(model.cutoff)  # type: ignore[arg-type]
        store = store or GraphStore(structures, self.cutoff)
        self._prepare_energies(structures, weights, reference)
        self.chunks = [*self._labelled_chunks(store, weights)]
        if parameters.shortest and self.cutoff > 0:
            self.chunks[0] = self._with_walls(self.chunks[0])

    # what is compared

    def _prepare_energies(self, structures: Structures, weights: Weights, reference: dict[int, float]) -> None:
        """Labels, scales, and the space that energies of single atoms span."""
        labelled = structures.labelled("energy")
        self._elements = structures.elements
        self._reference = np.array([reference.get(number, 0.0) for number in self._elements])
        counts = composition(structures)
        sizes = structures.sizes
        remainder = np.where(labelled, (structures.energy - counts @ self._reference) / sizes, 0.0)
        root = np.sqrt(np.where(labelled, structures.weight, 0.0) / max(int(labelled.sum()), 1))
        fractions = root[:, None] * counts / sizes[:, None]
        u, singular, vh = np.linalg.svd(fractions, full_matrices=False)
        kept = singular > 1e-7 * max(singular.max(initial=0.0), 1e-300)
        self._space = torch.from_numpy(np.ascontiguousarray(u[:, kept]))
        self._solve = vh[kept].T / singular[kept] @ u[:, kept].T
        spread = float(np.linalg.norm(self._project_array(root * remainder)))
        self._energy_scale = np.sqrt(weights.energy) / max(spread, LEAST_ENERGY)
        self._energy_root = torch.from_numpy(root)
        self._energy_label = torch.from_numpy(remainder)
        self._sizes = torch.from_numpy(sizes.astype(np.float64))

    def _project_array(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        space = self._space.numpy()
        return np.asarray(values - space @ (space.T @ values))

    def _labelled_chunks(self, store: GraphStore, weights: Weights) -> Iterator[Chunk]:
        structures = self.structures
        known_forces = np.isfinite(structures.forces).all(axis=1)
        heavy = np.repeat(structures.weight, structures.sizes)
        known_stress = structures.labelled("stress") & structures.pbc.all(axis=1)
        forces = structures.forces[known_forces]
        self.force_scale = max(float(np.sqrt(np.mean(forces**2))) if len(forces) else 1.0, LEAST_FORCE)
        stress = structures.stress[known_stress]
        stress_scale = max(float(np.sqrt(np.mean(stress**2))) if len(stress) else 1.0, LEAST_STRESS)
        per_force = np.sqrt(weights.forces * heavy * known_forces / (3 * max(len(forces), 1))) / self.force_scale
        per_stress = np.sqrt(weights.stress * structures.weight * known_stress / (9 * max(len(stress), 1)))
        for first, last in _blocks(store.edge_counts):
            atoms = slice(int(structures.offsets[first]), int(structures.offsets[last]))
            some = bool(known_stress[first:last].any()) and weights.stress > 0
            target = [np.nan_to_num(structures.forces[atoms]).ravel()]
            scale = [np.repeat(per_force[atoms], 3)]
            if some:
                target.append(np.nan_to_num(structures.stress[first:last]).ravel())
                scale.append(np.repeat(per_stress[first:last] / stress_scale, 9))
            yield Chunk(
                graph=store.graph(np.arange(first, last), torch.float64),
                stress=some,
                systems=slice(first, last),
                target=torch.from_numpy(np.concatenate(target)),
                scale=torch.from_numpy(np.concatenate(scale)),
                wall=torch.zeros(sum(map(len, scale)), dtype=torch.int64),
            )

    def _with_walls(self, chunk: Chunk) -> Chunk:
        """A chunk with two atoms of every pair at short distances, whose force on the second must be within limits.

        They are no chunk of their own because a pass through a few atoms takes half as long as one through hundreds.
        """
        graph, limit, scale, kind = walls_of(self.parameters.shortest, self.cutoff, self.force_scale)
        n_stress = 9 * graph.n_systems if chunk.stress else 0

        def joined(own: Tensor, forces: Tensor) -> Tensor:
            """Forces of the structures, those of the walls, stresses of the structures, of the walls."""
            cut = 3 * chunk.graph.n_atoms
            return torch.cat([own[:cut], forces.to(own.dtype), own[cut:], own.new_zeros(n_stress)])

        return Chunk(
            graph=AtomGraph.concatenate([chunk.graph, graph]),
            stress=chunk.stress,
            systems=chunk.systems,
            target=joined(chunk.target, limit.reshape(-1)),
            scale=joined(chunk.scale, scale.reshape(-1)),
            wall=joined(chunk.wall, kind.reshape(-1)),
        )

    # what the potential says

    def _predict(self, vector: Tensor, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """(systems,) eV/atom without walls, and (values,) forces and stress with them."""
        count = chunk.systems.stop - chunk.systems.start
        graph, named = chunk.graph, self.parameters.named(vector)
        named = {f"model.{name}": value for name, value in named.items()}

        def total(positions: Tensor, strain: Tensor | None) -> tuple[Tensor, Tensor]:
            moved = replace(graph, positions=positions)
            moved = moved if strain is None else moved.strained(strain)
            atomic = torch.func.functional_call(self._call, named, (moved,))
            energy = graph.sum_per_system(atomic.to(torch.float64))
            return energy.sum(), energy

        if not chunk.stress:
            slope, energy = torch.func.grad(lambda positions: total(positions, None), has_aux=True)(graph.positions)
            return (energy / graph.atoms_per_system)[:count], -slope.reshape(-1)
        derivative: Any = torch.func.grad(total, argnums=(0, 1), has_aux=True)
        (slope, strain_slope), energy = derivative(graph.positions, torch.zeros_like(graph.cell))
        volumes = graph.volumes[:, None, None]
        volumes = torch.where(torch.isfinite(volumes), volumes, torch.ones_like(volumes))
        stress = strain_slope / volumes
        return (energy / graph.atoms_per_system)[:count], torch.cat([-slope.reshape(-1), stress.reshape(-1)])

    def _errors(self, values: Tensor, chunk: Chunk) -> Tensor:
        errors = values - chunk.target
        errors = torch.where(chunk.wall > 0, errors.clamp(max=0), errors)
        # a ceiling counts by the logarithm: forces beyond the data are off by orders of magnitude at first
        above = (chunk.wall < 0) & (values > chunk.target)
        ratio = torch.where(above, values, 1.0) / torch.where(above, chunk.target, 1.0)
        return chunk.scale * torch.where(chunk.wall < 0, ratio.log(), errors)

    def _sensitivity(self, values: Tensor, chunk: Chunk) -> Tensor:
        """(values,) derivative of each error with respect to its value."""
        idle = (chunk.wall != 0) & (chunk.wall * (values - chunk.target) >= 0)
        factor = torch.where((chunk.wall < 0) & ~idle, 1 / torch.where(idle, 1.0, values), torch.ones_like(values))
        return torch.where(idle, 0.0, chunk.scale * factor)

    def energies(self, vector: Float[Tensor, " parameters"]) -> Float[Tensor, " systems"]:
        """(systems,) eV/atom of the potential, without energies of single atoms."""
        return self._over_chunks(vector)[0]

    def _over_chunks(self, vector: Tensor) -> tuple[Tensor, float]:
        """(systems,) eV/atom, and the sum of squares of everything else."""
        energies = torch.zeros(len(self.structures), dtype=torch.float64)
        squares = 0.0
        for chunk in self.chunks:
            energy, values = self._predict(vector, chunk)
            squares += float(self._errors(values, chunk).square().sum())
            energies[chunk.systems] = energy
        return energies, squares

    def _project(self, values: Tensor) -> Tensor:
        """What energies of single atoms cannot explain; ``values`` (systems, ...)."""
        return values - self._space @ (self._space.T @ values)

    def _energy_errors(self, energies: Tensor) -> Tensor:
        return self._energy_scale * self._project(self._energy_root * (energies - self._energy_label))

    def reference_energies(self, vector: Float[Tensor, " parameters"]) -> dict[int, float]:
        """EV by atomic number: the energies of single atoms that fit best, of minimal change where they are open."""
        rest = self._energy_root * (self._energy_label - self.energies(vector))
        found = self._reference + self._solve @ rest.numpy()
        return dict(zip(self._elements, found.tolist(), strict=True))

    # objective and derivatives

    def _ridge(self, vector: Tensor) -> Tensor:
        return RIDGE**0.5 * torch.where(self.parameters.free, vector - self.parameters.start, 0.0)

    def objective(self, vector: Float[Tensor, " parameters"]) -> float:
        """The value at a vector of raw parameters; infinite where the potential gives no number."""
        with torch.no_grad():
            energies, squares = self._over_chunks(vector)
            value = squares + float(self._energy_errors(energies).square().sum() + self._ridge(vector).square().sum())
        return value if np.isfinite(value) else np.inf

    def value_and_gradient(self, vector: Float[Tensor, " parameters"]) -> tuple[float, Float[Tensor, " parameters"]]:
        """The objective and its derivatives; where it is no number, a large one and zeros."""
        leaf = vector.detach().clone().requires_grad_()
        total, energies = self._ridge(leaf).square().sum(), []
        for chunk in self.chunks:
            energy, values = self._predict(leaf, chunk)
            total = total + self._errors(values, chunk).square().sum()
            energies.append(energy)
        total = total + self._energy_errors(torch.cat(energies)).square().sum()
        total.backward()
        gradient, value = leaf.grad, float(total.detach())
        if gradient is None or not (np.isfinite(value) and torch.isfinite(gradient).all()):
            return HOPELESS, torch.zeros_like(vector)
        return value, gradient

    def normal(self, vector: Float[Tensor, " parameters"], columns: Tensor) -> Normal:
        """The objective about a vector.

        Args:
            vector: (parameters,) raw.
            columns: (columns,) numbers of the parameters that may move.
        """
        n = len(columns)
        directions = torch.zeros(n, len(vector), dtype=torch.float64)
        directions[torch.arange(n), columns] = 1.0
        hessian = torch.zeros(n, n, dtype=torch.float64)
        gradient = torch.zeros(n, dtype=torch.float64)
        energies = torch.zeros(len(self.structures), dtype=torch.float64)
        slopes = torch.zeros(len(self.structures), n, dtype=torch.float64)
        objective = 0.0
        for chunk in self.chunks:
            (energy, values), (energy_slopes, value_slopes) = self._linearised(vector, chunk, directions)
            errors = self._errors(values, chunk)
            jacobian = value_slopes * self._sensitivity(values, chunk)
            objective += float(errors.square().sum())
            hessian += jacobian @ jacobian.T
            gradient += jacobian @ errors
            energies[chunk.systems], slopes[chunk.systems] = energy, energy_slopes.T
        errors = self._energy_errors(energies)
        jacobian = self._energy_scale * self._project(self._energy_root[:, None] * slopes)
        ridge = self._ridge(vector)
        objective += float(errors.square().sum() + ridge.square().sum())
        hessian = hessian + jacobian.T @ jacobian + RIDGE * torch.eye(n, dtype=torch.float64)
        return Normal(objective, gradient + jacobian.T @ errors + RIDGE**0.5 * ridge[columns], hessian)

    def _linearised(
        self, vector: Tensor, chunk: Chunk, directions: Tensor
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Prediction and its derivatives (directions, ...) along every direction: forward over reverse."""

        def function(point: Tensor) -> tuple[Tensor, Tensor]:
            return self._predict(point, chunk)

        def along(direction: Tensor) -> tuple[Tensor, Tensor]:
            tangents: tuple[Tensor, Tensor] = torch.func.jvp(function, (vector,), (direction,))[1]
            return tangents

        width = max(1, COLUMNS_TIMES_EDGES // max(chunk.graph.edges.shape[1], 1))
        batched: Callable[[Tensor], tuple[Tensor, Tensor]] = torch.func.vmap(along, chunk_size=width)
        with torch.no_grad():
            return function(vector), batched(directions)


def _blocks(edges: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """First and last structure of blocks of about :data:`CHUNK_EDGES` edges."""
    ends, first = np.concatenate([[0], np.cumsum(edges)]), 0
    while first < len(edges):
        last = int(np.searchsorted(ends, ends[first] + CHUNK_EDGES, side="right")) - 1
        last = min(max(last, first + 1), len(edges))
        yield first, last
        first = last

"""Pull close atoms together, then push some atoms away: structures from the repulsive wall outwards.

The two-step algorithm of physics-informed pretraining (arXiv 2602.19592, section on off-equilibrium structures). Every
round starts from the undisturbed structure; the largest moves shrink from round to round, and the last round is the
undisturbed structure itself.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from ase.data import covalent_radii
from pydantic import Field

from phystrain.augment import Augmentation
from phystrain.augment._copies import copies
from phystrain.data.structures import Floats, Ints, Structures
from phystrain.errors import UserError
from phystrain.neighbours import neighbour_list

_FIRST_RADIUS = 3.0
_LAST_RADIUS = 60.0
_REDRAWS = 10
_HALVINGS = 40


class Config(Augmentation):
    """Pull and perturb, with ramps that decrease over the rounds.

    Each round moves the two atoms of each of the ``pairs`` closest pairs that share no atom towards each other by
    u/2, with u uniform up to the round's pull, then moves ``sites`` atoms along random directions by a length uniform
    up to the round's perturbation. Pull and perturbation fall linearly to zero over the rounds.

    Attributes:
        rounds: structures made of each structure; the last is undisturbed (a single round has full strength).
        pull: Å, largest shortening of a pair in the first round.
        perturb: Å, largest displacement of a site in the first round.
        pairs: pairs pulled per round; fewer where the structure has not got as many.
        sites: atoms perturbed per round; all atoms where there are fewer.
        floor: distance that no pair may fall below, as a fraction of the sum of the covalent radii (ASE's, from
            Cordero et al. 2008). 0.4 lies well inside the repulsive wall of any bond (0.25 Å for H-H, 0.7 Å for
            Si-O) and far from coincidence. A pair that is closer from the start may not come closer still.
    """

    kind: Literal["pull_perturb"] = "pull_perturb"
    rounds: int = Field(default=5, ge=1)
    pull: float = Field(default=1.0, ge=0, le=10)
    perturb: float = Field(default=1.0, ge=0, le=10)
    pairs: int = Field(default=2, ge=0)
    sites: int = Field(default=5, ge=0)
    floor: float = Field(default=0.4, gt=0, lt=1)

    def __call__(self, structures: Structures, seed: int) -> Structures:
        """``rounds`` unlabelled structures of each structure with two atoms or more.

        Random numbers are a function of the seed, the number of the structure in the set and the round. ``info``
        holds ``config_type``, ``round`` and ``source``, the number of the structure.

        Raises:
            UserError: every structure is a single atom.
        """
        sources = np.flatnonzero(structures.sizes > 1)
        if not len(sources):
            raise UserError("pull_perturb needs structures of two atoms or more: this set holds single atoms only.")
        ramp = np.linspace(1.0, 0.0, self.rounds) if self.rounds > 1 else np.ones(1)
        positions = []
        for index in sources.tolist():
            geometry = self._geometry(structures, index)
            for number, strength in enumerate(ramp.tolist()):
                generator = np.random.default_rng([seed, index, number])
                positions.append(geometry.positions + self._displacement(geometry, strength, generator))
        rounds = np.tile(np.arange(self.rounds), len(sources))
        return copies(structures, np.repeat(sources, self.rounds), positions, "pull_perturb", rounds)

    def _geometry(self, structures: Structures, index: int) -> "_Geometry":
        """Pairs of one structure: those to pull, and those that could fall below the floor."""
        part = slice(structures.offsets[index], structures.offsets[index + 1])
        positions, species = structures.positions[part], structures.species[part]
        cell, pbc = structures.cell[index], structures.pbc[index]
        radii = covalent_radii[species]
        # A pair distance changes by the pull at most, plus the perturbation of both atoms.
        reach = 2 * self.floor * radii.max() + self.pull + 2 * self.perturb
        radius = max(_FIRST_RADIUS, float(reach))
        wanted = min(self.pairs, len(positions) // 2)
        while True:
            near = _pairs_within(positions, cell, pbc, radius)
            closest = closest_disjoint(near.first, near.second, near.distances, len(positions), wanted)
            if len(closest) == wanted or radius >= _LAST_RADIUS:
                break
            radius *= 2
        floors = np.minimum(self.floor * (radii[near.first] + radii[near.second]), near.distances)
        return _Geometry(positions, near, closest, floors)

    def _displacement(self, geometry: "_Geometry", strength: float, generator: np.random.Generator) -> Floats:
        """(atoms, 3) Å, such that no pair falls below its floor."""
        if strength == 0:
            return np.zeros_like(geometry.positions)
        for _ in range(_REDRAWS):
            displacement = self._pulled(geometry, strength, generator)
            displacement += self._perturbed(len(geometry.positions), strength, generator)
            if not len(geometry.offending(displacement)):
                return displacement
        # Crowded: halve the moves of the atoms that are still too close. Zero moves are always allowed.
        for _ in range(_HALVINGS):
            atoms = geometry.offending(displacement)
            if not len(atoms):
                return displacement
            displacement[atoms] /= 2
        return np.zeros_like(displacement)

    def _pulled(self, geometry: "_Geometry", strength: float, generator: np.random.Generator) -> Floats:
        near, chosen = geometry.near, geometry.closest
        # Uniform up to the floor where that comes first: what redrawing longer pulls would give, and no pair of atoms
        # passes through one another.
        longest = np.minimum(strength * self.pull, near.distances[chosen] - geometry.floors[chosen])
        length = generator.uniform(size=len(chosen)) * longest
        towards = near.vectors[chosen] / near.distances[chosen, None] * (length[:, None] / 2)
        displacement = np.zeros_like(geometry.positions)
        displacement[near.first[chosen]] = towards
        displacement[near.second[chosen]] = -towards
        return displacement

    def _perturbed(self, atoms: int, strength: float, generator: np.random.Generator) -> Floats:
        sites = generator.choice(atoms, size=min(self.sites, atoms), replace=False)
        direction = generator.normal(size=(len(sites), 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        displacement = np.zeros((atoms, 3))
        displacement[sites] = direction * generator.uniform(0, strength * self.perturb, size=(len(sites), 1))
        return displacement


@dataclass(frozen=True)
class _Pairs:
    """Pairs of different atoms, images included, each once, ascending in distance."""

    first: Ints
    second: Ints
    vectors: Floats
    distances: Floats


@dataclass(frozen=True)
class _Geometry:
    """One structure: positions, pairs, numbers of the pairs to pull, and the floor under each pair's distance."""

    positions: Floats
    near: _Pairs
    closest: Ints
    floors: Floats

    def offending(self, displacement: Floats) -> Ints:
        """Atoms of the pairs that a displacement brings below their floor."""
        vectors = self.near.vectors + displacement[self.near.second] - displacement[self.near.first]
        low = np.linalg.norm(vectors, axis=1) < self.floors - 1e-9
        return np.unique(np.concatenate([self.near.first[low], self.near.second[low]]))


def _pairs_within(positions: Floats, cell: Floats, pbc: npt.NDArray[np.bool_], radius: float) -> _Pairs:
    (first, second), shifts = neighbour_list(positions, cell, pbc, radius)
    once = first < second  # an atom keeps its distance to its own images, so those pairs are not listed
    first, second, shifts = first[once], second[once], shifts[once]
    vectors = positions[second] - positions[first] + shifts @ cell
    distances = np.linalg.norm(vectors, axis=1)
    # Equal distances in a crystal differ by rounding: without it, the order would depend on the machine.
    order = np.lexsort((shifts[:, 2], shifts[:, 1], shifts[:, 0], second, first, distances.round(6)))
    return _Pairs(first[order], second[order], vectors[order], distances[order])


def closest_disjoint(first: Ints, second: Ints, distances: Floats, atoms: int, wanted: int) -> Ints:
    """Numbers of the closest pairs that share no atom, taken greedily.

    Args:
        first, second: (pairs,) atoms of each pair; pairs of an atom with itself are ignored.
        distances: (pairs,) Å, ascending, of the minimum image or of every image. Pairs at 0 Å are ignored: they have
            no direction.
        atoms: how many there are.
        wanted: pairs to find; fewer are returned if there are no more.
    """
    free = np.ones(atoms, dtype=bool)
    left = np.flatnonzero((first != second) & (distances > 1e-6))
    chosen: list[int] = []
    while len(chosen) < wanted and len(left):
        pair = int(left[0])
        chosen.append(pair)
        free[[first[pair], second[pair]]] = False
        left = left[free[first[left]] & free[second[left]]]
    return np.array(chosen, dtype=np.int64)

"""Whether molecules keep their bonds in dynamics: the stability criterion of Fu et al. 2023 (arXiv 2210.07237).

A run has collapsed at the first frame in which any bond differs by more than 0.5 Å from its mean length in the
reference data. Bonds are pairs of atoms whose mean distance there is below 1.2 times the sum of their covalent radii.
The reference is a trajectory, or labelled frames of the same atoms in the same order. Where bonds of the reference
itself change by as much, a reaction perhaps, nothing is judged.
"""

from typing import ClassVar, Literal

import numpy as np
from ase.data import covalent_radii
from pydantic import Field

from phystrain.data.structures import Floats, Ints
from phystrain.dynamics.guards import BOND_FACTOR
from phystrain.reliability import Curve, Result, Subject
from phystrain.reliability._reference_run import Compared, ComparedTest, last_sound_step
from phystrain.reliability._static import evenly
from phystrain.statistics import pair_label


class Config(ComparedTest):
    """Bond lengths of molecules in dynamics against their means in the reference."""

    kind: Literal["bonds"] = "bonds"
    title: ClassVar[str] = "Bonds of molecules"
    needs_order: ClassVar[bool] = False
    largest: float = Field(default=0.5, gt=0, description="Å by which a bond may differ from its mean length")
    bonded: float = Field(
        default=BOND_FACTOR, gt=0, description="multiple of the sum of covalent radii below which atoms are bonded"
    )

    def criterion(self) -> str:
        return f"no bond differs by more than {self.largest:g} Å from its mean length (Fu et al.)"

    def unfit(self, subject: Subject) -> str | None:
        known = subject.reference.frames if subject.reference is not None else subject.start
        if known is None or not known.pbc.any():
            return None
        return "The structures are periodic: the criterion is for molecules."

    def judged(self, compared: Compared, result: Result) -> Result:
        reference, run = compared.reference, compared.run
        species = compared.species
        same = (reference.species.reshape(-1, len(species)) == run.final.species[: len(species)]).all(axis=1)
        if not same.all():
            sentence = "Not done: the labelled frames list their atoms in another order than the starting structure."
            return result.model_copy(update={"sentence": sentence})
        lengths = reference.positions.reshape(-1, len(species), 3)
        bonds, mean = mean_bonds(lengths, species, self.bonded)
        if not len(mean):
            return result.model_copy(update={"applies": False, "sentence": "The molecules have no bonds."})
        natural = float(np.abs(bond_lengths(lengths, bonds) - mean).max())
        frames, interval = run.frames, run.settings.frame_interval
        assert frames is not None
        assert interval is not None
        between = interval * run.settings.step / 1000
        off = np.stack(np.split(frames, len(run.reasons), axis=1))  # runs, frames, atoms, 3
        change = np.abs(bond_lengths(off, bonds) - mean)  # runs, frames, bonds
        collapse, worst = [], []
        for number, changes in enumerate(change):
            kept = changes[: last_sound_step(run, number) // interval + 1]
            broken = np.flatnonzero(kept.max(axis=1) > self.largest)
            worst.append(float(kept.max()))
            stopped = np.inf if run.survived[number] else run.picoseconds[number]
            collapse.append(min(broken[0] * between if len(broken) else np.inf, stopped))
        times = np.array(collapse)
        lost = np.isfinite(times)
        judged = natural <= self.largest
        figures = compared.figures | {
            "bonds": len(mean),
            "mean time to collapse, ps": float(times.clip(max=run.settings.picoseconds).mean()),
            "collapsed": float(lost.mean()),
            "largest change of a bond, Å": max(worst),
            "largest change of a bond in the reference, Å": natural,
            "time between frames, fs": 1000 * between,
        }
        figures |= {f"time to collapse of run {n + 1}, ps": t if t < np.inf else None for n, t in enumerate(collapse)}
        if not judged:
            sentence = f"Bonds of the reference change by {natural:.2f} Å themselves: not judged."
        elif lost.any():
            first = int(times.argmin())
            sentence = (
                f"{int(lost.sum())} of {len(times)} runs at {compared.kelvin:g} K collapsed, the first after "
                f"{times[first]:.3g} ps: {self._cause(compared, first, change[first], mean, bonds)}."
            )
        else:
            sentence = f"At {compared.kelvin:g} K all bonds stay within {max(worst):.2f} Å of their mean lengths."
        passed = not lost.any() if judged else None
        return result.model_copy(
            update={
                "figures": figures,
                "passed": passed,
                "grade": {True: "safe", False: "unsafe", None: None}[passed],
                "kelvin": 0.0 if passed is False else None,
                "conditions": [f"bonds break at {compared.kelvin:g} K"] if passed is False else [],
                "sentence": sentence,
                "curves": {
                    f"run {number + 1}": Curve(
                        x=(np.arange(change.shape[1]) * between).tolist(),
                        y=changes.max(axis=1).tolist(),
                        x_label="time, ps",
                        y_label="largest change of a bond, Å",
                    )
                    for number, changes in enumerate(change)
                },
            }
        )

    def _cause(self, compared: Compared, run: int, change: Floats, mean: Floats, bonds: Ints) -> str:
        """What became of a run: the first bond that changed too much, or else why a guard stopped it."""
        interval = compared.run.settings.frame_interval
        assert interval is not None
        kept = change[: last_sound_step(compared.run, run) // interval + 1]
        broken = np.flatnonzero(kept.max(axis=1) > self.largest)
        if not len(broken):
            return compared.run.sentences[run]
        bond = int(kept[broken[0]].argmax())
        pair = pair_label(*compared.species[bonds[bond]].tolist())
        return f"{pair} bond of {mean[bond]:.2f} Å changed by {kept[broken[0], bond]:.2f} Å"


def mean_bonds(positions: Floats, species: Ints, factor: float) -> tuple[Ints, Floats]:
    """Bonds of a molecule and their mean lengths.

    Args:
        positions: (frames, atoms, 3) Å.
        species: (atoms,) atomic numbers.
        factor: multiple of the sum of covalent radii below which the mean distance is a bond.

    Returns:
        bonds: (bonds, 2) numbers of atoms, ascending.
        mean: (bonds,) Å.
    """
    pairs = np.stack(np.triu_indices(len(species), 1), axis=1)
    some = positions[evenly(len(positions), 50)]
    radii = covalent_radii[species][pairs].sum(axis=1)
    pairs = pairs[bond_lengths(some, pairs).mean(axis=0) < factor * radii]
    return pairs, bond_lengths(positions, pairs).mean(axis=0)


def bond_lengths(positions: Floats, bonds: Ints) -> Floats:
    """(..., bonds) Å, of positions (..., atoms, 3)."""
    return np.asarray(np.linalg.norm(positions[..., bonds[:, 1], :] - positions[..., bonds[:, 0], :], axis=-1))

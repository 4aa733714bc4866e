"""How far a spread between models can be believed: scale it to the errors on held-out structures, and say how well.

The spread of an atom is one number: the standard deviation of a component of its force between the models, taken over
the three components together, so that it does not depend on the axes.

The scale makes 68.3 % of the error components lie within one spread, as of a normal distribution: quantile scaling, as
conformal prediction does it for interatomic potentials (Hu et al. 2022, doi:10.1088/2632-2153/aca7b1). That of maximum
likelihood (Musil et al. 2019, doi:10.1021/acs.jctc.8b00959) follows the few atoms whose spread is far too small, and
was two to three times as far off on held-out errors (``benchmarks/uncertainty.py``). The area of miscalibration is
that of Tran et al. 2020 (doi:10.1088/2632-2153/ab7e1a).
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from scipy.special import erf
from scipy.stats import spearmanr

from phystrain.errors import UserError

Floats = npt.NDArray[np.float64]

LEAST_ATOMS = 10
"""Held-out atoms below which nothing is calibrated."""

FIRM_STRUCTURES, FIRM_ATOMS = 20, 500
"""Held-out structures and atoms from which a scale is firm.

The quantile of n independent components of a normal distribution is known to 0.96/sqrt(n): to a fifth from 20
structures even where the errors of all atoms of a structure go together, to 3 % from 500 atoms where they do not.
"""

MARGIN = 2.0
"""The limit that ``auto`` stands for, in units of the largest spread of a held-out atom."""

ONE_SIGMA = math.erf(math.sqrt(0.5))
"""Fraction of a normal distribution within one standard deviation, 0.683."""

_LEVELS = np.linspace(0.01, 0.99, 99)


class Calibration(BaseModel):
    """What held-out structures say of a spread.

    Attributes:
        scale: by which spreads are multiplied to be standard errors.
        largest: eV/Å, largest scaled spread of a held-out atom.
        structures, atoms: how many it rests on.
        quality: how well the scaled spread tells the errors, by name; see :func:`quality`.
    """

    model_config = ConfigDict(extra="forbid")

    scale: float
    largest: float
    structures: int
    atoms: int
    quality: dict[str, float]

    @property
    def limit(self) -> float:
        """eV/Å: a scaled spread beyond it was not met on any held-out atom, by far."""
        return MARGIN * self.largest

    @property
    def remark(self) -> str:
        """What to bear in mind of a scale that rests on little; empty if it is firm."""
        if self.structures >= FIRM_STRUCTURES and self.atoms >= FIRM_ATOMS:
            return ""
        return (
            f"the spread was calibrated on {self.structures} structures with {self.atoms} atoms only, so its scale is "
            f"rough: hold out {FIRM_STRUCTURES} structures and {FIRM_ATOMS} atoms or more"
        )


class Observed(NamedTuple):
    """Spread and error of held-out atoms.

    Attributes:
        spread: (atoms,) eV/Å, of a force component.
        error: (atoms, 3) eV/Å, prediction minus label; not a number where there is no label.
        structures: how many they come from.
    """

    spread: Floats
    error: Floats
    structures: int

    def known(self) -> "Observed":
        """Atoms with labels and with a spread: one that vanishes by symmetry tells nothing."""
        chosen = np.isfinite(self.error).all(axis=1) & np.isfinite(self.spread)
        if chosen.any():
            chosen &= self.spread > 1e-6 * np.median(self.spread[chosen])
        return self._replace(spread=self.spread[chosen], error=self.error[chosen])


def calibrate(observed: Observed) -> Calibration:
    """Scale, limit and quality from held-out atoms.

    Raises:
        UserError: too few atoms with forces, or models that do not differ.
    """
    known = observed.known()
    if len(known.spread) < LEAST_ATOMS:
        raise UserError(
            f"a spread is calibrated on {LEAST_ATOMS} held-out atoms with forces at least, and here are "
            f"{len(known.spread)} on which the models differ: give more labelled structures"
        )
    scale = float(np.quantile(np.abs(known.error) / known.spread[:, None], ONE_SIGMA))
    scaled = known._replace(spread=scale * known.spread)
    return Calibration(
        scale=scale,
        largest=float(scaled.spread.max()),
        structures=observed.structures,
        atoms=len(known.spread),
        quality=quality(scaled),
    )


def quality(scaled: Observed) -> dict[str, float]:
    """How well a scaled spread tells the errors.

    Returns:
        ``rank correlation``: Spearman's, between spread and size of the error of atoms; ``attainable``: what it would
        be if every error were drawn from its spread (a large spread allows for a small error too); ``within 1 spread``
        and ``within 2 spreads``: fractions of components, 0.683 and 0.954 if calibrated; ``miscalibration area``: mean
        difference between the fraction of components inside an interval and what it should be, 0 is perfect and 0.5
        the worst; ``error, eV/Å`` and ``spread, eV/Å``: root mean squares of components.
    """
    known = scaled.known()
    size = np.linalg.norm(known.error, axis=1)
    drawn = np.random.default_rng(0).normal(size=known.error.shape) * known.spread[:, None]
    ratio = np.abs(known.error) / known.spread[:, None]
    inside = np.sort(erf(ratio.ravel() / math.sqrt(2)))  # central probability at which each component is just inside
    observed = np.searchsorted(inside, _LEVELS, side="right") / len(inside)
    return {
        "rank correlation": _rank_correlation(known.spread, size),
        "attainable": _rank_correlation(known.spread, np.linalg.norm(drawn, axis=1)),
        "within 1 spread": float(np.mean(ratio <= 1)),
        "within 2 spreads": float(np.mean(ratio <= 2)),
        "miscalibration area": float(np.mean(np.abs(observed - _LEVELS))),
        "error, eV/Å": float(np.sqrt(np.mean(known.error**2))),
        "spread, eV/Å": float(np.sqrt(np.mean(known.spread**2))),
    }


def _rank_correlation(first: Floats, second: Floats) -> float:
    return float(spearmanr(first, second).statistic)

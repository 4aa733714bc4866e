"""Whether dynamics leaves the training data, and how errors grow with the distance from it.

Held-out structures, and the frames of a reference trajectory where they have forces, are ranked by how far their atoms
are from the training structures (see :mod:`phystrain.uncertainty.novelty`); the errors of forces are listed by that
distance, with Spearman's rank correlation. A correlation near zero says that the distance is no guide to errors here.
Where there is a run of the potential beside a reference trajectory, the part of it that lies outside of the training
data is given too: what a test error says of those frames is nothing.
"""

from typing import ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field
from scipy.stats import spearmanr

from phystrain.data.structures import Floats, Structures
from phystrain.errors import UserError
from phystrain.reliability import Curve, Figures, Result, Subject
from phystrain.reliability._reference_run import ReferenceRun
from phystrain.reliability._static import predict
from phystrain.uncertainty.novelty import Novelty

AT_ONCE = 2000
"""Atoms predicted together."""


class Config(ReferenceRun):
    """Errors by distance from the training structures, and what part of dynamics is far from them."""

    kind: Literal["novelty"] = "novelty"
    title: ClassVar[str] = "Distance from the training data"
    needs_order: ClassVar[bool] = False
    far: float = Field(
        default=2.0, gt=0, description="distance beyond which an atom is outside; 1 is the rim of the training data"
    )
    allowed: float = Field(
        default=0.05, ge=0, le=1, description="fraction of the frames of dynamics that may hold an atom outside"
    )
    bins: int = Field(default=5, ge=1, description="groups of equally many structures, from near to far")
    cutoff: float | None = Field(
        default=None, gt=0, description="Å up to which neighbours count; three times the largest radius if not given"
    )
    most: int = Field(default=1000, ge=2, description="labelled structures that are looked at, evenly spread")

    def runs_unasked(self, subject: Subject) -> bool:
        held_out = subject.test is not None and bool(subject.test.labelled("forces").any())
        return subject.train is not None and (held_out or subject.reference is not None)

    def __call__(self, subject: Subject) -> Result:
        """Compare ``subject.test``, ``subject.reference`` and a run beside that with ``subject.train``.

        Raises:
            UserError: there are no training structures, or nothing to compare with them.
        """
        if subject.train is None:
            raise UserError("novelty: the structures that the potential was trained on are not at hand")
        known = Novelty(subject.train, self.cutoff)
        sources = {"held-out structures": subject.test}
        sources |= {"reference": None if subject.reference is None else subject.reference.frames}
        given = {name: self._labelled(frames) for name, frames in sources.items() if frames is not None}
        given = {name: frames for name, frames in given.items() if len(frames)}
        if not given and subject.reference is None:
            raise UserError("novelty: there are no held-out forces; give a test set, or a trajectory with --reference")
        result = Result(
            test=self.kind,
            title=self.title,
            threshold=f"an atom farther than {self.far:g} in at most {100 * self.allowed:g} % of the frames of "
            "dynamics; 1 is the rim of the training data",
        )
        figures: Figures = {"training structures": len(subject.train)}
        curves, sentences = {}, []
        for name, frames in given.items():
            found = errors_by_distance(known.structures(frames), force_errors(subject, frames), self.bins)
            figures |= {f"rank correlation of distance and force error, {name}": found.correlation}
            for number, (distance, error) in enumerate(zip(found.distance, found.error, strict=True)):
                place = f"{name}, group {number + 1} of {len(found.distance)}"
                figures |= {f"mean distance, {place}": distance, f"force RMSE, {place}, meV/Å": error}
            curves[name] = Curve(
                x=found.distance, y=found.error, x_label="distance from the training data", y_label="force RMSE, meV/Å"
            )
            sentences.append(
                f"Force errors of {name} go from {found.error[0]:.0f} to {found.error[-1]:.0f} meV/Å from the nearest "
                f"to the farthest (rank correlation {found.correlation:.2f})."
            )
        passed, conditions = None, []
        if subject.reference is not None:
            outside = self._outside(subject, known)
            figures |= outside.figures
            curves["dynamics"] = outside.curve
            passed = outside.fraction <= self.allowed
            sentences.append(outside.sentence)
            if not passed:
                conditions = [
                    f"at {subject.reference.temperature:g} K {100 * outside.fraction:.0f} % of the frames are outside "
                    "of the training data"
                ]
        return result.model_copy(
            update={
                "figures": figures,
                "passed": passed,
                "grade": {True: "safe", False: "limited", None: None}[passed],
                "conditions": conditions,
                "sentence": " ".join(sentences),
                "curves": curves,
            }
        )

    def _labelled(self, frames: Structures) -> Structures:
        chosen = np.flatnonzero(frames.labelled("forces"))
        if len(chosen) > self.most:
            chosen = chosen[np.linspace(0, len(chosen) - 1, self.most).astype(int)]
        return frames.select(chosen)

    def _outside(self, subject: Subject, known: Novelty) -> "Outside":
        compared = self.compare(subject)
        assert not isinstance(compared, str)
        made = compared.frames(self.frames)
        if made is None:
            figures = compared.figures | {"fraction of frames outside": 1.0}
            curve = Curve(x=[], y=[], x_label="frame of dynamics", y_label="distance from the training data")
            return Outside(1.0, figures, curve, f"No run came to an end of its burn-in.{compared.lost}")
        distance = known.structures(made)
        fraction = float((distance > self.far).mean())
        theirs = known.structures(compared.reference_frames(self.frames))
        shown = np.where(np.isfinite(distance), distance, np.nan)
        figures = compared.figures | {
            "frames": len(made),
            "fraction of frames outside": fraction,
            "fraction of reference frames outside": float((theirs > self.far).mean()),
            "median distance in dynamics": float(np.median(distance)),
            "largest distance in dynamics": float(distance.max()),
        }
        curve = Curve(
            x=np.arange(len(shown), dtype=float).tolist(),
            y=[None if np.isnan(value) else value for value in shown.tolist()],
            x_label="frame of dynamics",
            y_label="distance from the training data",
        )
        sentence = f"At {compared.kelvin:g} K {100 * fraction:.0f} % of the frames of dynamics leave the training data."
        return Outside(fraction, figures, curve, sentence + compared.lost)


class Outside(NamedTuple):
    """What part of dynamics is far from the training data: in all, by figures, by frame, in words."""

    fraction: float
    figures: Figures
    curve: Curve
    sentence: str


class Grown(NamedTuple):
    """How errors grow with distance.

    Attributes:
        distance: mean of each group, from near to far.
        error: RMS of each group, meV/Å.
        correlation: Spearman's, of single structures.
    """

    distance: list[float]
    error: list[float]
    correlation: float


def force_errors(subject: Subject, frames: Structures) -> Floats:
    """(systems,) eV/Å, root of the mean square error of the components of each structure's forces."""
    ours = predict(subject.potential, frames, AT_ONCE, "forces")
    squares = np.square(ours.forces - frames.forces).mean(axis=1)
    counted = np.isfinite(squares)
    sums = np.bincount(frames.system[counted], weights=squares[counted], minlength=len(frames))
    return np.asarray(np.sqrt(sums / np.bincount(frames.system[counted], minlength=len(frames))))


def errors_by_distance(distance: Floats, error: Floats, bins: int) -> Grown:
    """Groups of equally many structures, from near to far.

    Args:
        distance: (systems,) from the training data; infinite ones make a group that is left out of the means.
        error: (systems,) eV/Å.
        bins: groups, at most.
    """
    order = np.argsort(distance, kind="stable")
    groups = np.array_split(order, min(bins, len(order)))
    finite = [group[np.isfinite(distance[group])] for group in groups]
    correlation = float("nan")
    if len(order) > 2 and np.ptp(error) > 0:
        correlation = float(spearmanr(distance, error).statistic)
    return Grown(
        [float(distance[group].mean()) for group in finite if len(group)],
        [1000 * float(np.sqrt(np.square(error[group]).mean())) for group in finite if len(group)],
        correlation,
    )

"""Weights tested while they are trained, so that of those that live the most accurate are kept.

Training knows nothing of the reliability tests: it is handed :func:`judge`.
"""

from torch import nn

from phystrain.config import Gate, RunConfig
from phystrain.errors import UserError
from phystrain.reliability import Result, Subject
from phystrain.reliability._suite import audit
from phystrain.train.material import Labelled
from phystrain.verdict.audited import smallest


def judge(potential: nn.Module, gate: Gate, labelled: Labelled, config: RunConfig) -> dict[str, float]:
    """Put weights to the tests of a gate, on validation structures and at the temperatures of the run.

    The test structures are not looked at: they would no longer be unseen if weights were chosen by them.

    Args:
        potential: in evaluation mode.
        gate: settings.
        labelled: data of the run.
        config: of the run.

    Returns:
        ``gate``: mean of the scores, from 0 to 1; ``gate_TEST``: score of each test; and the raw figures.

    Raises:
        UserError: a test lacks something, or none of them judges anything.
    """
    held_out = labelled.valid or labelled.train
    subject = Subject(
        name="weights in training",
        potential=potential,
        statistics=labelled.statistics,
        test=held_out,
        start=smallest(held_out) or smallest(labelled.train),
        temperatures=tuple(config.reliability.temperatures or ()),
        seed=config.seed,
        train=labelled.train,
    )
    results = audit(subject, gate.tests, progress=False)
    scores = {f"gate_{result.test}": score for result in results if (score := score_of(result)) is not None}
    if not scores:
        raise UserError(f"{', '.join(gate.tests)} judge nothing here: name a test such as survival or dimers")
    figures = {
        f"gate_{result.test} {name}": float(value)
        for result in results
        for name, value in result.figures.items()
        if isinstance(value, int | float)
    }
    return {"gate": sum(scores.values()) / len(scores), **scores, **figures}


def score_of(result: Result) -> float | None:
    """From 0 to 1; ``None`` where a test does not judge or does not apply."""
    if not result.applies:
        return None
    if result.score is not None:
        return result.score
    return None if result.passed is None else float(result.passed)

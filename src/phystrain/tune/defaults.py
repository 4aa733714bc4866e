"""What is searched where nobody says: the learning rate and the loss of the last training of a run."""

from phystrain.config import RunConfig, Stage
from phystrain.errors import UserError
from phystrain.tune.space import Dimension

DISPLACEMENT = (0.01, 0.1)
"""Å, of the weak losses: below, rounding counts; beyond, neighbour lists grow and the expansion no longer holds."""


def last_trained(config: RunConfig) -> Stage:
    """The stage that is judged.

    Raises:
        UserError: the last stage is a fit by least squares.
    """
    stage = config.stages[-1]
    if stage.fit is not None:
        raise UserError(f"stage {stage.name} is a fit, which searches by itself: there is nothing to tune")
    return stage


def default_space(config: RunConfig) -> list[Dimension]:
    """Learning rate, weights of the loss, the share of automatic ones, displacements, a replay weight that is given.

    The weight of one term with labels stays: only ratios of weights matter, beside the learning rate.
    """
    stage = last_trained(config)
    place = f"stages.{stage.name}"
    found = [_around(f"{place}.optimiser.learning_rate", stage.optimiser.learning_rate, 10.0)]
    terms = stage.objectives.items()
    supervised = [name for name, term in terms if term.validated]
    held = "forces" if "forces" in supervised else supervised[0] if supervised else ""
    for name, term in terms:
        if name != held and term.weight != "auto":
            found.append(_around(f"{place}.objectives.{name}.weight", term.weight, 30.0))
        if not term.validated and isinstance(value := getattr(term, "displacement", None), float):
            low, high = min(DISPLACEMENT[0], value), max(DISPLACEMENT[1], value)
            found.append(Dimension(f"{place}.objectives.{name}.displacement", low, high, log=True))
    if any(term.weight == "auto" for term in stage.objectives.values()):
        found.append(_around(f"{place}.balance.share", stage.balance.share, 10.0))
    if stage.replay is not None and isinstance(stage.replay.weight, float) and stage.replay.weight > 0:
        found.append(_around(f"{place}.replay.weight", stage.replay.weight, 10.0))
    return found


def _around(path: str, value: float, factor: float) -> Dimension:
    value = value or 1.0
    return Dimension(path, value / factor, value * factor, log=True)

"""What only a person can know, asked for on a terminal."""

import os
import sys

from phystrain.config import RunConfig
from phystrain.errors import UserError
from phystrain.preflight import require_temperature
from phystrain.train.launch import is_child, launched

QUESTION = "Temperature of your training data, K (the tests in dynamics start from it): "

_ANSWERED = "PHYSTRAIN_TEMPERATURE"
"""Set once there is an answer: further processes of the run are not to ask again."""


def ask_temperature() -> float | None:
    """K, from the person at the terminal; ``None`` without a terminal, or without an answer.

    Processes that this one starts take over its answer.

    Raises:
        UserError: the answer is no temperature.
    """
    if _ANSWERED in os.environ and is_child():
        return float(os.environ[_ANSWERED])
    if launched() is not None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    sys.stderr.write(QUESTION)
    sys.stderr.flush()
    answer = sys.stdin.readline().strip().removesuffix("K").strip()
    if not answer:
        return None
    try:
        kelvin = float(answer)
    except ValueError:
        kelvin = float("nan")
    if not 0 < kelvin < float("inf"):
        raise UserError(f"{answer!r} is no temperature: give a number of K, such as 300")
    os.environ[_ANSWERED] = str(kelvin)
    return kelvin


def with_temperature(config: RunConfig) -> RunConfig:
    """The settings of a run with the temperature asked for where its tests need one and none is given.

    Raises:
        UserError: it is needed and nobody gave it.
    """
    try:
        require_temperature(config.reliability)
    except UserError:
        kelvin = ask_temperature()
        if kelvin is None:
            raise
        reliability = config.reliability.model_copy(update={"temperatures": [kelvin]})
        return config.model_copy(update={"reliability": reliability})
    return config

"""What a trained network costs: memory of the training, and time of a prediction."""

import resource
import statistics
import sys

from benchmarks.reproduce.training import processor_seconds
from phystrain.data.structures import Structures
from phystrain.reliability.errors import predict
from phystrain.saving import SavedModel

ROUNDS = 5
"""Predictions of all structures; the median counts."""


def peak_memory() -> float:
    """MB that this process has held at most, Python and torch included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def prediction_time(model: SavedModel, structures: Structures) -> float:
    """Milliseconds of the processor for energy and forces of a structure, neighbour lists included."""
    structures = structures.without_labels()
    times = []
    for _ in range(ROUNDS):
        began = processor_seconds()
        predict(model.potential, structures)
        times.append(processor_seconds() - began)
    return 1000 * statistics.median(times) / len(structures)

"""What a potential is compared with: the same network without physics, and the classical potential that taught it.

Figures of one potential say little; the tests are put to these too, from the same starts with the same seeds.
"""

from pathlib import Path
from typing import NamedTuple

from phystrain import config as run_file
from phystrain.config import RunConfig, Stage
from phystrain.saving import SavedModel, load_model

BASELINE = "labels only"
"""Name of the same network without physics."""


class Other(NamedTuple):
    """A potential to compare with.

    Attributes:
        name: for tables.
        description: how it was made, in one sentence.
        model: the potential.
    """

    name: str
    description: str
    model: SavedModel


def classical_stages(config: RunConfig) -> list[Stage]:
    """Stages that fit or train a classical potential."""
    return [s for s in config.stages if s.fit is not None or (s.potential or config.potential).trains_reference]


def teachers(config: RunConfig, folder: Path) -> list[Other]:
    """Classical potentials of a finished run, the last stage left out: that is the run's own potential."""
    last = config.stages[-1].name
    names = [stage.name for stage in classical_stages(config) if stage.name != last]
    found = [(name, folder / "model" / f"{name}.safetensors") for name in names]
    return [Other(name, "classical potential of this run", load_model(file)) for name, file in found if file.is_file()]


def others(folder: Path) -> list[Other]:
    """All that a run folder holds to compare its potential with; nothing for a model file."""
    if not (folder / "config.yaml").is_file():
        return []
    plain = folder / "baseline" / "model" / "model.safetensors"
    baseline = [Other(BASELINE, "the same network without physics", load_model(plain))] if plain.is_file() else []
    return baseline + teachers(run_file.load(folder / "config.yaml"), folder)

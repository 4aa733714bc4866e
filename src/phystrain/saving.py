"""Model files and checkpoints: tensors in safetensors, everything else as JSON in the same file's header.

One file, so that it is replaced in one move. It loads without pickle and cannot run code. ``format`` counts the
versions of the layout; older ones are brought up to date by the functions in ``_UPGRADES``.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor, nn

from phystrain import __version__, registry
from phystrain.errors import UserError
from phystrain.files import write_bytes
from phystrain.statistics import Statistics

FORMAT = 1

_UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""From each old format number, the function that takes its header to the next one."""


@dataclass(frozen=True)
class SavedModel:
    """A potential with what is needed to use it and to know where it comes from.

    Attributes:
        potential: the potential, in the precision it was trained in, in evaluation mode.
        config: settings it was built from, ``kind`` included.
        statistics: of its training data.
        meta: provenance and settings of the run: version, data hash, temperatures, whatever the trainer wrote.
        path: the file.
    """

    potential: nn.Module
    config: dict[str, Any]
    statistics: Statistics
    meta: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None


def write_state(path: Path | str, tensors: Mapping[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors and a JSON header to one file, whole or not at all.

    Raises:
        UserError: the disk is full or the place cannot be written to; the previous file survives.
    """
    content = {"format": FORMAT, "version": __version__, **header}
    packed = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(packed, metadata={"phystrain": json.dumps(content)}))


def read_state(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`write_state` wrote, brought up to the present format.

    Raises:
        UserError: no such file, damaged, of another program, or of a newer phystrain.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such model file or run folder: {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            header = json.loads(metadata["phystrain"]) if "phystrain" in metadata else None
            tensors = {name: opened.get_tensor(name) for name in opened.keys()} if header else {}  # noqa: SIM118
    except (safetensors.SafetensorError, json.JSONDecodeError, OSError, ValueError) as error:
        raise UserError(
            f"{path} is not a model file of phystrain, or it is damaged ({error}). Use another copy."
        ) from error
    if header is None:
        raise UserError(
            f"{path} was not written by phystrain: give a model file or run folder that 'phystrain train' made."
        )
    found = header.get("format") if isinstance(header, dict) else None
    if isinstance(found, int) and found > FORMAT:
        raise UserError(f"{path} has format {found}, this phystrain reads up to {FORMAT}: upgrade phystrain.")
    if found not in (*_UPGRADES, FORMAT):
        raise UserError(f"{path} is damaged (format {found}). Use another copy.")
    for number in range(found, FORMAT):
        header = _UPGRADES[number](header)
    return tensors, header


def save_model(
    path: Path | str,
    weights: Mapping[str, Tensor],
    config: dict[str, Any],
    statistics: Statistics,
    meta: dict[str, Any] | None = None,
) -> None:
    """Write a potential to a file that :func:`load_model` reads.

    Args:
        path: the file, by convention ending in ``.safetensors``.
        weights: state of the potential that ``config`` builds.
        config: settings with ``kind``, as plain data.
        statistics: of the training data.
        meta: provenance, as plain data.
    """
    header = {"type": "model", "config": config, "statistics": statistics.model_dump(mode="json"), "meta": meta or {}}
    write_state(path, weights, header)


def locate_model(path: Path | str) -> Path:
    """The model file meant by a file or by a run folder.

    Raises:
        UserError: neither, or a run that has not finished.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    model = path / "model" / "model.safetensors"
    if model.is_file():
        return model
    if (path / "config.yaml").is_file():
        raise UserError(f"the run in {path} is not finished: run its 'phystrain train' command again.")
    raise UserError(f"{path} is no run folder: give one that 'phystrain train' made, or a model file.")


def load_model(path: Path | str) -> SavedModel:
    """Read a potential from a model file or from the run folder that holds it.

    Raises:
        UserError: no such file, damaged, foreign, or a checkpoint of unfinished training.
    """
    path = locate_model(path)
    tensors, header = read_state(path)
    if header.get("type") != "model":
        raise UserError(f"{path} is a training checkpoint, not a model: give the run folder or its model/ file.")
    try:
        statistics = Statistics.model_validate(header["statistics"])
        potential = registry.parse("potentials", header["config"]).build(statistics)
        floating = next(
            (t.dtype for n, t in tensors.items() if t.is_floating_point() and t.dtype != torch.float64), None
        )
        potential = potential.to(floating or torch.float64)
        potential.load_state_dict(tensors)
        meta = dict(header.get("meta", {}))
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, UserError) as error:
        reason = " ".join(str(error).partition("For further information")[0].split())[:200]
        writer = header.get("version")
        cause, cure = "is damaged", "another copy"
        if writer != __version__:
            cause, cure = f"was written by phystrain {writer} and this is {__version__}", "that version"
        raise UserError(f"{path} {cause}: use {cure}.\n{reason}") from error
    potential.eval()
    return SavedModel(potential, header["config"], statistics, meta, path)

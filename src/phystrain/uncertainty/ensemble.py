"""Several weights of one model, and how far they disagree about the force on each atom.

They stand beside the model in a file of their own, ``NAME-ensemble.safetensors``; the model file does not need it.
Only weights in which the members differ are stored. The model itself is a member too.
"""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from phystrain.data.graphs import GraphStore
from phystrain.data.structures import Floats, Structures, groups, ragged
from phystrain.derive import Potential, evaluate, placement
from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.saving import SavedModel, read_state, write_state
from phystrain.uncertainty.calibration import Calibration, Observed

Source = Literal["snapshots", "seeds", "seeds and snapshots"]

_EDGES = 200_000
"""Directed edges that are evaluated at a time."""


@dataclass(frozen=True, eq=False)
class Ensemble:
    """A model and others that were trained like it.

    Attributes:
        members: the model first, at least two; on one device and in one precision.
        source: where the others come from.
        calibration: from held-out structures; ``None`` if there were none.
    """

    members: tuple[nn.Module, ...]
    source: Source
    calibration: Calibration | None = None

    def forces(self, graph: AtomGraph) -> Float[Tensor, "members atoms 3"]:
        """(members, atoms, 3) eV/Å, one pass for each member."""
        found = [evaluate(cast(Potential, member), graph, ("forces",)).forces for member in self.members]
        return torch.stack([forces for forces in found if forces is not None]).to(torch.float64)

    def spread(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV/Å, standard deviation of a force component between the members; scaled if calibrated."""
        return self.scale * spread_of(self.forces(graph))

    @property
    def scale(self) -> float:
        """By which spreads are multiplied; 1 if nothing is known."""
        return 1.0 if self.calibration is None else self.calibration.scale

    @property
    def remark(self) -> str:
        """What to bear in mind of the calibration; empty if there is nothing."""
        return "" if self.calibration is None else self.calibration.remark

    def predict(self, structures: Structures) -> tuple[Floats, Floats]:
        """Forces of the model, (atoms, 3) eV/Å, and the spread, (atoms,) eV/Å, scaled if calibrated."""
        device, dtype = placement(self.members[0])
        store = GraphStore(structures, float(cast(Potential, self.members[0]).cutoff))
        forces = np.full_like(structures.positions, np.nan)
        spread = np.full(len(forces), np.nan)
        for numbers in groups(store.edge_counts, _EDGES):
            atoms = ragged(structures.offsets, numbers)
            found = self.forces(store.graph(numbers, dtype).to(device))
            forces[atoms] = found[0].cpu().numpy()
            spread[atoms] = self.scale * spread_of(found).cpu().numpy()
        return forces, spread

    def observe(self, labelled: Structures) -> Observed:
        """Spread, scaled if calibrated, and error of the model on every atom of labelled structures."""
        forces, spread = self.predict(labelled)
        return Observed(spread, forces - labelled.forces, len(labelled))


def spread_of(forces: Float[Tensor, "members atoms 3"]) -> Float[Tensor, " atoms"]:
    """(atoms,) standard deviation of a component between the members, over the three components together."""
    return forces.var(dim=0, correction=1).mean(dim=1).sqrt()


def file_beside(model: Path | str) -> Path:
    """Where the ensemble of a model file is kept."""
    path = Path(model)
    return path.with_name(f"{path.stem}-ensemble.safetensors")


def save_ensemble(
    model: Path | str,
    weights: Mapping[str, Tensor],
    others: Sequence[Mapping[str, Tensor]],
    source: Source,
    calibration: Calibration | None,
) -> Path:
    """Write the weights in which others differ from those of a model, beside its file.

    Args:
        model: the model file.
        weights: of the model.
        others: of the further members, under the same names.
        source: where they come from.
        calibration: of the spread.

    Returns:
        The file.
    """
    changed = [name for name in weights if any(not torch.equal(other[name], weights[name]) for other in others)]
    header = {
        "type": "ensemble",
        "of": digest(weights),
        "members": len(others),
        "source": source,
        "calibration": None if calibration is None else calibration.model_dump(mode="json"),
    }
    file = file_beside(model)
    write_state(file, {name: torch.stack([other[name] for other in others]) for name in changed}, header)
    return file


def load_ensemble(model: SavedModel) -> Ensemble:
    """The ensemble that stands beside a model.

    Raises:
        UserError: there is none, or it is damaged or of another model.
    """
    assert model.path is not None
    file = file_beside(model.path)
    if not file.is_file():
        raise UserError(
            f"{model.path} has no ensemble to take a spread from: set snapshots: 8 or members: 4 in the last stage of "
            f"the run file, and train"
        )
    tensors, header = read_state(file)
    try:
        if header["type"] != "ensemble" or header["of"] != digest(model.potential.state_dict()):
            raise UserError(f"{file} belongs to another model than {model.path.name}: copy the one that it came with")
        calibration = header["calibration"] and Calibration.model_validate(header["calibration"])
        states = [{name: tensor[number] for name, tensor in tensors.items()} for number in range(header["members"])]
        others = [with_weights(model.potential, state) for state in states]
    except (KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
        raise UserError(f"{file} is damaged: use another copy, or train again ({error})") from error
    return Ensemble((model.potential, *others), header["source"], calibration or None)


def with_weights(potential: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a potential with some of its weights exchanged, in evaluation mode."""
    other = copy.deepcopy(potential)
    other.load_state_dict({**potential.state_dict(), **weights})
    return other.eval()


def digest(weights: Mapping[str, Tensor]) -> str:
    """Hash of weights by name, the same on every device."""
    state = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        state.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()

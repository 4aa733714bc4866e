"""The weights beside those that a run hands on: kept on the way, gathered at the end, calibrated on held-out data."""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.saving import load_model, read_state, write_state
from phystrain.uncertainty.calibration import Calibration, calibrate
from phystrain.uncertainty.ensemble import Ensemble, Source, save_ensemble, with_weights


def keep_snapshots(checkpoints: Path, stage: str, snapshots: Sequence[dict[str, Tensor]]) -> None:
    """Store weights that a stage kept on the way, until the run is finished."""
    if snapshots:
        tensors = {f"{n}.{name}": tensor for n, weights in enumerate(snapshots) for name, tensor in weights.items()}
        write_state(_file(checkpoints, stage), tensors, {"type": "snapshots", "count": len(snapshots)})


def write_ensemble(
    final: Path, members: Sequence[Path], checkpoints: Path, valid: Structures | None, say: Callable[[str], None]
) -> None:
    """Write the ensemble of a run beside its model, if the last stage made one.

    Args:
        final: file that the model gets.
        members: model files of the last stage, the first of them the model.
        checkpoints: where snapshots were kept.
        valid: held-out structures that the spread is calibrated on.
        say: told what was found.
    """
    snapshots = [weights for file in members for weights in snapshots_of(checkpoints, file.stem)]
    seeds = [load_model(file).potential.state_dict() for file in members[1:]]
    if not snapshots and not seeds:
        return
    model = load_model(members[0])
    weights = model.potential.state_dict()
    source: Source = "seeds and snapshots" if snapshots and seeds else "seeds" if seeds else "snapshots"
    others = [*seeds, *snapshots]
    ensemble = Ensemble((model.potential, *(with_weights(model.potential, other) for other in others)), source)
    calibration: Calibration | None = None
    try:
        if valid is None:
            raise UserError("there are no held-out structures to calibrate it on")
        calibration = calibrate(ensemble.observe(valid))
    except UserError as error:
        say(f"spread of {len(others) + 1} models ({source}): not calibrated, {error}")
    save_ensemble(final, weights, others, source, calibration)
    if calibration is not None:
        say(
            f"spread of {len(others) + 1} models ({source}): {calibration.scale:.2f} times it is the force error on "
            f"{calibration.structures} held-out structures; rank correlation with the error "
            f"{calibration.quality['rank correlation']:.2f} of {calibration.quality['attainable']:.2f}"
        )
        if calibration.remark:
            say(calibration.remark)


def snapshots_of(checkpoints: Path, stage: str) -> list[dict[str, Tensor]]:
    """Weights that a stage kept on the way; none if it kept none."""
    file = _file(checkpoints, stage)
    if not file.is_file():
        return []
    tensors, header = read_state(file)
    named: list[dict[str, Tensor]] = [{} for _ in range(header["count"])]
    for name, tensor in tensors.items():
        number, _, own = name.partition(".")
        named[int(number)][own] = tensor
    return named


def _file(checkpoints: Path, stage: str) -> Path:
    return checkpoints / f"{stage}-snapshots.safetensors"

"""Small sets of real quantum-mechanical labels that ship with the package, each with its licence and citation."""

from pathlib import Path

from phystrain.errors import UserError
from phystrain.registry import did_you_mean

_HERE = Path(__file__).parent


def names() -> tuple[str, ...]:
    """Names of the sets."""
    return tuple(sorted(folder.name for folder in _HERE.iterdir() if (folder / "train.xyz.xz").is_file()))


def path(name: str, part: str = "train") -> Path:
    """File of a set.

    Args:
        name: of the set.
        part: ``train`` or ``test``.

    Raises:
        UserError: no such set or part.
    """
    if name not in names():
        raise UserError(f"no data set {name!r}: {did_you_mean(name, names())}")
    file = _HERE / name / f"{part}.xyz.xz"
    if not file.is_file():
        raise UserError(f"data set {name} has no part {part!r}: choose train or test")
    return file

"""What a teacher is, to those who ask it for labels."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

from phystrain.data.structures import Floats, Ints, Structures


class Labelled(NamedTuple):
    """Labels of some structures.

    Attributes:
        indices: (n,) numbers of the structures.
        energy: (n,) eV.
        forces: (atoms of them, 3) eV/Å.
        stress: (n, 3, 3) eV/Å³.
        error: why there are none, where a calculation failed.
    """

    indices: Ints
    energy: Floats
    forces: Floats
    stress: Floats
    error: str = ""


@runtime_checkable
class Teacher(Protocol):
    """What labels structures.

    ``identity`` is a hash of all that its labels depend on; ``name`` is for people; ``gives_stress`` says, once
    labelling has begun, whether a missing stress is a failure; ``for_isolated_atoms``, whether it can label those.
    """

    @property
    def name(self) -> str: ...

    def identity(self) -> str: ...

    @property
    def gives_stress(self) -> bool: ...

    @property
    def for_isolated_atoms(self) -> bool: ...

    def label(self, structures: Structures, want: frozenset[str], batch_edges: int) -> Iterator[Labelled]:
        """Labels of all structures, piece by piece; not-a-number for what is not in ``want`` or does not exist."""
        ...

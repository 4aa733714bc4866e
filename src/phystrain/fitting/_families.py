"""Which classical potentials make sense for which elements."""

from typing import Any

from ase.data import chemical_symbols
from pydantic import ValidationError

from phystrain import registry
from phystrain.errors import UserError
from phystrain.layers.elements import ELECTRONEGATIVITY, NON_METALS
from phystrain.statistics import Statistics

Settings = dict[str, Any]

IONIC = 1.0
"""Elements that differ by more than this in electronegativity count as ions."""

_ANGLES: Settings = {"kind": "stillinger_weber", "two_body": False}
_IONS: Settings = {"kind": "born_mayer", "cutoff": 6.0}
"""Nearer than the potential's own default: a teacher is evaluated very often; on silica its error changes by 3 %."""

FAMILIES: dict[str, Settings] = {
    "eam": {"kind": "eam"},
    "eam_square_root": {"kind": "eam", "embedding": "square_root"},
    "finnis_sinclair": {"kind": "finnis_sinclair"},
    "morse_zbl": {"kind": "sum", "terms": {"pairs": {"kind": "morse"}, "nuclei": {"kind": "zbl"}}},
    "morse_angles": {
        "kind": "sum",
        "terms": {"pairs": {"kind": "morse"}, "nuclei": {"kind": "zbl"}, "angles": _ANGLES},
    },
    "stillinger_weber": {"kind": "stillinger_weber"},
    "born_mayer": _IONS,
    "born_mayer_angles": {"kind": "sum", "terms": {"pairs": _IONS, "angles": _ANGLES}},
}
"""Settings by name of the family."""


def sensible(statistics: Statistics) -> tuple[str, ...]:
    """Names of the families worth trying for the elements of the data.

    Embedded atoms always; Finnis-Sinclair for metals; charges where elements differ by more than :data:`IONIC` in
    electronegativity; angles where there is a non-metal.
    """
    symbols = [chemical_symbols[number] for number in statistics.species]
    metallic = not NON_METALS.intersection(symbols)
    known = [ELECTRONEGATIVITY[symbol] for symbol in symbols if symbol in ELECTRONEGATIVITY]
    ionic = bool(known) and max(known) - min(known) > IONIC
    names = ["eam", "eam_square_root"]
    names += ["finnis_sinclair"] if metallic else ["morse_zbl"]
    names += ["born_mayer", "born_mayer_angles"] if ionic and not metallic else []
    names += [] if metallic else ["stillinger_weber", "morse_angles"]
    return tuple(names)


def settings_of(name: str) -> Settings:
    """Settings of a family, or of a kind of potential with its defaults.

    Raises:
        UserError: neither.
    """
    if name in FAMILIES:
        return FAMILIES[name]
    if name in registry.kinds("potentials"):
        try:
            registry.parse("potentials", {"kind": name})
        except ValidationError as error:
            raise UserError(
                f"fit: {name} needs settings of its own and cannot be chosen by its name: give it as the potential"
            ) from error
        return {"kind": name}
    choices = tuple(dict.fromkeys((*FAMILIES, *(kind for kind in registry.kinds("potentials") if _is_fitted(kind)))))
    raise UserError(f"fit: choose names no family {name!r}: {registry.did_you_mean(name, choices)}")


def _is_fitted(kind: str) -> bool:
    """Whether a kind can be chosen by its name alone: a classical potential that needs no settings of its own."""
    try:
        return bool(registry.parse("potentials", {"kind": kind}).trains_reference) and kind != "reference_energy"
    except ValidationError:
        return False

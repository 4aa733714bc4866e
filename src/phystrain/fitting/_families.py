"""Which classical potentials make sense for which elements."""

from typing import Any

from ase.data import chemical_symbols

from phystrain import registry
from phystrain.errors import UserError
from phystrain.statistics import Statistics

Settings = dict[str, Any]

NON_METALS = frozenset("H He B C N O F Ne Si P S Cl Ar Ge As Se Br Kr Te I Xe At Rn".split())  # noqa: SIM905

# Pauling's scale as revised by Allred 1961, doi:10.1016/0022-1902(61)80142-5; no value for noble gases but Kr and Xe.
# fmt: off
ELECTRONEGATIVITY = {
    "H": 2.20, "Li": 0.98, "Be": 1.57, "B": 2.04, "C": 2.55, "N": 3.04, "O": 3.44, "F": 3.98, "Na": 0.93,
    "Mg": 1.31, "Al": 1.61, "Si": 1.90, "P": 2.19, "S": 2.58, "Cl": 3.16, "K": 0.82, "Ca": 1.00, "Sc": 1.36,
    "Ti": 1.54, "V": 1.63, "Cr": 1.66, "Mn": 1.55, "Fe": 1.83, "Co": 1.88, "Ni": 1.91, "Cu": 1.90, "Zn": 1.65,
    "Ga": 1.81, "Ge": 2.01, "As": 2.18, "Se": 2.55, "Br": 2.96, "Kr": 3.00, "Rb": 0.82, "Sr": 0.95, "Y": 1.22,
    "Zr": 1.33, "Nb": 1.6, "Mo": 2.16, "Tc": 1.9, "Ru": 2.2, "Rh": 2.28, "Pd": 2.20, "Ag": 1.93, "Cd": 1.69,
    "In": 1.78, "Sn": 1.96, "Sb": 2.05, "Te": 2.1, "I": 2.66, "Xe": 2.60, "Cs": 0.79, "Ba": 0.89, "La": 1.10,
    "Ce": 1.12, "Pr": 1.13, "Nd": 1.14, "Sm": 1.17, "Gd": 1.20, "Dy": 1.22, "Ho": 1.23, "Er": 1.24, "Tm": 1.25,
    "Lu": 1.27, "Hf": 1.3, "Ta": 1.5, "W": 2.36, "Re": 1.9, "Os": 2.2, "Ir": 2.20, "Pt": 2.28, "Au": 2.54,
    "Hg": 2.00, "Tl": 1.62, "Pb": 2.33, "Bi": 2.02, "Po": 2.0, "Ra": 0.9, "Ac": 1.1, "Th": 1.3, "Pa": 1.5,
    "U": 1.38, "Np": 1.36, "Pu": 1.28,
}
# fmt: on

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
        return {"kind": name}
    choices = tuple(dict.fromkeys((*FAMILIES, *registry.kinds("potentials"))))
    raise UserError(f"fit: choose names no family {name!r}: {registry.did_you_mean(name, choices)}")

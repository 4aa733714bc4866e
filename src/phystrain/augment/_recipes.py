"""Teachers by short names: calculators of ASE that are known to be good for something.

To add one is to add an entry. Their packages are installed with an extra of phystrain.
"""

import importlib
from dataclasses import dataclass
from typing import Any

from phystrain.augment._calculators import CalculatorTeacher
from phystrain.errors import UserError


@dataclass(frozen=True)
class Recipe:
    """A teacher with a name.

    Attributes:
        path: import path of the calculator.
        arguments: keyword arguments.
        extra: of phystrain, that installs it.
        purpose: what it is for.
        periodic: whether for periodic structures only (true), for others only (false), or for all.
        advice: what to say to those who bring others.
        thinnest: Å, thickness of a periodic cell below which it is warned of.
    """

    path: str
    arguments: dict[str, Any]
    extra: str
    purpose: str
    periodic: bool | None = None
    advice: str = ""
    thinnest: float = 0.0


RECIPES: dict[str, Recipe] = {
    # Bannwarth, Ehlert, Grimme 2019, doi:10.1021/acs.jctc.8b01176. Its multipole electrostatics are not to be trusted
    # in periodic cells, which tblite accepts all the same.
    "gfn2-xtb": Recipe(
        path="tblite.ase:TBLite",
        arguments={"method": "GFN2-xTB", "verbosity": 0},
        extra="qm",
        purpose="molecules of any element up to radon: geometries, conformers, non-covalent contacts",
        periodic=False,
        advice="GFN2-xTB is for molecules; take gfn1-xtb.",
    ),
    # Grimme, Bannwarth, Shushkov 2017, doi:10.1021/acs.jctc.7b00118. tblite samples the centre of the Brillouin zone
    # only: silicon in its cubic cell of 5.4 Å is 1.0 eV/atom above what a cell of twice the size gives.
    "gfn1-xtb": Recipe(
        path="tblite.ase:TBLite",
        arguments={"method": "GFN1-xTB", "verbosity": 0},
        extra="qm",
        purpose="periodic structures in large cells, and molecules, of any element up to radon",
        thinnest=8.0,
    ),
    # Deng et al. 2023, doi:10.1038/s42256-023-00716-3. Its graphs exist in periodic cells only.
    "chgnet": Recipe(
        path="chgnet.model.dynamics:CHGNetCalculator",
        arguments={},
        extra="teachers",
        purpose="inorganic crystals of 89 elements, PBE(+U)",
        periodic=True,
        advice="CHGNet is for crystals; take gfn2-xtb for molecules and dimers.",
    ),
}


def by_name(name: str, changes: dict[str, Any], processes: Any) -> CalculatorTeacher:
    """The teacher of that name.

    Args:
        name: one of :data:`RECIPES`.
        changes: arguments in place of, or beside, those of the recipe.
        processes: how many at most.

    Raises:
        UserError: its package is not installed.
    """
    recipe = RECIPES[name]
    package = recipe.path.partition(":")[0].partition(".")[0]
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise UserError(f"{name}: {package} cannot be imported: {error}. Install it again.") from error
        raise UserError(
            f"{name} needs {package}, which is not installed: pip install 'phystrain[{recipe.extra}]'"
        ) from error
    given = ", ".join(f"{key}={value}" for key, value in changes.items())
    return CalculatorTeacher(
        recipe.path,
        recipe.arguments | changes,
        processes,
        name + f" ({given})" * bool(given),
        recipe.periodic,
        recipe.advice,
        recipe.thinnest,
    )

"""Any calculator of ASE as a teacher, on all cores."""

import hashlib
import importlib
import importlib.util
import json
import logging
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from phystrain.augment._pool import Answer, Pool, geometry
from phystrain.augment._protocol import Labelled
from phystrain.augment._worker import calculate, find, make
from phystrain.data._geometry import heights
from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.parallel import cores
from phystrain.units import voigt_to_full

log = logging.getLogger(__name__)

IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")

LONG = 5.0
"""Seconds of work ahead from which processes of their own are started: that takes a second or two itself."""


@dataclass(eq=False)
class CalculatorTeacher:
    """A calculator of ASE as a teacher.

    Energies are the free energy where the calculator gives one, because the forces are its gradient. The first
    structures are labelled in this process; where the rest will take long, several processes of one thread each do it.

    Args:
        path: ``module:attribute``, a calculator, or a class or function that makes one. Importing it runs its code, so
            it is taken only from the user's own run file or command line, never from anything that was downloaded.
        arguments: keyword arguments.
        processes: how many at most, as the user wrote it; the number of cores if not given.
        name: for people; made from path and arguments if not given.
        periodic: whether it is for periodic structures only (true), for others only (false), or for all.
        advice: what to say to those who bring others.
        thinnest: Å, thickness of a periodic cell below which it is warned of, for calculators without k-points.
    """

    path: str
    arguments: dict[str, Any] = field(default_factory=dict)
    processes: Any = None
    name: str = ""
    periodic: bool | None = None
    advice: str = ""
    thinnest: float = 0.0

    def __post_init__(self) -> None:
        if self.processes is not None and (type(self.processes) is not int or self.processes < 1):
            raise UserError(f"processes of a teacher is {self.processes!r}: give a number of at least 1")
        self.gives_stress = True
        self._warned = False
        self.for_isolated_atoms = self.periodic is not True
        _import(self.path)
        given = ", ".join(f"{name}={value}" for name, value in self.arguments.items())
        self.name = self.name or self.path + f" ({given})" * bool(given)

    def identity(self) -> str:
        """Hash of import path, arguments, the versions of the packages, and the content of files that are named."""
        module = self.path.partition(":")[0].partition(".")[0]
        packages = sorted({"ase", *_distributions().get(module, [])})
        facts = {
            "calculator": self.path,
            "arguments": self.arguments,
            "packages": {name: metadata.version(name) for name in packages},
            "source": "" if len(packages) > 1 or module == "ase" else _source_hash(self.path.partition(":")[0]),
            "files": {
                name: hashlib.sha256(Path(value).read_bytes()).hexdigest()
                for name, value in self.arguments.items()
                if isinstance(value, str | Path) and Path(value).is_file()
            },
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=repr).encode()).hexdigest()

    def label(self, structures: Structures, want: frozenset[str], batch_edges: int) -> Iterator[Labelled]:  # noqa: ARG002
        """Label one structure after another, in order; a calculation that raises is reported as failed.

        Raises:
            UserError: a structure is, or is not, periodic, and the calculator is not for such.
        """
        self._require(structures)
        calculator, began, processes = None, 0.0, self.processes or cores()
        for index in range(len(structures)):
            if calculator is None:
                calculator = self.build()
            wanted = self._wanted(structures, index, want)
            try:
                answer: Answer = calculate(calculator, Atoms(**geometry(structures, index)), wanted), ""
            except Exception as failure:  # a calculator can raise anything, and the others can still be labelled
                answer = None, f"{type(failure).__name__}: {failure}"
                calculator = None  # it may be left in a broken state
            yield _labelled(structures, index, answer)
            left = len(structures) - index - 1
            if index == 0:
                began = time.perf_counter()  # the first one warms up
            elif processes > 1 and left > 1 and (time.perf_counter() - began) / index * left > LONG:
                yield from self._spread(structures, index + 1, want, min(processes, left))
                return

    def _spread(self, structures: Structures, first: int, want: frozenset[str], processes: int) -> Iterator[Labelled]:
        """Label the structures from number ``first`` on in several processes."""
        rest = structures.select(np.arange(first, len(structures)))
        wanted = [self._wanted(rest, index, want) for index in range(len(rest))]
        answers = Pool(self.path, self.arguments, processes).map(rest, wanted)
        for index, answer in enumerate(answers):
            yield _labelled(structures, first + index, answer)

    def _wanted(self, structures: Structures, index: int, want: frozenset[str]) -> frozenset[str]:
        return want if self.gives_stress and structures.pbc[index].all() else want - {"stress"}

    def _require(self, structures: Structures) -> None:
        thin = int((heights(structures) < self.thinnest).any(axis=1).sum())
        if thin and not self._warned:
            self._warned = True
            log.warning(
                "%s has no k-points: %d of %d structures have cells thinner than %g Å, and labels that are rough.",
                self.name, thin, len(structures), self.thinnest,
            )  # fmt: skip
        if self.periodic is None:
            return
        wrong = np.flatnonzero(structures.pbc.any(axis=1) != self.periodic)
        if len(wrong):
            what = "not periodic" if self.periodic else "periodic"
            raise UserError(f"{self.name}: {len(wrong)} of {len(structures)} structures are {what}. {self.advice}")

    def build(self) -> Any:
        """A calculator of ASE.

        Raises:
            UserError: it does not start, or is none.
        """
        try:
            calculator = make(self.path, self.arguments)
        except Exception as failure:
            raise UserError(
                f"{self.path} does not start with {self.arguments}: {failure}. Check its arguments."
            ) from failure
        if not hasattr(calculator, "implemented_properties"):
            raise UserError(f"{self.path} makes no calculator of ASE: name a class or function that does")
        self.gives_stress = "stress" in calculator.implemented_properties
        return calculator


def _labelled(structures: Structures, index: int, answer: Answer) -> Labelled:
    labels, error = answer
    size = int(structures.sizes[index])
    energy, forces, stress = np.full(1, np.nan), np.full((size, 3), np.nan), np.full((1, 3, 3), np.nan)
    if labels is not None:
        energy[0] = labels[0]
        if labels[1] is not None:
            forces[:] = labels[1]
        if labels[2] is not None:
            stress[0] = voigt_to_full(labels[2])
    return Labelled(np.array([index]), energy, forces, stress, error)


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Which installed packages hold which modules; asked once, because it looks through all of them."""
    return metadata.packages_distributions()


def _source_hash(module: str) -> str:
    """Hash of the sources of a module that belongs to no installed package: a user's own file, which may change."""
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        return ""
    folder = [*found.submodule_search_locations] if found.submodule_search_locations else []
    files = sorted(file for place in folder for file in Path(place).rglob("*.py")) or [Path(found.origin)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files if file.is_file())).hexdigest()


def _import(path: str) -> None:
    if not IMPORT_PATH.fullmatch(path):
        raise UserError(f"{path!r} is not an import path: write module:attribute, such as tblite.ase:TBLite")
    module, _, attribute = path.partition(":")
    try:
        find(path)
    except ImportError as error:
        raise UserError(f"cannot import {module}: {error}. Install the package that holds it.") from error
    except AttributeError as error:
        raise UserError(f"{module} has no {attribute!r}: check the spelling of {path}") from error

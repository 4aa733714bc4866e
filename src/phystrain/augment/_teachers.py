"""Who labels structures: a potential, a saved model, or any calculator of ASE."""

import hashlib
import importlib
import importlib.util
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from pydantic import BaseModel
from torch import nn

from phystrain import __version__
from phystrain.data.graphs import GraphStore
from phystrain.data.structures import Floats, Ints, Structures
from phystrain.derive import evaluate
from phystrain.errors import UserError
from phystrain.saving import load_model
from phystrain.units import voigt_to_full

log = logging.getLogger(__name__)

_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_CHUNK = 512


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
    labelling has begun, whether a missing stress is a failure.
    """

    @property
    def name(self) -> str: ...

    def identity(self) -> str: ...

    @property
    def gives_stress(self) -> bool: ...

    def label(self, structures: Structures, want: frozenset[str], batch_edges: int) -> Iterator[Labelled]:
        """Labels of all structures, piece by piece; not-a-number for what is not in ``want`` or does not exist."""
        ...


@dataclass(frozen=True, eq=False)
class PotentialTeacher:
    """A potential as a teacher; it labels batches of structures.

    Args:
        potential: an ``nn.Module`` that is a :class:`phystrain.derive.Potential`, on the device and in the precision
            to use.
        name: for people.
    """

    potential: nn.Module
    name: str = "potential"
    gives_stress = True

    def identity(self) -> str:
        """Hash of weights, architecture, plain settings of every sub-module, and phystrain's version."""
        state = hashlib.sha256(f"potential {__version__}\n{self.potential}\n".encode())
        for prefix, module in self.potential.named_modules():
            settings = {name: value for name, value in vars(module).items() if _is_plain(name, value)}
            if isinstance(config := getattr(module, "config", None), BaseModel):
                settings["config"] = config.model_dump_json()
            state.update(f"{prefix} {type(module).__module__}.{type(module).__qualname__} {settings!r}\n".encode())
        for name, tensor in self.potential.state_dict().items():
            state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            state.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return state.hexdigest()

    def label(self, structures: Structures, want: frozenset[str], batch_edges: int) -> Iterator[Labelled]:
        """Label batches of at most ``batch_edges`` directed edges (one structure at least)."""
        training = self.potential.training
        self.potential.eval()
        try:
            for start in range(0, len(structures), _CHUNK):
                numbers = np.arange(start, min(start + _CHUNK, len(structures)))
                yield from self._label_chunk(structures, numbers, want, batch_edges)
        finally:
            self.potential.train(training)

    def _label_chunk(
        self, structures: Structures, numbers: Ints, want: frozenset[str], batch_edges: int
    ) -> Iterator[Labelled]:
        store = GraphStore(structures.select(numbers), float(self.potential.cutoff))  # type: ignore[arg-type]
        device, dtype = _place(self.potential)
        for batch in _within_budget(store.edge_counts, batch_edges):
            graph = store.graph(batch, dtype).to(device)
            found = evaluate(self.potential, graph, want)  # type: ignore[arg-type]
            yield Labelled(
                numbers[batch],
                _to_numpy(found.energy, (len(batch),)),
                _to_numpy(found.forces, (graph.n_atoms, 3)),
                _to_numpy(found.stress, (len(batch), 3, 3)),
            )


@dataclass(eq=False)
class CalculatorTeacher:
    """A calculator of ASE as a teacher; it labels one structure after another.

    Energies are the free energy where the calculator gives one, because the forces are its gradient.

    Args:
        path: ``module:attribute``, a class or function that makes the calculator. Importing it runs its code, so it is
            taken only from the user's own run file or command line, never from anything that was downloaded.
        arguments: keyword arguments.
    """

    path: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gives_stress = True
        self._make = _import(self.path)
        self.name = self.path + (
            f" ({', '.join(f'{k}={v}' for k, v in self.arguments.items())})" * bool(self.arguments)
        )

    def identity(self) -> str:
        """Hash of import path, arguments, the versions of the packages, and the content of files that are named."""
        module = self.path.partition(":")[0].partition(".")[0]
        packages = sorted({"ase", *metadata.packages_distributions().get(module, [])})
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
        """Label one structure after another; a calculation that raises is reported as failed."""
        calculator = None
        for index in range(len(structures)):
            atoms = _bare(structures, index)
            energy, forces, stress = np.full(1, np.nan), np.full((len(atoms), 3), np.nan), np.full((1, 3, 3), np.nan)
            error = ""
            calculator = self._build() if calculator is None else calculator
            atoms.calc = calculator
            try:
                total = atoms.get_potential_energy()
                energy[0] = calculator.results.get("free_energy", total)
                if "forces" in want:
                    forces[:] = atoms.get_forces()
                if "stress" in want and atoms.pbc.all() and self.gives_stress:
                    stress[0] = voigt_to_full(atoms.get_stress())
            except Exception as failure:  # a calculator can raise anything, and the others can still be labelled
                error = f"{type(failure).__name__}: {failure}"
                calculator = None  # it may be left in a broken state
            yield Labelled(np.array([index]), energy, forces, stress, error)

    def _build(self) -> Any:
        try:
            calculator = self._make(**self.arguments)
        except Exception as failure:
            raise UserError(
                f"{self.path} does not start with {self.arguments}: {failure}. Check its arguments."
            ) from failure
        if not hasattr(calculator, "implemented_properties"):
            raise UserError(f"{self.path} makes no calculator of ASE: name a class or function that does")
        self.gives_stress = "stress" in calculator.implemented_properties
        return calculator


def load_teacher(spec: str | Path | dict[str, Any] | nn.Module | Teacher) -> Teacher:
    """The teacher that a run file or a command line names.

    Args:
        spec: a run folder or model file; an import path such as ``tblite.ase:TBLite``; a mapping
            ``{"calculator": "tblite.ase:TBLite", "method": "GFN2-xTB"}`` whose other entries are arguments; or a
            potential or teacher itself. Import paths run code: hand over only what the user has written, never what
            a model file or another download says.

    Raises:
        UserError: no such model, or something that cannot be imported.
    """
    if isinstance(spec, nn.Module):
        return PotentialTeacher(spec)
    if isinstance(spec, dict):
        arguments = {name: value for name, value in spec.items() if name != "calculator"}
        # Many calculators accept any argument, so a nested mapping would be ignored without a word.
        if not isinstance(spec.get("calculator"), str) or isinstance(arguments.get("arguments"), dict):
            raise UserError("a teacher is written {calculator: module:attribute, method: ..., and other arguments}")
        return CalculatorTeacher(spec["calculator"], arguments)
    if not isinstance(spec, str | Path):
        return spec
    if isinstance(spec, str) and _IMPORT_PATH.fullmatch(spec) and not Path(spec).exists():
        return CalculatorTeacher(spec)
    return PotentialTeacher(load_model(spec).potential, name=str(spec))


def _source_hash(module: str) -> str:
    """Hash of the sources of a module that belongs to no installed package: a user's own file, which may change."""
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        return ""
    folder = [*found.submodule_search_locations] if found.submodule_search_locations else []
    files = sorted(file for place in folder for file in Path(place).rglob("*.py")) or [Path(found.origin)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files if file.is_file())).hexdigest()


def _import(path: str) -> Any:
    if not _IMPORT_PATH.fullmatch(path):
        raise UserError(f"{path!r} is not an import path: write module:attribute, such as tblite.ase:TBLite")
    module, _, attribute = path.partition(":")
    try:
        found = importlib.import_module(module)
        for name in attribute.split("."):
            found = getattr(found, name)
    except ImportError as error:
        raise UserError(f"cannot import {module}: {error}. Install the package that holds it.") from error
    except AttributeError as error:
        raise UserError(f"{module} has no {attribute!r}: check the spelling of {path}") from error
    return found


def _bare(structures: Structures, index: int) -> Any:
    atoms = structures.to_ase(index)
    atoms.calc = None
    return atoms


def _is_plain(name: str, value: object) -> bool:
    plain = isinstance(value, bool | int | float | str) or (
        isinstance(value, tuple) and all(isinstance(item, bool | int | float | str) for item in value)
    )
    return plain and name[0] != "_" and name != "training"


def _place(potential: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device, and the precision of the weights: reference energies are in float64 whatever the rest is."""
    tensors = [tensor for tensor in potential.state_dict().values() if tensor.is_floating_point()]
    device = tensors[0].device if tensors else torch.device("cpu")
    lower = [tensor.dtype for tensor in tensors if tensor.dtype != torch.float64]
    return device, lower[0] if lower else torch.float64


def _to_numpy(value: torch.Tensor | None, shape: tuple[int, ...]) -> Floats:
    """The values in float64; not-a-number where there are none."""
    return np.full(shape, np.nan) if value is None else value.detach().cpu().to(torch.float64).numpy()


def _within_budget(counts: Ints, budget: int) -> Iterator[Ints]:
    """Consecutive numbers in batches whose counts sum to ``budget`` at most; at least one in each."""
    ends, start = np.cumsum(counts), 0
    while start < len(counts):
        before = ends[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + budget, side="right")))
        yield np.arange(start, end)
        start = end

"""Who labels structures: a potential, a saved model, or any calculator of ASE."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel
from torch import Tensor, nn

from phystrain import __version__
from phystrain.augment._calculators import IMPORT_PATH, CalculatorTeacher
from phystrain.augment._protocol import Labelled, Teacher
from phystrain.augment._recipes import RECIPES, by_name
from phystrain.data.graphs import GraphStore
from phystrain.data.structures import Floats, Ints, Structures
from phystrain.derive import evaluate, placement
from phystrain.errors import UserError
from phystrain.graph import AtomGraph
from phystrain.parallel import in_threads
from phystrain.registry import did_you_mean
from phystrain.saving import load_model

__all__ = ["CalculatorTeacher", "Labelled", "PotentialTeacher", "Teacher", "load_teacher"]

_CHUNK = 64


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
    for_isolated_atoms = True

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
        """Label batches of at most ``batch_edges`` directed edges (one structure at least), in order.

        On CPUs, every core works on batches of its own, neighbour lists included: several cores on one batch would
        wait for one another at every operation, and on a busy machine most of the time.
        """
        training, threads = self.potential.training, torch.get_num_threads()
        parts = [np.arange(n, min(n + _CHUNK, len(structures))) for n in range(0, len(structures), _CHUNK)]
        workers = min(threads, len(parts)) if placement(self.potential)[0].type == "cpu" else 1

        def task(numbers: Ints) -> list[Labelled]:
            if workers > 1:
                torch.set_num_threads(1)
            return list(self._label_part(structures, numbers, want, batch_edges))

        self.potential.eval()
        try:
            if workers == 1:
                for numbers in parts:
                    yield from self._label_part(structures, numbers, want, batch_edges)
            else:
                for found in in_threads(task, parts, workers):
                    yield from found
        finally:
            if workers > 1:
                torch.set_num_threads(threads)
            self.potential.train(training)

    def _label_part(
        self, structures: Structures, numbers: Ints, want: frozenset[str], batch_edges: int
    ) -> Iterator[Labelled]:
        store = GraphStore(structures.select(numbers), float(self.potential.cutoff))  # type: ignore[arg-type]
        device, dtype = placement(self.potential)
        for batch in _within_budget(store.edge_counts, batch_edges):
            graph = store.graph(batch, dtype).to(device)
            found = evaluate(self.potential, graph, want)  # type: ignore[arg-type]
            yield Labelled(
                numbers[batch],
                _to_numpy(found.energy, (len(batch),)),
                _to_numpy(found.forces, (graph.n_atoms, 3)),
                _to_numpy(found.stress, (len(batch), 3, 3)),
            )


class Mean(nn.Module):
    """The mean of several potentials.

    Args:
        members: conservative potentials, in the precision of the first.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.cutoff = max(float(member.cutoff) for member in members)  # type: ignore[arg-type]

    def atomic_energies(self, graph: AtomGraph) -> Float[Tensor, " atoms"]:
        """(atoms,) eV."""
        energies = [member.atomic_energies(graph) for member in self.members]  # type: ignore[operator]
        return torch.stack(energies).mean(dim=0)


def load_teacher(
    spec: str | Path | dict[str, Any] | nn.Module | Teacher | Sequence[str], processes: int | None = None
) -> Teacher:
    """The teacher that a run file or a command line names.

    Args:
        spec: a run folder or model file; a name of :data:`phystrain.augment._recipes.RECIPES` such as ``gfn2-xtb``; an
            import path such as ``tblite.ase:TBLite``; a mapping ``{"calculator": "tblite.ase:TBLite", "method":
            "GFN2-xTB"}``, of an import path or a name, whose other entries are arguments, except ``processes``; or a
            potential or teacher itself. Import paths run code: hand over only what the user has written, never what
            a model file or another download says. Of a list of model files the mean.
        processes: how many calculators run at a time; the number of cores if not given.

    Raises:
        UserError: no such model, or something that cannot be imported.
    """
    if isinstance(spec, nn.Module):
        return PotentialTeacher(spec)
    if isinstance(spec, list):
        members = [load_model(file).potential for file in spec]
        if any(hasattr(member, "heads") for member in members):
            raise UserError("a committee is the mean of energies: its members must have head: conservative")
        return PotentialTeacher(Mean(members), name=f"the mean of {len(members)} models")
    if isinstance(spec, dict):
        arguments = {name: value for name, value in spec.items() if name not in ("calculator", "processes")}
        # Many calculators accept any argument, so a nested mapping would be ignored without a word.
        if not isinstance(spec.get("calculator"), str) or isinstance(arguments.get("arguments"), dict):
            raise UserError("a teacher is written {calculator: module:attribute, method: ..., and other arguments}")
        return _calculator(spec["calculator"], arguments, spec.get("processes", processes))
    if not isinstance(spec, str | Path):
        return cast(Teacher, spec)
    if isinstance(spec, str) and not Path(spec).exists() and (spec in RECIPES or IMPORT_PATH.fullmatch(spec)):
        return _calculator(spec, {}, processes)
    try:
        return PotentialTeacher(load_model(spec).potential, name=str(spec))
    except UserError as error:
        near = did_you_mean(str(spec).lower(), list(RECIPES))
        if Path(spec).exists() or not near.startswith("did"):
            raise
        raise UserError(f"{error}; {near}") from error


def _calculator(name: str, arguments: dict[str, Any], processes: Any) -> CalculatorTeacher:
    return by_name(name, arguments, processes) if name in RECIPES else CalculatorTeacher(name, arguments, processes)


def _is_plain(name: str, value: object) -> bool:
    plain = isinstance(value, bool | int | float | str) or (
        isinstance(value, tuple) and all(isinstance(item, bool | int | float | str) for item in value)
    )
    return plain and name[0] != "_" and name != "training"


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

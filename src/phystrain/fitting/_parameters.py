"""The parameters of a classical potential as one vector: bounds, which are linear, which the data can fix.

Potentials keep raw numbers: ``raw_*`` stand for the positive value that their softplus gives, anything else for itself.
The vector holds raw numbers in the order of ``named_parameters``; bounds are physical and belong to the values.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from ase.data import chemical_symbols
from jaxtyping import Bool, Float
from torch import Tensor, nn

from phystrain.layers.pair import SpeciesPairs, positive, softplus_inverse

Pair = tuple[int, int]

RANGES: dict[str, tuple[float, float]] = {"raw_decay": (0.5, 5.0), "raw_beta": (0.2, 6.0)}
"""1/Å, ranges of inverse lengths: softer ones are not short-ranged, harder ones explode where the data end."""

RATIOS: dict[str, tuple[float, float]] = {"raw_minimum": (0.7, 2.0), "raw_sigma": (0.7, 2.0)}
"""Ranges of lengths, as multiples of where they start (the bond length in the data)."""

SMALLEST, LARGEST = 1e-6, 1e4
"""Range of every other positive value."""

FREE_RANGE, FREE_RANGES = 1e4, {"free_cosine": 3.0}
"""Largest size of a parameter that may have either sign; the inverse tanh of a cosine is flat beyond its own."""


class Entry(NamedTuple):
    """One parameter tensor.

    Attributes:
        name: as ``named_parameters`` gives it.
        part: its place in the vector.
        shape: of the tensor.
        positive: whether its value is the softplus of the raw number.
        linear: whether the energy is affine in its value.
        mixing: rule for the rows of unseen pairs, ``arithmetic`` or ``geometric``; empty if rows are not pairs.
        kinds: elements and pairs of the module it belongs to; ``None`` if that has none.
    """

    name: str
    part: slice
    shape: torch.Size
    positive: bool
    linear: bool
    mixing: str
    kinds: SpeciesPairs | None


class Parameters:
    """See the module.

    Args:
        model: the potential, in float64.
        shortest: Å, the shortest distance in the data, of the pairs of atomic numbers (ascending) that they hold
            within the cut-off.

    Attributes:
        shortest: as given.
        entries: parameter tensors in order.
        start: (parameters,) raw numbers as the model has them.
        lower, upper: (parameters,) raw, physical bounds.
        positive: (parameters,) whether the value is the softplus of the raw number.
        linear: (parameters,) whether the energy is affine in the value.
        free: (parameters,) whether the data can fix it: not a row of an unseen pair.
        mixed: unseen pairs whose values follow from those of the like pairs.
        kept: unseen pairs whose values stay where they start.
        final: (parameters,) raw, where the fit ended.
    """

    start: Float[Tensor, " parameters"]
    lower: Float[Tensor, " parameters"]
    upper: Float[Tensor, " parameters"]
    positive: Bool[Tensor, " parameters"]
    linear: Bool[Tensor, " parameters"]
    free: Bool[Tensor, " parameters"]

    def __init__(self, model: nn.Module, shortest: Mapping[Pair, float]) -> None:
        self.shortest = dict(shortest)
        self.entries = tuple(_entries(model))
        tensors = dict(model.named_parameters())
        nothing = torch.zeros(0, dtype=torch.float64)
        flat = [tensors[entry.name].detach().to(torch.float64).reshape(-1) for entry in self.entries]
        self.start = torch.cat([nothing, *flat])
        bounds = [_bounds(entry, values) for entry, values in zip(self.entries, flat, strict=True)]
        self.lower = torch.cat([nothing, *(low for low, _ in bounds)])
        self.upper = torch.cat([nothing, *(high for _, high in bounds)])
        self.positive, self.linear = (
            torch.tensor([getattr(e, flag) for e in self.entries for _ in range(e.shape.numel())], dtype=torch.bool)
            for flag in ("positive", "linear")
        )
        self.free = torch.ones_like(self.positive)
        mixed: set[Pair] = set()
        kept: set[Pair] = set()
        for entry, row, pair in self._unseen():
            self._rows(self.free, entry)[row] = False
            like = {(pair[0], pair[0]), (pair[1], pair[1])}
            (mixed if pair[0] != pair[1] and like <= set(shortest) else kept).add(pair)
        self.mixed, self.kept = tuple(sorted(mixed)), tuple(sorted(kept))
        self.final = self.start

    def __len__(self) -> int:
        return len(self.start)

    def named(self, vector: Float[Tensor, " parameters"]) -> dict[str, Tensor]:
        """The parameter tensors that a vector stands for, by name."""
        return {entry.name: vector[entry.part].reshape(entry.shape) for entry in self.entries}

    def values(self, vector: Float[Tensor, " parameters"]) -> Float[Tensor, " parameters"]:
        """What the raw numbers stand for."""
        return torch.where(self.positive, positive(vector), vector)

    def raw(self, values: Float[Tensor, " parameters"]) -> Float[Tensor, " parameters"]:
        """The raw numbers that stand for ``values``, within the bounds."""
        safe = torch.where(self.positive, values.clamp(min=SMALLEST), torch.ones_like(values))
        raw = torch.where(self.positive, softplus_inverse(safe), values)
        return torch.minimum(torch.maximum(raw, self.lower), self.upper)

    def completed(self, vector: Float[Tensor, " parameters"]) -> Float[Tensor, " parameters"]:
        """The same with the rows of mixed pairs computed from those of their like pairs."""
        result = vector.clone()
        for entry, row, pair in self._unseen():
            if pair not in self.mixed:
                continue
            assert entry.kinds is not None
            rows = self._rows(result, entry)
            first, second = (rows[entry.kinds.pairs.index((number, number))] for number in pair)
            if entry.positive:
                first, second = positive(first), positive(second)
            value = (first * second).sqrt() if entry.mixing == "geometric" else (first + second) / 2
            rows[row] = softplus_inverse(value) if entry.positive else value
        return result

    @torch.no_grad()
    def store(self, model: nn.Module, vector: Float[Tensor, " parameters"]) -> None:
        """Write a vector into the model."""
        tensors = dict(model.named_parameters())
        for name, value in self.named(vector).items():
            tensors[name].copy_(value)

    def at_bounds(self, vector: Float[Tensor, " parameters"]) -> dict[str, int]:
        """How many free values of each tensor with a physical range lie on its limits."""
        on = self.free & ((vector <= self.lower + 1e-9) | (vector >= self.upper - 1e-9))
        found: dict[str, int] = {}
        for entry in self.entries:
            last = entry.name.rpartition(".")[2]
            if (last in RANGES or last in RATIOS) and (count := int(on[entry.part].sum())):
                found[last.removeprefix("raw_")] = found.get(last.removeprefix("raw_"), 0) + count
        return found

    def _rows(self, vector: Tensor, entry: Entry) -> Tensor:
        """(pairs, values of a pair) view of a tensor of pairs within a vector."""
        return vector[entry.part].view(entry.shape[0], -1)

    def _unseen(self) -> Iterator[tuple[Entry, int, Pair]]:
        """Rows that belong to pairs which do not occur."""
        for entry in self.entries:
            if entry.mixing and entry.kinds is not None:
                for row, pair in enumerate(entry.kinds.pairs):
                    if pair not in self.shortest:
                        yield entry, row, pair


def pair_label(pair: Pair) -> str:
    """Chemical symbols, such as ``O-Si``."""
    return "-".join(chemical_symbols[number] for number in pair)


def perturbed(
    parameters: Parameters, generator: np.random.Generator, spread: Mapping[str, float]
) -> Float[Tensor, " parameters"]:
    """The start with values changed at random, each entry of a tensor by its own factor.

    Args:
        parameters: of the potential.
        generator: of the factors.
        spread: standard deviation of the logarithm of the factor by the tensor's name, without ``raw_``; tensors that
            are not named keep their values.
    """
    values = parameters.values(parameters.start).clone()
    for entry in parameters.entries:
        width = spread.get(entry.name.rpartition(".")[2].removeprefix("raw_"), 0.0)
        factors: npt.NDArray[np.float64] = np.exp(width * generator.standard_normal(entry.shape.numel()))
        if entry.positive:
            values[entry.part] *= torch.from_numpy(factors)
    return torch.where(parameters.free, parameters.raw(values), parameters.start)


def _entries(model: nn.Module) -> Iterator[Entry]:
    owners = {
        (f"{prefix}.{name}" if prefix else name): (module, name)
        for prefix, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
    }
    begin = 0
    for name, tensor in model.named_parameters():
        if not tensor.requires_grad:
            continue
        module, last = owners[name]
        kinds = getattr(module, "kinds", None)
        rule = getattr(module, "mixing", {}).get(last, "") if isinstance(kinds, SpeciesPairs) else ""
        yield Entry(
            name=name,
            part=slice(begin, begin + tensor.numel()),
            shape=tensor.shape,
            positive=last.startswith("raw_"),
            linear=last in getattr(module, "linear", ()),
            mixing=rule,
            kinds=kinds if isinstance(kinds, SpeciesPairs) else None,
        )
        begin += tensor.numel()


def _bounds(entry: Entry, start: Tensor) -> tuple[Tensor, Tensor]:
    """Raw bounds of the values of one tensor; never tighter than the start itself."""
    last = entry.name.rpartition(".")[2]
    if not entry.positive:
        limit = FREE_RANGES.get(last, FREE_RANGE)
        return torch.full_like(start, -limit), torch.full_like(start, limit)
    value = positive(start)
    low, high = torch.full_like(value, SMALLEST), torch.full_like(value, LARGEST)
    if last in RANGES:
        low, high = (torch.full_like(value, limit) for limit in RANGES[last])
    elif last in RATIOS:
        low, high = (ratio * value for ratio in RATIOS[last])
    low, high = torch.minimum(low, value), torch.maximum(high, value)
    return softplus_inverse(low), softplus_inverse(high)

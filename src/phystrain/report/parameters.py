"""The parameters of a classical potential as a table: what a person would copy into a paper."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ase.data import chemical_symbols
from torch import Tensor, nn

from phystrain.files import write_text
from phystrain.layers.pair import SpeciesPairs, positive

OF_ANGLES = ("raw_strength", "free_cosine")
"""Parameters that belong to angles, in a potential that has angles."""


class Row(NamedTuple):
    """One number.

    Attributes:
        term: of a sum; empty for a potential that is none.
        parameter: its name.
        belongs: element or pair of elements; empty if to all.
        number: among several of that name, from 0.
        value: in eV and Å.
    """

    term: str
    parameter: str
    belongs: str
    number: int
    value: float


def parameter_rows(potential: nn.Module) -> Iterator[Row]:
    """Every parameter of every classical term; networks have none that mean anything by themselves.

    Args:
        potential: a potential, or a sum of them.
    """
    for name, module in potential.named_modules():
        kinds = getattr(module, "kinds", None)
        if not isinstance(kinds, SpeciesPairs):
            continue
        for raw_name, raw in module.named_parameters(recurse=False):
            values = positive(raw) if raw_name.startswith("raw_") else raw
            if raw_name == "free_cosine":  # kept as its inverse tanh, so that it stays a cosine
                values = raw.tanh()
            owners = _owners(module, kinds, raw_name, raw)
            term = name.removeprefix("terms.")
            yield from _rows(term, raw_name.removeprefix("raw_").removeprefix("free_"), owners, values.detach())


def write_parameters(potential: nn.Module, path: Path) -> None:
    """Write the table as CSV."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(Row._fields)
    table.writerows(parameter_rows(potential))
    write_text(path, text.getvalue())


def _owners(module: nn.Module, kinds: SpeciesPairs, name: str, raw: Tensor) -> list[str] | None:
    """Names of the rows: angles, pairs or elements, whichever there are as many of; ``None`` for a single number."""
    if not raw.dim():
        return None
    count = len(raw)
    angles = getattr(module, "angles", ())
    if name in OF_ANGLES and len(angles) == count:
        return ["-".join(chemical_symbols[number] for number in angle) for angle in angles]  # the centre in the middle
    if count == len(kinds.species):
        return [chemical_symbols[number] for number in kinds.species]
    if count == len(kinds.pairs):
        return ["-".join(chemical_symbols[number] for number in pair) for pair in kinds.pairs]
    return [""] * count


def _rows(term: str, parameter: str, owners: list[str] | None, values: Tensor) -> Iterator[Row]:
    if owners is None:
        yield Row(term, parameter, "", 0, float(values))
        return
    for owner, row in zip(owners, values, strict=True):
        for number, value in enumerate(row.reshape(-1).tolist()):
            yield Row(term, parameter, owner, number, float(f"{value:.10g}"))

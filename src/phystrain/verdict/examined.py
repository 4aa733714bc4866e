"""What the reliability tests are put to: a potential, ours or someone else's, with the structures to test it on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from phystrain.data.read import read
from phystrain.data.statistics import compute, reference_energies
from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.interfaces.ase_potential import load_calculator
from phystrain.saving import SavedModel
from phystrain.verdict.beside import Other


class Examined(NamedTuple):
    """A potential and its structures.

    Attributes:
        model: under test.
        test: labelled structures that it was not trained on, if there are any.
        structures: where dynamics may start, if there are any.
        train: what it was trained on, if that is at hand.
        rivals: potentials to compare it with.
    """

    model: SavedModel
    test: Structures | None
    structures: Structures | None
    train: Structures | None
    rivals: list[Other]


def examined_calculator(
    ase: str,
    data: Path | None,
    start: Path | None,
    train: Path | None,
    arguments: Mapping[str, Any] | None,
    cutoff: float | None,
) -> Examined:
    """A calculator of ASE and what to test it on.

    Elements are those of all structures given; distances that are supported are those of its training structures, or
    of the others where there are none.

    Args:
        ase: as in :func:`phystrain.interfaces.ase_potential.load_calculator`, like ``arguments`` and ``cutoff``.
        data: file of structures; labelled ones also give errors.
        start: file of structures to start dynamics from, in place of ``data``.
        train: file of structures that it was trained on.
        arguments, cutoff: of the calculator.

    Raises:
        UserError: no structures, or a calculator that cannot be had or has no energy and forces of them.
    """
    data, start = data or start, start or data
    if data is None or start is None:
        raise UserError("audit: a calculator is tested on structures: name a file, phystrain audit --ase X DATA.xyz")
    if (data / "config.yaml").is_file() or data.suffix == ".safetensors":
        raise UserError(f"{data} is a model; beside --ase name a file of structures")
    potential = load_calculator(ase, arguments, cutoff=cutoff)
    test = read(data).structures
    structures = test if start == data else read(start).structures
    trained_on = None if train is None else read(train).structures
    potential.require(test if start == data else Structures.concatenate([test, structures]))
    source = Structures.concatenate([part for part in (trained_on, test) if part is not None])
    statistics = compute(source, potential.cutoff, reference_energies(source))
    if trained_on is not None:
        known = compute(trained_on, potential.cutoff, reference_energies(trained_on))
        statistics = statistics.model_copy(update={"shortest": known.shortest, "nearest": known.nearest})
    return Examined(SavedModel(potential, {"ase": ase}, statistics), test, structures, trained_on, [])


def named_arguments(settings: Sequence[str]) -> dict[str, Any]:
    """Arguments from what a person has written as ``name=value``; values are YAML.

    Raises:
        UserError: no name, no ``=``, or a value that is not YAML.
    """
    found = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not (equals and name.isidentifier()):
            raise UserError(f"--argument {setting!r}: write name=value, such as method=GFN1-xTB")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"--argument {setting!r}: the value is not valid YAML") from error
    return found

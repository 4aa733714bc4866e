"""What the reliability tests are put to: a potential, ours or someone else's, with the structures to test it on."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from phystrain import config as run_file
from phystrain.data.read import read
from phystrain.data.statistics import compute, reference_energies
from phystrain.data.structures import Structures
from phystrain.errors import UserError
from phystrain.interfaces.ase_potential import load_calculator
from phystrain.saving import SavedModel, load_model
from phystrain.train.folder import digests
from phystrain.train.material import load_labelled
from phystrain.verdict.beside import Other, others


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


def examined_model(path: Path, start: Path | None, train: Path | None) -> Examined:
    """A model of ours and what to test it on.

    Args:
        path: run folder or model file.
        start: file of structures; of a run folder its held-out structures, or its training ones, if not given.
        train: file of structures that it was trained on; those of the run if not given.

    Raises:
        UserError: the data of the run cannot be read, or is another than it was.
    """
    model = load_model(path)
    if start is None:
        test, structures, trained_on = _own_data(path)
    else:
        test = structures = read(start).structures
        trained_on = _trained_on(path)
    return Examined(model, test, structures, read(train).structures if train else trained_on, others(path))


def _own_data(folder: Path) -> tuple[Structures | None, Structures | None, Structures | None]:
    """Held-out structures of a run folder, structures to start from, and those it was trained on.

    Nothing for a bare model file.
    """
    if not (folder / "config.yaml").is_file():
        return None, None, None
    config = run_file.load(folder / "config.yaml")
    record = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    try:
        labelled = load_labelled(
            config.data, cutoff=3.0, seed=config.seed, base=folder / record["base"], say=lambda _: None
        )
    except UserError as error:
        raise UserError(f"the data of {folder} cannot be read ({error}). Give --start FILE") from error
    if any(record[part] != digest for part, digest in digests(labelled).items()):
        raise UserError(f"the data of {folder} has changed since it was trained on: give --start FILE")
    held_out = labelled.test or labelled.valid
    return held_out, held_out or labelled.train, labelled.train


def _trained_on(folder: Path) -> Structures | None:
    """Training structures of a run folder, where they are still what they were."""
    try:
        return _own_data(folder)[2]
    except UserError:
        return None


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

"""Plug-ins found by file name: the file is the kind.

A group is a sub-package (``potentials``, ``objectives``, ``augment``, ``reliability``). Every file in it whose name
does not begin with an underscore is a plug-in and holds a pydantic class ``Config`` with a field ``kind`` that
equals the file name. To add a kind is to add a file, or to install a package that names a module of its own in the
entry points ``phystrain.potentials`` (or of another group).
"""

import importlib
import pkgutil
from difflib import SequenceMatcher, get_close_matches
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import Annotated, Any, Union

from pydantic import BaseModel, ConfigDict, Field

from phystrain.errors import UserError

_ALIKE = 0.6  # of two words: below it suggestions are far-fetched


class PluginConfig(BaseModel):
    """Base of every ``Config``: fields are checked, unknown ones refused, values fixed once made."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: str


@cache
def _modules(group: str) -> dict[str, str]:
    """Modules of all plug-ins by kind: files of the group, and what installed packages add."""
    package = importlib.import_module(f"phystrain.{group}")
    files = (module.name for module in pkgutil.iter_modules(package.__path__) if module.name[0] != "_")
    found = {name: f"phystrain.{group}.{name}" for name in files}
    for point in entry_points(group=f"phystrain.{group}"):
        if found.setdefault(point.name, point.value) != point.value:
            raise UserError(
                f"{point.value}, which an installed package adds, calls itself {point.name!r} as {found[point.name]} "
                f"does: give it another name, or uninstall it"
            )
    return found


@cache
def kinds(group: str) -> tuple[str, ...]:
    """Names of all plug-ins of a group, sorted."""
    return tuple(sorted(_modules(group)))


def did_you_mean(word: str, choices: list[str] | tuple[str, ...]) -> str:
    """``did you mean 'x'?`` for the nearest choice, else the list of all.

    Endings such as ``.xyz`` do not count: they would make any two names of files alike.
    """
    alike = [choice for choice in choices if SequenceMatcher(None, _stem(word), _stem(choice)).ratio() >= _ALIKE]
    near = get_close_matches(word, alike, n=1, cutoff=_ALIKE)
    return f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(sorted(choices))}"


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def find(group: str, kind: str) -> ModuleType:
    """The module of a plug-in.

    Raises:
        UserError: no such kind; the message names the nearest one.
    """
    if kind not in kinds(group):
        raise UserError(f"unknown {group.removesuffix('s')} kind {kind!r}: {did_you_mean(kind, kinds(group))}")
    return importlib.import_module(_modules(group)[kind])


def parse(group: str, settings: dict[str, Any] | PluginConfig) -> Any:
    """Check settings with a ``kind`` against the plug-in's ``Config`` and return the instance.

    Raises:
        UserError: no kind, or an unknown one.
        pydantic.ValidationError: a wrong field.
    """
    if isinstance(settings, PluginConfig):
        return settings
    if not isinstance(settings, dict) or not isinstance(settings.get("kind"), str):
        raise UserError(f"{group}: a 'kind' is missing; choose from {', '.join(kinds(group))}")
    return find(group, settings["kind"]).Config.model_validate(settings)


def union(group: str) -> Any:
    """Discriminated union of every ``Config`` of a group, for JSON schemas."""
    configs = tuple(find(group, kind).Config for kind in kinds(group))
    return Annotated[Union[configs], Field(discriminator="kind")] if len(configs) > 1 else configs[0]  # noqa: UP007

"""What a run file can name, told from the plug-ins themselves: docstrings, settings, presets, sizes.

Nothing here knows a kind by name, so a file that is added is listed. ``phystrain info --kinds`` prints the list, and
``docs/make_potentials.py`` writes a page for each potential.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import torch
import yaml
from pydantic import ValidationError
from pydantic_core import to_jsonable_python
from torch.overrides import TorchFunctionMode

from phystrain import registry
from phystrain.errors import UserError
from phystrain.potentials import PotentialConfig
from phystrain.potentials._network import NetworkConfig
from phystrain.statistics import Statistics

ELEMENTS = (8, 14)
"""For which parameters are counted: two elements, as in an oxide."""

DEFAULT = "default"
"""Stands for the fields as they are, without a preset."""

_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_TYPES = {"number": "number", "integer": "whole number", "string": "text", "boolean": "true or false", "array": "list"}
_TYPES |= {"object": "settings", "null": "none"}


@dataclass(frozen=True)
class Setting:
    """A field of a ``Config``.

    Attributes:
        name: as written in a run file.
        values: what it may be, in words, bounds included.
        default: as written in a run file; empty if it must be given.
        description: the field's.
    """

    name: str
    values: str
    default: str
    description: str


class Entry:
    """A potential as the list and its page show it.

    Args:
        kind: the file name.
    """

    def __init__(self, kind: str) -> None:
        module = registry.find("potentials", kind)
        self.kind = kind
        self.config: type[PotentialConfig] = module.Config
        self.introduction = inspect.cleandoc(module.__doc__ or "")
        self.presets: dict[str, dict[str, Any]] = getattr(self.config, "presets", {})

    @property
    def is_network(self) -> bool:
        """Whether this is a network, and no classical potential or combination."""
        return issubclass(self.config, NetworkConfig)

    @property
    def summary(self) -> str:
        """What it is, in a sentence: the head of the file's docstring."""
        return " ".join(self.introduction.split("\n\n")[0].split())

    @property
    def source(self) -> str:
        """The paper with its identifier, the first one that the docstring names; empty if there is none."""
        text = " ".join(self.introduction.split())
        found = re.search(r"\bSources?: (.*?(?:arXiv:|arXiv |doi:)[\w./()-]*\w)", text)
        return found[1] if found else ""

    @property
    def heads(self) -> tuple[str, ...]:
        """Where forces may come from, the default first."""
        field = self.config.model_fields.get("head")
        return ("conservative",) if field is None else get_args(field.annotation)

    @cached_property
    def settings(self) -> list[Setting]:
        """All fields but the kind."""
        schema = self.config.model_json_schema()
        return [
            Setting(
                name,
                _values(schema["properties"][name], schema.get("$defs", {})),
                "" if field.is_required() else _written(field.get_default(call_default_factory=True)),
                field.description or "",
            )
            for name, field in self.config.model_fields.items()
            if name != "kind"
        ]

    @cached_property
    def parameters(self) -> dict[str, int]:
        """Number of trainable parameters by preset, the default one among them; see :attr:`obstacle`.

        A preset that is the default is counted under its own name only, and one that lacks a library not at all.
        """
        counts = {} if self.obstacle else {name: _count(self._made(name)) for name in self._sizes}
        return {name: count for name, count in counts.items() if count is not None}

    @cached_property
    def uncounted(self) -> list[str]:
        """Presets that cannot be made here, because a library is missing."""
        return [] if self.obstacle else [name for name in self._sizes if name not in self.parameters]

    @cached_property
    def obstacle(self) -> str:
        """Why parameters cannot be counted, in a line; empty if they can."""
        try:
            _build(self._made(self._sizes[0]))
        except ValidationError as error:
            return f"size depends on its settings ({', '.join(str(place['loc'][0]) for place in error.errors())})"
        except UserError as error:
            return str(error).splitlines()[0]
        return ""

    @property
    def _sizes(self) -> list[str]:
        """Presets, smallest promise first: what is made without naming one comes first."""
        same = [
            name for name in self.presets if self._made(name).model_copy(update={"preset": ""}) == self._made(DEFAULT)
        ]
        return [*([] if same else [DEFAULT]), *self.presets]

    def _made(self, preset: str) -> PotentialConfig:
        return self.config.model_validate({} if preset == DEFAULT else {"preset": preset})


def potentials() -> list[Entry]:
    """All potentials in alphabetical order, networks first."""
    return sorted(map(Entry, registry.kinds("potentials")), key=lambda entry: not entry.is_network)


def describe_kinds() -> str:
    """Every kind that a run file can name: what it is, and of potentials the paper, the heads and the size."""
    lines: list[str] = []
    groups: tuple[tuple[str, Callable[[Entry], bool]], ...] = (
        ("potentials: networks", lambda entry: entry.is_network),
        ("potentials: classical ones and combinations", lambda entry: not entry.is_network),
    )
    listed = potentials()
    for title, belongs in groups:
        lines += [title, *(f"  {entry.kind:18s} {_line(entry)}" for entry in listed if belongs(entry))]
    for group in ("objectives", "augment", "reliability"):
        lines.append(group)
        for kind in registry.kinds(group):
            text = (registry.find(group, kind).Config.__doc__ or "").strip().splitlines()
            lines.append(f"  {kind:18s} {text[0] if text else ''}")
    lines.append(f"Parameters are counted for {len(ELEMENTS)} elements. 'phystrain schema' describes every setting.")
    return "\n".join(lines)


def sizes(entry: Entry) -> str:
    """Parameters of every preset in a line, or why they are not known."""
    if entry.obstacle:
        return entry.obstacle
    counts = [f"{'' if name == DEFAULT else name + ' '}{count:,}" for name, count in entry.parameters.items()]
    lacking = f"; {', '.join(entry.uncounted)} with phystrain[networks]" if entry.uncounted else ""
    return f"{', '.join(counts)} parameters{lacking}"


def _line(entry: Entry) -> str:
    parts = [entry.source, " or ".join(entry.heads) if entry.is_network else "", sizes(entry)]
    return f"{entry.summary} [{'; '.join(part for part in parts if part)}]"


class _Undrawn(TorchFunctionMode):
    """Weights as memory has them: drawing them takes most of the time in which a large network is made."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        drawn = getattr(function, "__module__", "") == "torch.nn.init"
        if drawn or function in (torch.Tensor.uniform_, torch.Tensor.normal_):
            return args[0] if args else given["tensor"]
        return function(*args, **given)


def _build(config: PotentialConfig) -> torch.nn.Module:
    # torch's meta device would do, but loads for 20 s and refuses constructors that read a number
    with torch.random.fork_rng(devices=[]), _Undrawn():
        return config.build(Statistics.bare(ELEMENTS))


def _count(config: PotentialConfig) -> int | None:
    """Trainable parameters; ``None`` where a library is missing."""
    try:
        built = _build(config)
    except UserError:
        return None
    return sum(parameter.numel() for parameter in built.parameters() if parameter.requires_grad)


def _values(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """What a JSON schema allows, in a few words."""
    if "$ref" in schema:
        schema = definitions.get(schema["$ref"].rsplit("/", 1)[-1], {})
    if choices := schema.get("anyOf"):
        return " or ".join(dict.fromkeys(_values(choice, definitions) for choice in choices))
    if choices := schema.get("enum") or ([schema["const"]] if "const" in schema else []):
        return " or ".join(f"`{choice}`" for choice in choices)
    kind = _TYPES.get(schema.get("type", ""), "any")
    items = schema.get("prefixItems") or [schema[key] for key in ("items", "additionalProperties") if schema.get(key)]
    if inner := [_values(item, definitions) for item in items if isinstance(item, dict)]:
        joined = " and ".join(dict.fromkeys(inner))
        return f"list of {joined}" if kind == "list" else f"{joined} by name"
    bounds = ", ".join(f"{sign} {schema[key]:g}" for key, sign in _BOUNDS.items() if key in schema)
    return f"{kind} {bounds}".strip()


def _written(value: Any) -> str:
    """A default as YAML has it in one line."""
    plain = yaml.safe_dump(to_jsonable_python(value), default_flow_style=True, allow_unicode=True, width=1000)
    return plain.removesuffix("...\n").strip()

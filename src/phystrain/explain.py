"""What is wrong with settings, in one line: the place, the mistake and the nearest right name."""

from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from phystrain import registry


def explain(error: ValidationError, model: type[BaseModel], settings: Any) -> str:
    """The first mistake of a validation error in one line, with its place and the nearest right name.

    Args:
        error: as pydantic raised it.
        model: the class that was to be made.
        settings: plain data that it was to be made from.
    """
    found = [(_place(entry, settings), entry) for entry in error.errors()]
    # Of the members of a union, the one that the settings agree with furthest is the one that was meant.
    place, first = max(
        ((place, entry) for place, entry in found if place[: len(found[0][0])] == found[0][0]),
        key=lambda pair: len(pair[0]),
    )
    words = [e["ctx"]["expected"] for other, e in found if other == place and e["type"] == "literal_error"]
    others = {other for other, _ in found if other != place[: len(other)]}
    more = f" (and {len(others)} more)" if others else ""
    return f"{_complaint('.'.join(place), first, model, words)}{more}"


def _place(entry: Any, settings: Any) -> tuple[str, ...]:
    """Location of a mistake as a person would write it: without members of unions, stages by their name."""
    place: list[str] = []
    here = settings
    *_, last = (None, *range(len(entry["loc"])))
    for number, part in enumerate(entry["loc"]):
        if isinstance(here, dict) and part in here:
            place.append(str(part))
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            named = here[part].get("name") if isinstance(here[part], dict) else None
            place.append(named if isinstance(named, str) else str(part))
        elif number == last and entry["type"] in ("missing", "extra_forbidden"):
            place.append(str(part))
            break
        else:
            continue
        here = here[part]
    return tuple(place)


_SHOULD = {
    "model_type": "be a group of settings",
    "model_attributes_type": "be a group of settings",
    "dict_type": "be a group of settings",
    "list_type": "be a list",
    "string_type": "be text",
    "int_type": "be a whole number",
    "int_parsing": "be a whole number",
    "int_from_float": "be a whole number",
    "float_type": "be a number",
    "float_parsing": "be a number",
    "bool_type": "be true or false",
    "bool_parsing": "be true or false",
    "too_short": "not be empty",
}


def _complaint(place: str, entry: Any, model: type[BaseModel], words: list[str]) -> str:
    match entry["type"]:
        case "extra_forbidden":
            fields = _fields(model, entry["loc"][:-1])
            return f"unknown field {place!r}: {registry.did_you_mean(str(entry['loc'][-1]), fields)}"
        case "union_tag_invalid":
            choices = [tag.strip(" '") for tag in entry["ctx"]["expected_tags"].split(",")]
            tag = entry["ctx"]["tag"]
            return f"{place}: unknown kind {tag!r}: {registry.did_you_mean(tag, choices)}"
        case "union_tag_not_found":
            return f"{place}: a 'kind' is missing; 'phystrain info --kinds' lists what there is"
        case "missing":
            return f"field {place!r} is missing"
        case "value_error":
            text = entry["msg"].removeprefix("Value error, ")
            return f"{place}: {text}" if place else text
    default = entry["msg"][0].lower() + entry["msg"][1:]
    should = _SHOULD.get(entry["type"], default.removeprefix("input should "))
    if entry["type"] != "literal_error" and words:  # a number or a word
        should += f" or {words[0]}"
    given = repr(entry["input"])
    return f"{place} should {should}, got {given if len(given) <= 60 else given[:57] + '...'}"


def _fields(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[str, ...]:
    """Names of the fields at a place in the settings."""
    candidates: list[type[BaseModel]] = [model]
    for part in location:
        tagged = [m for m in candidates if "kind" in m.model_fields and m.model_fields["kind"].default == part]
        inner = [
            found
            for candidate in candidates
            if part in candidate.model_fields
            for found in _models(candidate.model_fields[str(part)].annotation)
        ]
        candidates = tagged or inner or candidates
    return tuple(dict.fromkeys(name for candidate in candidates for name in candidate.model_fields))


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Every pydantic class inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]

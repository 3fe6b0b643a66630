"""What is wrong with a request, in words: msgspec's errors name types, these name what is wanted instead."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from msgspec import inspect

from kandev_host.errors import ValidationFailed
from kandev_host.protocol.actions.fields import FORMS

_PLACE = re.compile(r"^.*(?P<place> - at (?P<key>`key` in )?`\$\.?(?P<path>.*)`)$", re.S)
_NAMED = re.compile(r"^Object (?P<how>missing required|contains unknown) field `(?P<name>.+)`$", re.S)
_STEPS = re.compile(r"\[[^\]]*\]|[^.\[\]]+")
ENDLESS = 1 << 53
"""Nobody comes up to this bound."""

_PLAIN: dict[type[inspect.Type], str] = {
    inspect.BoolType: "true or false",
    inspect.NoneType: "null",
    inspect.DateTimeType: "a time with its zone, such as 2026-01-31T12:00:00Z",
    inspect.DictType: "an object",
    inspect.StructType: "an object",
}


def complaint(kind: type, text: str, whole: str = "payload") -> ValidationFailed:
    """Of msgspec's `text` about a value that should be a `kind`: the field's path, and what it must be.

    As in ``Expected `str`, got `int` - at `$.blocked_by[0]` ``. `whole` is what the value itself is called.
    """
    place = _PLACE.match(text)  # the last one: a value that is told before may look like a place
    path = place["path"] if place else ""
    said = text[: place.start("place")] if place else text
    named = _NAMED.match(said)
    if named:
        path = f"{path}.{named['name']}" if path else named["name"]
        how = "is missing" if named["how"] == "missing required" else f"is not a field of {_owner(path, whole)}"
        return ValidationFailed(path, f"{path} {how}")
    field = path or whole
    is_key = place is not None and place["key"] is not None
    found = _at(inspect.type_info(kind), [*_STEPS.findall(path), *(["key"] if is_key else [])])
    subject = f"Each key of {field}" if is_key else field
    wanted = None if found is None else words(found)
    return ValidationFailed(field, f"{subject} must be {wanted}" if wanted else f"{subject} is not of the right kind")


def words(kind: inspect.Type) -> str | None:
    """What a value of this type is, as in "text of 1 to 500 characters"; None where there are no words for it."""
    if isinstance(kind, inspect.StrType):
        form = FORMS.get(kind.pattern or "", None if kind.pattern is None else "of another form")
        return f"text{_counted(kind.min_length, kind.max_length, 'character')}" + (f", {form}" if form else "")
    if isinstance(kind, inspect.IntType):
        return f"a whole number{_bounded(kind.ge, kind.le)}"
    if isinstance(kind, inspect.FloatType):
        return f"a number{_bounded(kind.ge, kind.le)}"
    if isinstance(kind, inspect.ListType):
        return f"a list{_counted(kind.min_length, kind.max_length, 'item')}"
    if isinstance(kind, inspect.LiteralType):
        return f"one of {', '.join(map(str, kind.values))}" if len(kind.values) > 1 else str(kind.values[0])
    if isinstance(kind, inspect.UnionType):
        parts = [words(each) for each in kind.types]
        return None if None in parts else ", or ".join(str(part) for part in parts)
    return _PLAIN.get(type(kind))


def _owner(path: str, whole: str) -> str:
    outer = path.rpartition(".")[0]
    return outer or ("this action" if whole == "payload" else whole)


def _counted(least: int | None, most: int | None, noun: str) -> str:
    bounds = _bounds(least, most)
    return f" of {bounds} {noun}{'' if bounds == '1' else 's'}" if bounds else ""


def _bounded(least: float | None, most: float | None) -> str:
    bounds = _bounds(least, most)
    return f" from {bounds}" if " to " in bounds else f", {bounds}" if bounds else ""


def _bounds(least: float | None, most: float | None) -> str:
    if most is not None and most > ENDLESS:
        most = None
    if least is not None and most is not None:
        return f"{least:,} to {most:,}"
    if most is not None:
        return f"at most {most:,}"
    return f"at least {least:,}" if least else ""


def _at(kind: inspect.Type, steps: Sequence[str]) -> inspect.Type | None:
    """The type of what stands at the end of a path."""
    if not steps:
        return kind
    for each in kind.types if isinstance(kind, inspect.UnionType) else (kind,):
        inner = _inner(each, steps[0])
        found = None if inner is None else _at(inner, steps[1:])
        if found is not None:
            return found
    return None


def _inner(kind: inspect.Type, step: str) -> Any:
    if isinstance(kind, inspect.StructType):
        return next((field.type for field in kind.fields if field.encode_name == step), None)
    if isinstance(kind, inspect.ListType):
        return kind.item_type if step.startswith("[") else None
    if isinstance(kind, inspect.DictType):
        return kind.key_type if step == "key" else kind.value_type
    return None

"""A form of an agent, filled in line by line: what is asked of each field, and what a line means. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from kandev_host.sessions.forms import check_value, choices_of

CHOICES = 50
TITLE_CHARS = 500
_YES = {"y": True, "yes": True, "true": True, "n": False, "no": False, "false": False}
_KINDS = {
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "y or n",
    "array": "numbers of choices, with commas between",
}


class NotUnderstood(ValueError):
    """What was typed does not fit the field; its text says what would."""


def described(name: str, field: Mapping[str, Any], *, required: bool) -> Iterator[tuple[str, str]]:
    """The lines that ask for a field, with their styles."""
    need = "" if required else ", may be left out"
    choices = choices_of(dict(field))
    one = "the number of a choice" if choices is not None else "text"
    kind = one if field.get("type") == "string" else _KINDS.get(str(field.get("type")), "of a kind that is not known")
    yield f"  {str(field.get('title') or name)[:TITLE_CHARS]}  [{name}: {kind}{need}]", "bold"
    if field.get("description"):
        yield f"  | {str(field['description'])[:TITLE_CHARS]}", "dim"
    for number, (_, title) in enumerate((choices or [])[:CHOICES], start=1):
        yield f"  {number}) {title[:TITLE_CHARS]}", ""
    if len(choices or []) > CHOICES:
        yield f"  … {len(choices or []) - CHOICES} more, by their values", "yellow"


def value_of(field: Mapping[str, Any], text: str) -> Any:
    """What a line means in this field. Raises `NotUnderstood`."""
    value = _read(field, text.strip())
    complaint = check_value(dict(field), value)
    if complaint is not None:
        raise NotUnderstood(complaint)
    return value


def _read(field: Mapping[str, Any], text: str) -> Any:
    choices = choices_of(dict(field))
    match field.get("type"):
        case "boolean":
            if text.casefold() not in _YES:
                raise NotUnderstood("This is to be y or n")
            return _YES[text.casefold()]
        case "integer" | "number" as kind:
            return _number(text, whole=kind == "integer")
        case "array":
            return [_choice(choices, part.strip()) for part in text.split(",") if part.strip()]
        case "string":
            return _choice(choices, text)
    raise NotUnderstood("This host does not know this kind of field")


def _choice(choices: list[tuple[str, str]] | None, text: str) -> str:
    """By its value, else by its number."""
    if choices is None or text in dict(choices):
        return text
    if text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= len(choices):
        return choices[int(text[:9]) - 1][0]
    raise NotUnderstood(f"There is no choice {text[:40]}; 1 to {len(choices)}")


def _number(text: str, *, whole: bool) -> float:
    try:
        if whole:
            return int(text[:400])
        number = float(text[:400])
    except ValueError:
        raise NotUnderstood("This is to be a whole number" if whole else "This is to be a number") from None
    if not math.isfinite(number):
        raise NotUnderstood("This is to be a number")
    return number

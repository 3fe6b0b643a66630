"""The forms of elicitations: what an agent may ask for, and whether what was filled in fits. Pure; the form is hostile.

ACP: ElicitationSchema, a flat object of strings, numbers, integers, booleans and lists of choices. What is of the wrong
type in a field's own schema counts as not there. No message repeats what was filled in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from kandev_host.errors import ValidationFailed
from kandev_host.protocol.acp import Json
from kandev_host.secrets import looks_secret

FIELDS = 64
FORM_BYTES = 64 << 10
NAME_CHARS = 100
# Of a search with a pattern, at the worst; more would hold up the host.
STEPS = 10_000_000

_TYPES = {"string": "text", "number": "a number", "integer": "a whole number", "boolean": "true or false"}
_ATOM = r"(?:\\[dDwWsS.\-/+*?^$()\[\]{}|\\@_]|\[\^?(?:\\[dDwWsS.\-/+*?^$\[\]\\]|[^\[\]\\])+\]|[^\\\[\](){}|*+?^$])"
_PIECE = re.compile(rf"{_ATOM}(?P<times>[*+?]|\{{(?P<least>\d{{1,4}})(?P<more>,(?P<most>\d{{0,4}}))?\}})?")
_AMBIGUOUS = ("--", "&&", "~~", "||")


def wrong_form(schema: Json | None) -> str | None:
    """Why this is no form that can be shown; None if it is one."""
    if schema is None:
        return "requestedSchema is missing"
    if len(msgspec.json.encode(schema)) > FORM_BYTES:
        return f"the form is larger than {FORM_BYTES} bytes"
    properties = schema.get("properties")
    if properties is not None and not isinstance(properties, dict):
        return "properties is no object"
    fields = properties_of(schema)
    if len(fields) > FIELDS:
        return f"the form has more than {FIELDS} fields"
    if any(not isinstance(field, dict) or not isinstance(field.get("type"), str) for field in fields.values()):
        return "a field has no type"
    required = schema.get("required")
    if required is not None and not (
        isinstance(required, list) and all(isinstance(name, str) and name in fields for name in required)
    ):
        return "required names what is no field"
    return None


def properties_of(schema: Json | None) -> dict[str, Any]:
    """The fields of a form, in their order."""
    return (schema or {}).get("properties") or {}


def check_content(schema: Json | None, content: Mapping[str, Any]) -> None:
    """Raise `ValidationFailed` for the field `content.NAME` that does not fit."""
    if len(msgspec.json.encode(content)) > FORM_BYTES:
        raise ValidationFailed("content", f"This is larger than {FORM_BYTES} bytes")
    fields = properties_of(schema)
    for name in content:
        if name not in fields:
            raise _wrong(name, "The form has no such field")
    for name in (schema or {}).get("required") or []:
        if name not in content:
            raise _wrong(name, "This field is required")
    for name, value in content.items():
        if (complaint := check_value(fields[name], value)) is not None:
            raise _wrong(name, complaint)


def secrets_of(schema: Json | None, message: str, content: Mapping[str, Any]) -> list[str]:
    """What was filled into fields that say that it is secret: `format: password`, `writeOnly`, or by their names.

    Not what the agent itself wrote into its form or its message, as a default: it would choose what it hides.
    """
    fields = properties_of(schema)
    written = [message, *_strings(fields)]
    return [
        value
        for name, value in content.items()
        if isinstance(value, str)
        and not any(value.strip() in text for text in written)
        and choices_of(fields[name]) is None
        and (
            fields[name].get("format") == "password"
            or fields[name].get("writeOnly") is True
            or looks_secret(name)
            or looks_secret(str(fields[name].get("title", "")))
        )
    ]


def _strings(value: Any) -> Iterator[str]:
    """All text of a form, which was decoded, and so is not nested too deeply."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def check_value(field: Json, value: Any) -> str | None:
    """What is wrong with the value of a field; None if it fits."""
    kind = field.get("type")
    if kind == "array":
        return _of_list(field, value)
    if kind not in _TYPES:
        return "This host does not know this kind of field"
    if not _is(kind, value):
        return f"This is to be {_TYPES[kind]}"
    if kind == "string":
        return _of_text(field, value)
    if kind in ("number", "integer"):
        least, most = _number(field.get("minimum")), _number(field.get("maximum"))
        if (least is not None and value < least) or (most is not None and value > most):
            return f"This is to be {_between(least, most)}"
    return None


def choices_of(field: Json) -> list[tuple[str, str]] | None:
    """Value and title of each choice that a field offers; None if it is free."""
    found = field.get("items") if field.get("type") == "array" else field
    if not isinstance(found, dict):
        return None
    for key in ("oneOf", "anyOf"):
        if isinstance(found.get(key), list):
            options = [item for item in found[key] if isinstance(item, dict) and isinstance(item.get("const"), str)]
            return [(item["const"], str(item.get("title") or item["const"])) for item in options]
    if isinstance(found.get("enum"), list):
        return [(item, item) for item in found["enum"] if isinstance(item, str)]
    return None


def _of_text(field: Json, value: str) -> str | None:
    choices = choices_of(field)
    if choices is not None and value not in dict(choices):
        return "This is none of the choices"
    least, most = _count(field.get("minLength")), _count(field.get("maxLength"))
    if (least is not None and len(value) < least) or (most is not None and len(value) > most):
        return f"This is to be {_between(least, most)} characters long"
    pattern = field.get("pattern")
    if isinstance(pattern, str) and not fits(pattern, value):
        return "This does not match the pattern of the field"
    return None


def _of_list(field: Json, value: Any) -> str | None:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return "This is to be a list of choices"
    choices = choices_of(field)
    if choices is not None and not dict(choices).keys() >= set(value):
        return "This is none of the choices"
    least, most = _count(field.get("minItems")), _count(field.get("maxItems"))
    if (least is not None and len(value) < least) or (most is not None and len(value) > most):
        return f"This is to have {_between(least, most)} items"
    return None


def fits(pattern: str, value: str) -> bool:
    """Is the pattern (of ECMA-262) found in the value? Also true where the host cannot tell.

    The agent chooses the pattern, and one that backtracks for ever would hold up the host. So only those without groups
    and alternatives are tried, and only on values for which even their worst case is short.
    """
    begins, ends = pattern.startswith("^"), pattern.endswith("$") and not pattern.endswith("\\$")
    body = pattern[begins : len(pattern) - ends]
    steps = _steps(body, len(value))
    if steps is None or steps * (len(value) + 1) * (1 if begins else len(value) + 1) > STEPS:
        return True
    try:
        found = re.compile(("\\A" if begins else "") + body + ("\\Z" if ends else ""), re.ASCII)
    except (re.error, OverflowError):
        return True
    return found.search(value) is not None


def _steps(body: str, chars: int) -> int | None:
    """In how many ways the pieces of a pattern can share so many characters, at most; None if it is not understood."""
    steps = 1
    position = 0
    if any(sign in body for sign in _AMBIGUOUS):
        return None
    while position < len(body):
        piece = _PIECE.match(body, position)
        if piece is None or steps > STEPS:
            return None
        position = piece.end()
        steps *= _ways(piece, chars)
    return steps


def _ways(piece: re.Match[str], chars: int) -> int:
    times = piece["times"]
    if times is None:
        return 1
    if times == "?":
        return 2
    if times in "*+" or (piece["more"] and not piece["most"]):
        return chars + 1
    least, most = int(piece["least"]), int(piece["most"] or piece["least"])
    return min(max(most - least, 0), chars) + 1


def _is(kind: str, value: Any) -> bool:
    if kind == "string":
        return isinstance(value, str)
    if kind == "boolean":
        return isinstance(value, bool)
    return isinstance(value, int if kind == "integer" else int | float) and not isinstance(value, bool)


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _between(least: float | None, most: float | None) -> str:
    return " and ".join(_bounds(least, most))


def _bounds(least: float | None, most: float | None) -> Iterator[str]:
    if least is not None:
        yield f"at least {least}"
    if most is not None:
        yield f"at most {most}"


def _wrong(name: str, message: str) -> ValidationFailed:
    return ValidationFailed(f"content.{name[:NAME_CHARS]}", message)

"""JSON Schemas of the wire's types: of what comes in as it is checked, of what goes out as it is promised.

The two differ. A request refuses unknown fields and has defaults. Of a response every field is always there, and more
may come in later versions, so that its schema has all fields required and refuses none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET
from msgspec import inspect as mi

Json = dict[str, Any]
PREFIX = "#/components/schemas/"
ANYTHING: Json = {"type": "object", "description": "Not described"}
_TIME: Json = {"type": "string", "format": "date-time"}


class Components:
    """`schemas` by name, and a reference to the schema of each type."""

    def __init__(self, requests: Iterable[type], replies: Iterable[type]) -> None:
        incoming, self._requests = _generated(requests)
        outgoing, self._replies = _generated(replies)
        for struct, promised in _promises(replies).items():
            outgoing[struct] = promised(outgoing[struct])
        both = {name for name in incoming if name in outgoing and incoming[name] != outgoing[name]}
        renamed = {PREFIX + name: f"{PREFIX}{name}Input" for name in both}
        self._requests = {type_: _renamed(schema, renamed) for type_, schema in self._requests.items()}
        given = {f"{name}Input" if name in both else name: _renamed(part, renamed) for name, part in incoming.items()}
        self.schemas: dict[str, Json] = dict(sorted({**given, **outgoing}.items()))

    def request(self, type_: type) -> Json:
        return self._requests[type_]

    def reply(self, type_: type) -> Json:
        return self._replies[type_]


def _generated(types: Iterable[type]) -> tuple[dict[str, Json], dict[type, Json]]:
    """Components and references. A type of a plugin that cannot be described is any object."""
    described = [type_ for type_ in dict.fromkeys(types) if _can_describe(type_)]
    schemas, parts = msgspec.json.schema_components(described, schema_hook=_any, ref_template=PREFIX + "{name}")
    references: dict[type, Json] = dict.fromkeys(types, ANYTHING)
    references.update(zip(described, map(_plain, schemas), strict=True))
    return {name: _plain(part) for name, part in parts.items()}, references


def _can_describe(type_: type) -> bool:
    try:
        msgspec.json.schema(type_, schema_hook=_any)
    except (TypeError, ValueError):
        return False
    return True


def _any(_type: type) -> Json:
    """Of a type that only a plugin knows; an empty schema would count as none."""
    return {"description": "Any JSON"}


def _plain(schema: Any) -> Any:
    """Without OpenAPI's discriminator, which means another thing in AsyncAPI; anyOf says the same."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    skipped = "discriminator" if "anyOf" in schema else None
    return {key: _plain(value) for key, value in schema.items() if key != skipped}


def _renamed(schema: Any, names: Mapping[str, str]) -> Any:
    if isinstance(schema, list):
        return [_renamed(item, names) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: names.get(value, value) if key == "$ref" and isinstance(value, str) else _renamed(value, names)
        for key, value in schema.items()
    }


class _Promise:
    """What the host keeps of one struct that it sends."""

    def __init__(self, struct: mi.StructType) -> None:
        fields = {field.name: field.encode_name for field in struct.fields}
        config = struct.cls.__struct_config__
        maybe = {field.name for field in msgspec.structs.fields(struct.cls) if field.default is UNSET}
        kept = {field.name for field in struct.fields if field.required} if config.omit_defaults else {*fields} - maybe
        self._required = [name for key, name in fields.items() if key in kept]
        self._times = [field.encode_name for field in struct.fields if _is_time(field.type)]

    def __call__(self, schema: Json) -> Json:
        properties = {name: _without_default(part) for name, part in schema["properties"].items()}
        for name in self._times:
            part = properties[name]
            properties[name] = {"anyOf": [_TIME, {"type": "null"}]} if "anyOf" in part else _TIME
        promised = {key: value for key, value in schema.items() if key != "additionalProperties"}
        return {**promised, "properties": properties, "required": self._required}


def _without_default(schema: Json) -> Json:
    return {key: value for key, value in schema.items() if key != "default"}


def _is_time(info: mi.Type) -> bool:
    if isinstance(info, mi.UnionType):
        return any(_is_time(each) for each in info.types)
    return isinstance(info, mi.DateTimeType)


def _promises(types: Iterable[type]) -> dict[str, _Promise]:
    found: dict[type, mi.StructType] = {}
    for info in mi.multi_type_info(list(types)):
        _collect(info, found)
    return {struct.__name__: _Promise(info) for struct, info in found.items()}


def _collect(info: Any, found: dict[type, mi.StructType]) -> None:
    """Every struct in `info`, at any depth."""
    if isinstance(info, mi.StructType):
        if info.cls not in found:
            found[info.cls] = info
            for each in info.fields:
                _collect(each.type, found)
        return
    for inner in ("type", "item_type", "key_type", "value_type"):
        if isinstance(getattr(info, inner, None), mi.Type):
            _collect(getattr(info, inner), found)
    for each in (*getattr(info, "types", ()), *getattr(info, "item_types", ())):
        _collect(each, found)

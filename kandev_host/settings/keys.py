"""The tree of known settings keys, walked by path: types, conversion of one value, and the nearest known key."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from kandev_host.errors import SettingsError
from kandev_host.settings import RawTables, Settings

KeyPath = tuple[str, ...]
_SECRET_TABLES = {("agents", "env"), ("agents", "files"), ("mcp", "env"), ("mcp", "headers"), ("mcp", "url")}
_SECRET_WORDS = ("secret", "password", "token", "passwd", "api_key", "apikey", "credential", "private")


class Text(str):
    """A value from the environment inside a provider's raw table: text still to be parsed by the provider's type."""

    __slots__ = ("source",)
    source: str

    def __new__(cls, value: str, source: str) -> Text:
        made = super().__new__(cls, value)
        made.source = source
        return made


class Entry(msgspec.Struct, frozen=True):
    """One value of one layer; `text` is one that still has to be parsed by the type of its key."""

    path: KeyPath
    value: Any
    source: str
    text: bool = False

    def checked(self) -> Any:
        """The value as its key's type. Raises `SettingsError`."""
        if self.value == {} and len(self.path) == 2 and is_raw(children(Settings).get(self.path[0])):
            return {}  # a provider's table with nothing in it
        kind = type_at(self.path, self.source)
        if kind is None:
            return Text(self.value, self.source) if self.text else self.value
        return convert(self, kind)


def dotted(path: KeyPath) -> str:
    """`server.port`."""
    return ".".join(path)


def children(table: Any) -> Mapping[str, Any]:
    """Key → type (with its `Meta`) of one settings struct."""
    return {item.encode_name: item.type for item in msgspec.structs.fields(table)}


def bare(kind: Any) -> Any:
    """The type without `Annotated` and without `| None`."""
    if get_origin(kind) is Annotated:
        return bare(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        inner = [item for item in get_args(kind) if item is not type(None)]
        return bare(inner[0]) if len(inner) == 1 else kind
    return kind


def struct_of(kind: Any) -> type[msgspec.Struct] | None:
    """The struct, if this key is a table of its own (optional ones, such as Limits, are values)."""
    return kind if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else None


def table_of(kind: Any) -> type[msgspec.Struct] | None:
    """The struct of each entry, if this key is a table of named tables."""
    return struct_of(get_args(kind)[1]) if get_origin(kind) is dict else None


def is_raw(kind: Any) -> bool:
    """Is this a table of providers' raw tables?"""
    return bool(kind == RawTables)


def type_at(path: KeyPath, source: str) -> Any:
    """The type of this key; None inside a raw table. Raises `SettingsError` for an unknown key."""
    known = children(Settings)
    for depth, name in enumerate(path, start=1):
        if name not in known:
            raise unknown(path[:depth], source, known)
        kind = known[name]
        rest = path[depth:]
        if is_raw(kind) and len(rest) == 2:
            return None
        inner = table_of(kind)
        if inner is not None and len(rest) == 2:
            if rest[1] not in children(inner):
                raise unknown(path, source, children(inner))
            return children(inner)[rest[1]]
        if struct_of(kind) is None:
            if rest or inner is not None or is_raw(kind):
                break
            return kind
        known = children(kind)
    raise unknown(path, source, known)


def convert(entry: Entry, kind: Any) -> Any:
    """One value as its type. Raises `SettingsError` naming the key, its source and what was expected."""
    value = entry.value
    as_text = entry.text or isinstance(value, Text)
    try:
        return parse(value, kind) if as_text else msgspec.convert(value, kind)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        shown = "" if is_secret(entry.path) else f", not {_short(value)}"
        raise SettingsError(f"{entry.source}: {dotted(entry.path)}: {_expected(kind, str(error))}{shown}") from error


def parse(text: str, kind: Any) -> Any:
    """Text as a type: lists as JSON or separated by commas, tables as JSON, the rest as written."""
    inside = get_origin(bare(kind)) or bare(kind)
    stripped = text.strip()
    if inside is str:
        return msgspec.convert(str(text), kind)
    if inside is tuple and not stripped.startswith("["):
        return msgspec.convert([part.strip() for part in stripped.split(",") if part.strip()], kind, strict=False)
    if inside in (tuple, dict) or struct_of(inside) is not None:
        return msgspec.convert(msgspec.json.decode(stripped), kind, strict=False)
    return msgspec.convert(stripped, kind, strict=False)


def unknown(path: KeyPath, source: str, siblings: Iterable[str]) -> SettingsError:
    """The error for a key that is not there; `source` is a file or a variable."""
    near = nearest(path, siblings)
    hint = f"; did you mean {dotted(near)}?" if near else "; see: kandev-host config init --stdout"
    return SettingsError(f"{source}: {dotted(path)} is not a setting{hint}")


def nearest(path: KeyPath, siblings: Iterable[str]) -> KeyPath | None:
    """The known key that was probably meant: beside it, else of the same name elsewhere, else of similar spelling."""
    close = difflib.get_close_matches(path[-1], list(siblings), n=1)
    if close:
        return (*path[:-1], close[0])
    known = {dotted(item): item for item in all_keys()}
    for item in known.values():
        if item[-1] == path[-1]:
            return item
    match = difflib.get_close_matches(dotted(path), list(known), n=1)
    return known[match[0]] if match else None


@cache
def all_keys() -> tuple[KeyPath, ...]:
    """Every fixed key: what stands in tables named by the user is not among them."""
    return tuple(_keys(children(Settings), ()))


def is_secret(path: KeyPath) -> bool:
    """Does the key's name, or being an environment or headers, say that its value is not for the screen?"""
    if (path[0], path[-1]) in _SECRET_TABLES:
        return True
    return any(word in path[-1] for word in _SECRET_WORDS) and path[0] not in ("gateway", "server")


def _keys(known: Mapping[str, Any], path: KeyPath) -> Iterator[KeyPath]:
    for name, kind in known.items():
        here = (*path, name)
        if struct_of(kind) is not None:
            yield from _keys(children(kind), here)
        elif not is_raw(kind) and table_of(kind) is None:
            yield here


_WORDS = (
    (" | null", ""),
    ("`int`", "a whole number"),
    ("`float`", "a number"),
    ("`str`", "text"),
    ("`bool`", "true or false"),
    ("`array`", "a list"),
    ("`object`", "a table"),
)


def _expected(kind: Any, message: str) -> str:
    """What this key takes: the words of a choice, the keys of a small table, else msgspec's message in our words."""
    inside = bare(kind)
    if get_origin(inside) is Literal:
        return f"expected one of {', '.join(get_args(inside))}"
    if get_origin(inside) is tuple and "enum value" in message:
        return f"expected a list of some of {', '.join(get_args(bare(get_args(inside)[0])))}"
    if struct_of(inside) is not None and "unknown field" in message:
        return f"expected a table of {', '.join(children(inside))}"
    kept = message.partition(", got")[0].partition(" - at")[0]
    for old, new in _WORDS:
        kept = kept.replace(old, new)
    return kept[:1].lower() + kept[1:]


def _short(value: Any) -> str:
    shown = repr(str(value) if isinstance(value, Text) else value)
    return shown if len(shown) <= 60 else shown[:57] + "..."

"""`config/example.toml`, written from the types: every key, its default and its meaning."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from kandev_host.settings import Settings
from kandev_host.settings.environment import ALIASES, MEANINGLESS, NOT_SETTINGS, variable
from kandev_host.settings.keys import KeyPath, bare, children, struct_of, table_of

_HEAD = """\
# Settings of kandev-host, with their defaults. Uncomment what you change.
#
# kandev-host reads config.toml in its data folder (~/.kandev, or KANDEV_HOME), or the file given with --config.
# Each layer goes before the one on its left: defaults < this file < environment < flags. A variable is named after its
# key, KANDEV_SERVER__PORT for [server] port; lists are separated by commas or written as JSON. A key ends in its unit:
# _s is seconds, _bytes is bytes. Unknown keys are errors. `kandev-host config check` checks this file.
"""
_NAMED = {
    "agents": "A table per agent: it changes one that a plugin brings, or adds one.",
    "rules": "A table per rule of permission.",
    "mcp": "A table per MCP server.",
    "directories": "A table per folder.",
    "credentials": "A table per credential.",
    "repositories": "A table per repository, or for several.",
}
_RAW = """\
# Settings of providers: one table each, [runtime.NAME], [store.NAME], [bus.NAME], [authenticator.NAME],
# [telemetry.NAME] and [prices.NAME], named as in [use]. `kandev-host plugins` lists what there is; those of installed
# plugins follow.
"""


def example(providers: Mapping[tuple[str, str], type[Any]] | None = None) -> str:
    """The whole file, every value commented out. `providers` are the tables of plugins: ("runtime", "bwrap") → type."""
    parts = [_HEAD]
    for name, kind in children(Settings).items():
        if struct_of(kind) is not None:
            parts.append("\n".join([f"# {_summary(kind)}", f"[{name}]", *_lines(kind, (name,))]) + "\n")
        elif table_of(kind) is not None:
            parts.append("\n".join(_named(name, table_of(kind))) + "\n")
    return "\n".join(
        [*parts, _RAW, *(_provider(path, table) for path, table in (providers or {}).items()), _variables()]
    )


def _named(name: str, table: Any) -> Iterator[str]:
    yield from _wrapped(f"# {_NAMED[name]} {_summary(table)}")
    yield f"# [{name}.NAME]"
    yield from _lines(table, ())


def toml(value: Any) -> str:
    """One value as TOML."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{msgspec.json.encode(k).decode()} = {toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    return msgspec.json.encode(value).decode()


def description(kind: Any) -> str:
    """The meaning of a key, from its `Meta`."""
    metas = [item.description for item in get_args(kind)[1:] if isinstance(item, msgspec.Meta) and item.description]
    return str(metas[0])


def default_of(table: type[msgspec.Struct], key: str) -> Any:
    """The default of one key of a table."""
    return next(item.default for item in msgspec.structs.fields(table) if item.encode_name == key)


def _lines(table: type[msgspec.Struct], path: KeyPath) -> Iterator[str]:
    for key, kind in children(table).items():
        inside = bare(kind)
        choices = f" One of: {', '.join(get_args(inside))}." if get_origin(inside) is Literal else ""
        yield from _wrapped(f"# {description(kind)}{choices}" + (f" {variable((*path, key))}" if path else ""))
        default = default_of(table, key)
        yield f"# {key} =" + (f" {toml(default)}" if default is not None else f" ({_shape(inside)}; unset)")


def _provider(path: KeyPath, table: type[msgspec.Struct]) -> str:
    """A provider's table; its header is commented out too, since a table for a runtime is what makes it available."""
    told = (table.__doc__ or "").partition("\n\n")[2] or _summary(table)
    lines = [*_wrapped(f"# {' '.join(told.split())}"), f"# [{path[0]}.{path[1]}]"]
    for key, kind in children(table).items():
        default = default_of(table, key)
        known = default is not None and default is not msgspec.NODEFAULT
        lines.append(f"# {key} = " + (toml(default) if known else f"({_shape(bare(kind))}; unset)"))
    return "\n".join(lines) + "\n"


def _shape(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        return _shape(get_args(kind)[0])
    names = {str: "text", bool: "true or false", int: "a whole number", float: "a number", tuple: "a list"}
    return names.get(get_origin(kind) or kind, "text" if get_origin(kind) is Literal else "a table")


def _variables() -> str:
    lines = [f"# {name}: {meaning}" for name, meaning in NOT_SETTINGS.items()]
    lines += ["#", "# Names of the Kandev plan, read as well; KANDEV_… goes before them:"]
    lines += [f"# {name} → {'.'.join(path)}" for name, path in ALIASES.items()]
    lines += [f"# {name}: no effect; {why}" for name, why in MEANINGLESS.items()]
    return "\n".join(["# Variables that are not settings:", *lines]) + "\n"


def _summary(table: type[msgspec.Struct]) -> str:
    return (table.__doc__ or "").splitlines()[0]


def _wrapped(comment: str) -> list[str]:
    return textwrap.wrap(comment, 118, subsequent_indent="# ", break_long_words=False)

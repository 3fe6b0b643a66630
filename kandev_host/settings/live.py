"""Settings of a running host: what differs after its file was read again, and what of that it takes over at once.

Every part holds the table that it was made with, so taking over is done in that table (`own` makes it the host's).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from kandev_host.settings import Settings
from kandev_host.settings.keys import KeyPath, children, struct_of


def own(settings: Settings) -> Settings:
    """A copy that shares no table with others: the defaults of all hosts are the same objects."""
    copies: dict[str, Any] = {}
    for name in children(Settings):
        table = getattr(settings, name)
        copies[name] = dict(table) if isinstance(table, dict) else msgspec.structs.replace(table)
    return msgspec.structs.replace(settings, **copies)


def difference(old: Settings, new: Settings) -> list[KeyPath]:
    """The keys that differ, as in ("gateway", "origins"); of tables with names of their own, as in ("agents", "x")."""
    return list(_difference(old, new))


def is_live(path: KeyPath) -> bool:
    """Does a running host take this over?"""
    table = struct_of(children(Settings)[path[0]])
    return path[0] in Settings.LIVE if table is None else path[1] in live_keys(table)


def live_keys(table: type[msgspec.Struct]) -> frozenset[str]:
    """Those of one table."""
    found: frozenset[str] = getattr(table, "LIVE", frozenset())
    return found


def all_live() -> Iterator[KeyPath]:
    """Every live key; of a table with names of its own, the table."""
    for name, kind in children(Settings).items():
        table = struct_of(kind)
        if table is not None:
            yield from ((name, key) for key in children(table) if key in live_keys(table))
        elif name in Settings.LIVE:
            yield (name,)


def take_over(old: Settings, new: Settings, paths: Iterable[KeyPath]) -> None:
    """Change `old` in place, at these keys. Whoever reads one sees the old value or the new one, never half of it."""
    for path in paths:
        table, value = getattr(old, path[0]), getattr(new, path[0])
        if not isinstance(table, dict):
            msgspec.structs.force_setattr(table, path[1], getattr(value, path[1]))
        else:  # the whole table, in its new order: of repositories the first that matches counts
            given = dict(value)
            table.clear()
            table.update(given)


def _difference(old: Settings, new: Settings) -> Iterator[KeyPath]:
    for name, kind in children(Settings).items():
        before, after = getattr(old, name), getattr(new, name)
        table = struct_of(kind)
        if table is not None:
            yield from ((name, key) for key in children(table) if getattr(before, key) != getattr(after, key))
        elif before != after:
            yield from ((name, key) for key in {**before, **after} if before.get(key) != after.get(key))
        else:
            yield from ((name, key) for key, other in zip(before, after, strict=True) if key != other)

"""Rows and events of an opened store as portable lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from kandev_host.backups.portable import EVENT, KINDS, End, Header, Line, values_of
from kandev_host.events import Event
from kandev_host.interfaces import Progress, Store
from kandev_host.models import Row, now
from kandev_host.version import __version__

PAGE = 500
PAGE_BYTES = 8 << 20
_encode = msgspec.json.Encoder().encode


async def export(store: Store, write: Callable[[bytes], Any], progress: Progress, *, events: bool) -> dict[str, int]:
    """Write every line; how many of each kind there were. The store must not change meanwhile: give it a copy."""
    write(_encode(Header(version=__version__, created_at=now())) + b"\n")
    counts = dict.fromkeys(KINDS, 0)
    for kind, model in KINDS.items():
        cursor: str | None = None
        while True:
            page = await store.find(model, limit=PAGE, cursor=cursor)
            counts[kind] += len(page.rows)
            for row in page.rows:
                write(_line(kind, row))
            progress(f"export {kind}", 0, 0)
            cursor = page.next_cursor
            if cursor is None:
                break
    if events:
        counts[EVENT] = await _events(store, write, progress)
    write(_encode(End(end=counts)) + b"\n")
    return counts


async def _events(store: Store, write: Callable[[bytes], Any], progress: Progress) -> int:
    seq = number = 0
    head = (await store.journal_state()).head
    while found := await store.events(seq, limit=PAGE, limit_bytes=PAGE_BYTES):
        for event in found:
            write(_line(EVENT, event))
        number += len(found)
        seq = found[-1].seq or head
        progress("export events", seq, head)
    return number


def _line(kind: str, row: Row | Event) -> bytes:
    return _encode(Line(kind=kind, row=values_of(row))) + b"\n"

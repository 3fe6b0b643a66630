"""What waits in the journal's queue: one commit, with what is attached to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from kandev_host.events import Event
from kandev_host.interfaces import Append, Change, Commit, Late, Put

if TYPE_CHECKING:
    from kandev_host.audit.acting import Acting
    from kandev_host.models import Row

CHANGE_BYTES = 256  # what a change costs beyond its texts
_ROWS = (Put, Append)
_HOLDERS = frozenset({dict, list, tuple})
_size_of = msgspec.json.Encoder().encode


class Auditor(Protocol):
    """What goes with a commit into the audit (`audit.log`)."""

    def of(self, changes: Sequence[Change]) -> tuple[Sequence[Append], Acting | None]: ...


class Entry:
    """One commit in the queue; `waiter` is the future of its `record`, or `poster` the task that posted it."""

    __slots__ = ("acting", "attachment", "commit", "poster", "size_bytes", "waiter")

    def __init__(
        self, commit: Commit, waiter: asyncio.Future[tuple[int, ...]] | None, poster: asyncio.Task[Any] | None
    ) -> None:
        self.commit = commit
        self.waiter = waiter
        self.poster = poster
        self.attachment: Attachment | None = None
        self.acting: Acting | None = None
        self.size_bytes = sum(map(_weight, commit.changes))

    def take_late(self) -> None:
        if any(isinstance(change, Late) for change in self.commit.changes):
            changes = [Put(change.made()) if isinstance(change, Late) else change for change in self.commit.changes]
            self.commit = Commit(changes, self.commit.preconditions)
            self.size_bytes = sum(map(_weight, changes))

    def attach(self, attachment: Attachment, reply: Any) -> None:
        self.attachment = attachment
        attachment.take(reply)
        if attachment.row is not None:
            self._add([Put(attachment.row)])

    def audit(self, auditor: Auditor) -> None:
        rows, self.acting = auditor.of(self.commit.changes)
        if rows:
            self._add(rows)

    def _add(self, changes: Sequence[Change]) -> None:
        self.commit = Commit((*self.commit.changes, *changes), self.commit.preconditions)
        self.size_bytes += sum(map(_weight, changes))


class Attachment:
    """A row that goes with the first commit of a task, in its transaction; see `Journal.attaching`.

    `taken` tells whether the task has committed anything, which is all there is to it without a row; `row` is then as
    it was written.
    """

    __slots__ = ("_bare", "_with_reply", "row", "taken")

    def __init__(self, row: Row | None, with_reply: Callable[[Any], Row] | None) -> None:
        self.row = self._bare = row
        self._with_reply = with_reply
        self.taken = False

    def take(self, reply: Any) -> None:
        self.row = self._bare if reply is None or self._with_reply is None else self._with_reply(reply)
        self.taken = True


def _weight(change: Change) -> int:
    """About how many bytes this change holds."""
    if isinstance(change, Event):
        return len(change.payload) + CHANGE_BYTES
    if isinstance(change, _ROWS):
        return _row_weight(change.row) + CHANGE_BYTES
    return CHANGE_BYTES


def _row_weight(row: Row) -> int:
    size_bytes = 0
    for value in msgspec.structs.astuple(row):
        kind = type(value)
        if kind is str:
            size_bytes += len(value)
        elif value and kind in _HOLDERS:
            size_bytes += len(_size_of(value))
    return size_bytes

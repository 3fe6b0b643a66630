"""What keeps the data of a store safe: copies of it, checks, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import msgspec

from kandev_host.interfaces.storage import Store

# What is being done, how much of it, of how much (0: nobody knows). It may raise: that ends the work.
Progress = Callable[[str, int, int], None]


class StoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a store, or a copy of one, holds at one moment. `problems` are for a person; none means that it is sound.

    `log_bytes` is what was written and is not yet in its place (of SQLite: the write-ahead log). `counts` are rows by
    kind, the events of the journal among them.
    """

    schema_version: int
    known_version: int
    journal_id: str
    head: int
    oldest: int
    size_bytes: int
    log_bytes: int
    counts: Mapping[str, int]
    problems: Sequence[str]


class Upkeep(Protocol):
    """Works on a store without opening it. Blocking: called in threads, also at the same time.

    A copy is a file (of a form that only the store knows) with all that the store held at one moment. What fails, or is
    ended by `progress`, leaves no copy and the store as it was. Raises `StorageFull`, `Busy` and `Unavailable`, the
    latter also for a file that is damaged or something else.
    """

    def size_bytes(self) -> int | None:
        """About how large a copy would be; None when there is no store yet."""
        ...

    def log_bytes(self) -> int | None:
        """How much of that was written and is not yet in its place (of SQLite: the write-ahead log)."""
        ...

    def back_up(
        self, copy: Path, progress: Progress, *, source: Path | None = None, with_secrets: bool = False
    ) -> None:
        """Make a copy: of this store, whoever writes to it meanwhile, or of the copy `source`.

        Readable only by its owner, and on the disk when this returns. Without secrets it has no hash of a password.
        """
        ...

    def inspect(self, progress: Progress, *, copy: Path | None = None) -> StoreReport:
        """Read all of this store, or of a copy, and say what is wrong with it."""
        ...

    def open_copy(self, copy: Path) -> AbstractAsyncContextManager[Store]:
        """The store that a copy holds, to read and to write; an empty one is made where there is no file."""
        ...

    def replace(self, copy: Path) -> Path | None:
        """Put a sound copy in the place of the store, at once; the copy is gone then. No host may have it open.

        Returns where the store that was there is kept: as a copy, so that this can be undone; None if there was none.
        History is another one then: `journal_id` changes.
        """
        ...

    def vacuum(self, progress: Progress) -> None:
        """Give back the room of what was removed. No host may have it open."""
        ...

"""The writer of the audit: rows for the commits of others, rows of its own, and where the chain stands."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec
from msgspec.structs import replace

from kandev_host.audit.acting import ACTING, DETAILS_LIMIT_BYTES, Acting, named
from kandev_host.audit.audited import audited
from kandev_host.audit.key import KEY_FILE, Head, fingerprint, load_key, read_head, write_head
from kandev_host.audit.refusals import log_refusal
from kandev_host.audit.tally import Tally
from kandev_host.interfaces import Append, Change
from kandev_host.models import AuditRow, key_id_of

if TYPE_CHECKING:
    from kandev_host.interfaces import Store

logger = logging.getLogger(__name__)
of_head = logging.getLogger("kandev_host.audit.head")

TICK_S = 1.0
HEAD_S = 5.0
HEAD_LOGGED_S = 600.0
END_S = 2.0
# Of what nobody waits for: while the store takes nothing, the oldest of these go, and that is counted.
WAITING = 256
TOKEN_FILE = "token"  # noqa: S105 - a file name

# Why a chain begins, again: in the details of its first row.
FIRST = "first start"
OTHER_KEY = "another key"
OTHER_HISTORY = "another history"
MISSING = "rows are missing"
REPLACED = "rows were replaced"
NO_HEAD = "no head"
BEGAN = "audit.began"


class Recording(Protocol):
    """What is needed of the journal."""

    async def record(self, *changes: Change) -> tuple[int, ...]: ...


class Audit(Protocol):
    """Where those who serve requests write."""

    def count(self, row: AuditRow) -> None: ...

    async def write(self, *rows: AuditRow) -> None: ...


class NoAudit:
    """For whoever has no data folder to keep one in."""

    def count(self, row: AuditRow) -> None:
        """Nothing."""

    async def write(self, *rows: AuditRow) -> None:
        """Nothing."""


class AuditLog:
    """One for each host. Until `standing` it audits commits, and keeps all else until it can be written."""

    def __init__(self, key: bytes, folder: Path, tally: Tally | None = None, *, new: bool = False) -> None:
        """`new` is a key that was made just now: there are no rows of it."""
        self._key = key
        self._new = new
        self._folder = folder
        self._tally = tally or Tally()
        self._waiting: deque[AuditRow] = deque()
        self._lost = 0
        self._ending = False
        self._kept = anyio.Event()
        self._marks: list[AuditRow] = []
        self._doubt: str | None = None
        self._head = read_head(folder)
        self._grown = False
        self._logged: tuple[float, int] | None = None  # the head, and when
        self._wake = anyio.Event()
        self._record: Callable[..., Any] | None = None
        self._token: str | None = None
        self._settings: str | None = None

    @classmethod
    def of_folder(cls, folder: Path) -> AuditLog:
        """Raises `StartupError` when the key cannot be used."""
        new = not (folder / KEY_FILE).exists()
        return cls(load_key(folder), folder, new=new)

    # --- for the journal ---------------------------------------------------------------------------------------------

    def of(self, changes: Sequence[Change]) -> tuple[Sequence[Append], Acting | None]:
        """What goes with this commit, and the request whose own row that settles once it is written."""
        rows = audited(changes)
        acting = ACTING.get()
        # Only what the request's own task commits: tasks that it starts do other work.
        if acting is None or acting.owed is None or acting.task is not asyncio.current_task():
            acting = None
        elif not rows:
            rows = [acting.owed]
        return (self.sealed(rows) if rows else ()), acting

    def sealed(self, rows: Sequence[AuditRow]) -> list[Append]:
        """As they go into a commit, behind what the chain must say first."""
        self._grown = True
        marks, self._marks = self._marks, []
        if self._doubt is not None:  # said here: whoever only looks begins no chain
            logger.warning("The audit goes on in a new chain: %s; see kandev-host audit verify", self._doubt)
            self._doubt = None
        return [Append(_bounded(_named(row)), self._key) for row in (*marks, *rows)]

    # --- for everybody -----------------------------------------------------------------------------------------------

    def count(self, row: AuditRow) -> None:
        """Of what may come often: returns at once, and writes a few rows a minute, however often it is called."""
        first = self._tally.add(row)
        if first is not None:
            self._later(first)
            log_refusal(first)

    async def write(self, *rows: AuditRow) -> None:
        """Returns when they are on the disk. Raises as `Journal.record` does."""
        if self._record is None:
            for row in rows:
                self._later(row)
        else:
            await self._record(*self.sealed(rows))

    def settings_are(self, settings: Any) -> None:
        """Have it written down that they are others than before, if they are. Of their values only a digest is kept."""
        digest = hmac.new(
            self._key, msgspec.json.encode(settings, enc_hook=str, order="sorted"), hashlib.sha256
        ).hexdigest()[:16]
        before, self._settings = self._settings, digest
        if before is not None and before != digest:
            details = {"before": before, "after": digest}
            self._later(AuditRow(kind="settings", action="settings.changed", details=details))
        self._grown = True

    # --- its life ----------------------------------------------------------------------------------------------------

    async def look(self, store: Store) -> None:
        """Compare the chain with what was written down of it; what differs is said before the next row."""
        rows = (await store.find(AuditRow, order=("-seq",), limit=1)).rows
        last = rows[0] if rows else None
        head = self._head
        state = await store.journal_state()
        journal_id, known = state.journal_id, None
        if head is not None and last is not None and 0 < head.seq <= last.seq:
            found = (await store.find(AuditRow, [("seq", "=", head.seq)], limit=1)).rows
            known = found[0].mac if found else None
        # A key that was there before, where hosts have lived: they have left rows.
        first = head is None and last is None and (self._new or not state.head)
        why = FIRST if first else _doubt(head, last, known, journal_id, self._key)
        if why is not None:
            self._marks = [_mark(why, head, last, journal_id)]
            self._doubt = why if why != FIRST else None
        if head is not None and head.holds(self._key):
            self._token, self._settings = head.token, head.settings

    @asynccontextmanager
    async def standing(self, journal: Recording, store: Store, **about: Any) -> AsyncIterator[None]:
        """Within this the host lives; `about` it is told in the row of its start."""
        self._record = journal.record
        self._waiting.appendleft(AuditRow(kind="host", action="host.started", details=about))
        await self._follow_token()
        await self._flush()  # what cannot be written waits: whether the host starts so is not for the audit to say
        await self.keep_head(store)
        group = anyio.create_task_group()
        await group.__aenter__()
        group.start_soon(self._keep, store, name="audit")
        try:
            yield
        finally:
            # What it writes at this moment is to be known as written.
            self._ending = True
            self._wake.set()
            with anyio.move_on_after(END_S, shield=True):
                await self._kept.wait()
            group.cancel_scope.cancel()
            # The body's own error goes on as it is, not inside an exception group.
            await group.__aexit__(None, None, None)
            with anyio.move_on_after(END_S, shield=True):
                self._waiting.extend(self._summed(everything=True))
                self._waiting.append(AuditRow(kind="host", action="host.stopped"))
                await self._flush()
                await self.keep_head(store)

    def answering(self, journal: Recording) -> None:
        """As `standing`, for a host that only answers its own process: it says nothing of itself."""
        self._record = journal.record

    async def keep_head(self, store: Store) -> None:
        """Write down where the chain stands."""
        try:
            rows = (await store.find(AuditRow, order=("-seq",), limit=1)).rows
            if not rows:
                return
            last, state = rows[0], await store.journal_state()
            head = Head(
                seq=last.seq,
                mac=last.mac,
                journal_id=state.journal_id,
                key_id=key_id_of(self._key),
                token=self._token,
                settings=self._settings,
            )
            await anyio.to_thread.run_sync(write_head, self._folder, head, self._key)
            self._log_head(head)
        except Exception as error:  # of the store or the file system: tried again in a moment
            logger.warning("Where the audit stands could not be written down: %s", error)
            self._grown = True

    def _log_head(self, head: Head) -> None:
        """At the start, at the end, and now and then: where the log is kept elsewhere, nobody here rewrites that."""
        at = anyio.current_time()
        if self._logged is not None:
            logged_at, seq = self._logged
            if seq == head.seq or (at - logged_at < HEAD_LOGGED_S and not self._ending):
                return
        self._logged = at, head.seq
        of_head.info("audit head: row %s, mac %s", head.seq, head.mac)

    async def _keep(self, store: Store) -> None:
        """Write what waits, and every few seconds where the chain stands."""
        kept_at = 0.0
        while not self._ending:
            with anyio.move_on_after(TICK_S):
                await self._wake.wait()
            self._wake = anyio.Event()
            self._waiting.extend(self._summed())
            await self._follow_token()
            await self._flush()
            if self._grown and anyio.current_time() - kept_at >= HEAD_S:
                self._grown, kept_at = False, anyio.current_time()
                await self.keep_head(store)
            await anyio.lowlevel.checkpoint()
        self._kept.set()

    def _summed(self, *, everything: bool = False) -> list[AuditRow]:
        rows = self._tally.due(everything=everything)
        for row in rows:
            log_refusal(row)
        return rows

    async def _flush(self) -> None:
        if self._record is None or not self._waiting:
            return
        rows, lost = list(self._waiting), self._lost
        told = [AuditRow(kind="audit", action="audit.lost", outcome="failed", details={"rows": lost})] if lost else []
        self._waiting.clear()
        marks = self._marks
        try:
            await self._record(*self.sealed([*rows, *told]))
        except BaseException as error:  # of the store, of any kind: the rows wait, and the host goes on
            self._marks = marks
            self._waiting.extendleft(reversed(rows))  # others came meanwhile
            self._bound()
            if not isinstance(error, Exception):
                raise
            logger.warning("%s rows of the audit wait: %s", len(self._waiting), error)
            return
        self._lost -= lost

    async def _follow_token(self) -> None:
        """The local token is a file that is replaced: by whom is not known, but that it was is written down."""
        found = fingerprint(self._folder / TOKEN_FILE)
        before = self._token
        if found is None or found == before:
            return
        self._token = found
        self._grown = True
        if before is not None:
            details = {"before": before, "after": found}
            self._later(AuditRow(kind="auth", action="token.rotated", actor="unknown", details=details))

    def _later(self, row: AuditRow) -> None:
        self._waiting.append(row)
        self._bound()
        self._wake.set()

    def _bound(self) -> None:
        while len(self._waiting) > WAITING:
            self._waiting.popleft()
            self._lost += 1


def _named(row: AuditRow) -> AuditRow:
    acting = ACTING.get()
    if acting is None or acting.principal.id != row.actor or row.actor_kind:
        return row
    return named(row, acting.principal, acting.address)


def _bounded(row: AuditRow) -> AuditRow:
    if len(msgspec.json.encode(row.details)) <= DETAILS_LIMIT_BYTES:
        return row
    return replace(row, details={"cut": True})


def _doubt(head: Head | None, last: AuditRow | None, known: str | None, journal_id: str, key: bytes) -> str | None:
    """Why what comes next is not simply the next row; None if it is."""
    if head is None:
        return MISSING if last is None else OTHER_KEY if last.key_id != key_id_of(key) else NO_HEAD
    if head.journal_id != journal_id:
        return OTHER_HISTORY
    if last is None or last.seq < head.seq:
        return MISSING
    if known != head.mac:
        return REPLACED
    return OTHER_KEY if last.key_id != key_id_of(key) or not head.holds(key) else None


def _mark(why: str, head: Head | None, last: AuditRow | None, journal_id: str) -> AuditRow:
    details: dict[str, Any] = {"why": why, "journal_id": journal_id}
    if last is not None:
        details |= {"after_seq": last.seq, "after_mac": last.mac}
    if head is not None:
        details |= {"known_seq": head.seq, "known_mac": head.mac, "known_journal_id": head.journal_id}
    return AuditRow(kind="audit", action=BEGAN, outcome="ok" if why == FIRST else "doubtful", details=details)

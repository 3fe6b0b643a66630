"""Does the chain hold? Row by row, in order, with nothing but the rows, the keys and where the chain stood."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

import msgspec

from kandev_host.audit.key import Head
from kandev_host.audit.log import BEGAN, FIRST
from kandev_host.models import AuditRow, mac_of

NOT_REACHED = "not reached"
_HEAD = "audit-head, which says how far the rows go,"


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """The first bad row: its `seq`, and what is wrong with it."""

    seq: int
    why: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`unchecked` rows are of keys that were not given, as (first, last, key); `marks` say where a chain began anew."""

    rows: int
    last_seq: int
    problem: Problem | None
    unchecked: tuple[tuple[int, int, str], ...]
    marks: tuple[dict[str, Any], ...]
    head: str


class Verifier:
    """`add` every row, in the order in which they are kept; then ask for the `verdict`."""

    def __init__(self, keys: Mapping[str, bytes], head: Head | None = None, *, needs_head: bool = False) -> None:
        """With `needs_head`, nothing without one is whole: who takes rows away, or all, may take that away as well."""
        self._keys = keys
        self._head = head
        self._needs_head = needs_head
        self._rows = self._seq = 0
        self._mac = ""
        self._problem: Problem | None = None
        self._unchecked: list[tuple[int, int, str]] = []
        self._open: tuple[int, str] | None = None  # the first row of a key that is not known, until a chain begins anew
        self._marks: list[dict[str, Any]] = []
        self._known: str | None = None  # the mac of the row that the head names

    def add(self, row: AuditRow) -> None:
        self._rows += 1
        if self._problem is None:
            why = self._wrong(row)
            if why is not None:
                self._problem = why
        self._seq, self._mac = row.seq, row.mac
        if self._head is not None and row.seq == self._head.seq:
            self._known = row.mac

    def so_far(self) -> Verdict:
        """Of the rows that were added, where more follow: nothing of the end is known."""
        return self._verdict(self._problem, NOT_REACHED)

    def verdict(self) -> Verdict:
        """With a head, also whether rows are missing at the end."""
        head, problem, said = self._head, self._problem, "not given"
        if problem is None and self._open is not None:
            first, key_id = self._open
            problem = Problem(seq=first, why=f"made with another key ({key_id}), and no row with a known key follows")
        if head is None and self._needs_head:
            problem, said = problem or Problem(seq=self._seq + 1, why=f"{_HEAD} is missing"), "missing"
        elif head is not None:
            key = self._keys.get(head.key_id)
            if key is None or not head.holds(key):
                said = "was not signed with this key"
                problem = problem or Problem(seq=head.seq, why=f"{_HEAD} was not signed with this key")
            else:
                problem = problem or self._against(head)
                said = "holds" if problem is None else "differs"
        return self._verdict(problem, said)

    def _verdict(self, problem: Problem | None, said: str) -> Verdict:
        return Verdict(
            rows=self._rows,
            last_seq=self._seq,
            problem=problem,
            unchecked=tuple(self._unchecked),
            marks=tuple(self._marks),
            head=said,
        )

    def _against(self, head: Head) -> Problem | None:
        if head.seq > self._seq:
            missing = self._seq + 1
            upto = f"rows {missing} to {head.seq} are" if head.seq > missing else f"row {missing} is"
            return Problem(seq=missing, why=f"{upto} missing at the end (after a restore: the next start says so)")
        if self._known != head.mac:
            return Problem(seq=head.seq, why="it is not the row that stood there before")
        return None

    def _wrong(self, row: AuditRow) -> Problem | None:
        key = self._keys.get(row.key_id)
        problem = self._broken(row, key)
        if key is None:
            self._open = self._open or (row.seq, row.key_id)
            return problem
        if self._open is not None:
            first, key_id = self._open
            if row.action != BEGAN:
                return Problem(seq=first, why=f"made with another key ({key_id}), with nothing that says why")
            if problem is None and row.details.get("after_mac") == self._mac:
                self._unchecked.append((first, row.seq - 1, key_id))
                self._open = None
        if row.action == BEGAN and row.details.get("why") != FIRST:
            self._marks.append({"seq": row.seq, "at": row.created_at, **row.details})
        return problem

    def _broken(self, row: AuditRow, key: bytes | None) -> Problem | None:
        expected = self._seq + 1
        if row.seq > expected:
            upto = f"rows {expected} to {row.seq - 1} are" if row.seq - 1 > expected else f"row {expected} is"
            return Problem(seq=expected, why=f"{upto} missing")
        if row.seq < expected:
            return Problem(seq=row.seq, why=f"it stands where row {expected} belongs")
        if key is not None and not hmac.compare_digest(mac_of(row, key).encode(), row.mac.encode()):
            return Problem(seq=row.seq, why="it was changed, or made without the key")
        if row.prev != self._mac:
            return Problem(seq=row.seq, why="it was made behind another row than the one before it")
        return None

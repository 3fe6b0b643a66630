"""What happens often is counted: the first of its sort at once, the others as one row when their time is over.

So that whoever guesses tokens, or asks for what is not his, a thousand times a second, writes a row or two a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

import msgspec
from msgspec import to_builtins
from msgspec.structs import replace

from kandev_host.models import AuditRow, now

# Of each action, outcome and actor at a time; all further ones are one sort together, of that actor: whoever asks for
# a lot must not hide what others do.
SORTS = 32
# How long a sort is counted: log-ins that went well are many for whoever uses the command line.
WINDOW_S = 60.0
OK_WINDOW_S = 600.0

Sort = tuple[str, str, str, str | None, str | None]


class _Counted(msgspec.Struct):
    row: AuditRow
    ends: float
    count: int = 0
    first: datetime | None = None
    last: datetime | None = None


class Tally:
    """`clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sorts: dict[Sort, _Counted] = {}

    def add(self, row: AuditRow) -> AuditRow | None:
        """The row, if it is the first of its sort; else it is counted."""
        at = self._clock()
        sort = _sort(row)
        if sort not in self._sorts and self._full(row):
            row = replace(row, address=None, details={})
            sort = _sort(row)
        counted = self._sorts.get(sort)
        if counted is None:
            self._sorts[sort] = _Counted(row, at + (OK_WINDOW_S if row.outcome == "ok" else WINDOW_S))
            return row
        counted.count += 1
        counted.last = row.created_at
        counted.first = counted.first or row.created_at
        return None

    def due(self, *, everything: bool = False) -> list[AuditRow]:
        """A row for each sort whose time is over, and of which there were more."""
        at = self._clock()
        over = [(sort, counted) for sort, counted in self._sorts.items() if everything or counted.ends <= at]
        for sort, _ in over:
            del self._sorts[sort]
        return [_summed(counted) for _, counted in over if counted.count]

    def _full(self, row: AuditRow) -> bool:
        wanted = row.action, row.outcome, row.actor
        return sum(1 for sort in self._sorts if sort[:3] == wanted) >= SORTS


def _sort(row: AuditRow) -> Sort:
    of = next((row.details[name] for name in ("action", "credential", "user") if row.details.get(name)), None)
    return row.action, row.outcome, row.actor, row.address, of


def _summed(counted: _Counted) -> AuditRow:
    """`count` more after the first one, which has a row of its own."""
    told = {"count": counted.count, "first": counted.first, "last": counted.last}
    shown = {name: to_builtins(value) for name, value in told.items()}
    fresh = AuditRow(kind=counted.row.kind, action=counted.row.action, created_at=now())
    return replace(counted.row, id=fresh.id, created_at=fresh.created_at, details={**counted.row.details, **shown})

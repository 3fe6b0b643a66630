"""Reading the journal: events of some topics, in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from typing import Any

import apsw
import msgspec

from kandev_host import Event
from kandev_sqlite.mapper import to_time
from kandev_sqlite.schema import EVENT_BYTES

TOPICS = {"task": "task_id", "board": "board_id", "agent": "agent_id", "shell": "shell_id"}
SCAN_STREAMS = 2000
MAX_SEQ = (1 << 63) - 1

_EVENT = (
    "SELECT e.seq, e.id, e.action, e.actor, s.board_id, s.task_id, s.agent_id, s.turn_id, s.shell_id, e.payload, "
    "e.created_at FROM events AS e JOIN streams AS s ON s.n = e.stream "
)
# Without an end, a prefix is a range: from itself to itself followed by the last character.
_ALL = _EVENT + "WHERE e.seq > ?1 AND e.action >= ?2 AND e.action < ?3 ORDER BY e.seq LIMIT ?4"
# The + keeps SQLite from collecting and sorting all of them by the index of streams.
_SOME = _EVENT + (  # noqa: S608
    "WHERE e.seq > ?1 AND e.action >= ?2 AND e.action < ?3 AND +e.stream IN (SELECT value FROM json_each(?5)) "
    "ORDER BY e.seq LIMIT ?4"
)
_THESE = _EVENT + "WHERE e.seq IN (SELECT value FROM json_each(?)) ORDER BY e.seq"  # noqa: S608
EVENTS_BYTES = "SELECT value FROM meta WHERE key = 'events_bytes'"
_OLDEST = f"SELECT seq, created_at, octet_length(payload) + {EVENT_BYTES} FROM events ORDER BY seq LIMIT ?"  # noqa: S608
_STREAM = (
    "SELECT seq FROM events WHERE stream = ?1 AND seq > ?2 AND seq < ?3 AND action >= ?4 AND action < ?5 "
    "ORDER BY seq LIMIT ?6"
)


def events(
    db: apsw.Connection,
    after_seq: int,
    topics: Sequence[str],
    limit: int,
    action_prefix: str = "",
    limit_bytes: int | None = None,
) -> list[Event]:
    """Durable events after `after_seq` of any of the topics, by `seq`, each once; see `Store.events` for the bounds."""
    found: list[Event] = []
    room = MAX_SEQ if limit_bytes is None else limit_bytes
    for row in _rows(db, after_seq, topics, limit, (action_prefix, action_prefix + "\U0010ffff")):
        found.append(_event(row))
        room -= len(bytes(found[-1].payload))
        if room <= 0:
            break
    return found


def _rows(
    db: apsw.Connection, after_seq: int, topics: Sequence[str], limit: int, span: tuple[str, str]
) -> Iterator[Sequence[Any]]:
    if "*" in topics:
        return db.execute(_ALL, (after_seq, *span, limit))
    streams = _streams(db, topics)
    if len(streams) > SCAN_STREAMS:
        # The same for very many streams: the journal is read on until enough of theirs were met.
        return db.execute(_SOME, (after_seq, *span, limit, str(list(streams))))
    return db.execute(_THESE, (str(_first(db, streams, after_seq, limit, span)),))


def expired(db: apsw.Connection, before: int | None, limit_bytes: int | None, limit: int) -> int:
    """See `Store.expired`."""
    excess = 0 if limit_bytes is None else int(db.execute(EVENTS_BYTES).get) - limit_bytes
    last = 0
    for seq, created_at, size in db.execute(_OLDEST, (limit,)):
        if excess <= 0 and (before is None or created_at >= before):
            break
        last, excess = seq, excess - size
    return last


def _streams(db: apsw.Connection, topics: Iterable[str]) -> list[int]:
    """The streams that belong to these topics, oldest first."""
    found: set[int] = set()
    for topic in topics:
        prefix, _, id = topic.partition(":")
        if field := TOPICS.get(prefix):
            found.update(n for (n,) in db.execute(f"SELECT n FROM streams WHERE {field} = ?", (id,)))  # noqa: S608
    return sorted(found)


def _first(db: apsw.Connection, streams: Sequence[int], after_seq: int, limit: int, span: tuple[str, str]) -> list[int]:
    """The smallest `limit` numbers of all streams. Each stream is read only up to the last number found so far."""
    seqs: list[int] = []
    for stream in streams:
        below = seqs[-1] if len(seqs) >= limit else MAX_SEQ
        more = [seq for (seq,) in db.execute(_STREAM, (stream, after_seq, below, *span, limit))]
        if more:
            seqs = list(merge(seqs, more))[:limit]
    return seqs


def _event(row: Sequence[Any]) -> Event:
    seq, id, action, actor, board_id, task_id, agent_id, turn_id, shell_id, payload, created_at = row
    return Event(
        seq=seq,
        id=id,
        action=action,
        actor=actor,
        board_id=board_id,
        task_id=task_id,
        agent_id=agent_id,
        turn_id=turn_id,
        shell_id=shell_id,
        payload=msgspec.Raw(payload.encode()),
        created_at=to_time(created_at),
    )

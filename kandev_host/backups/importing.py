"""Portable lines into an opened store: a copy, which takes the store's place when all of it went well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec

from kandev_host.backups.portable import EVENT, FORMAT, KINDS, LINE_LIMIT_BYTES, End, Header, Line, row_of
from kandev_host.errors import Conflict, KandevError, Unavailable, ValidationFailed
from kandev_host.events import Event
from kandev_host.interfaces import Change, Commit, Progress, Put, Store
from kandev_host.models import Row, User, new_id

GROUP = 200
PAGE = 500
PAGE_BYTES = 8 << 20
Existing = Literal["refuse", "skip"]
_line = msgspec.json.Decoder(Line)


class Imported(msgspec.Struct):
    """Lines taken, and those left out since their row is there already, by kind."""

    taken: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys((*KINDS, EVENT), 0))
    skipped: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys((*KINDS, EVENT), 0))


def check(path: Path, progress: Progress) -> list[str]:
    """Read all of the file without keeping it: the ids in it. Raises `ValidationFailed` naming the first bad line."""
    ids: list[str] = []
    counts: dict[str, int] = {}
    for number, kind, values in _lines(path):
        if kind == "":
            if counts != {name: count for name, count in values.items() if count}:
                raise _wrong(number, "it counts other lines than there are: some are missing, or too many")
            return ids
        row = _row(number, kind, values)
        if not isinstance(row, User | Event):
            ids.append(row.id)
        counts[kind] = counts.get(kind, 0) + 1
        progress("check", number, 0)
    raise ValidationFailed("file", f"{path.name} ends before its last line: it was cut. Export it again")


async def take(
    store: Store, path: Path, progress: Progress, *, existing: Existing, new_ids: Mapping[str, str] | None = None
) -> Imported:
    """Write all lines. Raises `Conflict` for what is there already, unless that is to be skipped.

    With `new_ids` (old → new) every id of the file is exchanged, wherever it stands, and events get new ones. Users
    that are there stay as they are.
    """
    done, gone = Imported(), set[str]()
    events: set[str] | None = None
    group: list[tuple[int, str, Row | Event]] = []
    for number, kind, values in _lines(path):
        if kind == "":
            break
        row = _row(number, kind, values if new_ids is None else _exchanged(values, new_ids))
        if not isinstance(row, Event):
            left_out = await _is_there(store, row, number, existing, gone)
        elif new_ids is not None:
            row.id, left_out = new_id(), False
        else:
            events = events if events is not None else await _event_ids(store, progress)
            left_out = _is_told(row, number, existing, gone, events)
        if left_out:
            done.skipped[kind] += 1
            continue
        group.append((number, kind, row))
        done.taken[kind] += 1
        if len(group) == GROUP:
            await _write(store, group)
            group = []
            progress("import", number, 0)
    await _write(store, group)
    return done


def fresh(ids: list[str]) -> dict[str, str]:
    """A new id for each."""
    return {id: new_id() for id in ids}


async def _is_there(store: Store, row: Row, number: int, existing: Existing, gone: set[str]) -> bool:
    if await store.get(type(row), row.id) is None:
        return False
    gone.add(row.id)
    if existing == "refuse" and not isinstance(row, User):
        raise _there(number, type(row).__name__, row.id)
    return True


def _is_told(event: Event, number: int, existing: Existing, gone: set[str], events: set[str]) -> bool:
    """It is in the journal, or belongs to what is left out. What is taken counts as there for the lines behind it."""
    if existing == "refuse":
        if event.id in events:
            raise _there(number, "Event", event.id)
        return False
    if event.id in events or not gone.isdisjoint({event.task_id or "", event.board_id or "", event.agent_id or ""}):
        return True
    events.add(event.id)
    return False


async def _event_ids(store: Store, progress: Progress) -> set[str]:
    """Of all events in the journal."""
    seq, head = 0, (await store.journal_state()).head
    ids = set[str]()
    while found := await store.events(seq, limit=PAGE, limit_bytes=PAGE_BYTES):
        ids.update(event.id for event in found)
        seq = found[-1].seq or head
        progress("read events", seq, head)
    return ids


def _there(number: int, what: str, id: str) -> Conflict:
    return Conflict(
        f"Line {number}: {what} {id} is there already; nothing was imported",
        fix="--skip-existing leaves what is there as it is, --new-ids brings all in beside it",
    )


async def _write(store: Store, group: list[tuple[int, str, Row | Event]]) -> None:
    commits = [Commit([_change(row)]) for _, _, row in group]
    for (number, kind, _), outcome in zip(group, await store.commit(commits), strict=True):
        if isinstance(outcome, KandevError):
            raise _wrong(number, f"{kind}: {outcome.message}")


def _change(row: Row | Event) -> Change:
    return row if isinstance(row, Event) else Put(row)


def _lines(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Number, kind and fields; the last one has no kind. Raises `ValidationFailed`."""
    with path.open("rb") as file:
        _check_header(path, file)
        number = 1
        while line := file.readline(LINE_LIMIT_BYTES + 1):
            number += 1
            if len(line) > LINE_LIMIT_BYTES:
                raise _wrong(number, f"it is longer than {LINE_LIMIT_BYTES} bytes")
            try:
                found = _line.decode(line)
            except (msgspec.DecodeError, RecursionError) as error:
                counts = _end(line)
                if counts is None:
                    raise _wrong(number, str(error)) from error
                if file.readline(2):
                    raise _wrong(number + 1, "there is more after the end") from error
                yield number, "", counts
                return
            if not found.kind:
                raise _wrong(number, "it has no kind")
            yield number, found.kind, found.row


def _check_header(path: Path, file: BinaryIO) -> None:
    try:
        header = msgspec.json.decode(file.readline(4096), type=Header)
    except msgspec.DecodeError as error:
        raise ValidationFailed("file", f"{path.name} was not written by kandev-host export ({error})") from error
    if header.kandev_export > FORMAT:
        raise Unavailable(
            f"{path.name} was written by a newer kandev-host ({header.version})", fix="upgrade kandev-host"
        )


def _end(line: bytes) -> dict[str, int] | None:
    try:
        return msgspec.json.decode(line, type=End).end
    except (msgspec.DecodeError, RecursionError):
        return None


def _row(number: int, kind: str, values: Mapping[str, Any]) -> Row | Event:
    try:
        return row_of(kind, values)
    except ValidationFailed as error:
        raise _wrong(number, error.message) from error


def _wrong(number: int, reason: str) -> ValidationFailed:
    return ValidationFailed("file", f"Line {number}: {reason}; nothing was imported")


def _exchanged(value: Any, ids: Mapping[str, str]) -> Any:
    """The same with every old id replaced, also inside of what agents and events say."""
    if isinstance(value, dict):
        return {ids.get(key, key): _exchanged(part, ids) for key, part in value.items()}
    if isinstance(value, list):
        return [_exchanged(part, ids) for part in value]
    return ids.get(value, value) if isinstance(value, str) else value

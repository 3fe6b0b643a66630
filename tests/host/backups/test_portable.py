"""What export writes, import reads; whatever else is refused as a whole, naming the line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from kandev_host.backups.export import export
from kandev_host.backups.importing import Imported, check, fresh, take
from kandev_host.backups.portable import KINDS
from kandev_host.errors import Conflict, Unavailable, ValidationFailed
from kandev_host.events import event
from kandev_host.interfaces import Put, Store
from kandev_host.models import ROWS, AgentInstance, Board, PermissionRequest, Session, Task, Turn, User, Workspace
from kandev_host.testing.upkeep import going_on
from kandev_host.testing.world import AGENT, BOARD, TASK, USER, write


@pytest.fixture
async def exported(place: Any, tmp_path: Path, anyio_backend: str) -> Path:
    """One of each kind of row, and an event."""
    path = tmp_path / "exported.jsonl"
    async with place.open() as store:
        await write(store, Put(replace(USER, password_hash="a-hash")))
        await write(store, Put(replace(AGENT, status="RUNNING", activity="prompting", process_ref="bwrap:7")))
        told = event("task.updated", {"task": {"id": TASK.id, "n": 1}}, task_id=TASK.id, board_id=BOARD.id)
        await write(store, told, event("host.test", {}))
        with path.open("wb") as file:
            await export(store, file.write, going_on, events=True)
    return path


async def into(store: Store, path: Path, **how: Any) -> Imported:
    check(path, going_on)
    return await take(store, path, going_on, **{"existing": "refuse", **how})


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.anyio
async def test_what_is_exported_is_imported_with_its_ids(exported: Path, empty: Callable[[str], Any]) -> None:
    async with empty("other").open() as store:
        done = await into(store, exported)
        assert await store.get(Task, TASK.id) == TASK
        assert await store.get(Board, BOARD.id) == BOARD
        assert await store.get(User, USER.id) == USER
        told = await store.events(0)
        assert [each.action for each in told] == ["task.updated", "host.test"]
        assert (told[0].task_id, json.loads(bytes(told[0].payload))["task"]["n"]) == (TASK.id, 1)
        assert {kind: await store.count(model) for kind, model in KINDS.items()} == {
            kind: done.taken[kind] for kind in KINDS
        }
    assert not any(done.skipped.values())


@pytest.mark.anyio
async def test_what_ran_is_imported_as_ended_and_knows_no_process(exported: Path, empty: Callable[[str], Any]) -> None:
    async with empty("other").open() as store:
        await into(store, exported)
        agent = await store.get(AgentInstance, AGENT.id)
        assert agent is not None
        assert (agent.status, agent.activity, agent.process_ref) == ("STOPPED", None, None)
        assert [turn.state for turn in (await store.find(Turn)).rows] == ["cancelled"]
        assert [each.state for each in (await store.find(PermissionRequest)).rows] == ["cancelled"]
        assert all(each.closed_at for each in (await store.find(Session)).rows)


def test_neither_hashes_nor_what_is_of_one_machine_are_exported(exported: Path) -> None:
    assert b"a-hash" not in exported.read_bytes()
    assert b"bwrap:7" not in exported.read_bytes()
    left_out = {model.__name__ for model in ROWS} - {model.__name__ for model in KINDS.values()}
    assert left_out == {"AgentTypeRow", "AuditRow", "HostState", "QueueEntry", "Receipt", "Snapshot", "Workspace"}
    assert {line["kind"] for line in lines(exported)[1:-1]} == {*KINDS, "event"}


@pytest.mark.anyio
async def test_what_is_there_already_is_refused_unless_it_is_to_be_skipped(exported: Path, place: Any) -> None:
    async with place.open() as store:
        before = (await store.find(Task)).rows
        head = (await store.journal_state()).head
        with pytest.raises(Conflict, match=r"Line \d+: Board .* is there already"):
            await into(store, exported)
        done = await into(store, exported, existing="skip")
        assert {kind: done.taken[kind] for kind in KINDS} == dict.fromkeys(KINDS, 0)
        assert (await store.find(Task)).rows == before
        assert (done.taken["event"], done.skipped["event"]) == (0, 2)
        assert (await store.journal_state()).head == head


def with_an_event(exported: Path) -> tuple[str, Path]:
    """The export of a host in which one thing more has happened since; its id."""
    path = exported.with_name("later.jsonl")
    *rest, last = exported.read_bytes().splitlines(keepends=True)
    told = next(line for line in rest if b'"host.test"' in line)
    id = json.loads(told)["row"]["id"]
    more = told.replace(id.encode(), b"later")
    path.write_bytes(b"".join([*rest, more, last.replace(b'"event":2', b'"event":3')]))
    return "later", path


@pytest.mark.anyio
async def test_an_event_comes_in_once_however_often_it_is_imported(exported: Path, empty: Callable[[str], Any]) -> None:
    """Also one that belongs to no row: nothing else tells that it is there."""
    async with empty("other").open() as store:
        await into(store, exported)
        ids = [each.id for each in await store.events(0)]
        assert (await into(store, exported, existing="skip")).taken["event"] == 0
        later, path = with_an_event(exported)
        for taken in (1, 0):
            assert (await into(store, path, existing="skip")).taken["event"] == taken
        assert [each.id for each in await store.events(0)] == [*ids, later]


def events_alone(exported: Path) -> Path:
    path = exported.with_name("events.jsonl")
    first, *rest, _ = exported.read_bytes().splitlines(keepends=True)
    events = [line for line in rest if line.startswith(b'{"kind":"event"')]
    path.write_bytes(b"".join([first, *events, b'{"end":{"event":2}}\n']))
    return path


@pytest.mark.anyio
async def test_events_alone_are_refused_when_they_are_there(exported: Path, empty: Callable[[str], Any]) -> None:
    path = events_alone(exported)
    async with empty("other").open() as store:
        await into(store, path)
        with pytest.raises(Conflict, match=r"Line 2: Event .* is there already"):
            await into(store, path)


@pytest.mark.anyio
async def test_with_new_ids_all_of_it_stands_beside_what_is_there(exported: Path, place: Any) -> None:
    async with place.open() as store:
        ids = fresh(check(exported, going_on))
        await take(store, exported, going_on, existing="refuse", new_ids=ids)
        task = await store.get(Task, ids[TASK.id])
        assert task == replace(TASK, id=ids[TASK.id], board_id=ids[BOARD.id], column_id=ids[TASK.column_id or ""])
        assert (await store.get(Task, TASK.id)) == TASK
        before, told = await store.events(0, limit=2), (await store.events(2))[0]
        assert told.id not in {each.id for each in before}
        assert told.task_id == ids[TASK.id] == json.loads(bytes(told.payload))["task"]["id"]
        assert await store.count(User) == 1
        assert await store.count(Workspace) == 1


def wrong(path: Path) -> dict[str, bytes]:
    """What is wrong with each, and its content."""
    first, *rest, last = path.read_bytes().splitlines(keepends=True)
    row = next(line for line in rest if b'"kind":"board"' in line)
    at = rest.index(row)

    def instead(new: bytes) -> bytes:
        return b"".join([first, *rest[:at], new + b"\n", *rest[at + 1 :], last])

    def board(**changes: Any) -> bytes:
        return instead(json.dumps({"kind": "board", "row": {**json.loads(row)["row"], **changes}}).encode())

    return {
        "empty": b"",
        "another file": b'{"tasks": []}\n',
        "a database": b"SQLite format 3\0" + bytes(100),
        "cut after a line": b"".join([first, *rest]),
        "cut in a line": (first + b"".join(rest))[:-20],
        "a line is missing": b"".join([first, *rest[:-1], last]),
        "a line is there twice": b"".join([first, *rest, rest[-1], last]),
        "no JSON": instead(b"{"),
        "deep": instead(b"[" * 100_000),
        "another kind": instead(b'{"kind":"receipt","row":{}}'),
        "no kind": instead(b'{"kind":"","row":{}}'),
        "another field of the line": instead(b'{"kind":"board","row":{},"sql":"x"}'),
        "another field of the row": board(surprise=1),
        "a wrong type": board(version="one"),
        "a missing field": instead(b'{"kind":"board","row":{"name":"x"}}'),
        "a time without a zone": board(updated_at="yesterday"),
        "more after the end": path.read_bytes() + b"{}\n",
    }


def test_what_is_cut_or_wrong_is_refused_before_anything_is_written(
    exported: Path, empty: Callable[[str], Any]
) -> None:
    taken = []
    for what, content in wrong(exported).items():
        path = exported.with_name("wrong.jsonl")
        path.write_bytes(content)
        try:
            check(path, going_on)
        except ValidationFailed as error:
            if "ine " not in error.message and path.name not in error.message:
                taken.append(f"{what}: refused without a place")
        else:
            taken.append(what)
    assert taken == []
    newer = exported.read_bytes().replace(b'"kandev_export":1', b'"kandev_export":2', 1)
    exported.with_name("newer.jsonl").write_bytes(newer)
    with pytest.raises(Unavailable, match="newer"):
        check(exported.with_name("newer.jsonl"), going_on)


def without_boards(exported: Path) -> Path:
    path = exported.with_name("orphan.jsonl")
    kept = [line for line in exported.read_bytes().splitlines(keepends=True) if b'"kind":"board"' not in line]
    path.write_bytes(b"".join(kept).replace(b'"board":1', b'"board":0'))
    return path


@pytest.mark.anyio
async def test_a_row_without_its_parent_names_its_line(exported: Path, empty: Callable[[str], Any]) -> None:
    path = without_boards(exported)
    async with empty("other").open() as store:
        with pytest.raises(ValidationFailed, match=r"Line 3: column"):
            await into(store, path)

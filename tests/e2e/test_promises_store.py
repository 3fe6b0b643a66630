"""Promises of reliability.md that rest on the store, kept by a real host process: P2, P11, P12 and P22."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import apsw
import pytest

from kandev_host.client import Client, ClientError
from kandev_host.models import new_id
from kandev_sqlite.schema import STEPS

pytestmark = pytest.mark.anyio

DEADLINE_S = 60
TASKS = 25


def a_task(board_id: str, number: int) -> dict[str, Any]:
    return {"board_id": board_id, "title": f"Task {number}", "description": ""}


async def new_board(client: Client) -> str:
    return str((await client.call("board.create", {"name": "Work"}))["board"]["id"])


async def titles(client: Client, board_id: str) -> list[str]:
    tasks = (await client.call("task.list", {"board_id": board_id, "limit": 500}))["tasks"]
    return sorted(task["title"] for task in tasks)


async def test_p2_concurrent_duplicates_on_several_connections_have_one_effect(make_host: Any) -> None:
    host = make_host()
    ids = [new_id() for _ in range(TASKS)]
    told: dict[str, list[str]] = {id: [] for id in ids}

    async def ask(client: Client, board_id: str, number: int) -> None:
        reply = await client.call("task.create", a_task(board_id, number), request_id=ids[number])
        told[ids[number]].append(reply["task"]["id"])

    async with (
        Client.connect(host.url, host.token) as one,
        Client.connect(host.url, host.token) as two,
        Client.connect(host.url, host.token) as three,
    ):
        board_id = await new_board(one)
        with anyio.fail_after(DEADLINE_S):
            async with anyio.create_task_group() as group:
                for number in range(TASKS):
                    for client in (one, two, three):
                        group.start_soon(ask, client, board_id, number)
        assert len(await titles(one, board_id)) == TASKS
    assert [len(answers) for answers in told.values()] == [3] * TASKS
    assert all(len(set(answers)) == 1 for answers in told.values())


@pytest.mark.parametrize("answers_before_the_kill", [0, 1, 7, 20])
async def test_p2_what_is_sent_again_after_kill_9_has_one_effect(make_host: Any, answers_before_the_kill: int) -> None:
    """Killed in the middle of 25 requests; all are sent again. A task exists once, or its outcome is told unknown."""
    host = make_host()
    ids = [new_id() for _ in range(TASKS)]
    acknowledged: dict[int, str] = {}

    async def ask(client: Client, board_id: str, number: int) -> str:
        try:
            reply = await client.call("task.create", a_task(board_id, number), request_id=ids[number])
        except ClientError as error:
            return "unknown" if error.details.get("outcome_unknown") else error.code
        id = str(reply["task"]["id"])
        assert acknowledged.setdefault(number, id) == id
        if len(acknowledged) == answers_before_the_kill:
            host.kill()
        return "done"

    async with Client.connect(host.url, host.token) as client, anyio.create_task_group() as group:
        board_id = await new_board(client)
        for number in range(TASKS):
            group.start_soon(ask, client, board_id, number)
        if not answers_before_the_kill:
            await anyio.lowlevel.checkpoint()
            host.kill()
    answers_before_the_kill = -1
    host.start()
    async with Client.connect(host.url, host.token) as client:
        outcomes = [await ask(client, board_id, number) for number in range(TASKS)]
        found = await titles(client, board_id)
    assert set(outcomes) <= {"done", "unknown"}
    assert found == sorted(f"Task {number}" for number in range(TASKS)), "each task exists, and exists once"


async def test_p11_a_full_disk_answers_storage_full_and_what_was_refused_can_be_sent_again(
    make_host: Any, small_disk: Any
) -> None:
    """Reads work meanwhile; with room again the same ids have one effect each, also after kill -9."""
    ids = [new_id() for _ in range(60)]

    async def ask(client: Client, board_id: str, number: int) -> str:
        task = {**a_task(board_id, number), "description": "x" * 20_000}
        try:
            reply = await client.call("task.create", task, request_id=ids[number])
        except ClientError as error:
            return error.code
        return str(reply["task"]["id"])

    host = make_host("[store.sqlite]\nwal_limit_pages = 200\n")
    assert host.stop() == 0
    host.home = small_disk.folder / "data"
    host.start()
    async with Client.connect(host.url, host.token) as client:
        board_id = await new_board(client)
        small_disk.fill()
        first = [await ask(client, board_id, number) for number in range(len(ids))]
        assert "STORAGE_FULL" in first
        assert set(first[first.index("STORAGE_FULL") :]) == {"STORAGE_FULL"}
        assert len(await titles(client, board_id)) == first.index("STORAGE_FULL")
        small_disk.make_room()
        again = [await ask(client, board_id, number) for number in range(len(ids))]
        assert [new for old, new in zip(first, again, strict=True) if old != "STORAGE_FULL"] == [
            old for old in first if old != "STORAGE_FULL"
        ]
        host.kill()
    host.start()
    async with Client.connect(host.url, host.token) as client:
        assert [await ask(client, board_id, number) for number in range(len(ids))] == again
        assert await titles(client, board_id) == sorted(f"Task {number}" for number in range(len(ids)))
    assert host.stop() == 0


async def test_p12_a_locked_database_is_busy_after_a_bounded_wait_and_the_host_goes_on(make_host: Any) -> None:
    """Another process's BEGIN EXCLUSIVE: writes are refused, reads and health.check answered all the while."""
    host = make_host("[store.sqlite]\nbusy_timeout_s = 8.0\n")
    async with Client.connect(host.url, host.token) as client:
        board_id = await new_board(client)
        id, answered, codes = new_id(), 0, []
        other = apsw.Connection(str(host.home / "kandev.db"))
        other.execute("BEGIN EXCLUSIVE")

        async def write(scope: anyio.CancelScope) -> None:
            try:
                await client.call("task.create", a_task(board_id, 1), request_id=id)
            except ClientError as error:
                codes.append(error.code)
            scope.cancel()

        with anyio.fail_after(DEADLINE_S):
            async with anyio.create_task_group() as group:
                group.start_soon(write, group.cancel_scope)
                while True:
                    assert (await client.call("health.check"))["status"] == "ok"
                    assert await titles(client, board_id) == []
                    answered += 1
                    await anyio.sleep(0.05)
        assert codes == ["BUSY"]
        assert answered > 3, "while the write waited"
        other.execute("ROLLBACK")
        other.close()
        await client.call("task.create", a_task(board_id, 1), request_id=id)
        assert await titles(client, board_id) == ["Task 1"]


async def test_p22_a_host_refuses_what_a_newer_one_wrote_and_changes_nothing(make_host: Any) -> None:
    host = make_host()
    async with Client.connect(host.url, host.token) as client:
        board_id = await new_board(client)
    assert host.stop() == 0
    path = host.home / "kandev.db"
    database = apsw.Connection(str(path))
    database.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    database.close()
    before = path.read_bytes()
    with pytest.raises(AssertionError, match=f"version {len(STEPS) + 1}, made by a newer kandev-host"):
        host.start()
    assert host.ended(DEADLINE_S) == 1
    assert path.read_bytes() == before
    database = apsw.Connection(str(path))
    database.execute(f"PRAGMA user_version = {len(STEPS)}")
    database.close()
    host.start()
    async with Client.connect(host.url, host.token) as client:
        assert (await client.call("board.get", {"board_id": board_id}))["board"]["id"] == board_id


async def test_p22_a_host_starts_on_a_database_of_version_1(make_host: Any) -> None:
    host = make_host()
    assert host.stop() == 0
    for file in host.home.glob("kandev.db*"):
        file.unlink()
    database = apsw.Connection(str(host.home / "kandev.db"))
    database.execute(STEPS[0])
    database.execute("PRAGMA application_id = 0x6b616e64; PRAGMA user_version = 1")
    database.execute("INSERT INTO users VALUES ('u', 1, 'ada@example.org', 'ada', NULL, 1)")
    database.execute("INSERT INTO boards VALUES ('b', 1, 'Of before', NULL, 'u', 1, 1)")
    database.close()
    host.start()
    async with Client.connect(host.url, host.token) as client:
        assert (await client.call("board.get", {"board_id": "b"}))["board"]["name"] == "Of before"
        await client.call("task.create", a_task("b", 1), request_id=new_id())
    assert (host.home / "kandev.db.backup-v1").exists()

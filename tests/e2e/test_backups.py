"""P21: backups of a host that is written to, killed or out of room, and the way back (docs/backup.md)."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import apsw
import pytest

from kandev_host.client import Client, ClientError

pytestmark = pytest.mark.anyio

DEADLINE_S = 60
WRITERS = 3
BACKUPS = 2
TRIES = 20
BETWEEN = 20  # writes that are acknowledged from one backup to the next


@cache
def bytecode() -> tempfile.TemporaryDirectory[str]:
    """Where all commands of these tests keep theirs."""
    return tempfile.TemporaryDirectory(prefix="kandev-test-pyc-")


def kandev(home: Path, *arguments: str, limit_bytes: int | None = None) -> subprocess.CompletedProcess[str]:
    """A command; with `limit_bytes`, no file that it writes may be larger, as where the disk is full."""

    def limited() -> None:
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    around = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(
        [sys.executable, "-m", "kandev_host", *arguments],
        env={**around, "PYTHONPYCACHEPREFIX": bytecode().name, "KANDEV_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        preexec_fn=limited,
    )


def done(*arguments: Any, **more: Any) -> Any:
    ran = kandev(*arguments, "--json", **more)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


async def new_board(client: Client) -> str:
    return str((await client.call("board.create", {"name": "Work"}))["board"]["id"])


def held(home: Path) -> tuple[set[str], set[str], set[str], list[int]]:
    """Tasks; those of the history; those of the events; and the numbers of the events."""
    db = apsw.Connection(str(home / "kandev.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        tasks = {id for (id,) in db.execute("SELECT id FROM tasks")}
        history = {id for (id,) in db.execute("SELECT task_id FROM task_events WHERE event_type = 'created'")}
        told = "SELECT s.task_id FROM events AS e JOIN streams AS s ON s.n = e.stream WHERE e.action = 'task.created'"
        return (
            tasks,
            history,
            {id for (id,) in db.execute(told)},
            [seq for (seq,) in db.execute("SELECT seq FROM events ORDER BY seq")],
        )
    finally:
        db.close()


async def test_p21_a_backup_under_write_load_has_all_that_was_acknowledged_before_it_and_nothing_half(
    make_host: Any, tmp_path: Path
) -> None:
    host = make_host("[gateway]\nrequests_per_s = 1e6\nrequest_burst = 1000000\n")
    acknowledged: list[str] = []
    backups: list[tuple[dict[str, Any], set[str]]] = []
    more = anyio.Event()

    async def write(board_id: str) -> None:
        nonlocal more
        async with Client.connect(host.url, host.token) as client:
            while True:
                task = {"board_id": board_id, "title": "t", "description": "d" * 2000}
                acknowledged.append((await client.call("task.create", task))["task"]["id"])
                more.set()
                more = anyio.Event()

    async with Client.connect(host.url, host.token) as client:
        board_id = await new_board(client)
        with anyio.fail_after(DEADLINE_S * 2):
            async with anyio.create_task_group() as group:
                for _ in range(WRITERS):
                    group.start_soon(write, board_id)
                for number in range(1, BACKUPS + 1):
                    while len(acknowledged) < number * BETWEEN:
                        await more.wait()
                    before = set(acknowledged)
                    made = (await client.call("backup.create", {}, DEADLINE_S))["backup"]
                    backups.append((made, before))
                group.cancel_scope.cancel()
    for number, (made, before) in enumerate(backups):
        home = tmp_path / f"restored-{number}"
        assert done(home, "restore", made["path"])["counts"] == made["counts"]
        tasks, history, told, seqs = held(home)
        assert before <= tasks
        assert tasks == history == told
        assert seqs == list(range(1, made["head"] + 1))


async def test_p21_a_host_goes_on_from_a_restored_backup_and_that_can_be_undone(make_host: Any, tmp_path: Path) -> None:
    host = make_host()
    path = tmp_path / "mine.zip"

    async def titles() -> set[str]:
        async with Client.connect(host.url, host.token) as client:
            return {task["title"] for task in (await client.call("task.list", {}))["tasks"]}

    async with Client.connect(host.url, host.token) as client:
        board_id = await new_board(client)
        await client.call("task.create", {"board_id": board_id, "title": "before", "description": ""})
        assert done(host.home, "backup", str(path))["backup"]["path"] == str(path)
        await client.call("task.create", {"board_id": board_id, "title": "after", "description": ""})
    refused = kandev(host.home, "restore", str(path))
    assert (refused.returncode, "needs it stopped" in refused.stderr) == (1, True)
    host.stop()
    assert done(host.home, "restore", str(path), "--dry-run")["restored"] is False
    kept = done(host.home, "restore", str(path))["kept"]
    host.start()
    assert await titles() == {"before"}
    host.stop()
    done(host.home, "restore", kept)
    host.start()
    assert await titles() == {"before", "after"}


async def test_p21_kill_9_during_a_backup_leaves_nothing_that_is_taken_for_one(make_host: Any) -> None:
    host = make_host()
    folder = host.home / "backups"
    async with Client.connect(host.url, host.token) as client:
        board_id = await new_board(client)
        for _ in range(40):
            task = {"board_id": board_id, "title": "t", "description": os.urandom(25_000).hex()}
            await client.call("task.create", task)
    whole = 0
    for ending in (".copy", ".partial"):
        whole += await killed_while_one_is_made(host, ending)
        host.start()
        async with Client.connect(host.url, host.token) as client:
            listed = (await client.call("backup.list"))["backups"]
            assert [each["problem"] for each in listed] == [None] * whole
    async with Client.connect(host.url, host.token) as client:
        await client.call("backup.create", {}, DEADLINE_S)
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    for path in folder.iterdir():
        with zipfile.ZipFile(path) as file:
            assert file.testzip() is None


async def killed_while_one_is_made(host: Any, ending: str) -> int:
    """Kill the host while a file of such a name is being written; how many backups were made before that was seen."""
    for whole in range(TRIES):
        async with Client.connect(host.url, host.token) as client, anyio.create_task_group() as group:
            group.start_soon(until_there, host.home / "backups", ending, host.kill)
            try:
                await client.call("backup.create", {}, DEADLINE_S)
            except ClientError:
                return whole
            group.cancel_scope.cancel()
    raise AssertionError(f"no {ending} was seen while {TRIES} backups were made")


async def until_there(folder: Path, ending: str, then: Callable[[], object]) -> None:
    """Call `then` as soon as there is a file of such a name."""
    while not any(folder.glob(f".*{ending}")):  # noqa: ASYNC240
        await anyio.lowlevel.checkpoint()
    then()


async def test_p21_a_disk_without_room_for_a_backup_is_told_and_harms_nothing(make_host: Any, small_disk: Any) -> None:
    host = make_host(KANDEV_BACKUP__FOLDER=str(small_disk.folder), KANDEV_BACKUP__INTERVAL_S="0.2")
    async with Client.connect(host.url, host.token) as client:
        with anyio.fail_after(DEADLINE_S):
            while (await client.call("health.check"))["status"] == "ok":
                await anyio.sleep(0.05)
        assert "make room" in (await client.call("backup.list"))["problem"]
        with pytest.raises(ClientError) as error:
            await client.call("backup.create")
        assert error.value.code == "STORAGE_FULL"
        await new_board(client)
    assert "automatic backup failed" in host.log()
    assert list(small_disk.folder.iterdir()) == []


def test_p21_a_disk_that_becomes_full_leaves_nothing_half(host: Any, tmp_path: Path) -> None:
    host.stop()
    for words in (("backup",), ("export", str(tmp_path / "e.jsonl"))):
        ran = kandev(host.home, *words, limit_bytes=200_000)
        assert (ran.returncode, "full" in ran.stderr) == (1, True), ran.stderr
    assert not (tmp_path / "e.jsonl").exists()
    left = [path.name for path in (*host.home.iterdir(), *tmp_path.iterdir(), *(host.home / "backups").iterdir())]
    assert [name for name in left if "copy" in name or "partial" in name] == []
    assert done(host.home, "db", "check")["ok"]


async def test_what_one_host_exports_another_imports(make_host: Any, tmp_path: Path) -> None:
    host, path, other = make_host(), tmp_path / "all.jsonl", tmp_path / "other"
    async with Client.connect(host.url, host.token) as client:
        board_id = await new_board(client)
        await client.call("task.create", {"board_id": board_id, "title": "carried", "description": "d"})
    exported = done(host.home, "export", str(path))["counts"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert done(other, "import", str(path), "--dry-run")["imported"] is False
    assert not (other / "kandev.db").exists()
    assert done(other, "import", str(path))["counts"] == exported
    refused = kandev(other, "import", str(path))
    assert (refused.returncode, "--skip-existing" in refused.stderr) == (1, True)
    assert done(other, "import", str(path), "--new-ids")["counts"]["task"] == 1
    piped = kandev(other, "export", "-").stdout.splitlines()
    assert json.loads(piped[-1])["end"]["task"] == 2
    assert len(piped) == sum(json.loads(piped[-1])["end"].values()) + 2

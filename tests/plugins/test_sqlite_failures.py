"""Disk full, a locked database, and kill -9 (reliability: P1, P11, P12)."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

from kandev_host import Commit, Environment, Put, Store, errors, event
from kandev_host.models import Task
from kandev_host.testing.world import TASK, a_world, seqs, write
from kandev_sqlite import SqliteSettings, open_store

ROUNDS = 8
WRITERS = Path(__file__).with_name("sqlite_writers.py")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(SqliteSettings(busy_timeout_s=1.0), Environment(str(tmp_path), "test")) as store:
        await a_world(store)
        yield store


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small tmpfs")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Another connection's BEGIN EXCLUSIVE."""
    other = apsw.Connection(str(path))
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@pytest.mark.anyio
async def test_a_full_disk_loses_nothing_and_recovers_by_itself(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * (1 << 20))
    kept: list[int] = []

    async def fill(store: Store) -> None:
        while len(kept) < 10_000:
            kept.extend(await write(store, *[event("test", {"filler": "x" * 1000}) for _ in range(20)]))

    async with open_store(SqliteSettings(), Environment(str(small_disk), "test")) as store:
        await a_world(store)
        with pytest.raises(errors.StorageFull):
            await fill(store)
        assert await store.get(Task, TASK.id) == TASK
        ballast.unlink()
        kept += await write(store, event("test", {}))
        assert [item.seq for item in await store.events(0, limit=10_000)] == kept
    check = apsw.Connection(str(small_disk / "kandev.db"))
    assert check.execute("PRAGMA integrity_check").get == "ok"
    check.close()


@pytest.mark.anyio
async def test_a_held_database_answers_busy_and_recovers(store: Store, tmp_path: Path) -> None:
    with held(tmp_path / "kandev.db"):
        begun = time.monotonic()
        with pytest.raises(errors.Busy):
            await store.commit([Commit([event("test", {})])])
        assert time.monotonic() - begun >= 0.9
    assert len(await write(store, event("test", {}))) == 1


@pytest.mark.anyio
async def test_reads_and_the_loop_go_on_while_a_write_waits(tmp_path: Path) -> None:
    """Were they behind it, it would be over before they are: the database is held until they have come back."""
    written: list[Any] = []
    patient = SqliteSettings(busy_timeout_s=60.0)
    async with open_store(patient, Environment(str(tmp_path), "test")) as store, anyio.create_task_group() as group:
        await a_world(store)

        async def wait() -> None:
            written.extend(await write(store, event("test", {})))

        with held(tmp_path / "kandev.db"):
            group.start_soon(wait)
            for _ in range(500):
                assert await store.get(Task, TASK.id) == TASK
            assert written == []
    assert len(written) == 1


@pytest.mark.anyio
async def test_tables_of_another_version_are_told_with_what_to_do(store: Store, tmp_path: Path) -> None:
    with closing(apsw.Connection(str(tmp_path / "kandev.db"))) as other:
        other.execute("ALTER TABLE tasks RENAME TO tasks_of_another_version")
    with pytest.raises(errors.Unavailable, match="another version") as told:
        await store.get(Task, TASK.id)
    assert "--data-dir" in told.value.details["fix"]


@pytest.mark.anyio
async def test_one_bad_payload_does_not_fail_its_group(store: Store) -> None:
    bad = event("test", {})
    bad.payload = type(bad.payload)(b'"\xff"')
    outcomes = await store.commit([Commit([event("test", {})]), Commit([bad]), Commit([event("test", {})])])
    assert isinstance(outcomes[1], errors.ValidationFailed)
    assert seqs(outcomes[0])[0] + 1 == seqs(outcomes[2])[0]


def killed_writers(folder: Path, lines: int) -> set[str]:
    """Let eight writers go on for so many acknowledged writes, kill -9 them; every one that they told of."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(WRITERS), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as writers:
        assert writers.stdout is not None
        told = [writers.stdout.readline() for _ in range(lines)]
        writers.kill()
        told += writers.stdout.readlines()
    assert writers.returncode == -signal.SIGKILL
    return {line.strip() for line in told if line.endswith("\n")}  # the last one may be cut short


@pytest.mark.anyio
async def test_kill_9_loses_no_acknowledged_write_and_leaves_none_half(tmp_path: Path) -> None:
    chance = random.Random(12)
    acknowledged: set[str] = set()
    for _ in range(ROUNDS):
        acknowledged |= killed_writers(tmp_path, chance.randint(1, 150))
    async with open_store(SqliteSettings(), Environment(str(tmp_path), "test")) as store:
        events = [item for item in await store.events(0, limit=10_000) if item.action == "task.created"]
        rows = await store.find(Task, limit=10_000)
        assert acknowledged <= {row.id for row in rows.rows}
        assert {item.task_id for item in events} == {row.id for row in rows.rows}
        assert len(acknowledged) >= ROUNDS


@pytest.mark.anyio
async def test_a_write_whose_caller_gave_up_leaves_the_store_usable(store: Store) -> None:
    for _ in range(5):
        with anyio.move_on_after(0):
            await store.commit([Commit([Put(TASK), event("test", {})])])
    assert len(await write(store, event("test", {}))) == 1

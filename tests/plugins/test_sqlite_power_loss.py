"""Power loss: a disk that forgets whatever was not synced (reliability: P1)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from msgspec.structs import replace

from kandev_host import Commit, Put, event
from kandev_host.models import Receipt
from kandev_host.testing.world import BOARD, USER, a_task, seqs
from kandev_sqlite import SqliteSettings
from kandev_sqlite.ladder import migrate
from kandev_sqlite.store import WRITER, configure
from kandev_sqlite.writer import Writer

COMMITS = 60


class Disk(apsw.VFS):
    """Writes through, and remembers for each file what a power cut would leave of it."""

    def __init__(self) -> None:
        self.synced: dict[str, bytes] = {}
        super().__init__("forgetful", "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return File(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self.synced.pop(filename, None)
        super().xDelete(filename, syncdir)

    def leave(self, folder: Path) -> None:
        """What is found when the power is back."""
        for name, content in self.synced.items():
            (folder / Path(name).name).write_bytes(content)


class File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._path = name.filename() if isinstance(name, apsw.URIFilename) else name
        super().__init__("", name, flags)

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        if self._path is not None:
            self._disk.synced[self._path] = Path(self._path).read_bytes()


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.unregister()


def opened(path: Path, disk: Disk) -> apsw.Connection:
    connection = apsw.Connection(str(path), vfs="forgetful")
    # A Python VFS has no shared memory for the log's index; without a second process there is no need of it.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
    configure(connection, SqliteSettings(), WRITER.format(pages=100))
    migrate(connection, path)
    assert connection.execute("PRAGMA journal_mode = WAL").get == "wal"
    return connection


def test_p1_a_power_cut_after_any_answer_takes_nothing_that_was_acknowledged(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "before").mkdir()
    connection = opened(tmp_path / "before" / "kandev.db", disk)
    writer = Writer(connection)
    writer.commit([Commit([Put(USER), Put(BOARD)])])
    acknowledged: list[tuple[str, int]] = []
    for n in range(COMMITS):
        task = a_task()
        (outcome,) = writer.commit([Commit([Put(task), event("task.created", {"n": n}, task_id=task.id)])])
        acknowledged.append((task.id, seqs(outcome)[0]))
        if n % 6 == 0:
            folder = tmp_path / str(n)
            folder.mkdir()
            disk.leave(folder)
            after = apsw.Connection(str(folder / "kandev.db"))
            assert after.execute("PRAGMA integrity_check").get == "ok"
            assert [id for (id,) in after.execute("SELECT id FROM tasks ORDER BY n")] == [id for id, _ in acknowledged]
            assert [seq for (seq,) in after.execute("SELECT seq FROM events")] == [seq for _, seq in acknowledged]
            after.close()
    connection.close()


def test_p1_p2_a_power_cut_leaves_an_effect_with_its_receipt_and_an_answer_that_was_given(
    tmp_path: Path, disk: Disk
) -> None:
    """Of each request: the effect with its receipt in one commit, the reply in the next, then the answer."""
    (tmp_path / "before").mkdir()
    connection = opened(tmp_path / "before" / "kandev.db", disk)
    writer = Writer(connection)
    writer.commit([Commit([Put(USER), Put(BOARD)])])
    answered: list[str] = []
    for n in range(20):
        task = a_task()
        receipt = Receipt(id=task.id, action="task.create", digest="d")
        writer.commit([Commit([Put(task), event("task.created", {}, task_id=task.id), Put(receipt)])])
        torn = after_a_cut(disk, tmp_path / f"{n}-torn")
        assert torn == [*((id, "{}") for id in answered), (task.id, None)]
        writer.commit([Commit([Put(replace(receipt, reply="{}"))])])
        answered.append(task.id)
        assert after_a_cut(disk, tmp_path / f"{n}-whole") == [(id, "{}") for id in answered]
    connection.close()


def after_a_cut(disk: Disk, folder: Path) -> list[tuple[str, str | None]]:
    """The tasks that are found then, each with the reply of its receipt."""
    folder.mkdir()
    disk.leave(folder)
    found = apsw.Connection(str(folder / "kandev.db"))
    sql = "SELECT tasks.id, reply FROM tasks LEFT JOIN receipts ON receipts.id = tasks.id ORDER BY n"
    rows: list[Any] = found.execute(sql).fetchall()
    assert found.execute("SELECT count(*) FROM receipts").get == len(rows)
    found.close()
    return rows


def test_the_forgetful_disk_does_lose_what_was_not_synced(tmp_path: Path, disk: Disk) -> None:
    """Else the tests above would prove nothing: with synchronous=NORMAL a commit syncs nothing."""
    (tmp_path / "before").mkdir()
    connection = opened(tmp_path / "before" / "kandev.db", disk)
    connection.execute("PRAGMA synchronous = NORMAL")
    writer = Writer(connection)
    writer.commit([Commit([Put(USER), Put(BOARD)])])
    writer.commit([Commit([Put(a_task())])])
    assert after_a_cut(disk, tmp_path / "after") == []
    connection.close()

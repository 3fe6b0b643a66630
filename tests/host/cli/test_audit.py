"""Reading the audit from the command line: a large one, a busy host, and what somebody has done to the files."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from kandev_host.audit.key import HEAD_FILE, load_key
from kandev_host.audit.log import AuditLog
from kandev_host.bus import MemoryBus
from kandev_host.cli import audit
from kandev_host.cli.checks import audit as doctors
from kandev_host.host import Host
from kandev_host.interfaces import Environment
from kandev_host.journal import Journal
from kandev_host.models import AuditRow, key_id_of
from kandev_host.protocol.actions.audit import AuditReply
from kandev_host.settings import GatewaySettings, ServerSettings, Settings
from kandev_host.settings.load import Loaded
from kandev_sqlite import SqliteSettings, open_store

Audited = tuple[Loaded, list[AuditRow]]


async def lived(folder: Path) -> list[AuditRow]:
    """A host that has lived here, and what it has left."""
    async with open_store(SqliteSettings(), Environment(str(folder), "0")) as store:
        log = AuditLog.of_folder(folder)
        await log.look(store)
        async with Journal(store, MemoryBus(), audit=log) as journal, log.standing(journal, store):
            await log.write(*[AuditRow(kind="access", action="test", details={"n": n}) for n in range(20)])
        return (await store.find(AuditRow, order=("seq",), limit=500)).rows


@pytest.fixture
def audited(tmp_path: Path) -> Audited:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    rows: list[AuditRow] = []

    def live() -> None:
        rows.extend(anyio.run(lived, folder))

    thread = Thread(target=live)  # a test may have a loop of its own
    thread.start()
    thread.join()
    return Loaded(Settings(), folder), rows


@pytest.mark.anyio
async def test_a_reader_waits_where_the_host_says_too_many_requests(
    audited: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, rows = audited
    monkeypatch.setattr(audit, "PAGE", 2)
    gateway = GatewaySettings(request_burst=2, requests_per_s=50.0)
    settings = replace(loaded.settings, server=ServerSettings(port=0), gateway=gateway)
    key = load_key(loaded.data_dir)
    async with Host(settings, loaded.data_dir, queue=False, answers=True) as host:
        monkeypatch.setenv("KANDEV_URL", host.url)
        monkeypatch.setenv("KANDEV_TOKEN", host.token_path.read_text().strip())
        verdict = await audit.of_host(loaded, {key_id_of(key): key})
    assert (verdict.problem, verdict.rows >= len(rows)) == (None, True)


@pytest.mark.parametrize("bad", [False, True])
def test_what_the_doctor_has_found_counts_when_its_time_is_up(
    audited: Audited, monkeypatch: pytest.MonkeyPatch, bad: bool
) -> None:
    loaded, rows = audited
    if bad:
        rows[4] = replace(rows[4], actor="mallory")

    async def ask(*, cursor: str | None = None, **_fields: Any) -> AuditReply:
        if cursor is not None:
            await anyio.sleep_forever()
        return AuditReply(rows=rows, next_cursor="more")

    @asynccontextmanager
    async def reading(_loaded: Loaded) -> AsyncIterator[Any]:
        yield audit._Audit(ask)

    monkeypatch.setattr(audit, "_reading", reading)
    monkeypatch.setattr(doctors, "READ_S", 0.2)
    (check,) = doctors.looked_at(loaded)
    told = "row 5 is bad" if bad else f"{len(rows)} rows read within 0.2 s, all in order; kandev-host audit verify"
    assert (check.state, told in check.found) == ("failed" if bad else "ok", True), check


def sql(statement: str, folder: Path) -> None:
    db = sqlite3.connect(folder / "kandev.db")
    db.execute("DROP TRIGGER audit_update")
    db.execute(statement)
    db.commit()
    db.close()


def pipe(folder: Path) -> None:
    (folder / HEAD_FILE).unlink()
    os.mkfifo(folder / HEAD_FILE, 0o600)


def gone(folder: Path, *more: str) -> None:
    for path in (*folder.glob("kandev.db*"), *(folder / name for name in more)):
        path.unlink()


def deep(folder: Path) -> None:
    details = '{"a": ' + "[" * 50_000 + "]" * 50_000 + "}"
    sql(f"UPDATE audit SET details = '{details}' WHERE seq = 5", folder)


@pytest.mark.parametrize(
    ("do", "said", "state"),
    [
        (deep, "ow 5 is bad: it was changed", "failed"),
        (pipe, "audit-head, which says how far the rows go, is missing", "failed"),
        (gone, "rows 1 to 23 are missing", "failed"),
        (lambda folder: gone(folder, HEAD_FILE), "hosts may have lived here", "warning"),
    ],
    ids=["deep", "a pipe", "no database", "only the key"],
)
def test_what_was_done_to_the_files_is_named(
    audited: Audited, kandev: Any, do: Callable[[Path], None], said: str, state: str
) -> None:
    loaded, _ = audited
    do(loaded.data_dir)
    left = sorted(path.name for path in loaded.data_dir.iterdir())
    verified = kandev("audit", "verify")
    assert (verified.status, said in verified.out + verified.err) == (1, True), verified
    (check,) = doctors.looked_at(loaded)
    assert (check.state, said in check.found) == (state, True), check
    if do is gone or state == "warning":  # nothing is made by looking
        assert left == sorted(path.name for path in loaded.data_dir.iterdir())


def test_the_doctor_tells_all_its_checks_whatever_the_database_is(audited: Audited, kandev: Any) -> None:
    sql("DROP TABLE audit", audited[0].data_dir)
    told = kandev("doctor", "--json")
    states = {check["name"]: check["state"] for check in told.json["checks"]}
    assert told.status == 1
    assert (states["database"], states["audit"], states["host"]) == ("failed", "warning", "failed"), told

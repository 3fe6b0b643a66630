"""What is written down of shells and their commands: rows, and the events that tell of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from kandev_host.events import Event, event
from kandev_host.interfaces import Change, CommandResult, Op, Put, Remove, Store
from kandev_host.journal import Journal
from kandev_host.models import Command, ShellRow, now
from kandev_host.protocol.notifications import ShellNotice
from kandev_host.services.rows import every
from kandev_host.sessions.audit import FILES_KEPT, Kept, command_event

HOST_DIED = "host_died"
BATCH = 100
Where = list[tuple[str, Op, Any]]
RUNNING: tuple[str, Op, Any] = ("state", "=", "running")


def shell_event(action: str, row: ShellRow) -> Event:
    """`shell.opened`, `shell.exited`."""
    notice = ShellNotice(shell=row, shell_id=row.id, task_id=row.task_id)
    return event(action, notice, shell_id=row.id, task_id=row.task_id, actor=row.opened_by)


def closed(row: ShellRow, reason: str, exit_code: int | None = None, cwd: str | None = None) -> ShellRow:
    return replace(
        row, state="closed", closed_at=now(), reason=reason, exit_code=exit_code, cwd=row.cwd if cwd is None else cwd
    )


def finished(command: Command, result: CommandResult, kept: Kept, files: Sequence[str] | None) -> Command:
    """As it ended by itself, or by its time-out."""
    return replace(
        command,
        state="killed" if result.timed_out else "finished",
        exit_code=result.exit_code,
        duration_ms=round(result.duration_s * 1000),
        stdout_bytes=result.stdout_bytes,
        stderr_bytes=result.stderr_bytes,
        truncated=result.truncated,
        timed_out=result.timed_out,
        reason="it took too long" if result.timed_out else None,
        output_head=kept.head,
        output_tail=kept.tail,
        changed_files=None if files is None else list(files[:FILES_KEPT]),
    )


def cut_short(command: Command, kept: Kept, duration_s: float, reason: str) -> Command:
    """As far as it came when its shell ended."""
    return replace(
        command,
        state="killed",
        duration_ms=round(duration_s * 1000),
        stdout_bytes=kept.bytes["stdout"] + kept.bytes["terminal"],
        stderr_bytes=kept.bytes["stderr"],
        reason=reason,
        output_head=kept.head,
        output_tail=kept.tail,
    )


async def ending(store: Store, row: ShellRow) -> list[Change]:
    """What goes with the end of a shell, `row` as closed: its commands that nobody saw the end of are lost."""
    changes: list[Change] = [Put(row)]
    where: Where = [("shell_id", "=", row.id), RUNNING]
    async for command in every(store, Command, where):
        changes += _told(replace(command, state="lost", reason=row.reason))
    return [*changes, shell_event("shell.exited", row)]


async def bury(store: Store, journal: Journal, reason: str = HOST_DIED) -> int:
    """Close the shells that a dead host had open, before one is opened; how many there were.

    The end of no command that it ran is known, whoever it ran it for.
    """
    dead = [row async for row in every(store, ShellRow, [("state", "=", "open")])]
    for row in dead:
        await journal.record(*await ending(store, closed(row, reason)))
    # Those of agents, which have no shell.
    lost = [replace(each, state="lost", reason=reason) async for each in every(store, Command, [RUNNING])]
    for start in range(0, len(lost), BATCH):
        await journal.record(*(change for each in lost[start : start + BATCH] for change in _told(each)))
    return len(dead)


def _told(command: Command) -> tuple[Change, ...]:
    return Put(command), command_event(command)


async def forget(store: Store, journal: Journal, kept_s: float | None, limit: int = 500) -> int:
    """Remove the rows of scratch shells closed longer ago than that, with their commands; those of tasks go with them.

    At most `limit` of them. None keeps all.
    """
    if kept_s is None:
        return 0
    before: datetime = now() - timedelta(seconds=kept_s)
    where: Where = [("state", "=", "closed"), ("task_id", "=", None), ("created_at", "<", before)]
    old = [row for row in (await store.find(ShellRow, where, limit=limit)).rows if (row.closed_at or before) < before]
    if old:
        await journal.record(*(Remove(ShellRow, row.id) for row in old))
    return len(old)

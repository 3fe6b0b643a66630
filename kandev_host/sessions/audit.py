"""The audit of commands that the host runs for agents and tasks: a row before each runs, and how it ended behind it.

What is known of a command is known by the host, never from the agent: it sees the process, its end and its output.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Literal, Protocol

import anyio
from msgspec.structs import replace

from kandev_host.errors import KandevError
from kandev_host.events import Event, event
from kandev_host.interfaces import Put
from kandev_host.journal import Journal
from kandev_host.models import AgentInstance, Command
from kandev_host.protocol.notifications import CommandNotice
from kandev_host.secrets import known
from kandev_host.secrets.stream import Stream as Pieces

log = logging.getLogger(__name__)

KEPT_BYTES = 4 << 10
FILES_KEPT = 1000
RECORD_S = 2.0  # a session that ends waits for it

Stream = Literal["stdout", "stderr", "terminal"]
_STREAMS: tuple[Stream, ...] = ("stdout", "stderr", "terminal")


class Kept:
    """The first and the last bytes of what was written, for the audit, without secrets. `bytes` counts what came."""

    def __init__(self, limit_bytes: int = KEPT_BYTES) -> None:
        self._limit = limit_bytes
        self._head = bytearray()
        self._tail = bytearray()
        self._clean: dict[Stream, Pieces] = {name: Pieces(known) for name in _STREAMS}
        self.bytes: dict[Stream, int] = dict.fromkeys(_STREAMS, 0)

    def take(self, stream: Stream, data: bytes) -> None:
        self.bytes[stream] += len(data)
        self._keep(self._clean[stream].feed(data))

    def _finish(self) -> None:
        """Nothing more comes: what may have been the beginning of a secret was none."""
        for pieces in self._clean.values():
            self._keep(pieces.finish())

    def _keep(self, data: bytes) -> None:
        room = self._limit - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        del self._tail[: max(0, len(self._tail) - self._limit)]

    @property
    def head(self) -> str | None:
        self._finish()
        return self._head.decode(errors="replace") if self._head else None

    @property
    def tail(self) -> str | None:
        self._finish()
        return self._tail.decode(errors="replace") if self._tail else None


class Looks(Protocol):
    """Who can tell which files of a workspace a command changed."""

    async def mark(self, workspace_id: str) -> str | None:
        """This moment of a workspace; None where that cannot be. Never fails."""
        ...

    async def since(self, workspace_id: str, mark: str | None) -> list[str] | None:
        """The files that have changed since; None is unknown. Never fails."""
        ...


class Entry:
    """What is written down of one command; `kept` takes its output, and whoever runs it sets how it ended.

    `exit_code` stays None when nobody saw the end; `reason` says what ended it, if it did not end by itself.
    """

    def __init__(self) -> None:
        self.kept = Kept()
        self.exit_code: int | None = None
        self.reason: str | None = None


def command_event(command: Command) -> Event:
    """`shell.command`, of a shell's or of an agent's."""
    notice = CommandNotice(
        command=command, shell_id=command.shell_id, task_id=command.task_id, agent_id=command.agent_id
    )
    ids = {"shell_id": command.shell_id, "task_id": command.task_id, "agent_id": command.agent_id}
    return event("shell.command", notice, actor=command.created_by or "host", **ids)


@asynccontextmanager
async def audited(
    journal: Journal, command: Command, looks: Looks | None = None, *, left: str = "its session ended"
) -> AsyncIterator[Entry]:
    """Around a command of a task. Raises `KandevError` if it cannot be written down: then it must not run.

    `left` says what ended it if what is within is cancelled, or breaks without a reason of its own.
    """
    await journal.record(Put(command), command_event(command))
    entry, workspace_id = Entry(), command.task_id or ""
    began = time.monotonic()
    files: list[str] | None = None
    try:
        before = None if looks is None else await looks.mark(workspace_id)
        began = time.monotonic()
        yield entry
        ended = time.monotonic()
        files = None if looks is None else await looks.since(workspace_id, before)
    except BaseException:
        ended = time.monotonic()
        entry.reason = entry.reason or left
        raise
    finally:
        await _conclude(journal, command, entry, ended - began, files)


async def _conclude(
    journal: Journal, command: Command, entry: Entry, duration_s: float, files: list[str] | None
) -> None:
    """Also when the session is torn down. A store that refuses keeps nobody from going on."""
    kept = entry.kept
    done = replace(
        command,
        state="finished" if entry.reason is None else "killed",
        exit_code=entry.exit_code,
        duration_ms=round(duration_s * 1000),
        stdout_bytes=kept.bytes["stdout"],
        stderr_bytes=kept.bytes["stderr"],
        truncated=sum(kept.bytes.values()) > 2 * KEPT_BYTES,
        reason=entry.reason,
        output_head=kept.head,
        output_tail=kept.tail,
        changed_files=None if files is None else files[:FILES_KEPT],
    )
    with anyio.move_on_after(RECORD_S, shield=True) as scope:
        try:
            await journal.record(Put(done), command_event(done))
        except KandevError as error:
            log.error("The end of command %s is not recorded: %s", command.id, error.message)
    if scope.cancelled_caught:
        log.error("The end of command %s is not recorded: the store took too long", command.id)


class CommandAudit:
    """Of one agent. `turn_id` tells the turn that runs, and without `looks` nobody knows which files changed."""

    def __init__(
        self, journal: Journal, agent: AgentInstance, turn_id: Callable[[], str | None], looks: Looks | None = None
    ) -> None:
        self._journal = journal
        self._agent = agent
        self._turn_id = turn_id
        self._looks = looks

    def of(self, text: str, cwd: str) -> AbstractAsyncContextManager[Entry]:
        """Around a command. Raises as `audited`."""
        command = Command(
            task_id=self._agent.task_id,
            agent_id=self._agent.id,
            turn_id=self._turn_id(),
            command=text,
            cwd=cwd,
            state="running",
            created_by=self._agent.id,
        )
        return audited(self._journal, command, self._looks)

"""What an agent says beside the protocol: stderr, and lines of stdout that are no message, as AgentLog rows.

Reading never waits for the store: what comes faster than it can be kept is dropped, and a row says how much.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Any

import anyio
import anyio.lowlevel

from kandev_host.errors import KandevError
from kandev_host.interfaces import Change, Process, Put, Remove
from kandev_host.journal import Journal
from kandev_host.models import AgentLog, LogLevel
from kandev_host.secrets import KnownOf
from kandev_host.sessions.lazy_event import LazyEvent
from kandev_host.settings import SessionSettings

logger = logging.getLogger(__name__)

BURST_LINES = 1000
LINES_PER_S = 200.0
BATCH_LINES = 200
WAITING_BYTES = 4 << 20
CONFESS_S = 1.0
TAIL_LINES = 10
TAIL_LINE_CHARS = 400


class AgentLogs:
    """The log of one agent: `note` and `drain` take lines, `run` stores them in batches. Holds at most 4 MiB."""

    def __init__(self, journal: Journal, agent_id: str, settings: SessionSettings) -> None:
        self._journal = journal
        self._agent_id = agent_id
        self._secrets = KnownOf(agent_id)
        self._line_limit = settings.stderr_line_limit_bytes
        self._lines_kept = settings.log_lines_kept
        self._waiting: deque[AgentLog] = deque()
        self._waiting_bytes = 0
        self._stored: deque[str] = deque()
        self._dropped_lines = 0
        self._dropped_bytes = 0
        self._allowance = float(BURST_LINES)
        self._refilled = time.monotonic()
        self._confessed = 0.0
        self._closed = False
        self._news = anyio.Event()
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.drained = LazyEvent()
        self.stored = LazyEvent()

    def note(self, level: LogLevel, message: str, **metadata: Any) -> None:
        """Keep one line. Never waits."""
        size = len(message)
        if not self._may_keep() or self._waiting_bytes + size > WAITING_BYTES:
            self._dropped_lines += 1
            self._dropped_bytes += size
            return
        self._waiting.append(
            AgentLog(agent_instance_id=self._agent_id, log_level=level, message=message, metadata=metadata)
        )
        self._waiting_bytes += size
        self._news.set()

    def tail(self) -> str:
        """The last lines of stderr, for an error message; "" if there were none."""
        return "\n".join(self._tail)

    async def drain(self, process: Process) -> None:
        """Read stderr to its end, whatever becomes of it."""
        held = b""
        cut = 0
        try:
            while chunk := await process.receive_stderr():
                *lines, held = (held + chunk).split(b"\n")
                for line in lines:
                    self._take(line, cut)
                    cut = 0
                limit = self._line_limit + self._secrets.longest  # so that no secret is cut before it is taken out
                if len(held) > limit:
                    cut += len(held) - limit
                    held = held[:limit]
                await anyio.lowlevel.checkpoint()
            self._take(held, cut)
        finally:
            self.drained.set()

    def _take(self, line: bytes, cut: int) -> None:
        line = self._secrets.clean(line)
        text = line[: self._line_limit].decode(errors="replace").rstrip()
        if not text:
            return
        cut += max(0, len(line) - self._line_limit)
        self._tail.append(text[:TAIL_LINE_CHARS])
        if cut:
            self.note("info", text, stream="stderr", truncated_bytes=cut)
        else:
            self.note("info", text, stream="stderr")

    def _may_keep(self) -> bool:
        now = time.monotonic()
        self._allowance = min(BURST_LINES, self._allowance + (now - self._refilled) * LINES_PER_S)
        self._refilled = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    async def run(self) -> None:
        """Store what was noted, until `close`; then `stored` is set."""
        while not self._closed:
            with anyio.move_on_after(CONFESS_S if self._dropped_lines else None):
                await self._news.wait()
            try:
                await self._flush()
            except KandevError as error:
                logger.warning("log lines of agent %s were not stored: %s", self._agent_id, error)
        self.stored.set()

    def close(self) -> None:
        """Nothing more comes: `run` stores the rest and returns."""
        self._closed = True
        self._news.set()

    async def _flush(self) -> None:
        """Store what waits now, oldest first; beyond `log_lines_kept` the oldest rows go."""
        self._news = anyio.Event()
        while self._waiting or self._may_confess():
            batch = [self._waiting.popleft() for _ in range(min(BATCH_LINES, len(self._waiting)))]
            self._waiting_bytes -= sum(len(row.message) for row in batch)
            if not self._waiting and self._may_confess():
                batch.append(self._confession())
            changes: list[Change] = [Put(row) for row in batch]
            self._stored.extend(row.id for row in batch)
            while len(self._stored) > self._lines_kept:
                changes.append(Remove(AgentLog, self._stored.popleft()))
            await self._journal.post(*changes)

    def _may_confess(self) -> bool:
        due = self._closed or time.monotonic() - self._confessed >= CONFESS_S
        return self._dropped_lines > 0 and due

    def _confession(self) -> AgentLog:
        self._confessed = time.monotonic()
        lines, self._dropped_lines = self._dropped_lines, 0
        size, self._dropped_bytes = self._dropped_bytes, 0
        return AgentLog(
            agent_instance_id=self._agent_id,
            log_level="warning",
            message=f"{lines} lines of the agent's log were dropped: they came too fast",
            metadata={"dropped_lines": lines, "dropped_chars": size},
        )

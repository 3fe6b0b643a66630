"""What jails were let through to, and what not: from the proxies of the runtimes into the journal.

The first connection of a kind (who, where to, allowed or not) is written at once, repeats are counted and written
every 10 s. So an agent that floods its proxy costs little, and cannot push others out: each has a bounded number of
kinds, and what is beyond is counted together.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import TracebackType

import anyio
import anyio.abc

from kandev_host.errors import KandevError
from kandev_host.events import Event, event
from kandev_host.interfaces import Runtime
from kandev_host.journal import Journal
from kandev_host.protocol.notifications import NetworkNotice
from kandev_host.services.network_tally import Tally

log = logging.getLogger(__name__)
REPEATS_EVERY_S = 10.0
CLOSE_TIMEOUT_S = 5.0
BATCH = 256


class NetworkLog:
    """Use as an async context manager, before anything is started: leaving it writes what is still counted."""

    def __init__(self, journal: Journal, runtimes: Mapping[str, Runtime]) -> None:
        self._journal = journal
        self._runtimes = runtimes
        self._tally = Tally()
        self._new = anyio.Event()
        self._group: anyio.abc.TaskGroup

    async def __aenter__(self) -> NetworkLog:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        for name, runtime in self._runtimes.items():
            self._group.start_soon(self._read, runtime, name=f"network decisions of {name}")
        self._group.start_soon(self._write_first, name="network decisions")
        self._group.start_soon(self._write_repeats, name="repeated network decisions")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)
        with anyio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
            await self._record(self._tally.first())
            await self._record(self._tally.repeats())

    async def _read(self, runtime: Runtime) -> None:
        # Nothing here waits for the journal, or the runtime's queue would run over while the disk is slow.
        async for decision in runtime.decisions():
            if self._tally.add(decision):
                self._new.set()

    async def _write_first(self) -> None:
        while True:
            await self._new.wait()
            self._new = anyio.Event()
            found = self._tally.first()
            for notice in found:
                verdict = "allowed" if notice.allowed else "denied"
                log.info("network: %s, %s %s:%d", _who(notice), verdict, notice.host, notice.port)
            await self._record(found)

    async def _write_repeats(self) -> None:
        while True:
            await anyio.sleep(REPEATS_EVERY_S)
            await self._record(self._tally.repeats())

    async def _record(self, notices: list[NetworkNotice]) -> None:
        for start in range(0, len(notices), BATCH):
            try:
                await self._journal.record(*map(network_event, notices[start : start + BATCH]))
            except KandevError as error:
                # The agent goes on: what a full disk does to the journal is told elsewhere, and stops its session.
                log.error("%d network decisions were not written: %s", len(notices) - start, error.message)
                return


def network_event(notice: NetworkNotice) -> Event:
    ids = {"task_id": notice.task_id, "agent_id": notice.agent_id, "shell_id": notice.shell_id}
    return event("network.decided", notice, **ids)


def _who(notice: NetworkNotice) -> str:
    if notice.agent_id is not None:
        return f"agent {notice.agent_id}"
    return f"shell {notice.shell_id}" if notice.shell_id is not None else f"task {notice.task_id}"

"""What host.info tells of the host's parts: from memory, and by looks that end in time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from kandev_host.errors import KandevError
from kandev_host.interfaces import Bus, Store, Upkeep
from kandev_host.journal import Journal
from kandev_host.models import QueueEntry, now
from kandev_host.protocol.actions.host import (
    BusInfo,
    DiskInfo,
    ProcessInfo,
    QueueInfo,
    SettingsState,
    StoreInfo,
)
from kandev_host.services.backups import BackupService
from kandev_host.services.health import Health
from kandev_host.services.watched import WatchedBus
from kandev_host.settings import Settings

LOOK_S = 2.0


class Running(msgspec.Struct):
    """What the process says of itself; the host fills it in as it starts, and at each reload of the settings."""

    started_at: datetime = msgspec.field(default_factory=now)
    started_s: float = msgspec.field(default_factory=time.monotonic)
    addresses: list[str] = msgspec.field(default_factory=list)
    sockets: Callable[[], int] = lambda: 0
    scopes: frozenset[str] = frozenset()  # that some action or route asks for, or a role has
    settings_path: str | None = None
    loads: int = 1
    loaded_at: datetime = msgspec.field(default_factory=now)
    changed: list[str] = msgspec.field(default_factory=list)
    restart: list[str] = msgspec.field(default_factory=list)
    problem: str | None = None


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """Each method tells one part."""

    settings: Settings
    store: Store
    journal: Journal
    bus: Bus
    upkeep: Upkeep | None
    health: Health
    backups: BackupService
    live_agents: Callable[[], int]
    running: Running

    def process(self) -> ProcessInfo:
        running = self.running
        return ProcessInfo(
            pid=os.getpid(),
            started_at=running.started_at,
            uptime_s=time.monotonic() - running.started_s,
            addresses=list(running.addresses),
            memory_bytes=_memory_bytes(),
            sockets=running.sockets(),
        )

    async def of_store(self) -> StoreInfo:
        sizes: tuple[int | None, int | None] = (None, None)
        if self.upkeep is not None:
            upkeep = self.upkeep
            with anyio.move_on_after(LOOK_S):
                try:
                    sizes = await anyio.to_thread.run_sync(
                        lambda: (upkeep.size_bytes(), upkeep.log_bytes()), abandon_on_cancel=True
                    )
                except (KandevError, OSError):
                    sizes = (None, None)
        state = self.journal.state
        return StoreInfo(
            name=self.settings.use.store,
            answers=self.health.answers,
            size_bytes=sizes[0],
            log_bytes=sizes[1],
            oldest=state.oldest,
            head=state.head,
            waiting_commits=self.journal.waiting,
            waiting_bytes=self.journal.waiting_bytes,
            committed_at=self.health.writes.committed_at,
            checked_at=self.backups.checked_at,
        )

    def of_bus(self) -> BusInfo:
        bus = self.bus
        known = bus if isinstance(bus, WatchedBus) else None
        return BusInfo(
            name=self.settings.use.bus,
            subscriptions=known.subscriptions if known else None,
            lag_s=known.lag_s if known else None,
        )

    def disk(self) -> DiskInfo | None:
        found = self.health.disk
        if found is None:
            return None
        return DiskInfo(
            path=found.path, size_bytes=found.size_bytes, free_bytes=found.free_bytes, low_bytes=found.low_bytes
        )

    async def queue(self) -> QueueInfo:
        counts: dict[str, int] = {}
        with anyio.move_on_after(LOOK_S):
            try:
                for state in ("waiting", "running"):
                    counts[state] = await self.store.count(QueueEntry, [("state", "=", state)])
            except KandevError:
                counts.clear()
        return QueueInfo(
            waiting=counts.get("waiting"),
            running=counts.get("running"),
            capacity=self.settings.orchestrator.max_agents,
            live_agents=self.live_agents(),
        )

    def of_settings(self) -> SettingsState:
        running = self.running
        return SettingsState(
            path=running.settings_path,
            loads=running.loads,
            loaded_at=running.loaded_at,
            changed=running.changed,
            restart=running.restart,
            problem=running.problem,
        )


def _memory_bytes() -> int | None:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None

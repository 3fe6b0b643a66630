"""backup.*, and the backups that the host makes by itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from kandev_host.audit.log import Audit, NoAudit
from kandev_host.backups.folder import FOLDER, Backup, backups, newest_automatic, prune
from kandev_host.backups.making import Origin, make
from kandev_host.errors import KandevError, Unavailable
from kandev_host.interfaces import Principal, Progress, Store
from kandev_host.intervals import clock_s, until_due
from kandev_host.models import LOCAL_USER_ID, AuditRow, User, now
from kandev_host.protocol.actions.backups import BackupCreate, BackupInfo, BackupList, BackupReply, BackupsReply
from kandev_host.protocol.actions.host import BackupState
from kandev_host.settings import BackupSettings

log = logging.getLogger(__name__)
T = TypeVar("T")
RETRY_S = 3600.0
FAR_S = 1e9  # what is told of a time that no calendar has


class _Ended(Exception):
    """Nobody waits for this backup any more."""


def backup_folder(settings: BackupSettings, data_dir: Path) -> Path:
    """Where backups lie."""
    return Path(settings.folder).expanduser() if settings.folder else data_dir / FOLDER


def unable(store: str) -> Unavailable:
    """What a store is answered with that brings no upkeep."""
    return Unavailable(
        f"The store {store} cannot be backed up, checked or replaced by kandev-host",
        fix="use the tools of its database; kandev-host's own store is sqlite",
    )


class BackupService:
    """Entering it starts the automatic ones, leaving it ends the one that runs; that leaves nothing behind.

    `problem` is why the last automatic one failed, until one succeeds; `checked_at` when the store was last found
    sound, which each backup looks at.
    """

    def __init__(
        self, settings: BackupSettings, store: Store, origin: Origin | None, name: str, audit: Audit | None = None
    ) -> None:
        self.problem: str | None = None
        self.checked_at: datetime | None = None
        self._audit = audit or NoAudit()
        self._settings = settings
        self._store = store
        self._origin = origin
        self._name = name
        self._last_at: datetime | None = None
        self._counted: tuple[datetime, float] | None = None
        self._failed = False
        self._one = anyio.Lock()
        self._scope = anyio.CancelScope()

    async def __aenter__(self) -> BackupService:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        if self._origin is not None and self._settings.enabled:
            self._group.start_soon(self._daily, self._origin, name="backups")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scope.cancel()
        await self._group.__aexit__(None, None, None)

    async def create(self, principal: Principal, request: BackupCreate) -> BackupReply:
        """One at a time."""
        del principal
        origin = self._able()
        try:
            async with self._one:
                made = await _in_thread(
                    lambda progress: make(origin, self._folder(origin), progress, with_secrets=request.with_secrets)
                )
        except KandevError as error:
            log.info("The backup that somebody asked for failed: %s", error.message)
            raise
        self.checked_at = now()
        log.info("Backed up into %s (%s bytes)", made.path, made.size_bytes)
        return BackupReply(backup=told(made))

    async def list(self, principal: Principal, request: BackupList) -> BackupsReply:
        del principal, request
        folder = self._folder(self._able())
        found = await anyio.to_thread.run_sync(backups, folder)
        return BackupsReply(backups=[told(each) for each in found], problem=self.problem)

    @property
    def state(self) -> BackupState:
        """Of the automatic ones."""
        enabled = self._settings.enabled and self._origin is not None
        return BackupState(enabled=enabled, last_at=self._last_at, next_at=self._next_at, problem=self.problem)

    @property
    def _next_at(self) -> datetime | None:
        """By the settings as they are now; what is due is due now."""
        if self._counted is None:
            return None
        return max(self._counted[0] + timedelta(seconds=min(self._wait_s(), FAR_S)), now())

    def _wait_s(self) -> float:
        interval_s = self._settings.interval_s
        return min(interval_s, RETRY_S) if self._failed else interval_s

    def _able(self) -> Origin:
        if self._origin is None:
            raise unable(self._name)
        return self._origin

    def _folder(self, origin: Origin) -> Path:
        return backup_folder(self._settings, origin.data_dir)

    async def _daily(self, origin: Origin) -> None:
        with self._scope:
            since = await self._first(origin)
            age_s = self._wait_s() if since is None else max(0.0, (now() - since).total_seconds())
            while True:
                self._counted = now() - timedelta(seconds=age_s), clock_s() - age_s
                await until_due(self._wait_s, self._counted[1])
                self._failed, age_s = not await self._automatic(origin), 0.0

    async def _first(self, origin: Origin) -> datetime | None:
        """Since when the next one is waited for; None makes it now. A new host waits one interval."""
        try:
            last: datetime | None = await anyio.to_thread.run_sync(newest_automatic, self._folder(origin))
            self._last_at = self.checked_at = last
            if last is None:
                local = await self._store.get(User, LOCAL_USER_ID)
                last = local.created_at if local else now()
        except (OSError, KandevError) as error:
            log.warning("The backups could not be looked at, and one is made now: %s", error)
            return None
        return last

    async def _automatic(self, origin: Origin) -> bool:
        folder = self._folder(origin)
        try:
            async with self._one:
                made = await _in_thread(lambda progress: make(origin, folder, progress, automatic=True))
                await anyio.to_thread.run_sync(prune, folder, self._settings.keep)
        except KandevError as error:
            fix = error.details.get("fix")
            self.problem = f"{error.message}{f'. Fix: {fix}' if fix else ''}"
            log.warning("The automatic backup failed, and is tried again within the hour: %s", self.problem)
        except Exception as error:
            self.problem = f"unexpected {type(error).__name__}: see the host's log"
            log.exception("The automatic backup failed, and is tried again within the hour")
        else:
            self.problem = None
            self._last_at = self.checked_at = now()
            self._audit.count(AuditRow(kind="backup", action="backup.made", details={"name": made.path.name}))
            log.info("Backed up into %s (%s bytes)", made.path, made.size_bytes)
            return True
        return False


def told(backup: Backup) -> BackupInfo:
    """As the protocol says it."""
    manifest, path = backup.manifest, backup.path
    if manifest is None:
        return BackupInfo(
            name=path.name,
            path=str(path),
            size_bytes=backup.size_bytes,
            automatic=path.name.startswith("kandev-auto-"),
            problem=backup.problem,
        )
    return BackupInfo(
        name=path.name,
        path=str(path),
        size_bytes=backup.size_bytes,
        automatic=manifest.automatic,
        created_at=manifest.created_at,
        version=manifest.version,
        schema_version=manifest.schema_version,
        head=manifest.head,
        counts=manifest.counts,
        secrets=list(manifest.secrets),
    )


async def _in_thread(work: Callable[[Progress], T]) -> T:
    """When this is cancelled the work ends at its next step and removes what it had begun; that is waited for."""
    ended = threading.Event()
    outcome: list[T] = []
    error: Exception | None = None

    def progress(_what: str, _done: int, _whole: int) -> None:
        if ended.is_set():
            raise _Ended

    async def tell() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    async with anyio.create_task_group() as group:
        group.start_soon(tell)
        with anyio.CancelScope(shield=True):
            try:
                outcome.append(await anyio.to_thread.run_sync(work, progress))
            except Exception as raised:
                error = raised
        group.cancel_scope.cancel()
    await anyio.lowlevel.checkpoint_if_cancelled()
    if error is not None:
        raise error
    return outcome[0]

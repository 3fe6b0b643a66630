"""How the queue and its state are shown."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from kandev_host.interfaces import Op, Store
from kandev_host.models import QueueEntry
from kandev_host.protocol.actions.orchestrator import (
    CapacityInfo,
    OrchestratorQueue,
    OrchestratorStatusReply,
    QueueItem,
    QueueReply,
    TypeCounts,
)
from kandev_host.services.orchestration.look import Look, Looks
from kandev_host.services.orchestration.pause import Pause
from kandev_host.settings import OrchestratorSettings

WAITING: tuple[str, Op, Any] = ("state", "=", "waiting")


class QueueViews:
    """`type_names` are the agent types there are, and `recovery` tells what the host found at its start."""

    def __init__(
        self,
        store: Store,
        settings: OrchestratorSettings,
        *,
        looks: Looks,
        pause: Pause,
        type_names: Callable[[], list[str]],
        recovery: Callable[[], dict[str, Any]],
    ) -> None:
        self._store = store
        self._settings = settings
        self._looks = looks
        self._pause = pause
        self._type_names = type_names
        self._recovery = recovery

    async def status(self) -> OrchestratorStatusReply:
        look, paused = await self._looks.take(), await self._pause.since()
        limit, used = self._settings.max_agents, look.used.total
        queued = [name async for name in self._queued_types()]
        names = sorted({*self._type_names(), *look.used.types, *queued} - {""})
        types = [await self._of_type(name, look) for name in names]
        return OrchestratorStatusReply(
            auto_start=self._settings.auto_start,
            paused=paused is not None,
            paused_at=None if paused is None else paused.at,
            paused_by=None if paused is None else paused.by,
            running=await self._store.count(QueueEntry, [("state", "=", "running")]),
            queued=await self._store.count(QueueEntry, [WAITING]),
            retries=await self._retries(),
            attempts=self._settings.attempts,
            capacity=CapacityInfo(
                limit=limit,
                used=used,
                free=max(limit - used, 0),
                limit_per_board=self._settings.max_agents_per_board,
            ),
            agent_types=[item for item in types if item.running or item.queued or item.limit is not None],
            recovery=self._recovery(),
        )

    async def _retries(self) -> int:
        first: tuple[str, Op, Any] = ("attempt", "=", 0)
        died = await self._store.count(QueueEntry, [WAITING, first, ("host_deaths", ">", 0)])
        return died + await self._store.count(QueueEntry, [WAITING, ("attempt", ">", 0)])

    async def _queued_types(self) -> AsyncIterator[str]:
        """What tasks wait for, also agent types that are there no more; one look for each."""
        last = ""
        while True:
            where: list[tuple[str, Op, Any]] = [WAITING, ("agent_type", ">", last)]
            page = await self._store.find(QueueEntry, where, order=("agent_type", "id"), limit=1)
            if not page.rows:
                return
            last = page.rows[0].agent_type or ""
            yield last

    async def _of_type(self, name: str, look: Look) -> TypeCounts:
        return TypeCounts(
            agent_type=name,
            running=look.used.types[name],
            queued=await self._store.count(QueueEntry, [("agent_type", "=", name), WAITING]),
            limit=self._looks.capacity.type_limit(name),
        )

    async def page(self, request: OrchestratorQueue) -> QueueReply:
        where = [WAITING]
        if request.board_id is not None:
            where.append(("board_id", "=", request.board_id))
        page = await self._store.find(
            QueueEntry, where, order=("rank", "id"), limit=request.limit, cursor=request.cursor
        )
        look = await self._looks.take()
        await look.load(page.rows)
        positions = await self._positions(page.rows, alone=request.board_id is not None)
        entries = [
            await self._item(entry, look, position) for entry, position in zip(page.rows, positions, strict=True)
        ]
        return QueueReply(entries=entries, next_cursor=page.next_cursor)

    async def one(self, entry: QueueEntry) -> QueueItem:
        look = await self._looks.take()
        await look.load([entry])
        position = None if entry.state == "running" else await self._position(entry)
        return await self._item(entry, look, position)

    async def _positions(self, entries: list[QueueEntry], *, alone: bool) -> list[int]:
        """Of entries that follow each other; those `alone` have others between them."""
        if alone:
            return [await self._position(entry) for entry in entries]
        first = await self._position(entries[0]) if entries else 0
        return list(range(first, first + len(entries)))

    async def _position(self, entry: QueueEntry) -> int:
        before = await self._store.count(QueueEntry, [WAITING, ("rank", "<", entry.rank)])
        return before + await self._store.count(QueueEntry, [WAITING, ("rank", "=", entry.rank), ("id", "<", entry.id)])

    async def _item(self, entry: QueueEntry, look: Look, position: int | None) -> QueueItem:
        task = look.task(entry)
        return QueueItem(
            task_id=entry.id,
            board_id=entry.board_id,
            title=task.title if task is not None else "",
            agent_type=entry.agent_type,
            state=entry.state,
            position=position,
            priority=entry.priority,
            attempt=entry.attempt,
            host_deaths=entry.host_deaths,
            not_before=entry.not_before,
            waiting_for=None if entry.state == "running" else await look.waiting_for(entry),
            reason=entry.reason,
            failure=entry.failure,
            agent_id=entry.agent_id,
            queued_at=entry.created_at,
        )

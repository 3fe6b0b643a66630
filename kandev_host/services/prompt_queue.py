"""queue.*: the prompts that wait for an agent, whether it lives or not; and how they pass on to the run after it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from msgspec.structs import replace

from kandev_host.errors import NotFound, ValidationFailed
from kandev_host.interfaces import Change, Principal, Put, Store
from kandev_host.journal import Journal
from kandev_host.models import AgentInstance, Turn
from kandev_host.protocol.actions.queue import PromptsReply, QueuedPrompt, QueueList, QueueRemove, QueueUpdate
from kandev_host.services.launcher import Launcher
from kandev_host.services.locks import Locks
from kandev_host.services.prompts import to_blocks
from kandev_host.services.resume import Past
from kandev_host.services.rows import every, need
from kandev_host.services.supervision import Supervisor
from kandev_host.sessions.prompts import PromptQueue, begun, cancelled


class PromptQueueService:
    def __init__(
        self, store: Store, journal: Journal, supervisor: Supervisor, launcher: Launcher, *, locks: Locks
    ) -> None:
        self._store = store
        self._journal = journal
        self._supervisor = supervisor
        self._launcher = launcher
        self._locks = locks

    async def list(self, principal: Principal, request: QueueList) -> PromptsReply:
        """The prompts that wait, the next one first; also those that outlived their run. Raises `NotFound`."""
        del principal
        return told(await self._queue_of(request.agent_id))

    async def update(self, principal: Principal, request: QueueUpdate) -> PromptsReply:
        """Other words or another place for a prompt. Raises `NotFound`, `Conflict` once it has begun or is over."""
        del principal
        if request.prompt is None and request.position is None:
            raise ValidationFailed("prompt", "Give a prompt, a position, or both")
        blocks = None if request.prompt is None else to_blocks(request.prompt)
        async with self._holding(request.prompt_id) as queue:
            await queue.change(request.prompt_id, blocks=blocks, position=request.position)
            return told(queue)

    async def remove(self, principal: Principal, request: QueueRemove) -> PromptsReply:
        """The other prompts; this one is cancelled. Raises as `update`."""
        del principal
        async with self._holding(request.prompt_id) as queue:
            await queue.remove(request.prompt_id)
            return told(queue)

    @asynccontextmanager
    async def _holding(self, prompt_id: str) -> AsyncIterator[PromptQueue]:
        """The queue in which this prompt waits; no run takes it over meanwhile. Raises `NotFound`, `Conflict`."""
        async with self._locks.hold(f"task:{(await self._turn(prompt_id)).task_id}"):
            turn = await self._turn(prompt_id)
            if turn.state != "queued":
                raise begun(turn.state)
            yield await self._queue_of(turn.agent_id)

    async def _turn(self, prompt_id: str) -> Turn:
        turn = await self._store.get(Turn, prompt_id)
        if turn is None:
            raise NotFound("prompt", prompt_id)
        return turn

    async def _queue_of(self, agent_id: str) -> PromptQueue:
        agent = await need(self._store, AgentInstance, agent_id)
        live, launch = self._supervisor.live(agent.id), self._launcher.starting.get(agent.id)
        if live is not None:
            return live.prompts
        if launch is not None:
            return launch.prompts
        return PromptQueue(self._journal, agent, await waiting_for(self._store, agent.id))


async def waiting_for(store: Store, agent_id: str) -> list[Turn]:
    """The prompts that wait for this agent, as the rows have them."""
    mine = every(store, Turn, [("agent_id", "=", agent_id), ("state", "=", "queued")], order=("position", "id"))
    return [turn async for turn in mine]


def told(queue: PromptQueue) -> PromptsReply:
    prompts = [
        QueuedPrompt(
            prompt_id=turn.id,
            position=turn.position,
            prompt=turn.prompt,
            created_by=turn.created_by,
            created_at=turn.created_at,
        )
        for turn in queue.waiting
    ]
    return PromptsReply(prompts=prompts)


async def dropped(
    store: Store, journal: Journal, task_id: str, reason: str, *, but: Sequence[AgentInstance] = ()
) -> list[Change]:
    """What cancels all prompts that outlived the runs of this task; `but` those that live, whose end does so."""
    waiting: dict[str, list[Turn]] = {}
    async for turn in every(store, Turn, [("task_id", "=", task_id), ("state", "=", "queued")]):
        if turn.agent_id not in {agent.id for agent in but}:
            waiting.setdefault(turn.agent_id, []).append(turn)
    changes: list[Change] = []
    for agent_id, turns in waiting.items():
        changes += [Put(cancelled(turn, reason)) for turn in turns]
        if (agent := await store.get(AgentInstance, agent_id)) is not None:
            changes.append(PromptQueue(journal, agent).emptied())
    return changes


class Handover(msgspec.Struct, frozen=True):
    """What waits for a run as it begins; `changes` belong into the commit that begins it, behind its row."""

    queue: PromptQueue
    changes: Sequence[Change]


async def hand_over(
    store: Store,
    journal: Journal,
    agent: AgentInstance,
    past: Past | None,
    own: list[dict[str, Any]] | None,
    created_by: str,
) -> Handover:
    """The prompts that wait for the run before, in their order, and `own`, which this run begins with.

    Of a run that a person launches, `own` is what they say now, so it comes last. That of an orchestrated run is the
    task: it comes first, unless it waits already, or waited and was changed or taken out before the run before could
    begin it, or a person has interrupted it.
    """
    before = [] if past is None else await waiting_for(store, past.agent.id)
    mine = [] if own is None else [Turn(agent_id=agent.id, task_id=agent.task_id, prompt=own, created_by=created_by)]
    if not agent.orchestrated:
        turns = [*before, *mine]
    elif past is None or not before:
        turns = mine
    elif past.interrupted or any(turn.prompt == own for turn in before) or not await _began(store, past.agent):
        turns = before
    else:
        turns = [*mine, *before]
    moved = [replace(turn, agent_id=agent.id, position=at) for at, turn in enumerate(turns)]
    queue = PromptQueue(journal, agent, moved)
    changes: list[Change] = [Put(turn) for turn in moved]
    if moved:
        changes.append(queue.told())
    if past is not None and before:
        changes.append(PromptQueue(journal, past.agent).emptied())
    return Handover(queue, changes)


async def _began(store: Store, agent: AgentInstance) -> bool:
    """Was this agent ever prompted?"""
    return bool(await store.count(Turn, [("agent_id", "=", agent.id), ("started_at", ">=", agent.created_at)]))

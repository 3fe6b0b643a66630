"""From an agent's updates to events and to what the host knows of the session, in order."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from itertools import repeat

import anyio
import msgspec
from msgspec import UNSET, Raw

from kandev_host.errors import KandevError
from kandev_host.interfaces import Change, Put
from kandev_host.models import Command, now
from kandev_host.protocol import acp
from kandev_host.protocol.jsonrpc import Message
from kandev_host.sessions.answers import CALL_ID_CHARS
from kandev_host.sessions.options import mode_in
from kandev_host.sessions.speech import PAUSE_S, Piece, Speech
from kandev_host.sessions.stage import SessionState, Stage
from kandev_host.sessions.turns import Watch
from kandev_host.sessions.updates import CHUNKS, ToolState, effects_told, name_of, variant_of

logger = logging.getLogger(__name__)

EARLY_BYTES = 8 << 20
LAST_WORDS_S = 2.0
EARLY_COST_BYTES = 500  # what holding one costs beside its bytes
KNOWN_CALLS = 1000
TITLE_CHARS = 500

_params = msgspec.json.Decoder(acp.SessionUpdate)
_known = msgspec.json.Decoder(acp.Known)


class Intake:
    """`fault` is told of an update that cannot be read. `last_update` is when the last one came, monotonic."""

    def __init__(self, stage: Stage, state: SessionState, fault: Callable[[str, bytes], Awaitable[None]]) -> None:
        self._stage = stage
        self._state = state
        self._fault = fault
        self._posting = anyio.Lock()
        self._early: list[acp.SessionUpdate] = []
        self._early_bytes = 0
        self._speech = Speech(state.voice)
        self._spoke = anyio.Event()
        self._place = 0  # where the line begins of what is being taken
        self.last_update: float | None = None

    async def on_notifications(self, batch: Sequence[Message]) -> int:
        """Post one batch: one commit per chunk of the agent's output."""
        unusable = 0
        updates, places = [], []
        decode, wire = _params.decode, self._stage.wire
        starts, end = wire.batch if wire.kept else (repeat(0), 0)
        for message, start in zip(batch, starts, strict=False):
            if message.method != "session/update":
                if message.method == "elicitation/complete":
                    await self._stage.broker.elicitations.completed(self._stage.agent.id, message.params)
                continue
            try:
                updates.append(decode(message.params))
                places.append(start)
            except (msgspec.DecodeError, RecursionError) as error:
                unusable += 1
                await self._fault(f"session/update is not as it should be: {error}", bytes(message.params))
        if updates:
            self.last_update = time.monotonic()
            await self._post(updates, places, end)
        return unusable

    async def _post(self, updates: list[acp.SessionUpdate], places: Sequence[int] = (), end: int = 0) -> None:
        if self._state.row is None:
            self._keep_early([params for params in updates if not (self._state.replaying and _repeats(params))])
            return
        async with self._posting:
            early, self._early = self._early, []
            changes: list[Change] = []
            at = now()
            take = self._take
            self._stage.wire.taken = max(self._stage.wire.taken, end)  # not before what is held can be told no more
            for params in early:
                take(params, at, changes)
            for params, self._place in zip(updates, places, strict=True):
                take(params, at, changes)
            await self._stage.journal.post(*changes, *self._stage.wire.reached(self._speech.held_from))
            if self._speech.waits:
                self._spoke.set()
        while self._state.new_effects:
            await self._stage.broker.call_changed(self._stage.agent.id, *self._state.new_effects.pop(0))

    # --- what the host that died had heard --------------------------------------------------------------------------

    def recall(self, batch: Sequence[Message]) -> None:
        """As `on_notifications`, of what has had its effects."""
        for message in batch:
            if message.method == "session/update":
                try:
                    params = _params.decode(message.params)
                except (msgspec.DecodeError, RecursionError):
                    continue
                self._take(params, now(), [])

    def recalled(self) -> None:
        """It was told to its end, also what a secret may begin in."""
        self._speech.pause()
        self._state.new_effects.clear()

    # --- what is held back ------------------------------------------------------------------------------------------

    async def tell_now(self) -> None:
        """Tell what is held back, for something else follows."""
        if self._speech.waits:
            async with self._posting:
                await self._post_held(self._speech.pause())

    async def tell_held(self) -> None:
        """For ever: what an agent said is told when it goes on to say nothing (see `speech`)."""
        try:
            while True:
                await self._spoke.wait()
                self._spoke = anyio.Event()
                with anyio.move_on_after(PAUSE_S) as quiet:
                    await self._spoke.wait()
                if quiet.cancelled_caught:
                    async with self._posting:
                        await self._post_held(self._speech.pause())
        finally:
            with anyio.move_on_after(LAST_WORDS_S, shield=True):
                await self._post_held(self._speech.end())

    async def _post_held(self, told: Sequence[Change]) -> None:
        try:
            if told:
                await self._stage.journal.post(*told, *self._stage.wire.reached())
        except KandevError as error:
            logger.warning("words of agent %s were not stored: %s", self._stage.agent.id, error)

    def _keep_early(self, updates: list[acp.SessionUpdate]) -> None:
        """Some agents speak of a session before they have answered the call that opens it."""
        for params in updates:
            self._early_bytes += EARLY_COST_BYTES + len(params.session_id) + len(bytes(params.update))
            self._early_bytes += 0 if params.meta is UNSET else len(bytes(params.meta))
            if self._early_bytes > EARLY_BYTES:
                self._stage.logs.note("warning", "an update from before the session was open was dropped: too many")
            else:
                # Copies: else each would hold the agent's whole line, with all in it that nobody reads.
                meta = params.meta if params.meta is UNSET else params.meta.copy()
                kept = acp.SessionUpdate(session_id=params.session_id, update=params.update.copy(), meta=meta)
                self._early.append(kept)

    async def post_early(self) -> None:
        """What came before the session was open."""
        if self._early:
            await self._post([])

    def _take(self, params: acp.SessionUpdate, at: datetime, changes: list[Change]) -> None:
        state = self._state
        watch = state.watch
        turn_id = watch.turn.id if watch is not None else None
        try:
            update = _known.decode(params.update)
        except (msgspec.DecodeError, RecursionError):
            changes += self._speech.end()
            changes.append(state.voice.other(params, name_of(params.update), turn_id, at))
            return
        mine = params.session_id == state.acp_session_id
        kind = CHUNKS.get(type(update))
        if kind is not None and isinstance(update, acp.Chunk):  # by far the most frequent: first, and briefly
            if mine and watch is not None:
                self._take_chunk(update, watch)
            if self._speech.free(update.content.text):
                changes.append(state.voice.chunk(params, update, kind, turn_id, at))
            else:
                changes += self._speech.take(Piece(params, update, kind, turn_id, at, self._place))
            return
        changes += self._speech.end()
        if isinstance(update, acp.ToolVariant):
            past, calls = state.past_tools
            if update.tool_call_id in calls and update.tool_call_id not in state.tools:
                turn_id, watch = past, None  # late: it is not what the turn that runs now does
            known = self._take_tool(update, watch, changes) if mine else merged(update)
            changes.append(state.voice.tool(params, update, known, turn_id, at))
        elif isinstance(update, acp.Plan):
            changes.append(state.voice.plan(params, update, turn_id, at))
        else:
            changes.append(self._session_event(params, update, turn_id, at))
            if mine:
                self._take_state(update, params.update, changes)

    def _take_chunk(self, chunk: acp.Chunk, watch: Watch) -> None:
        if type(chunk) is acp.AgentMessageChunk:
            watch.take_chunk(chunk)
        if chunk.meta is not UNSET and not chunk.content.text:
            self._state.usage.take_chunk_report(chunk.meta)

    def _take_tool(self, call: acp.ToolVariant, watch: Watch | None, changes: list[Change]) -> ToolState:
        state = self._state
        known = state.tools.get(call.tool_call_id) or ToolState()
        known.merge(call)
        if watch is not None:
            watch.take_tool()
            if self._has_room(call.tool_call_id):
                state.tools[call.tool_call_id] = known
                if state.spans is not None:
                    state.spans.tool(call.tool_call_id, known)
                if (command := known.new_command(call)) is not None:
                    turn = watch.turn
                    row = Command(task_id=turn.task_id, agent_id=turn.agent_id, turn_id=turn.id, command=command)
                    changes.append(Put(row))
        if state.asking and (effects := effects_told(call)) is not None:
            state.new_effects.append((call.tool_call_id, effects))
        return known

    def _has_room(self, call_id: str) -> bool:
        """Can this call be known? In a long turn the oldest that is closed makes room."""
        tools = self._state.tools
        if call_id in tools or len(tools) < KNOWN_CALLS:
            return len(call_id) <= CALL_ID_CHARS
        closed = next((each for each, known in tools.items() if not known.open), None)
        if closed is not None:
            del tools[closed]
        return closed is not None and len(call_id) <= CALL_ID_CHARS

    def _session_event(
        self, params: acp.SessionUpdate, update: acp.Variant, turn_id: str | None, at: datetime
    ) -> Change:
        if isinstance(update, acp.AvailableCommandsUpdate):
            return self._state.voice.other(params, variant_of(update), turn_id, at)
        return self._state.voice.session_state(params, self._stage.current(), turn_id, at)

    def _take_state(self, update: acp.Variant, raw: Raw, changes: list[Change]) -> None:
        """What an update changes in the session's row, or in the accounts."""
        state = self._state
        row = state.row
        if row is None:
            return
        if isinstance(update, acp.UsageUpdate):
            if state.last_turn is None:
                state.usage.take_update(update, raw)
            else:
                changes.append(Put(state.usage.late_update(update, raw, state.last_turn)))
            return
        if isinstance(update, acp.SessionInfoUpdate):
            if state.watch is not None and update.meta is not UNSET:
                state.watch.take_info(update.meta)
            if update.title is not UNSET and update.title != row.title:
                title = update.title[:TITLE_CHARS] if update.title else None
                row = msgspec.structs.replace(row, title=title)
        elif isinstance(update, acp.AvailableCommandsUpdate):
            row = msgspec.structs.replace(row, commands=update.available_commands)
        elif isinstance(update, acp.ConfigOptionUpdate):
            row = msgspec.structs.replace(row, config_options=update.config_options)
            if (mode := mode_in(update.config_options)) is not None:
                changes += state.mode_told(mode)
        elif isinstance(update, acp.CurrentModeUpdate):
            row = msgspec.structs.replace(row, modes={**(row.modes or {}), "currentModeId": update.current_mode_id})
            changes += state.mode_told(update.current_mode_id)
        if row is not state.row:
            state.row = row
            changes.append(Put(row))

    def close_tools(self, turn_id: str) -> list[Change]:
        """Calls that the agent left open are closed, visibly by the host."""
        state = self._state
        said: list[Change] = [*self._speech.end()]
        left = [(call_id, known) for call_id, known in state.tools.items() if known.open]
        state.past_tools = (turn_id, frozenset(state.tools))
        state.tools.clear()
        session_id = state.acp_session_id or ""
        return said + [state.voice.closed_tool(session_id, call_id, known, turn_id) for call_id, known in left]


def merged(call: acp.ToolVariant) -> ToolState:
    """What a call of another session says alone: what is known of ours is none of its business."""
    known = ToolState()
    known.merge(call)
    return known


def _repeats(params: acp.SessionUpdate) -> bool:
    """Is this, in a replay, what was told when it happened? What it says of the session now is not."""
    try:
        return isinstance(_known.decode(params.update), acp.Chunk | acp.ToolVariant | acp.Plan)
    except (msgspec.DecodeError, RecursionError):
        return True

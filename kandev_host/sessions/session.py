"""One ACP session over a peer: open, prompt, cancel; every update becomes an event, in order.

ACP: initialize, authenticate, session/new, session/set_mode, session/set_config_option, session/prompt,
session/cancel; session/update and session/request_permission from the agent. Files and terminals are not offered.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import anyio
import msgspec
from msgspec import UNSET, Raw

from kandev_host.errors import AgentError, KandevError
from kandev_host.interfaces import AgentType, Change, Put
from kandev_host.journal import Journal
from kandev_host.models import Activity, AgentInstance, Command, Session, Task, Turn, Usage, now
from kandev_host.protocol import acp, jsonrpc
from kandev_host.protocol.jsonrpc import Message, RpcError
from kandev_host.sessions.answers import check_auth, check_version, choose_mode, read, read_permission, replace_mode
from kandev_host.sessions.failures import AgentFailed, cause_of, classify, describe
from kandev_host.sessions.logs import AgentLogs
from kandev_host.sessions.peer import Answer, Peer
from kandev_host.sessions.permissions import Asked, PermissionBroker
from kandev_host.sessions.presets import Preset
from kandev_host.sessions.turns import TurnOutcome, Watch
from kandev_host.sessions.updates import CHUNKS, ToolState, Voice, name_of, variant_of
from kandev_host.sessions.usage import UsageBook
from kandev_host.settings import SessionSettings
from kandev_host.version import __version__

EARLY_BYTES = 8 << 20
OPEN_TOOLS = 1000
FAULT_HEAD_BYTES = 2000
FAULT_NOTICE_S = 1.0

_params = msgspec.json.Decoder(acp.SessionUpdate)
_known = msgspec.json.Decoder(acp.Known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What a session of the host stands on. `set_activity` is told when the agent waits for a person."""

    agent: AgentInstance
    current: Callable[[], AgentInstance]
    task: Task
    agent_type: AgentType
    journal: Journal
    broker: PermissionBroker
    settings: SessionSettings
    logs: AgentLogs
    preset: Preset | None
    set_activity: Callable[[Activity], Awaitable[None]]


class LiveSession:
    """The session of a live agent, and the handler of its peer. `row` is None until session/new was answered."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._voice = Voice(stage.agent)
        self._peer: Peer | None = None
        self._posting = anyio.Lock()
        self._early: list[acp.SessionUpdate] = []
        self._early_bytes = 0
        self._tools: dict[str, ToolState] = {}
        self._new_inputs: list[tuple[str, Any]] = []
        self._watch: Watch | None = None
        self._last_turn: Turn | None = None
        self._result: acp.PromptResult | None = None
        self._usage = UsageBook()
        self._turn_over = anyio.Event()
        self._asking = 0
        self.last_answer = 0.0
        self._initialized: acp.InitializeResult | None = None
        self._fault_noticed = 0.0
        self._opened_cwd = ""
        self.row: Session | None = None
        self.last_update: float | None = None

    # --- opening ----------------------------------------------------------------------------------------------------

    async def open(self, peer: Peer, cwd: str) -> Session:
        """initialize, authenticate if the type says so, session/new, and the type's mode. Raises `KandevError`."""
        self._peer = peer
        self._opened_cwd = cwd
        settings, agent_type = self._stage.settings, self._stage.agent_type
        try:
            raw = await peer.call("initialize", acp.initialize_params(__version__), settings.initialize_timeout_s)
            self._initialized = check_version(read(raw, acp.InitializeResult, "initialize"))
            if agent_type.authenticate is not None:
                check_auth(self._initialized, agent_type.authenticate)
                await self._call("authenticate", {"methodId": agent_type.authenticate})
            params = {"cwd": cwd, "mcpServers": []}
            await peer.call("session/new", params, settings.request_timeout_s, self._on_new)
            if self.row is None:
                raise AgentError("The agent answered session/new without a session")
            if agent_type.mode is not None:
                await self._set_mode(self.row, agent_type.mode)
        except RpcError as error:
            needs_login = error.code == jsonrpc.AUTH_REQUIRED
            told = (
                f"needs a log-in: {error.message}" if needs_login else f"refused to open a session: {describe(error)}"
            )
            raise AgentFailed(f"The agent {told}", classify(error, "config")) from error
        await self._stage.journal.record(Put(self.row))
        await self._post_early()
        return self.row

    def _on_new(self, answer: Answer) -> None:
        """Inline, so that the updates right behind the answer already find the session."""
        if isinstance(answer, Exception) or self._initialized is None:
            return
        try:
            result = read(answer, acp.NewSessionResult, "session/new")
        except AgentError:
            return  # `open` says so
        self.row = Session(
            agent_id=self._stage.agent.id,
            task_id=self._stage.task.id,
            acp_session_id=result.session_id,
            cwd=self._opened_cwd,
            protocol_version=self._initialized.protocol_version,
            agent_info=self._initialized.agent_info,
            agent_capabilities=self._initialized.agent_capabilities or {},
            modes=result.modes,
            config_options=result.config_options,
        )

    async def _set_mode(self, row: Session, mode: str) -> None:
        """The mode in which the agent asks. An agent without it is not used: it might approve its own tools."""
        call = choose_mode(row, mode)
        if call is None:
            return
        method, params = call
        raw = await self._call(method, params)
        options = None
        if method == "session/set_config_option":
            options = read(raw, acp.SetConfigOptionResult, method).config_options
        self.row = replace_mode(self.row or row, mode, options)

    async def _call(self, method: str, params: Any) -> Raw:
        if self._peer is None:
            raise AgentError("The session is not open")
        return await self._peer.call(method, params, self._stage.settings.request_timeout_s)

    # --- turns ------------------------------------------------------------------------------------------------------

    async def prompt(self, turn: Turn) -> TurnOutcome:
        """Run a turn to its end, however long. `close_turn` must follow."""
        if self._peer is None or self.row is None:
            raise AgentError("The session is not open")
        watch = self._watch = Watch(turn)
        self._turn_over = anyio.Event()
        self._usage.begin_turn()
        self._last_turn = None
        self._result = None
        try:
            params = {"sessionId": self.row.acp_session_id, "prompt": turn.prompt}
            raw = await self._peer.call("session/prompt", params, None, self._on_turn_end)
            self._result = read(raw, acp.PromptResult, "session/prompt")
            outcome = watch.ended(self._result.stop_reason)
        except RpcError as error:
            outcome = watch.broke(f"The agent failed: {describe(error)}", classify(error))
        except KandevError as error:
            outcome = watch.broke(error.message, cause_of(error))
        finally:
            self._watch = None
            self._turn_over.set()
        await self._stage.broker.cancel_all(self._stage.agent.id, "its turn ended")
        return outcome

    def close_turn(self, turn: Turn) -> tuple[Usage | None, list[Change]]:
        """What the turn used, and what is to be recorded with its end: at once, for updates may still come."""
        changes: list[Change] = self._close_tools(turn.id)
        usage = self._usage.end_turn(turn, self._result, self._model())
        self._last_turn = turn
        if usage is not None:
            changes.append(Put(usage))
        return usage, changes

    def _on_turn_end(self, _answer: Answer) -> None:
        """Inline: updates behind the answer belong to the session, not to the turn."""
        self._watch = None

    async def cancel(self) -> bool:
        """Ask the agent to end its turn; False if none runs. ACP: all pending permissions are answered `cancelled`."""
        watch = self._watch
        if watch is None or self._peer is None or self.row is None:
            return False
        watch.asked_to_cancel = True
        try:
            with anyio.move_on_after(self._stage.settings.kill_grace_s):
                await self._peer.notify("session/cancel", {"sessionId": self.row.acp_session_id})
        except AgentError:
            pass  # it is gone, which ends its turn as well
        await self._stage.broker.cancel_all(self._stage.agent.id, "the turn was cancelled")
        return True

    def give_up(self) -> None:
        """The agent is about to be killed on somebody's word: its turn counts as cancelled, not as failed."""
        if self._watch is not None:
            self._watch.asked_to_cancel = True

    @property
    def asking(self) -> bool:
        """Does the agent wait for a person?"""
        return self._asking > 0

    async def idle(self) -> None:
        """Returns when no turn runs."""
        await self._turn_over.wait()

    def _close_tools(self, turn_id: str) -> list[Change]:
        """Calls that the agent left open are closed, visibly by the host."""
        session_id = self.row.acp_session_id if self.row is not None else ""
        left = [(call_id, known) for call_id, known in self._tools.items() if known.open]
        self._tools.clear()
        return [self._voice.closed_tool(session_id, call_id, known, turn_id) for call_id, known in left]

    def _model(self) -> str | None:
        """The model in use, where the session has such an option (by category, not by id)."""
        for option in (self.row.config_options if self.row is not None else None) or []:
            if option.get("category") == "model" and isinstance(option.get("currentValue"), str):
                return str(option["currentValue"])
        return None

    # --- updates ----------------------------------------------------------------------------------------------------

    async def on_notifications(self, batch: Sequence[Message]) -> int:
        """Post one batch: one commit per chunk of the agent's output."""
        unusable = 0
        updates = []
        decode = _params.decode
        for message in batch:
            if message.method != "session/update":
                continue
            try:
                updates.append(decode(message.params))
            except (msgspec.DecodeError, RecursionError) as error:
                unusable += 1
                await self.on_fault(f"session/update is not as it should be: {error}", bytes(message.params))
        if updates:
            self.last_update = time.monotonic()
            await self._post(updates)
        return unusable

    async def _post(self, updates: list[acp.SessionUpdate]) -> None:
        if self.row is None:
            self._keep_early(updates)
            return
        async with self._posting:
            early, self._early = self._early, []
            changes: list[Change] = []
            at = now()
            take = self._take
            for params in [*early, *updates] if early else updates:
                take(params, at, changes)
            await self._stage.journal.post(*changes)
        while self._new_inputs:
            await self._stage.broker.input_changed(self._stage.agent.id, *self._new_inputs.pop(0))

    def _keep_early(self, updates: list[acp.SessionUpdate]) -> None:
        """Some agents speak of a session before they have answered session/new."""
        for params in updates:
            self._early_bytes += len(bytes(params.update))
            if self._early_bytes > EARLY_BYTES:
                self._stage.logs.note("warning", "an update before the answer to session/new was dropped: too many")
            else:
                self._early.append(params)

    async def _post_early(self) -> None:
        if self._early:
            await self._post([])

    def _take(self, params: acp.SessionUpdate, at: datetime, changes: list[Change]) -> None:
        watch = self._watch
        turn_id = watch.turn.id if watch is not None else None
        try:
            update = _known.decode(params.update)
        except (msgspec.DecodeError, RecursionError):
            changes.append(self._voice.other(params, name_of(params.update), turn_id, at))
            return
        mine = self.row is not None and params.session_id == self.row.acp_session_id
        kind = CHUNKS.get(type(update))
        if kind is not None and isinstance(update, acp.Chunk):  # by far the most frequent: first, and briefly
            if mine and watch is not None:
                self._take_chunk(update, watch)
            changes.append(self._voice.chunk(params, update, kind, turn_id, at))
        elif isinstance(update, acp.ToolVariant):
            known = self._take_tool(update, watch if mine else None, changes)
            changes.append(self._voice.tool(params, update, known, turn_id, at))
        elif isinstance(update, acp.Plan):
            changes.append(self._voice.plan(params, update, turn_id, at))
        else:
            changes.append(self._session_event(params, update, turn_id, at))
            if mine:
                self._take_state(update, params.update, changes)

    def _take_chunk(self, chunk: acp.Chunk, watch: Watch) -> None:
        if type(chunk) is acp.AgentMessageChunk:
            watch.take_chunk(chunk)
        if chunk.meta is not UNSET and not chunk.content.text:
            self._usage.take_chunk_report(chunk.meta)

    def _take_tool(self, call: acp.ToolVariant, watch: Watch | None, changes: list[Change]) -> ToolState:
        known = self._tools.get(call.tool_call_id) or ToolState()
        known.merge(call)
        if watch is not None:
            watch.take_tool()
            if len(self._tools) < OPEN_TOOLS or call.tool_call_id in self._tools:
                self._tools[call.tool_call_id] = known
                if (command := known.new_command(call)) is not None:
                    turn = watch.turn
                    row = Command(task_id=turn.task_id, agent_id=turn.agent_id, turn_id=turn.id, command=command)
                    changes.append(Put(row))
        if self._asking and call.raw_input is not UNSET:
            self._new_inputs.append((call.tool_call_id, msgspec.json.decode(call.raw_input)))
        return known

    def _session_event(
        self, params: acp.SessionUpdate, update: acp.Variant, turn_id: str | None, at: datetime
    ) -> Change:
        if isinstance(update, acp.AvailableCommandsUpdate):
            return self._voice.other(params, variant_of(update), turn_id, at)
        return self._voice.session_state(params, self._stage.current(), turn_id, at)

    def _take_state(self, update: acp.Variant, raw: Raw, changes: list[Change]) -> None:
        """What an update changes in the session's row, or in the accounts."""
        row = self.row
        if row is None:
            return
        if isinstance(update, acp.UsageUpdate):
            if self._last_turn is None:
                self._usage.take_update(update, raw)
            else:
                changes.append(Put(self._usage.late_update(update, raw, self._last_turn)))
            return
        if isinstance(update, acp.SessionInfoUpdate):
            if self._watch is not None and update.meta is not UNSET:
                self._watch.take_info(update.meta)
            return
        if isinstance(update, acp.AvailableCommandsUpdate):
            row = msgspec.structs.replace(row, commands=update.available_commands)
        elif isinstance(update, acp.ConfigOptionUpdate):
            row = msgspec.structs.replace(row, config_options=update.config_options)
        elif isinstance(update, acp.CurrentModeUpdate):
            row = msgspec.structs.replace(row, modes={**(row.modes or {}), "currentModeId": update.current_mode_id})
        if row is not self.row:
            self.row = row
            changes.append(Put(row))

    # --- what else the agent sends ----------------------------------------------------------------------------------

    async def on_request(self, method: str, params: Raw) -> Any:
        """Only session/request_permission is served: nothing else was offered."""
        if method != "session/request_permission":
            raise RpcError(jsonrpc.METHOD_NOT_FOUND, f"Method not found: {method}")
        tool_call, options = read_permission(params)
        watch = self._watch
        if self.row is None or (watch is not None and watch.asked_to_cancel):
            return acp.cancelled()
        known = self._tools.get(tool_call["toolCallId"])
        if known is not None:
            tool_call = {**known.shown(), **{key: value for key, value in tool_call.items() if value is not None}}
        self._asking += 1
        if self._asking == 1:
            await self._stage.set_activity("waiting_permission")
        try:
            turn_id = watch.turn.id if watch is not None else None
            stage = self._stage
            return await stage.broker.ask(
                Asked(stage.agent, stage.task, self.row, turn_id, tool_call, options), stage.preset
            )
        except KandevError as error:
            raise RpcError(jsonrpc.INTERNAL_ERROR, "The host could not record the request") from error
        finally:
            self._asking -= 1
            self.last_answer = time.monotonic()
            if self._asking == 0 and self._watch is not None:
                await self._stage.set_activity("prompting")

    async def on_fault(self, reason: str, line: bytes) -> None:
        """A line that is no ACP: kept in the log; an acp.error at most once a second."""
        head = line[:FAULT_HEAD_BYTES].decode(errors="replace")
        self._stage.logs.note("warning", head, stream="stdout", fault=reason[:200])
        at = time.monotonic()
        if at - self._fault_noticed < FAULT_NOTICE_S:
            return
        self._fault_noticed = at
        session_id = self.row.acp_session_id if self.row is not None else None
        turn_id = self._watch.turn.id if self._watch is not None else None
        await self._stage.journal.post(self._voice.error("PROTOCOL_FAULT", reason, turn_id, session_id))
